"""What the applied policies say to readers of journals: segments and decisions of each model.

A key is kept if its hash is below a threshold, so a smaller share is a part of a larger one, in all
models and on all days.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic

from monitoring.api.decision_policy import DecisionPolicy
from monitoring.cells.decision_rows import SAMPLE_ALL
from monitoring.cells.segments import segments_to_proto
from protos import monitoring_pb2 as pb
from registry.watching.policy import MonitoringPolicy

READY_S = 10.0
"""How long after the start of monitoring readers wait for the policies."""


def share_of_keys(keys_a_day: int, rows_a_day: int) -> int:
    """Return the threshold of 65,536 that keeps some *keys_a_day* of *rows_a_day*; 0 keys: all.

    Each key has a row or more, so at most about so many rows are kept.
    """
    if keys_a_day == 0 or rows_a_day <= keys_a_day:
        return SAMPLE_ALL
    return max(1, SAMPLE_ALL * keys_a_day // rows_a_day)


class ReaderPolicies:
    """What readers are told now.

    override  the threshold of decisions of every model; None: the policies decide it.

    The share of a model is fixed once a day by the rows of the day before. A model that had none
    keeps every key, until it has more rows today than its policy has keys.
    """

    def __init__(self, override: int | None = None) -> None:
        self._override = override
        self._wait_until_s = monotonic() + READY_S
        self._ready = asyncio.Event()
        self._day = -1
        self._yesterday: Mapping[str, int] = {}
        self._keys: dict[str, int] = {}
        self.policies: Mapping[str, MonitoringPolicy] = {}
        """By model, as they were applied last."""
        self.current = DecisionPolicy(sampled_of_65536=override or 0)
        """The decisions that are kept. There are none before the policies were read."""
        self.segments: tuple[pb.ModelSegments, ...] = ()
        """The segmentations of models that have some."""

    @property
    def keys_a_day(self) -> Mapping[str, int]:
        """Model -> the keys a day that its policy asks for; 0: all."""
        return self._keys

    @property
    def ready(self) -> bool:
        """Whether the policies were read."""
        return self._ready.is_set()

    async def wait(self) -> bool:
        """Return whether the policies were read, within a short time of the start."""
        # Without time left, wait_for would not even look.
        if self._ready.is_set():
            return True
        try:
            await asyncio.wait_for(self._ready.wait(), max(0, self._wait_until_s - monotonic()))
        except TimeoutError:
            return False
        return True

    def apply(
        self,
        policies: Mapping[str, MonitoringPolicy],
        day: int,
        yesterday: Mapping[str, int],
        today: Mapping[str, int],
    ) -> None:
        """Take the policies, and fix the shares of a Unix day.

        policies   by model. A model without one has the defaults.
        yesterday  model -> rows of the day before. Later in the same day it is not looked at.
        today      model -> rows so far.
        """
        # Segments hold whatever the option says of decisions.
        self.policies = dict(policies)
        found = [segments_to_proto(model, policies[model]) for model in sorted(policies)]
        self.segments = tuple(item for item in found if item.segmentations)
        self._ready.set()
        if self._override is not None:
            return
        if day != self._day:
            self._day, self._yesterday = day, dict(yesterday)
        default = MonitoringPolicy()
        shares = {}
        for model in sorted({*policies, *self._yesterday, *today}):
            keys = policies.get(model, default).decisions
            rows = self._yesterday.get(model) or today.get(model, 0)
            shares[model] = share_of_keys(keys, rows)
            self._keys[model] = keys
        # A model that was never seen keeps every key.
        self.current = replace(
            self.current, sampled_of_65536=share_of_keys(default.decisions, 0), by_model=shares
        )
