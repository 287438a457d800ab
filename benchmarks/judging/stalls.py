"""Counts false alarms of healthy rollouts on a host that stalls.

A stall delays one arm's run of one batch, so the calls that share the run are late together. Both
arms stall equally often. A test that counts these calls as independent rejects the arm that had
more of the stalls by chance.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.judging.many_tests import TiltArray
from stats.tilt import LATENCY, Grid


@dataclass(frozen=True, slots=True)
class StallAlarms:
    """How many healthy rollouts one latency metric would have rolled back."""

    calls: int
    """Calls in a batch."""
    rollouts: int
    alarms_by_batch: int
    """Alarms if the calls of a batch weigh one together, as in the controller."""
    alarms_by_call: int
    """Alarms if each call weighs one."""


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
    """Simulate *batches* batches of *calls* calls; each arm's run stalls with chance *stalls*."""
    rng = np.random.default_rng((seed, calls))
    by_batch, by_call = (TiltArray(grid, rollouts, batches) for _ in range(2))
    for _ in range(batches):
        canary = rng.binomial(calls, share, rollouts)
        stalled = rng.random((2, rollouts)) < stalls
        late_canary, late_baseline = canary * stalled[0], (calls - canary) * stalled[1]
        by_batch.step(late_canary / calls, late_baseline / calls, share)
        by_call.step(late_canary, late_baseline, share)
    threshold = np.exp(log_threshold)
    return StallAlarms(
        calls,
        rollouts,
        int((by_batch.e_max >= threshold).sum()),
        int((by_call.e_max >= threshold).sum()),
    )
