"""What the model says: whether it departs from the shift that was approved.

A better model differs, so difference from production is no fault. With an approved shift the
candidate's bin of each key, given production's bin of the same row, is tested against the table.
Without one, any difference is nobody's approval and holds; only an output that is the same
whatever production says is a fault by itself.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos import rollout_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.key_sample import KeySample
from rollout.evidence.records import ArmRecords
from stats import departure
from stats.departure import DepartureState, Expectation
from stats.psi import debiased_psi
from stats.tilt import log_add, log_sum

BINS_MAX = 64
"""Reference bins a window can carry, NaN and the infinities among them."""
CONSTANT_MAX = 0.8
"""Of keys whose production bin is another one, at most this many may share one bin ..."""
CONSTANT_BET = 0.99
"""... and an output that is constant puts at least this many there."""
WATCH_CHANCE_SDS = 3.0
"""Standard deviations of chance that the watch's effect must exceed its bound by."""
UNAPPROVED_KEYS_MIN = 50
UNAPPROVED_PART_MAX = 0.05
"""Part of the keys that may fall into another bin than production's without approval."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ScoreDifference:
    """How large, and whether it is large enough to act on."""

    psi: float
    bound: float

    @property
    def exceeds_bound(self) -> bool:
        """Whether it counts; False when nothing was seen."""
        return self.psi >= self.bound


class PredictionEvidence:
    """First scores of the candidate's keys, over the whole rollout."""

    def __init__(
        self, shift: ApprovedShift | None, psi_min: float, keys_max: int, looks_max: int
    ) -> None:
        self.shift = shift
        self._psi_min = psi_min
        self._looks_max = looks_max
        self.candidate_keys = KeySample(keys_max)
        self.standby_keys = KeySample(keys_max)
        """The standby's keys, while the candidate is watched as production."""
        self.expectation: Expectation | None = None
        self.paired_counts = np.zeros((2, BINS_MAX), dtype=np.int64)
        """First-score keys by the candidate's bin; the same keys by production's bin."""
        self.same_bin_count = np.zeros(1, dtype=np.int64)
        """Of them, how many fell into production's bin."""
        self.watch_counts = np.zeros((2, BINS_MAX), dtype=np.int64)
        """Of the watch: the candidate's keys by bin; the standby's, carried through the table."""
        self.shadow_counts = np.zeros((BINS_MAX, BINS_MAX), dtype=np.int64)
        """A shadow's pairs: by production's bin, then by the candidate's."""
        self.constant_state = np.zeros((2, BINS_MAX), dtype=np.float64)
        """ln S of "constant at this bin", with late onset; the prior spent (first of its row)."""
        self.constant_state[0] = -math.inf
        self.departure_state = DepartureState(np.zeros(0))
        self.enter_stage()
        if self.expectation is not None:
            self.departure_state = departure.start_departure(self.expectation)

    def enter_stage(self) -> None:
        """Refresh what is expected by the shadow's pairs so far."""
        if self.shift is not None:
            bins = len(self.shift.counts)
            self.expectation = self.shift.with_shadow_pairs(self.shadow_counts[:bins, :bins])

    def add_shadow_pairs(self, joint: Counts) -> None:
        """Add a shadow's (64, 64) pairs."""
        self.shadow_counts += joint

    def count_scores(self, candidate: ArmRecords) -> None:
        """Count one second of a canary: each key's first score, paired with production's."""
        fresh = self.candidate_keys.uncounted(candidate.scored_keys)
        self.candidate_keys.add_keys(fresh)
        scores = candidate.scores().select_keys(fresh)
        size = self.expectation.bins if self.expectation is not None else BINS_MAX - 3
        width = size if self.expectation is not None else BINS_MAX
        both: list[int] = []
        same: list[int] = []
        for mine, theirs in zip(scores.bins, scores.production_bins or (), strict=False):
            if mine < size and theirs < size:
                both += (mine, width + theirs)
                if mine == theirs:
                    same.append(mine)
        counts = _bincount(both, 2 * width).reshape(2, width)
        self.paired_counts[:, :width] += counts
        self.same_bin_count += len(same)
        if self.expectation is None:
            self._test_constant(counts[0] - _bincount(same, width), len(both) // 2 - counts[1])
        elif both:
            gains = self.expectation.gains(counts)
            self.departure_state = departure.step_departure(
                self.expectation, self.departure_state, gains, self._looks_max
            )
        else:
            self.departure_state = departure.idle_departure(self.departure_state)

    def count_watch_scores(self, candidate: ArmRecords, standby: ArmRecords, share: float) -> None:
        """Count one second of the watch: two samples, the standby's carried through the table."""
        if self.expectation is None:
            return
        fresh = self.candidate_keys.uncounted(candidate.scored_keys)
        self.candidate_keys.add_keys(fresh)
        others = self.standby_keys.uncounted(standby.scored_keys) - fresh
        self.standby_keys.add_keys(others)
        size = self.expectation.bins
        mine, theirs = candidate.scores().select_keys(fresh), standby.scores().select_keys(others)
        bins = np.array(theirs.bins, dtype=np.int64)
        known = bins < size
        keys = np.array(theirs.keys, dtype=np.uint64)
        drawn = self.expectation.carry_through_table(bins[known], keys[known])
        ours = [one for one in mine.bins if one < size]
        both = np.stack([_bincount(ours, BINS_MAX), np.bincount(drawn, minlength=BINS_MAX)])
        self.watch_counts += both
        gains = self.expectation.two_sample_gains(both[0, :size], both[1, :size], share)
        self.departure_state = departure.step_departure(
            self.expectation, self.departure_state, gains, self._looks_max
        )

    def _test_constant(self, hits: Counts, keys: Counts) -> None:
        """Look once at each bin: *hits* of *told* keys that production puts elsewhere."""
        spent = self.constant_state[1, 0]
        prior = min(0.5 if spent == 0.0 else 0.5 / self._looks_max, 1.0 - spent)
        log_prior = math.log(prior) if prior > 0.0 else -math.inf
        gain = hits * math.log(CONSTANT_BET / CONSTANT_MAX) + (keys - hits) * math.log(
            (1 - CONSTANT_BET) / (1 - CONSTANT_MAX)
        )
        self.constant_state[0] = np.logaddexp(self.constant_state[0], log_prior) + gain
        self.constant_state[1, 0] = spent + prior

    @property
    def log_e_constant(self) -> float:
        """Ln E, without a shift: a bin is given whatever production says. Not a running maximum."""
        log_mean = log_sum(self.constant_state[0].tolist()) - math.log(BINS_MAX)
        left = 1.0 - self.constant_state[1, 0]
        return log_add(log_mean, math.log(left)) if left > 0.0 else log_mean

    @property
    def log_e_max(self) -> float:
        """Ln E that rolls back: departure from the shift, or without one, a constant output."""
        return self.log_e_constant if self.expectation is None else self.departure_state.log_e_max

    @property
    def compared_keys(self) -> int:
        """Keys of the candidate that were compared."""
        return int(self.paired_counts[0].sum())

    def score_difference(self) -> ScoreDifference:
        """Return the effect: departure from the shift; without one, from production itself."""
        if self.expectation is not None:
            size = self.expectation.bins
            found = departure.departure_effect(self.expectation, *self.paired_counts[:, :size])
            paired = ScoreDifference(found.psi, self._psi_min + found.table_error)
            watched = self._watch_difference(size)
            return watched if watched.exceeds_bound and not paired.exceeds_bound else paired
        if self.compared_keys < UNAPPROVED_KEYS_MIN:
            return ScoreDifference(math.nan, self._psi_min)
        used = self.paired_counts.any(axis=0)
        psi = debiased_psi(*self.paired_counts[:, used])
        return ScoreDifference(psi, self._psi_min)

    def _watch_difference(self, size: int) -> ScoreDifference:
        """The watch's own: two samples, and what chance may have added to their difference."""
        mine, theirs = self.watch_counts.sum(axis=1).tolist()
        if not mine or not theirs:
            return ScoreDifference(math.nan, self._psi_min)
        chance = WATCH_CHANCE_SDS * math.sqrt(2.0 * (size - 1)) * (1.0 / mine + 1.0 / theirs)
        return ScoreDifference(debiased_psi(*self.watch_counts[:, :size]), self._psi_min + chance)

    @property
    def may_roll_back(self) -> bool:
        """Whether the effect is one that may roll back."""
        return self.expectation is None or self.score_difference().exceeds_bound

    @property
    def shift_text(self) -> str:
        """What the candidate is held to; empty: to production's own scores."""
        if self.shift is None or self.expectation is None:
            return ""
        certified, used = int(self.shift.counts.sum()), int(self.expectation.counts.sum())
        live = f" and {used - certified:,} pairs of the shadow" if used > certified else ""
        return (
            f"the approved shift {self.shift.digest[:12]}: {certified:,} held-out rows{live}, "
            f"{self.shift.flip_rate:.1%} of decisions differ"
        )

    @property
    def unapproved_reason(self) -> str:
        """Why it must be held; empty: nothing to hold for."""
        if self.expectation is not None:
            return ""
        found = self.score_difference()
        moved = self.compared_keys - int(self.same_bin_count[0])
        if not found.exceeds_bound and not moved > UNAPPROVED_PART_MAX * self.compared_keys >= (
            UNAPPROVED_PART_MAX * UNAPPROVED_KEYS_MIN
        ):
            return ""
        return (
            f"{moved} of {self.compared_keys} keys fall into another bin of scores than "
            "production's (PSI "
            f"{found.psi:.3f}) and nobody approved a difference: certify the version "
            "against this production and approve its shift, or promote by hand"
        )

    def to_proto(self) -> rollout_pb2.PredictionState:
        """Return histograms, samples and tests for a checkpoint."""
        departure_state, expectation = self.departure_state, self.expectation
        return rollout_pb2.PredictionState(
            candidate_keys=self.candidate_keys.to_proto(),
            standby_keys=self.standby_keys.to_proto(),
            paired_counts=self.paired_counts.reshape(-1).tolist(),
            same_bin_count=int(self.same_bin_count[0]),
            watch_counts=self.watch_counts.reshape(-1).tolist(),
            shadow_counts=self.shadow_counts.reshape(-1).tolist(),
            expected_counts=() if expectation is None else expectation.counts.reshape(-1).tolist(),
            departure=rollout_pb2.EProcessState(
                log_s=departure_state.log_s.tolist(),
                prior_spent=departure_state.prior_spent,
                log_e=departure_state.log_e,
                log_e_max=departure_state.log_e_max,
                looks=departure_state.looks,
            ),
            constant_log_s=self.constant_state[0].tolist(),
            constant_prior_spent=float(self.constant_state[1, 0]),
        )

    @staticmethod
    def from_proto(
        message: rollout_pb2.PredictionState,
        shift: ApprovedShift | None,
        psi_min: float,
        keys_max: int,
        looks_max: int,
    ) -> "PredictionEvidence":
        """Restore the evidence; the other arguments come from the approval and the policy."""
        evidence = PredictionEvidence(shift, psi_min, keys_max, looks_max)
        evidence.candidate_keys = KeySample.from_proto(message.candidate_keys, keys_max)
        evidence.standby_keys = KeySample.from_proto(message.standby_keys, keys_max)
        evidence.paired_counts = _histograms(message.paired_counts, 2)
        evidence.same_bin_count = np.array([message.same_bin_count], dtype=np.int64)
        evidence.watch_counts = _histograms(message.watch_counts, 2)
        evidence.shadow_counts = _histograms(message.shadow_counts, BINS_MAX)
        # The shadow's pairs since the stage began are not in the expectation yet, so it is
        # restored as it was, not made anew from the shift.
        if message.expected_counts:
            bins = math.isqrt(len(message.expected_counts))
            expected = np.array(message.expected_counts, dtype=np.int64)
            evidence.expectation = Expectation(expected.reshape(bins, bins))
        departed = message.departure
        evidence.departure_state = DepartureState(
            log_s=np.array(departed.log_s, dtype=np.float64),
            prior_spent=departed.prior_spent,
            log_e=departed.log_e,
            log_e_max=departed.log_e_max,
            looks=departed.looks,
        )
        evidence.constant_state[0] = message.constant_log_s
        evidence.constant_state[1, 0] = message.constant_prior_spent
        return evidence


def _histograms(counts: Iterable[int], rows: int) -> Counts:
    """(rows, 64) counts of a message."""
    return np.array(counts, dtype=np.int64).reshape(rows, BINS_MAX)


def _bincount(bins: list[int], minlength: int) -> Counts:
    return np.bincount(np.array(bins, dtype=np.int64), minlength=minlength)
