"""The last acts: outcomes are on disk, the history is intact, no customer call failed."""

import asyncio
from pathlib import Path

from journal.reader import JournalReader
from journal.segment import JournalKind
from turnout.demo.checklist import Step, require
from turnout.demo.context import OPERATOR, DemoContext


async def audit(context: DemoContext, step: Step) -> None:
    """Find every acknowledged outcome in the journal, and verify the history."""
    assert context.traffic is not None
    totals = context.traffic.newest_line
    require(totals["outcomes"] > 0, "no outcome was reported")
    failed = totals["outcomes_failed"]
    require(not failed, f"outcomes were not acknowledged, by status code: {failed}")
    journals = context.plan.folder / "gateway"
    outcomes = await asyncio.to_thread(_count_records, journals, JournalKind.OUTCOMES)
    require(
        outcomes >= totals["outcomes"],
        f"{totals['outcomes']} outcomes were acknowledged; the journal has {outcomes}",
    )
    served = await asyncio.to_thread(_count_records, journals, JournalKind.SERVED)
    require(served > 0, "no served batch is in the journal")
    async with context.registry_client(OPERATOR) as client:
        report = await client.audit()
    require(report.intact, report.problem or report.stopped)
    step.note = (
        f"{outcomes:,} outcomes and {served:,} served batches in the journal; "
        f"{report.head.seq} history entries, hash-chained and signed; every row is as they say"
    )


async def customers(context: DemoContext, step: Step) -> None:
    """Stop the callers and count the result of every call since the first."""
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
        "measured by the callers"
    )


def _count_records(folder: Path, kind: JournalKind) -> int:
    return sum(
        1 for journal in sorted(folder.rglob("journal")) for _ in JournalReader(journal, kind)
    )
