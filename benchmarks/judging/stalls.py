"""Healthy rollouts on a host that stalls: one run at a time, and with it all calls of one batch.

Either arm's run of a batch is held up equally often, but the calls that share it are late
together. A test that takes them for so many independent ones accuses whichever arm was unlucky.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.judging.many_tests import TiltArray
from stats.tilt import LATENCY, Grid


@dataclass(frozen=True, slots=True)
class StallAlarms:
    """How many of *rollouts* one metric would have rolled back."""

    calls: int
    """In a batch."""
    rollouts: int
    alarms_by_batch: int
    """A batch's calls weigh one together: what the controller does."""
    alarms_by_call: int
    """Each call weighs one."""


def count_stall_alarms(
    calls: int,
    rollouts: int,
    batches: int,
    seed: int,
    *,
    share: float = 0.2,
    stalls: float = 0.02,
    log_threshold: float = 6.5,
    grid: Grid = LATENCY,
) -> StallAlarms:
    """Play batches of *calls*, of which each arm's run stalls with probability *stalls*."""
    chance = np.random.default_rng((seed, calls))
    by_batch, by_call = (TiltArray(grid, rollouts, batches) for _ in range(2))
    for _ in range(batches):
        canary = chance.binomial(calls, share, rollouts)
        hit = chance.random((2, rollouts)) < stalls
        mine, theirs = canary * hit[0], (calls - canary) * hit[1]
        by_batch.step(mine / calls, theirs / calls, share)
        by_call.step(mine, theirs, share)
    threshold = np.exp(log_threshold)
    return StallAlarms(
        calls,
        rollouts,
        int((by_batch.e_max >= threshold).sum()),
        int((by_call.e_max >= threshold).sum()),
    )
