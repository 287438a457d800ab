"""One metric of two arms over a whole rollout: its e-value, its events, the keys counted."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from rollout.evidence.key_sample import KeySample
from rollout.evidence.records import Shared
from stats import ratio, tilt

EVENT_KEYS_MAX = 200_000
"""Keys remembered a metric. Beyond it they are thinned: what was counted stays counted."""


@dataclass(slots=True)
class Compared:
    """Events of a key, the first of each, by arm."""

    state: tilt.TiltState
    grid: tilt.Grid = tilt.WORSE
    canary_events: int = 0
    baseline_events: int = 0
    sample: KeySample = field(default_factory=lambda: KeySample(EVENT_KEYS_MAX))
    by_share: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Share in basis points -> (canary's, baseline's) events, each as much as it weighs."""

    @property
    def seen(self) -> set[int]:
        """Keys whose event was counted."""
        return self.sample.keys

    def take(
        self, accused: Iterable[int], others: Iterable[int], share: float, looks_max: int
    ) -> None:
        """Count a window's keys with an event, by arm, and look."""
        mine, theirs = self.sample.count(accused, others)
        self.canary_events += mine
        self.baseline_events += theirs
        self._look(mine, theirs, share, looks_max)

    def take_shared(self, accused: Shared, others: Shared, share: float, looks_max: int) -> None:
        """The same for events that whatever slows a batch has in common."""
        if accused.batch_calls is None and others.batch_calls is None:
            self.take(accused.keys, others.keys, share, looks_max)
            return
        mine, theirs = self.sample.first(accused.keys, others.keys)
        self.canary_events += len(mine)
        self.baseline_events += len(theirs)
        self._look(accused.weigh(mine), others.weigh(theirs), share, looks_max)

    def idle(self) -> None:
        """Look at a window without an event of either arm."""
        self.state = tilt.idle(self.state)

    def _look(self, accused: float, others: float, share: float, looks_max: int) -> None:
        if accused or others:
            share_bp = round(share * 10_000)
            before = self.by_share.get(share_bp, (0.0, 0.0))
            self.by_share[share_bp] = (before[0] + accused, before[1] + others)
        self.state = tilt.step(self.grid, self.state, accused, others, share, looks_max)

    @property
    def weight(self) -> tuple[float, float]:
        """Events of candidate and baseline, each as much as it weighs."""
        return (
            math.fsum(mine for mine, _ in self.by_share.values()),
            math.fsum(theirs for _, theirs in self.by_share.values()),
        )

    @property
    def rate_ratio(self) -> float:
        """Canary's rate over baseline's by weight, half an event added to each; NaN without events.

        Each share's baseline events are scaled to the canary's exposure under that share.
        """
        if not self.by_share:
            return math.nan
        exposed = sum(b * bp / (10_000 - bp) for bp, (_, b) in self.by_share.items())
        return (self.weight[0] + 0.5) / (exposed + 0.5)

    @property
    def interval(self) -> ratio.Interval:
        """The anytime-valid 95 % interval of the rate ratio; costs a bisection."""
        return ratio.interval(self.by_share)
