"""The recorder folds within its share of the event loop's time, and never too late."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from gateway.telemetry.folding import FoldedReplies
from gateway.telemetry.recorder import FOLD_AGE_NS_MAX, FOLD_ROWS, FOLD_TIME_BUDGET_NS, Recorder
from tests.poll import wait_until

COST_NS = 500_000
"""Time that folding one version's records takes."""


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
    routes: Any = None
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
