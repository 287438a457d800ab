"""The journal of outcomes: each report is written once, over workers and restarts, in a budget."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.caller import ANONYMOUS, Caller
from gateway.methods.idempotency_keys import IdempotencyKeys, report_digest
from gateway.methods.outcome_budget import FOLDER_CHECK_S, OutcomeBudget
from gateway.methods.report_outcome import ReportOutcomeService
from gateway.models.routes import RouteTable
from gateway.status import Code, RefusedError
from gateway.telemetry.outcome_windows import OutcomeWindows
from host.clock import ManualClock, SystemClock
from journal.reader import JournalReader
from journal.segment import JournalKind
from journal.writer import JournalAppender
from protos.journal_pb2 import OutcomeRecord
from protos.predict_pb2 import OutcomeReply, OutcomeRequest
from tests.gateway.gateway_fixture import (
    KEY,
)
from tests.gateway.methods.test_report_outcome import PREDICTION

pytestmark = pytest.mark.walk


class OutcomeWorker:
    """ReportOutcome of one worker with a real journal, as it is after a start."""

    def __init__(self, folder: Path, boot_id: int, keys_max: int = 1_000) -> None:
        self.writer = JournalAppender(folder, JournalKind.OUTCOMES, boot_id=boot_id)
        self.keys = IdempotencyKeys(folder, boot_id, keys_max)
        self.keys.rebuild()
        self.counted: list[tuple[str, str]] = []
        self.outcomes = ReportOutcomeService(
            RouteTable(),
            self.writer,
            self.keys,
            OutcomeBudget(folder, SystemClock(), 1 << 20, 1 << 30),
            SystemClock(),
            lambda: KEY,
            lambda model, kind: self.counted.append((model, kind)),
            90,
            1_024,
            OutcomeWindows().record_outcome,
        )

    async def report(self, key: str, caller: Caller = ANONYMOUS) -> bool:
        """Report with an idempotency key; return whether it was a duplicate."""
        request = OutcomeRequest(
            prediction_id=PREDICTION, name="churned", value=1, idempotency_key=key
        )
        reply = await self.outcomes.report(request.SerializeToString(), caller)
        return OutcomeReply.FromString(reply).duplicate


@asynccontextmanager
async def outcome_worker(
    folder: Path, boot_id: int, keys_max: int = 1_000
) -> AsyncIterator[OutcomeWorker]:
    """Run a worker and close its journal at the end."""
    worker = OutcomeWorker(folder, boot_id, keys_max)
    try:
        yield worker
    finally:
        await asyncio.to_thread(worker.writer.close)


def scope_of(key: str) -> bytes:
    """Return the scope of a report with this idempotency key, as OutcomeWorker sends it."""
    record = OutcomeRecord(prediction_id=PREDICTION, name="churned", value=1, idempotency_key=key)
    digest = report_digest(record)
    assert digest is not None
    return digest.scope


def keys_on_disk(folder: Path) -> list[str]:
    """Return the idempotency keys of all records on disk."""
    return [
        OutcomeRecord.FromString(raw).idempotency_key
        for raw, _ in JournalReader(folder, JournalKind(2))
    ]


def test_idempotency_key_counts_once_across_workers_and_restarts(
    tmp_path: Path,
) -> None:
    """200 keys are reported three times each at one worker, then at another, then after a start."""
    keys = [f"k-{n}" for n in range(200)]

    async def walk() -> None:
        async with outcome_worker(tmp_path, 1) as first, outcome_worker(tmp_path, 2) as second:
            duplicates = await asyncio.gather(*(first.report(key) for key in keys * 3))
            assert sum(duplicates) == 400
            assert all(await asyncio.gather(*(second.report(key) for key in keys)))
            assert not await second.report("k-new")
            assert await first.report("k-new")
        async with outcome_worker(tmp_path, 3) as third:
            assert len(third.keys) == 201
            assert await third.report("k-7")
            assert not await third.report("k-newer")
        assert sorted(keys_on_disk(tmp_path)) == sorted([*keys, "k-new", "k-newer"])

    asyncio.run(walk())


def test_idempotency_keys_keep_the_newest_only(tmp_path: Path) -> None:
    """After 300 keys over three starts 50 are read back; later keys do not exceed the bound."""

    async def walk() -> None:
        for boot in (1, 2, 3):
            async with outcome_worker(tmp_path, boot) as worker:
                for n in range(100):
                    await worker.report(f"k-{boot}-{n}")
        async with outcome_worker(tmp_path, 4, keys_max=50) as last:
            assert len(last.keys) == 50
            assert set(last.keys.catch_up([scope_of("k-3-99"), scope_of("k-1-0")])) == {
                scope_of("k-3-99")
            }
            assert await last.report("k-3-99")
            for n in range(100):
                await last.report(f"k-4-{n}")
            assert len(last.keys) == 50

    asyncio.run(walk())


def test_idempotency_keys_read_behind_damage_and_skip_foreign_files(tmp_path: Path) -> None:
    """One segment has a flipped byte in the middle, another file is no segment."""

    async def walk() -> None:
        async with outcome_worker(tmp_path, 1) as worker:
            for n in range(20):
                await worker.report(f"k-{n}")
        (segment,) = tmp_path.iterdir()  # noqa: ASYNC240  a test's own file
        content = bytearray(segment.read_bytes())
        content[len(content) // 2] ^= 0xFF
        segment.write_bytes(content)
        (tmp_path / "outcomes-1700000000000-00000000000000aa-000000.trnj").write_bytes(b"not ours")
        keys = IdempotencyKeys(tmp_path, 2, 1_000)
        keys.rebuild()
        assert len(keys) == 19
        asked = [scope_of(key) for key in ("k-0", "k-19", "k-absent")]
        assert set(keys.catch_up(asked)) == set(asked[:2])

    asyncio.run(walk())


def test_report_outcome_finishes_the_write_of_a_cancelled_call(tmp_path: Path) -> None:
    """A call is cancelled before its record is on disk; the record is written once."""

    async def walk() -> None:
        async with outcome_worker(tmp_path, 1) as worker:
            call = asyncio.create_task(worker.report("k-1"))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await worker.report("k-1")
        assert keys_on_disk(tmp_path) == ["k-1"]

    asyncio.run(walk())


def test_outcome_budget_bounds_a_caller_and_the_folder(tmp_path: Path) -> None:
    """A caller has ten seconds' bytes and then a pause; others go on; the folder has a bound."""
    clock = ManualClock()
    budget = OutcomeBudget(tmp_path, clock, caller_bytes_s=1_000, folder_bytes_max=25_000)

    async def spend(caller: Caller, times: int) -> None:
        for _ in range(times):
            await budget.spend(caller, 150)

    async def spend_all(caller: Caller) -> RefusedError:
        with pytest.raises(RefusedError) as refused:
            await spend(caller, 200)
        assert refused.value.refusal.code == Code.RESOURCE_EXHAUSTED
        return refused.value

    async def walk() -> None:
        # One caller spends all it may.
        loud, other = Caller(name="loud"), Caller(name="other")
        refused = await spend_all(loud)
        assert refused.refusal.pushback_ms == 151
        await budget.spend(other, 150)
        clock.advance_s(0.2)
        await budget.spend(loud, 150)
        assert "outcome_caller_bytes_s" in str(await spend_all(loud))
        # Another worker of the host fills the folder; it is seen at the next look.
        name = "outcomes-1700000000000-00000000000000aa-000000.trnj"
        (tmp_path / name).write_bytes(bytes(24_900))
        clock.advance_s(FOLDER_CHECK_S + 1)
        with pytest.raises(RefusedError, match="outcome_journal_mb_max"):
            await budget.spend(other, 150)
        (tmp_path / name).unlink()
        clock.advance_s(FOLDER_CHECK_S + 1)
        await budget.spend(other, 150)

    asyncio.run(walk())


