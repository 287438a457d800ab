"""The recorder folds within its share of the event loop's time, and never too late."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.telemetry import recorder as recorder_module
from gateway.telemetry.folding import FoldedReplies
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import (
    FOLD_AGE_NS_MAX,
    FOLD_ROWS,
    FOLD_TIME_BUDGET_NS,
    FOLD_VECTOR_BYTES,
    Recorder,
)
from journal.errors import RecordSizeError
from tests.poll import wait_until

COST_NS = 500_000
"""Time that folding one version's records takes."""


def routes_with_inputs(width: int) -> Any:  # noqa: ANN401  stands for Routes
    """Return the routes of a model whose production has *width* inputs and answers all calls."""
    bundle = SimpleNamespace(contract=SimpleNamespace(width=width))
    production = SimpleNamespace(version=SimpleNamespace(bundle=bundle))
    return SimpleNamespace(production=production, standby=None, canary=None)


NARROW = routes_with_inputs(3)


class ScriptedClock:
    """A clock that only moves when folding costs time."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        """Return the scripted monotonic time."""
        return self.ns

    def unix_ns(self) -> int:
        """Return a fixed wall time."""
        return 1_000_000_000


@dataclass(frozen=True, slots=True)
class CostlyRecord:
    """A reply record of one version whose fold takes COST_NS and notes the version."""

    group: int
    clock: ScriptedClock
    folded: list[int]
    routes: Any = field(default_factory=lambda: NARROW)
    at_unix_ns: int = 0
    rows: int = 1

    @staticmethod
    def fold(records: "Sequence[CostlyRecord]") -> FoldedReplies:
        """Note which version was folded, and let the time pass."""
        first = records[0]
        first.folded.append(first.group)
        first.clock.ns += COST_NS
        return FoldedReplies()


async def recorded(
    clock: ScriptedClock, versions: int, check: Callable[[Recorder, list[int]], Any]
) -> None:
    """Record one reply of each version, then *check* the recorder and the versions folded."""
    unused: Any = None
    folded: list[int] = []
    copy_sink: Any = SimpleNamespace(send_pending=lambda: None)
    journal: Any = SimpleNamespace(healthy=True)
    recorder = Recorder(unused, unused, copy_sink, journal, clock, unused)
    for version in range(versions):
        recorder.record(CostlyRecord(version, clock, folded))
    await check(recorder, folded)


def test_recorder_folds_the_oldest_groups_first_within_its_time_budget() -> None:
    """Thirty versions take more than five turns of the loop, in the order of their records."""

    async def check(recorder: Recorder, folded: list[int]) -> None:
        sizes = {len(folded)}
        await wait_until(lambda: sizes.add(len(folded)) or len(folded) == 30)  # type: ignore[func-returns-value]
        assert folded == list(range(30))
        assert len(sizes) > 5
        assert 1 < min(sizes - {0}) <= FOLD_TIME_BUDGET_NS // COST_NS + 1
        assert recorder.statistics().groups == 0

    asyncio.run(recorded(ScriptedClock(), 30, check))


def test_recorder_folds_everything_once_a_record_is_too_old() -> None:
    """It folds everything at once when a window closes, too."""
    clock = ScriptedClock()

    async def check_late(recorder: Recorder, folded: list[int]) -> None:
        clock.ns += FOLD_AGE_NS_MAX
        recorder._fold_within_budget()
        assert len(folded) == 30

    async def check_at_window_end(recorder: Recorder, folded: list[int]) -> None:
        recorder.fold()
        assert len(folded) == 30

    asyncio.run(recorded(clock, 30, check_late))
    asyncio.run(recorded(clock, 30, check_at_window_end))


def test_recorder_folds_after_a_reply_once_a_fold_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before that a reply folds nothing, and without a reply the timer folds."""

    async def check_after_a_reply(recorder: Recorder, folded: list[int]) -> None:
        recorder.fold_if_due()
        assert folded == []
        await wait_until(lambda: recorder.fold_if_due() or folded == [0])  # type: ignore[func-returns-value]

    async def check_without_a_reply(recorder: Recorder, folded: list[int]) -> None:
        await wait_until(lambda: folded == [0])
        recorder.fold_if_due()
        assert recorder.statistics().groups == 0

    asyncio.run(recorded(ScriptedClock(), 1, check_without_a_reply))
    # A fold is due after a millisecond, and without a reply it would happen in an hour.
    monkeypatch.setattr(recorder_module, "FOLD_EARLY_S", 3_600.0)
    monkeypatch.setattr(recorder_module, "FOLD_S", 3_600.001)
    asyncio.run(recorded(ScriptedClock(), 1, check_after_a_reply))


def test_recorder_folds_a_large_group_at_once() -> None:
    """A group of FOLD_ROWS rows does not wait for the timer."""
    clock = ScriptedClock()

    async def check(recorder: Recorder, folded: list[int]) -> None:
        recorder.record(CostlyRecord(0, clock, folded, rows=FOLD_ROWS - 1))
        assert not folded
        recorder.record(CostlyRecord(0, clock, folded))
        assert folded == [0]

    asyncio.run(recorded(clock, 0, check))


def test_recorder_statistics_count_what_waits() -> None:
    """The snapshot has groups, records, rows and the age of the oldest record."""
    clock = ScriptedClock()

    async def check(recorder: Recorder, folded: list[int]) -> None:
        clock.ns += 2_000_000
        recorder.record(CostlyRecord(0, clock, folded, rows=3))
        statistics = recorder.statistics()
        assert (statistics.groups, statistics.records, statistics.rows) == (2, 3, 5)
        assert (statistics.oldest_ms, statistics.journal_healthy) == (2.0, True)
        recorder.fold()
        assert recorder.statistics().rows == 0

    asyncio.run(recorded(clock, 2, check))


def test_recorder_folds_wide_rows_before_they_are_too_many_for_a_record() -> None:
    """A model may have thousands of inputs, and a journal record has a bound in bytes."""
    wide = routes_with_inputs(4_096)
    rows_max = FOLD_VECTOR_BYTES // (4 * 4_096)

    async def check(recorder: Recorder, folded: list[int]) -> None:
        clock = ScriptedClock()
        recorder.record(CostlyRecord(7, clock, folded, wide, rows=rows_max - 1))
        assert folded == []
        recorder.record(CostlyRecord(7, clock, folded, wide))
        assert folded == [7]

    asyncio.run(recorded(ScriptedClock(), 0, check))


def test_recorder_counts_a_record_that_is_too_large_and_goes_on() -> None:
    """One batch of wide rows may be above the bound alone; its loss stops nothing else."""
    metrics, appended = Metrics(), list[bytes]()

    def append(payload: bytes) -> None:
        if len(payload) > 5:
            raise RecordSizeError("the record is too large")
        appended.append(payload)

    @dataclass(frozen=True, slots=True)
    class ServedRecord(CostlyRecord):
        @staticmethod
        def fold(records: "Sequence[CostlyRecord]") -> FoldedReplies:
            return FoldedReplies(journal_records=[b"larger", b"small"] * len(records))

    async def walk() -> None:
        unused: Any = None
        copy_sink: Any = SimpleNamespace(send_pending=lambda: None)
        journal: Any = SimpleNamespace(healthy=True, append=append)
        recorder = Recorder(unused, metrics, copy_sink, journal, ScriptedClock(), unused)
        recorder.record(ServedRecord(1, ScriptedClock(), []))
        recorder.fold()

    asyncio.run(walk())
    assert appended == [b"small"]
    assert metrics.snapshot()["turnout_journal_dropped"] == [[["served"], 1]]
