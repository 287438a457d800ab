"""Counts rows that a shadow and production both scored, over one stage."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protos import rollout_pb2, window_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.policy.policy import ShadowStage
from stats.betting import Wealth, bet, log_e_above
from stats.departure import Expectation
from stats.score_scale import BINS_MAX, MOVED_PART

JOINT_STRIDE = 64
"""PairCounts.joint_index is production's bin * 64 + the shadow's bin."""
ALPHA = 0.01
"""Part of healthy shadows that the three tests together hold, at most."""
LIVE_RATE_RATIO_MAX = 1.5
"""A live rate may be this many times the approved rate ..."""
LIVE_RATE_ALLOWANCE = 0.01
"""... plus this much, because today's customers are not the held-out ones."""
LOG_THRESHOLD = -math.log(ALPHA / 3)


@dataclass(slots=True)
class OutputDifference:
    """The sum of |difference| of one output over all pairs, and its spread, in one unit."""

    spread: float
    absolute_sum: float = 0.0

    @property
    def in_spreads(self) -> float:
        """The sum in spreads."""
        return self.absolute_sum / self.spread


@dataclass(slots=True)
class ShadowPairs:
    """The pairs of one stage: counts, and a bet on how far scores differ (stats.betting)."""

    pairs: int = 0
    flips: int = 0
    faulty: int = 0
    bin_differs: int = 0
    """Pairs in `binned_pairs` whose bins differ."""
    binned_pairs: int = 0
    absolute_sum: float = 0.0
    """Sum of distances: the largest difference of an output, in its spread."""
    wealth: Wealth = field(default_factory=Wealth)
    task: str = ""
    """As in turnout.v1.PairCounts; empty: not known."""
    outputs: dict[str, OutputDifference] = field(default_factory=dict)
    """By the name of the output, in the order of the version."""

    def add_pairs(self, windows: list[window_pb2.Window], stage: ShadowStage | None) -> None:
        """Count the windows of one second of the shadow."""
        sums, pairs = [], 0
        for window in windows:
            self.pairs += window.pairs.pairs
            self.flips += window.pairs.flips
            self.faulty += window.pairs.faulty
            pairs += window.pairs.pairs
            sums.append(window.pairs.absolute_sum)
            self.task = self.task or window.pairs.task
            self._add_outputs(window.pairs.outputs)
            for index, count in zip(
                window.pairs.joint_index, window.pairs.joint_count, strict=False
            ):
                self.binned_pairs += count
                self.bin_differs += count if index // JOINT_STRIDE != index % JOINT_STRIDE else 0
        if pairs and stage is not None:
            absolute = math.fsum(sums)
            self.absolute_sum += absolute
            mean = min(max(absolute / pairs, 0.0), 1.0)
            self.wealth = bet(self.wealth, stage.difference_max, mean)

    def _add_outputs(self, outputs: Iterable[window_pb2.OutputDifference]) -> None:
        for output in outputs:
            # A version has as many names. More would be invented ones, which take memory.
            if output.name in self.outputs or len(self.outputs) < BINS_MAX:
                known = self.outputs.setdefault(output.name, OutputDifference(output.spread))
                known.absolute_sum += output.absolute_sum

    @property
    def flips_text(self) -> str:
        """What `flips` counts, for example "decisions differ"."""
        if self.task == "regression":
            return f"values moved by over {MOVED_PART:g} of their spread"
        return "decisions differ"

    @property
    def distance_text(self) -> str:
        """How far scores are from production's on average, with the unit of the worst output."""
        text = f"{self.absolute_sum / self.pairs:.3f}"
        if not self.outputs:
            return text
        worst = max(self.outputs, key=lambda name: self.outputs[name].in_spreads)
        output = self.outputs[worst]
        if output.spread != 1.0:
            mean = output.absolute_sum / self.pairs
            return (
                f"{text} of the reference's spread (output {worst!r}: {mean:,.6g} of "
                f"{output.spread:,.6g})"
            )
        return f"{text} (most in output {worst!r})" if len(self.outputs) > 1 else text

    def output_texts(self) -> list[str]:
        """Return a line about each output: how far it is from production's on average."""
        lines = []
        for name, output in self.outputs.items():
            mean = output.absolute_sum / max(self.pairs, 1)
            line = f"output {name!r}: {mean:,.6g} from production's on average"
            if output.spread != 1.0:
                line += f", {mean / output.spread:.2%} of its spread {output.spread:,.6g}"
            lines.append(line)
        return lines

    def hold_reasons(
        self, stage: ShadowStage, shift: ApprovedShift | None, expected: Expectation | None
    ) -> tuple[str, ...]:
        """Return why the shadow must be held: it differs by more than was approved.

        stage     the policy's limits for a shadow.
        shift     the approved shift; None: none was approved.
        expected  the expectation from the shift; None as above.
        """
        reasons = []
        # Decisions that differ: more than the policy allows, or than the approved shift says.
        flips_max = stage.flips_bp_max / 10_000
        if self.pairs >= stage.pairs_min and self.flips > flips_max * self.pairs:
            reasons.append(
                f"{self.flips / self.pairs:.1%} of {self.flips_text} from production's; the policy "
                f"allows {100 * flips_max:g} %"
            )
        elif shift is not None and self.pairs:
            allowed = min(LIVE_RATE_RATIO_MAX * shift.flip_rate + LIVE_RATE_ALLOWANCE, 0.99)
            if log_e_above(allowed, self.flips, self.pairs - self.flips) >= LOG_THRESHOLD:
                reasons.append(
                    f"{self.flips / self.pairs:.1%} of {self.flips_text} from production's; the "
                    f"approved shift says {shift.flip_rate:.1%}"
                )
        # Scores in another bin than production's: more than the approved shift says.
        if expected is not None and self.binned_pairs:
            same_bin = expected.counts.sum(axis=1) @ expected.table.diagonal()
            rate = float(1.0 - same_bin / expected.counts.sum())
            allowed = min(LIVE_RATE_RATIO_MAX * rate + LIVE_RATE_ALLOWANCE, 0.99)
            if (
                log_e_above(allowed, self.bin_differs, self.binned_pairs - self.bin_differs)
                >= LOG_THRESHOLD
            ):
                reasons.append(
                    f"{self.bin_differs / self.binned_pairs:.1%} of scores fall into another bin "
                    f"than production's; the approved shift says {rate:.1%}"
                )
        # Scores too far from production's on average.
        if self.wealth.log_e_max >= LOG_THRESHOLD:
            reasons.append(
                f"scores differ from production's by {self.distance_text} on average; the policy "
                f"allows {stage.difference_max:g}"
            )
        return tuple(reasons)

    def to_proto(self) -> rollout_pb2.ShadowPairsState:
        """Return counts, sums and wealth for a checkpoint."""
        return rollout_pb2.ShadowPairsState(
            pairs=self.pairs,
            flips=self.flips,
            faulty=self.faulty,
            bin_differs=self.bin_differs,
            binned_pairs=self.binned_pairs,
            absolute_sum=self.absolute_sum,
            task=self.task,
            outputs=[
                window_pb2.OutputDifference(
                    name=name, absolute_sum=output.absolute_sum, spread=output.spread
                )
                for name, output in self.outputs.items()
            ],
            wealth=rollout_pb2.WealthState(
                log_e=self.wealth.log_e,
                log_e_max=self.wealth.log_e_max,
                looks=self.wealth.looks,
                total=self.wealth.total,
                squares=self.wealth.squares,
            ),
        )

    @staticmethod
    def from_proto(message: rollout_pb2.ShadowPairsState) -> "ShadowPairs":
        """Restore the pairs of a stage."""
        wealth = message.wealth
        restored = ShadowPairs(
            pairs=message.pairs,
            flips=message.flips,
            faulty=message.faulty,
            bin_differs=message.bin_differs,
            binned_pairs=message.binned_pairs,
            absolute_sum=message.absolute_sum,
            wealth=Wealth(
                wealth.log_e, wealth.log_e_max, wealth.looks, wealth.total, wealth.squares
            ),
            task=message.task,
        )
        restored._add_outputs(message.outputs)
        return restored


def joint_counts(windows: list[window_pb2.Window]) -> NDArray[np.int64]:
    """Return (64, 64) int64 pairs by production's bin, then by the shadow's bin."""
    joint = np.zeros(JOINT_STRIDE * JOINT_STRIDE, dtype=np.int64)
    for window in windows:
        index = np.array(window.pairs.joint_index, dtype=np.int64)
        np.add.at(joint, index, np.array(window.pairs.joint_count, dtype=np.int64)[: len(index)])
    return joint.reshape(JOINT_STRIDE, JOINT_STRIDE)