def test_idempotency_keys_read_records_without_a_caller(tmp_path: Path) -> None:
    """Records from before callers had identities count as reports without one."""

    async def walk() -> None:
        with JournalAppender(tmp_path, JournalKind.OUTCOMES, boot_id=1) as writer:
            record = OutcomeRecord(
                prediction_id=PREDICTION, name="churned", value=1.0, idempotency_key="k-old"
            )
            await writer.append_durably(record.SerializeToString())
        async with outcome_worker(tmp_path, 2) as worker:
            assert await worker.report("k-old")
            assert not await worker.report("k-old", Caller(name="crm"))
            assert await worker.report("k-old", Caller(name="crm"))
        async with outcome_worker(tmp_path, 3) as worker:
            assert await worker.report("k-old", Caller(name="crm"))
            assert not await worker.report("k-old", Caller(name="nba"))

    asyncio.run(walk())


def test_report_outcome_syncs_before_it_acknowledges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker's record is synced, too, before this worker calls it a duplicate."""
    synced: list[str] = []
    fdatasync = os.fdatasync

    def recorded_fdatasync(file: int) -> None:
        fdatasync(file)
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}")))  # noqa: PTH119, PTH115

    async def walk() -> None:
        monkeypatch.setattr(os, "fdatasync", recorded_fdatasync)
        async with outcome_worker(tmp_path, 1) as first, outcome_worker(tmp_path, 2) as second:
            await first.report("k-1")
            assert [name.split("-")[2] for name in synced] == [f"{1:016x}"]
            await second.report("k-1")
            assert [name.split("-")[2] for name in synced] == [f"{1:016x}"] * 2
            await second.report("k-1")
            assert len(synced) == 2

    asyncio.run(walk())
