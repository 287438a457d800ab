"""The statuses of watched rollouts, each computed once for all its watchers."""

import asyncio
from collections.abc import AsyncGenerator

from protos import rollout_pb2 as pb
from rollout.controller.controller import Controller
from rollout.lifecycle.rollout import Rollout

WATCH_S_MIN = 0.05
"""Shortest time between two messages of a watch. A person cannot read faster."""
WATCH_SPREAD_S = 0.000_2
"""Each watcher sends this much later than the one before, so that other calls come in between."""


class WatchedStatuses:
    """Statuses for watchers. The intervals of one status cost a bisection for each metric."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._newest: dict[str, tuple[asyncio.Event, pb.RolloutStatus]] = {}
        """Rollout id -> the event of the next change, and the status until then."""
        self._watchers = 0

    def status(self, rollout: Rollout) -> pb.RolloutStatus:
        """Return the status, not to be changed. While it stays equal, it is the same object."""
        change, rollout_id = self._controller.status_changed, rollout.spec.rollout_id
        known = self._newest.get(rollout_id)
        if known is not None and known[0] is change:
            return known[1]
        status = rollout.status(intervals=True)
        if known is not None and known[1] == status:
            status = known[1]
        self._newest[rollout_id] = (change, status)
        return status

    async def watch(self, model: str, rollout_id: str) -> AsyncGenerator[pb.RolloutStatus]:
        """Yield the status now and after each change, until the rollout has ended."""
        shown = None
        pause_s = WATCH_S_MIN + self._watchers * WATCH_SPREAD_S
        self._watchers += 1
        try:
            while True:
                change = self._controller.status_changed
                rollout = self._controller.rollout(model, rollout_id)
                status = self.status(rollout)
                if status is not shown:
                    yield status
                    shown = status
                if self._controller.is_finished(rollout):
                    return
                await change.wait()
                await asyncio.sleep(pause_s)
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._newest.clear()
