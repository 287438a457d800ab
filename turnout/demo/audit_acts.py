"""The last acts: outcomes are on disk, the history proves itself, no customer was let down."""

import asyncio
from pathlib import Path

from journal.reader import Reader
from journal.segment import Kind
from registry.client import RegistryClient
from turnout.demo.checklist import Step, hold
from turnout.demo.context import OPERATOR, Scene


async def audit(scene: Scene, step: Step) -> None:
    """Find every acknowledged outcome in the journal, and prove that nobody rewrote the history."""
    assert scene.callers is not None
    told = scene.callers.newest
    hold(told["outcomes"] > 0, "no outcome was reported")
    hold(told["outcomes_failed"] == 0, f"{told['outcomes_failed']} outcomes were refused")
    journals = scene.plan.folder / "gateway"
    kept = await asyncio.to_thread(_count, journals, Kind.OUTCOMES)
    hold(
        kept >= told["outcomes"],
        f"{told['outcomes']} outcomes were acknowledged; the journal has {kept}",
    )
    served = await asyncio.to_thread(_count, journals, Kind.SERVED)
    hold(served > 0, "no served batch is in the journal")
    async with RegistryClient(scene.up.registry, OPERATOR) as client:
        head, broken = await client.audit()
    hold(broken is None, f"history entry {broken and broken.seq} {broken and broken.what}")
    step.note = (
        f"{kept:,} outcomes and {served:,} served batches in the journal; {head.seq} history "
        "entries, chained, head signed"
    )


async def customers(scene: Scene, step: Step) -> None:
    """Stop the callers and count, exactly, what became of every call since the first."""
    assert scene.callers is not None
    final = await scene.callers.stop()
    scene.measured["customers"] = {
        name: final[name] for name in ("sent", "answered", "failed", "p50_ms", "p99_ms")
    }
    scene.measured["answered_by"] = final["roles"]
    hold(
        not final["failed"], f"{final['failed']} of {final['sent']} calls failed: {final['codes']}"
    )
    hold(final["answered"] == final["sent"], f"{final['answered']} of {final['sent']} answered")
    step.note = (
        f"{final['sent']:,} calls, 0 failed; p50 {final['p50_ms']} ms, p99 {final['p99_ms']} ms "
        "as customers saw it"
    )


def _count(folder: Path, kind: Kind) -> int:
    return sum(1 for place in sorted(folder.rglob("journal")) for _ in Reader(place, kind))
