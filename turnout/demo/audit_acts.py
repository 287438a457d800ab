"""The last act: outcomes are on disk, and the history proves itself."""

from collections.abc import Iterator
from pathlib import Path

from journal.reader import Reader
from journal.segment import Kind
from registry.client import RegistryClient
from turnout.demo.scene import OPERATOR, Scene
from turnout.demo.steps import Step, hold


async def audit(scene: Scene, step: Step) -> None:
    """Find every acknowledged outcome in the journal, and prove that nobody rewrote the history."""
    assert scene.callers is not None
    told = scene.callers.newest
    hold(told["outcomes"] > 0, "no outcome was reported")
    hold(told["outcomes_failed"] == 0, f"{told['outcomes_failed']} outcomes were refused")
    kept = sum(1 for _ in _records(scene.plan.folder / "gateway", Kind.OUTCOMES))
    hold(
        kept >= told["outcomes"],
        f"{told['outcomes']} outcomes were acknowledged; the journal has {kept}",
    )
    served = sum(1 for _ in _records(scene.plan.folder / "gateway", Kind.SERVED))
    hold(served > 0, "no served batch is in the journal")
    async with RegistryClient(scene.up.registry, OPERATOR) as client:
        head, broken = await client.audit()
    hold(broken is None, f"history entry {broken and broken.seq} {broken and broken.what}")
    step.note = (
        f"{kept:,} outcomes and {served:,} served batches in the journal; {head.seq} history "
        "entries, chained, head signed"
    )


def _records(folder: Path, kind: Kind) -> Iterator[bytes]:
    for journal in sorted(folder.rglob("journal")):
        for payload, _ in Reader(journal, kind):
            yield payload
