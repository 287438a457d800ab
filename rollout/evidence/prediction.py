"""Tests whether the candidate's scores depart from the shift that was approved.

A better model differs from production, so a difference alone is no fault.

- With an approved shift, the candidate's bin of each key is tested against the table of the shift,
  given production's bin of the same row.
- Without an approved shift, a difference holds the rollout, because no approval covers it.
  Only an output that is the same for all outputs of production is a fault, and two outputs that are
  swapped are.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos import rollout_pb2, window_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.key_sample import KeySample
from rollout.evidence.records import ArmRecords
from rollout.evidence.swapped_outputs import SwapTest, output_counts, swapped_outputs
from stats import departure
from stats.departure import DepartureState, Expectation, debiased_psi
from stats.tilt import log_add, log_sum

BINS_MAX = 64
"""Reference bins a window can carry, NaN and the infinities among them."""
CONSTANT_MAX = 0.8
"""Part of the keys with another production bin that may share one candidate bin ..."""
CONSTANT_BET = 0.99
"""... and the part of them that a constant output puts there, at least."""
WATCH_CHANCE_SDS = 3.0
"""Standard deviations of chance by which the effect in the watch must exceed its bound."""
UNAPPROVED_KEYS_MIN = 50
UNAPPROVED_PART_MAX = 0.05
"""Part of the keys that may fall into another bin than production's without an approval."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ScoreDifference:
    """A population stability index, and the bound from which it matters."""

    psi: float
    bound: float

    @property
    def exceeds_bound(self) -> bool:
        """Whether the difference matters; False if the index is NaN."""
        return self.psi >= self.bound


