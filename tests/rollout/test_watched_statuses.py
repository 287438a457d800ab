"""All watchers of a rollout share one status."""

import asyncio
from typing import Any

import pytest

from protos import rollout_pb2
from rollout.api import watched_statuses
from rollout.api.watched_statuses import WatchedStatuses
from rollout.lifecycle.rollout import Rollout
from tests.rollout.scripted_world import ScriptedWorld

WATCHERS = 100


def test_status_is_computed_once_for_all_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each change, however many watch; an equal status is sent to nobody."""
    monkeypatch.setattr(watched_statuses, "WATCH_S_MIN", 0.0)
    monkeypatch.setattr(watched_statuses, "WATCH_SPREAD_S", 0.0)
    computed = 0
    compute = Rollout.status

    def counted(self: Rollout, **options: Any) -> rollout_pb2.RolloutStatus:  # noqa: ANN401  its options
        nonlocal computed
        computed += 1
        return compute(self, **options)

    async def course() -> None:
        # A hundred watchers get the same object.
        world = ScriptedWorld()
        rollout = await world.start_rollout("quick-direct")
        monkeypatch.setattr(Rollout, "status", counted)
        statuses = WatchedStatuses(world.controller)
        watches = [statuses.watch("churn", "") for _ in range(WATCHERS)]
        first = await asyncio.gather(*(anext(watch) for watch in watches))
        assert computed == 1
        assert all(status is first[0] for status in first)
        # A change is one more; a notification without a change is sent to nobody.
        waiting = [asyncio.ensure_future(anext(watch)) for watch in watches]
        await asyncio.sleep(0)
        world.controller._notify_watchers()
        for _ in range(5):
            await asyncio.sleep(0)
        assert computed == 2
        assert not any(task.done() for task in waiting)
        rollout.hold("another reason")
        world.controller._notify_watchers()
        second = await asyncio.gather(*waiting)
        assert computed == 3
        assert {status.reason for status in second} == {"another reason"}
        for watch in watches:
            await watch.aclose()

    asyncio.run(course())
