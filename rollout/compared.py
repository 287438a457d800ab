"""One metric of two arms over a whole rollout: its e-value, its events, the keys counted."""

import math
from dataclasses import dataclass, field

from rollout.keys import KeySample
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
    by_share: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Share in basis points -> (canary events, baseline events)."""

    @property
    def seen(self) -> set[int]:
        """Keys whose event was counted."""
        return self.sample.keys

    def take(self, accused: set[int], others: set[int], share: float, looks_max: int) -> None:
        """Count a window's keys with an event, by arm, and look."""
        accused = self.sample.fresh(accused)
        others = self.sample.fresh(others) - accused
        self.sample.add(accused | others)
        self.add(len(accused), len(others), share, looks_max)

    def add(self, accused: int, others: int, share: float, looks_max: int) -> None:
        """Count events that are first ones already, and look."""
        if accused or others:
            before = self.by_share.get(round(share * 10_000), (0, 0))
            self.by_share[round(share * 10_000)] = (before[0] + accused, before[1] + others)
        self.canary_events += accused
        self.baseline_events += others
        self.state = tilt.step(self.grid, self.state, accused, others, share, looks_max)

    @property
    def rate_ratio(self) -> float:
        """Canary's rate over baseline's, half an event added to each; NaN without events.

        Each share's baseline events are scaled to the canary's exposure under that share.
        """
        if not self.by_share:
            return math.nan
        exposed = sum(b * bp / (10_000 - bp) for bp, (_, b) in self.by_share.items())
        return (self.canary_events + 0.5) / (exposed + 0.5)

    @property
    def interval(self) -> ratio.Interval:
        """The anytime-valid 95 % interval of the rate ratio; costs a bisection."""
        return ratio.interval(self.by_share)
