"""Counting and keeping after the replies: never more than a share of the time, never too late."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.telemetry import recorder
from gateway.telemetry.recorder import FOLD_AGE_NS_MAX, FOLD_TIME_BUDGET_NS, Recorder
from protos.window_pb2 import ARM_PRODUCTION
from tests.poll import wait_until

COST_NS = 500_000
"""Of one version's fold."""


class Clock:
    """Stands still unless something costs."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        """Monotonic."""
        return self.ns

    def unix_ns(self) -> int:
        """Some second."""
        return 1_000_000_000


async def noted(clock: Clock, versions: int, look: Callable[[Recorder, list[int]], Any]) -> None:
    """Have an Aside note so many versions; *look* at it and at what has been counted, by turns."""
    none: Any = None
    counted: list[int] = []
    shadows: Any = SimpleNamespace(send_pending=lambda: None)
    one = Recorder(none, none, shadows, none, clock, none)  # type: ignore[arg-type]

    def count(routes: Any, version: Any, *told: Any) -> None:  # noqa: ANN401
        del routes, told
        counted.append(version.label)
        clock.ns += COST_NS

    one._count_observations = count  # type: ignore[method-assign]
    routes: Any = SimpleNamespace()
    for label in range(versions):
        told: Any = SimpleNamespace(scores=[0.5])
        version: Any = SimpleNamespace(label=label)
        one.record_observations(routes, version, ARM_PRODUCTION, told)
    await look(one, counted)


@pytest.fixture(autouse=True)
def _joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        recorder.Observations, "concatenated", staticmethod(lambda several: several[0])
    )


def test_a_turn_ends_when_its_time_is_spent_and_the_rest_goes_on_oldest_first() -> None:
    """Thirty versions take several turns, each the share of one, in the order noted."""

    async def look(one: Recorder, counted: list[int]) -> None:
        sizes = {len(counted)}
        await wait_until(lambda: sizes.add(len(counted)) or len(counted) == 30)  # type: ignore[func-returns-value]
        assert counted == list(range(30))
        assert len(sizes) > 5
        assert 1 < min(sizes - {0}) <= FOLD_TIME_BUDGET_NS // COST_NS + 1
        assert one._timer is None

    asyncio.run(noted(Clock(), 30, look))


def test_what_has_waited_too_long_is_folded_at_once() -> None:
    """And so is everything, when a window closes."""
    clock = Clock()

    async def late(one: Recorder, counted: list[int]) -> None:
        clock.ns += FOLD_AGE_NS_MAX
        one._fold_within_budget()
        assert len(counted) == 30

    async def whole(one: Recorder, counted: list[int]) -> None:
        one.fold()
        assert len(counted) == 30

    asyncio.run(noted(clock, 30, late))
    asyncio.run(noted(clock, 30, whole))
