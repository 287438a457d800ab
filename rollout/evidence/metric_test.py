"""Tests whether the candidate has more events of one metric (failures, slow calls) than production.

Each key counts with its first event. `stats.tilt` is the test; this module counts its events.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from protos import rollout_pb2
from rollout.evidence.key_sample import KeySample
from rollout.evidence.records import BatchEvents
from stats import ratio, tilt

EVENT_KEYS_MAX = 200_000
"""Keys remembered for each metric. Beyond it they are thinned; counted events stay counted."""


@dataclass(slots=True)
class MetricTest:
    """Events of two arms, of which each key has one at most."""

    tilt_state: tilt.TiltState
    grid: tilt.Grid = tilt.MORE_EVENTS
    canary_events: int = 0
    baseline_events: int = 0
    counted_keys: KeySample = field(default_factory=lambda: KeySample(EVENT_KEYS_MAX))
    events_by_share: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Candidate's share in basis points -> weights of the (canary, baseline) events under it."""

    @property
    def counted_event_keys(self) -> set[int]:
        """Keys whose event was counted, of the keys still in the sample."""
        return self.counted_keys.keys

    def count_keys(
        self,
        candidate_keys: Iterable[int],
        baseline_keys: Iterable[int],
        share: float,
        looks_max: int,
    ) -> None:
        """Count the keys of a second that have an event, and update the e-value.

        share      the candidate's configured share of both arms, 0 < share < 1.
        looks_max  as `stats.tilt.step_tilt` takes it.
        """
        canary, baseline = self.counted_keys.count_new(candidate_keys, baseline_keys)
        self.canary_events += canary
        self.baseline_events += baseline
        self._update_evidence(canary, baseline, share, looks_max)

    def count_batch_events(
        self, candidate: BatchEvents, baseline: BatchEvents, share: float, looks_max: int
    ) -> None:
        """Count keys as `count_keys` does, but weigh each event by 1 / (calls of its batch).

        A slow batch causes the events of all its calls at once.
        """
        if candidate.batch_calls is None and baseline.batch_calls is None:
            self.count_keys(candidate.keys, baseline.keys, share, looks_max)
            return
        canary_keys, baseline_keys = self.counted_keys.add_new(candidate.keys, baseline.keys)
        self.canary_events += len(canary_keys)
        self.baseline_events += len(baseline_keys)
        self._update_evidence(
            candidate.weight_of(canary_keys), baseline.weight_of(baseline_keys), share, looks_max
        )

    def idle(self) -> None:
        """Count a second without an event of either arm."""
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
        """Sums of the weights of the candidate's and of the baseline's events."""
        return (
            math.fsum(canary for canary, _ in self.events_by_share.values()),
            math.fsum(baseline for _, baseline in self.events_by_share.values()),
        )

    @property
    def rate_ratio(self) -> float:
        """Weighted event rate of the canary over that of the baseline; NaN without events.

        The baseline's events under each share are scaled to the canary's exposure under that
        share. Half an event is added to both sides.
        """
        if not self.events_by_share:
            return math.nan
        expected = sum(
            baseline * share_bp / (10_000 - share_bp)
            for share_bp, (_, baseline) in self.events_by_share.items()
        )
        return (self.weighted_events[0] + 0.5) / (expected + 0.5)

    @property
    def ratio_interval(self) -> ratio.RateRatioInterval:
        """The 95 % interval of the rate ratio, valid at every look. It costs a bisection."""
        return ratio.rate_ratio_interval(self.events_by_share)

    def to_proto(self, name: str) -> rollout_pb2.MetricState:
        """Return the state of the metric *name* for a checkpoint."""
        return rollout_pb2.MetricState(
            metric=name,
            canary_events=self.canary_events,
            baseline_events=self.baseline_events,
            events_by_share=[
                rollout_pb2.EventsByShare(share_bp=share_bp, canary=canary, baseline=baseline)
                for share_bp, (canary, baseline) in sorted(self.events_by_share.items())
            ],
            e_process=tilt_to_proto(self.tilt_state),
            counted_keys=self.counted_keys.to_proto(),
        )

    @staticmethod
    def from_proto(
        message: rollout_pb2.MetricState, grid: tilt.Grid, keys_max: int
    ) -> "MetricTest":
        """Restore a metric; *grid* and *keys_max* are not in the message."""
        return MetricTest(
            tilt_from_proto(message.e_process),
            grid=grid,
            canary_events=message.canary_events,
            baseline_events=message.baseline_events,
            counted_keys=KeySample.from_proto(message.counted_keys, keys_max),
            events_by_share={
                events.share_bp: (events.canary, events.baseline)
                for events in message.events_by_share
            },
        )


def tilt_to_proto(tilt_state: tilt.TiltState) -> rollout_pb2.EProcessState:
    """Return the state of a tilt test for a checkpoint."""
    return rollout_pb2.EProcessState(
        log_s=tilt_state.log_s,
        prior_spent=tilt_state.prior_spent,
        log_e=tilt_state.log_e,
        log_e_max=tilt_state.log_e_max,
        looks=tilt_state.looks,
    )


def tilt_from_proto(message: rollout_pb2.EProcessState) -> tilt.TiltState:
    """Restore the state of a tilt test."""
    return tilt.TiltState(
        log_s=tuple(message.log_s),
        prior_spent=message.prior_spent,
        log_e=message.log_e,
        log_e_max=message.log_e_max,
        looks=message.looks,
    )
