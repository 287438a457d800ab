"""One metric of two arms over a whole rollout: its e-value, its events, the keys counted."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from rollout.evidence.key_sample import KeySample
from rollout.evidence.records import BatchEvents
from stats import ratio, tilt

EVENT_KEYS_MAX = 200_000
"""Keys remembered a metric. Beyond it they are thinned: what was counted stays counted."""


@dataclass(slots=True)
class MetricTest:
    """Events of a key, the first of each, by arm."""

    tilt_state: tilt.TiltState
    grid: tilt.Grid = tilt.MORE_EVENTS
    canary_events: int = 0
    baseline_events: int = 0
    counted_keys: KeySample = field(default_factory=lambda: KeySample(EVENT_KEYS_MAX))
    events_by_share: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Share in basis points -> (canary's, baseline's) events, each as much as it weighs."""

    @property
    def counted_event_keys(self) -> set[int]:
        """Keys whose event was counted."""
        return self.counted_keys.keys

    def count_keys(
        self,
        candidate_keys: Iterable[int],
        baseline_keys: Iterable[int],
        share: float,
        looks_max: int,
    ) -> None:
        """Count a window's keys with an event, by arm, and look."""
        mine, theirs = self.counted_keys.count_new(candidate_keys, baseline_keys)
        self.canary_events += mine
        self.baseline_events += theirs
        self._update_evidence(mine, theirs, share, looks_max)

    def count_batch_events(
        self, candidate: BatchEvents, baseline: BatchEvents, share: float, looks_max: int
    ) -> None:
        """The same for events that whatever slows a batch has in common."""
        if candidate.batch_calls is None and baseline.batch_calls is None:
            self.count_keys(candidate.keys, baseline.keys, share, looks_max)
            return
        mine, theirs = self.counted_keys.add_new(candidate.keys, baseline.keys)
        self.canary_events += len(mine)
        self.baseline_events += len(theirs)
        self._update_evidence(
            candidate.weight_of(mine), baseline.weight_of(theirs), share, looks_max
        )

    def idle(self) -> None:
        """Look at a window without an event of either arm."""
        self.tilt_state = tilt.idle_tilt(self.tilt_state)

    def _update_evidence(
        self, candidate_events: float, baseline_events: float, share: float, looks_max: int
    ) -> None:
        if candidate_events or baseline_events:
            share_bp = round(share * 10_000)
            before = self.events_by_share.get(share_bp, (0.0, 0.0))
            self.events_by_share[share_bp] = (
                before[0] + candidate_events,
                before[1] + baseline_events,
            )
        self.tilt_state = tilt.step_tilt(
            self.grid, self.tilt_state, candidate_events, baseline_events, share, looks_max
        )

    @property
    def weighted_events(self) -> tuple[float, float]:
        """Events of candidate and baseline, each as much as it weighs."""
        return (
            math.fsum(mine for mine, _ in self.events_by_share.values()),
            math.fsum(theirs for _, theirs in self.events_by_share.values()),
        )

    @property
    def rate_ratio(self) -> float:
        """Canary's rate over baseline's by weight, half an event added to each; NaN without events.

        Each share's baseline events are scaled to the canary's exposure under that share.
        """
        if not self.events_by_share:
            return math.nan
        exposed = sum(b * bp / (10_000 - bp) for bp, (_, b) in self.events_by_share.items())
        return (self.weighted_events[0] + 0.5) / (exposed + 0.5)

    @property
    def ratio_interval(self) -> ratio.RateRatioInterval:
        """The anytime-valid 95 % interval of the rate ratio; costs a bisection."""
        return ratio.rate_ratio_interval(self.events_by_share)