class PredictionEvidence:
    """The first score of each key of the candidate, over the whole rollout."""

    def __init__(
        self, shift: ApprovedShift | None, psi_min: float, keys_max: int, looks_max: int
    ) -> None:
        self.shift = shift
        self._psi_min = psi_min
        self._looks_max = looks_max
        self.candidate_keys = KeySample(keys_max)
        self.standby_keys = KeySample(keys_max)
        """Keys of the standby, while the candidate is watched as production."""
        self.expectation: Expectation | None = None
        self.paired_counts = np.zeros((2, BINS_MAX), dtype=np.int64)
        """(2, 64) keys by the candidate's bin, and the same keys by production's bin."""
        self.same_bin_count = np.zeros(1, dtype=np.int64)
        """(1,) how many of them fell into production's bin."""
        self.watch_counts = np.zeros((2, BINS_MAX), dtype=np.int64)
        """(2, 64) keys of the watch: the candidate's by bin, and the standby's, carried through the
        table."""
        self.shadow_counts = np.zeros((BINS_MAX, BINS_MAX), dtype=np.int64)
        """(64, 64) pairs of a shadow: by production's bin, then by the candidate's bin."""
        self.constant_state = np.zeros((2, BINS_MAX), dtype=np.float64)
        """(2, 64): ln S of "constant at this bin" with late onset; the prior spent, in [1, 0]."""
        self.constant_state[0] = -math.inf
        self.swap_test = SwapTest(looks_max)
        self.departure_state = DepartureState(np.zeros(0))
        self.enter_stage()
        if self.expectation is not None:
            self.departure_state = departure.start_departure(self.expectation)

    def enter_stage(self) -> None:
        """Compute the expectation anew with the shadow's pairs so far."""
        if self.shift is not None:
            bins = len(self.shift.counts)
            self.expectation = self.shift.with_shadow_pairs(self.shadow_counts[:bins, :bins])

    def add_shadow_pairs(self, joint: Counts) -> None:
        """Add (64, 64) int64 pairs of a shadow, by production's bin, then by the shadow's bin."""
        self.shadow_counts += joint

    def learn_outputs(self, windows: Iterable[window_pb2.Window]) -> None:
        """Note where the score bins of each output begin, as the gateways say."""
        for window in windows:
            self.swap_test.learn_outputs(window.output_bins)

    def count_scores(self, candidate: ArmRecords) -> None:
        """Count one second of a canary: each key's first score, paired with production's score."""
        self.learn_outputs(candidate.windows)
        fresh = self.candidate_keys.uncounted(candidate.scored_keys)
        self.candidate_keys.add_keys(fresh)
        scores = candidate.scores().select_keys(fresh)
        size = self.expectation.bins if self.expectation is not None else BINS_MAX - 3
        width = size if self.expectation is not None else BINS_MAX
        # Pair the bins. Scores that are not finite, or whose features were missing, have bins
        # beyond the last and are left out.
        both: list[int] = []
        same: list[int] = []
        joint: list[int] = []
        for canary_bin, production_bin in zip(
            scores.bins, scores.production_bins or (), strict=False
        ):
            if canary_bin < size and production_bin < size:
                both += (canary_bin, width + production_bin)
                joint.append(production_bin * BINS_MAX + canary_bin)
                if canary_bin == production_bin:
                    same.append(canary_bin)
        counts = _bincount(both, 2 * width).reshape(2, width)
        self.paired_counts[:, :width] += counts
        self.same_bin_count += len(same)
        # Update the test that applies.
        if self.expectation is None:
            self._test_constant(counts[0] - _bincount(same, width), len(both) // 2 - counts[1])
            self.swap_test.count(_bincount(joint, BINS_MAX**2).reshape(BINS_MAX, BINS_MAX))
        elif both:
            gains = self.expectation.gains(counts)
            self.departure_state = departure.step_departure(
                self.expectation, self.departure_state, gains, self._looks_max
            )
        else:
            self.departure_state = departure.idle_departure(self.departure_state)

    def count_watch_scores(self, candidate: ArmRecords, standby: ArmRecords, share: float) -> None:
        """Count one second of the watch, where the arms have different rows.

        The standby's bins are carried through the table, and two samples are compared.
        """
        if self.expectation is None:
            return
        fresh = self.candidate_keys.uncounted(candidate.scored_keys)
        self.candidate_keys.add_keys(fresh)
        fresh_standby = self.standby_keys.uncounted(standby.scored_keys) - fresh
        self.standby_keys.add_keys(fresh_standby)
        size = self.expectation.bins
        # The candidate's bins, and the standby's bins after the table.
        scores = candidate.scores().select_keys(fresh)
        standby_scores = standby.scores().select_keys(fresh_standby)
        candidate_bins = [score_bin for score_bin in scores.bins if score_bin < size]
        bins = np.array(standby_scores.bins, dtype=np.int64)
        known = bins < size
        keys = np.array(standby_scores.keys, dtype=np.uint64)
        carried = self.expectation.carry_through_table(bins[known], keys[known])
        both = np.stack(
            [_bincount(candidate_bins, BINS_MAX), np.bincount(carried, minlength=BINS_MAX)]
        )
        self.watch_counts += both
        gains = self.expectation.two_sample_gains(both[0, :size], both[1, :size], share)
        self.departure_state = departure.step_departure(
            self.expectation, self.departure_state, gains, self._looks_max
        )

    def _test_constant(self, hits: Counts, keys: Counts) -> None:
        """Test for each bin whether the candidate gives it whatever production says.

        hits  (64,) keys that the candidate puts into the bin and production does not.
        keys  (64,) keys that production puts into another bin.
        """
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
        """Ln E of "one bin is given whatever production says", without a shift; no maximum."""
        log_mean = log_sum(self.constant_state[0].tolist()) - math.log(BINS_MAX)
        left = 1.0 - self.constant_state[1, 0]
        return log_add(log_mean, math.log(left)) if left > 0.0 else log_mean

    @property
    def log_e_unapproved(self) -> float:
        """Ln E without a shift: the mean of both tests if there are several outputs."""
        constant = self.log_e_constant
        if not self.swap_test.output_bins:
            return constant
        return log_add(constant, self.swap_test.log_e) - math.log(2.0)

    @property
    def log_e_max(self) -> float:
        """Ln E that rolls back: of a departure or, without a shift, of a fault of the outputs."""
        return self.log_e_unapproved if self.expectation is None else self.departure_state.log_e_max

    @property
    def unapproved_fault(self) -> str:
        """What the larger of both tests without a shift says."""
        if self.swap_test.output_bins and self.swap_test.log_e > self.log_e_constant:
            return "two outputs of the candidate are swapped"
        return "the candidate says the same whatever production says"

    def swapped_reason(self, names: Sequence[str]) -> str:
        """Return which outputs of a shadow are swapped; empty if none are.

        names  of the outputs, as far as they are known.
        """
        bins = self.swap_test.output_bins
        if not bins:
            return ""
        # Swaps that the approver has accepted are none.
        counts = output_counts(self.shadow_counts, bins)
        swaps = swapped_outputs(counts)
        if self.shift is not None and bins[-1] < len(self.shift.counts):
            approved = swapped_outputs(output_counts(self.shift.counts, bins))
            swaps = [swap for swap in swaps if swap not in approved]
        if not swaps:
            return ""
        p, q = swaps[0]
        first, second = (
            f"{names[output]!r}" if output < len(names) else f"number {output + 1}"
            for output in (p, q)
        )
        return (
            f"the shadow's outputs {first} and {second} are swapped: where production predicts "
            f"{first}, it predicts {second} on {counts[p, q]} rows and {first} on {counts[p, p]}, "
            "and the other way round. Mend the order of its outputs; if production's is the wrong "
            "one, certify the version against it"
        )

    @property
    def compared_keys(self) -> int:
        """Keys of the candidate whose scores were compared."""
        return int(self.paired_counts[0].sum())

    def score_difference(self) -> ScoreDifference:
        """Return the departure from the shift or, without a shift, from production's scores."""
        if self.expectation is not None:
            size = self.expectation.bins
            effect = departure.departure_effect(self.expectation, *self.paired_counts[:, :size])
            paired = ScoreDifference(effect.psi, self._psi_min + effect.table_error)
            watched = self._watch_difference(size)
            return watched if watched.exceeds_bound and not paired.exceeds_bound else paired
        if self.compared_keys < UNAPPROVED_KEYS_MIN:
            return ScoreDifference(math.nan, self._psi_min)
        used = self.paired_counts.any(axis=0)
        psi = debiased_psi(*self.paired_counts[:, used])
        return ScoreDifference(psi, self._psi_min)

    def _watch_difference(self, size: int) -> ScoreDifference:
        """Return the difference of the watch's two samples. Its bound allows for chance."""
        keys, standby_keys = self.watch_counts.sum(axis=1).tolist()
        if not keys or not standby_keys:
            return ScoreDifference(math.nan, self._psi_min)
        chance = WATCH_CHANCE_SDS * math.sqrt(2.0 * (size - 1)) * (1.0 / keys + 1.0 / standby_keys)
        return ScoreDifference(debiased_psi(*self.watch_counts[:, :size]), self._psi_min + chance)

    @property
    def may_roll_back(self) -> bool:
        """Whether the difference is large enough to roll back."""
        return self.expectation is None or self.score_difference().exceeds_bound

    @property
    def shift_text(self) -> str:
        """The approved shift in words; empty if none was approved."""
        if self.shift is None or self.expectation is None:
            return ""
        held_out, rows = int(self.shift.counts.sum()), int(self.expectation.counts.sum())
        pairs = f" and {rows - held_out:,} pairs of the shadow" if rows > held_out else ""
        return (
            f"the approved shift {self.shift.digest[:12]}: {held_out:,} held-out rows{pairs}, "
            f"{self.shift.flip_rate:.1%} of decisions differ"
        )

    @property
    def unapproved_reason(self) -> str:
        """Why an unapproved difference must be held; empty if it need not be."""
        if self.expectation is not None:
            return ""
        difference, keys = self.score_difference(), self.compared_keys
        moved = keys - int(self.same_bin_count[0])
        too_many = keys >= UNAPPROVED_KEYS_MIN and moved > UNAPPROVED_PART_MAX * keys
        if not difference.exceeds_bound and not too_many:
            return ""
        return (
            f"{moved} of {keys} keys fall into another bin of scores than production's "
            f"(PSI {difference.psi:.3f}) and no approval covers a difference: certify the version "
            "against this production (turnout versions certify), approve its shift and roll that "
            "version out, or promote by hand"
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
            output_bins=self.swap_test.output_bins,
            swapped_log_s=self.swap_test.log_s.tolist(),
            swapped_prior_spent=self.swap_test.prior_spent,
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
        if message.output_bins:
            evidence.swap_test.learn_outputs(message.output_bins)
            evidence.swap_test.log_s = np.array(message.swapped_log_s, dtype=np.float64)
            evidence.swap_test.prior_spent = message.swapped_prior_spent
        return evidence


def _histograms(counts: Iterable[int], rows: int) -> Counts:
    """(rows, 64) counts of a message."""
    return np.array(counts, dtype=np.int64).reshape(rows, BINS_MAX)


def _bincount(bins: list[int], minlength: int) -> Counts:
    return np.bincount(np.array(bins, dtype=np.int64), minlength=minlength)
