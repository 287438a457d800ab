"""The last acts: outcomes are on disk, the history proves itself, no customer was let down."""

import asyncio
from pathlib import Path

from journal.reader import JournalReader
from journal.segment import JournalKind
from registry.client import RegistryClient
from turnout.demo.checklist import Step, require
from turnout.demo.context import OPERATOR, DemoContext


async def audit(context: DemoContext, step: Step) -> None:
    """Find every acknowledged outcome in the journal, and prove that nobody rewrote the history."""
    assert context.traffic is not None
    told = context.traffic.newest_line
    require(told["outcomes"] > 0, "no outcome was reported")
    require(told["outcomes_failed"] == 0, f"{told['outcomes_failed']} outcomes were refused")
    journals = context.plan.folder / "gateway"
    kept = await asyncio.to_thread(_count_records, journals, JournalKind.OUTCOMES)
    require(
        kept >= told["outcomes"],
        f"{told['outcomes']} outcomes were acknowledged; the journal has {kept}",
    )
    served = await asyncio.to_thread(_count_records, journals, JournalKind.SERVED)
    require(served > 0, "no served batch is in the journal")
    async with RegistryClient(context.system.registry, OPERATOR) as client:
        head, broken = await client.audit()
    require(broken is None, f"history entry {broken and broken.seq} {broken and broken.problem}")
    step.note = (
        f"{kept:,} outcomes and {served:,} served batches in the journal; {head.seq} history "
        "entries, chained, head signed"
    )


async def customers(context: DemoContext, step: Step) -> None:
    """Stop the callers and count, exactly, what became of every call since the first."""
    assert context.traffic is not None
    final = await context.traffic.stop()
    context.measured["customers"] = {
        name: final[name] for name in ("sent", "answered", "failed", "p50_ms", "p99_ms")
    }
    context.measured["answered_by"] = final["roles"]
    require(
        not final["failed"], f"{final['failed']} of {final['sent']} calls failed: {final['codes']}"
    )
    require(final["answered"] == final["sent"], f"{final['answered']} of {final['sent']} answered")
    step.note = (
        f"{final['sent']:,} calls, 0 failed; p50 {final['p50_ms']} ms, p99 {final['p99_ms']} ms "
        "as customers saw it"
    )


def _count_records(folder: Path, kind: JournalKind) -> int:
    return sum(1 for place in sorted(folder.rglob("journal")) for _ in JournalReader(place, kind))
