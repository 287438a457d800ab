"""The expected shift: how the candidate's scores differ from the champion's on held-out rows.

The approver accepts it by its digest, and with it sections of the card: the shift has a digest of
each. In a rollout, prediction evidence tests for a departure from
this shift, not for a difference from production, because a better model is different.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from stats.score_scale import ScoreScale

ACCEPTED_SECTIONS = ("data", "fairness", "gate", "joined", "metrics")
"""The sections of a card that an approver accepts together with the expected shift."""


@dataclass(frozen=True, eq=False)
class ExpectedShift:
    """Counts of rows by the champion's and the candidate's score bin, on the champion's scale.

    champion          the champion's version id (hex).
    scale             the champion's scale of scores.
    table             (J, J) int64: first index the champion's bin, second the candidate's bin.
    flips             rows with another decision, each version at its own threshold.
    to_positive       flips to a positive decision, where a decision is at a threshold.
    mean_differences  (K,) mean of candidate - champion of each output.
    mean_distance     mean distance, in spreads.
    sections          section of the card -> its SHA-256 (hex). Empty in cards of drills and in
                      older cards, so their digests stay as they are.
    """

    champion: str
    scale: ScoreScale
    table: NDArray[np.int64]
    flips: int
    to_positive: int
    mean_differences: tuple[float, ...]
    mean_distance: float
    sections: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows that both versions scored."""
        return int(self.table.sum())

    @property
    def flip_rate(self) -> float:
        """Share of rows with another decision."""
        return self.flips / self.rows

    @property
    def psi(self) -> float:
        """Population stability index between the two distributions of scores over the bins."""
        return population_stability(self.table.sum(axis=1), self.table.sum(axis=0))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical definition, by which an approval accepts the shift."""
        return sha256_hex(canonical_json(self._definition()))

    def definition(self) -> dict[str, Any]:
        """Return the shift with its digest as JSON values for the card."""
        return {**self._definition(), "digest": self.digest}

    def _definition(self) -> dict[str, Any]:
        outputs, edges = self.scale.outputs, [column.tolist() for column in self.scale.edges]
        definition = {
            "champion": self.champion,
            "rows": self.rows,
            "edges": edges[0] if len(edges) == 1 else edges,
            "table": self.table.tolist(),
            "flips": self.flips,
            "to_positive": self.to_positive,
            "flip_rate": self.flip_rate,
            "mean_difference": self.mean_differences[0],
            "psi": self.psi,
            **({"sections": dict(self.sections)} if self.sections else {}),
        }
        # One probability needs no more, so older digests stay.
        if self.scale.task == "binary" and len(outputs) == 1:
            return definition
        # A decision at no threshold has no positive side, and each output has its own difference.
        del definition["to_positive"], definition["mean_difference"]
        return {
            **definition,
            "task": self.scale.task,
            "mean_distance_in_spreads": self.mean_distance,
            "mean_difference": {
                output.name: {"difference": difference, "spread": output.spread}
                for output, difference in zip(outputs, self.mean_differences, strict=True)
            },
        }


def section_digests(
    facts: Mapping[str, Any], sections: Sequence[str] = ACCEPTED_SECTIONS
) -> dict[str, str]:
    """Return section -> SHA-256 (hex) of its canonical JSON, for *sections* of a card's *facts*.

    The registry computes the same again before it takes an approval.
    """
    return {name: sha256_hex(canonical_json(facts[name])) for name in sections}


def shift_without_champion(sections: Mapping[str, str]) -> dict[str, Any]:
    """Return what a card has in place of a shift when there is no champion: sections, digest."""
    definition = {"champion": None, "sections": dict(sections)}
    return {**definition, "digest": sha256_hex(canonical_json(definition))}


def expected_shift(
    champion_scores: NDArray[np.float32],
    candidate_scores: NDArray[np.float32],
    *,
    champion: str,
    scale: ScoreScale,
    candidate_threshold: float,
    row_offsets: NDArray[np.uint32] | None = None,
) -> ExpectedShift:
    """Return the shift between the finite scores, (N, K) each, of two versions for the same rows.

    scale        the champion's.
    row_offsets  where the rows of each call begin, for a ranking; None: all are of one call.
    """
    size = scale.size
    joint = scale.bins(champion_scores) * size + scale.bins(candidate_scores)
    # Decisions, each version at its own threshold.
    flips = scale.flips(
        candidate_scores,
        champion_scores,
        row_offsets,
        threshold=candidate_threshold,
        others_threshold=scale.threshold,
    )
    positive = candidate_scores[:, 0] >= candidate_threshold
    # Differences, and distances over all outputs.
    difference = candidate_scores.astype(np.float64) - champion_scores.astype(np.float64)
    return ExpectedShift(
        champion=champion,
        scale=scale,
        table=np.bincount(joint, minlength=size * size).reshape(size, size).astype(np.int64),
        flips=int(np.count_nonzero(flips)),
        to_positive=int(np.count_nonzero(flips & positive)),
        mean_differences=tuple(difference.mean(axis=0).tolist()),
        mean_distance=float(scale.distances(candidate_scores, champion_scores).mean()),
    )


def population_stability(before: NDArray[np.int64], after: NDArray[np.int64]) -> float:
    """Return the population stability index of two vectors of counts, (J,).

    Half a row is added to each bin, so that an empty bin gives a finite value. Both vectors count
    the same rows, so there is no correction for sampling, unlike in
    stats.departure.debiased_psi.
    """
    p = (before + 0.5) / (before.sum() + 0.5 * len(before))
    q = (after + 0.5) / (after.sum() + 0.5 * len(after))
    return float(((q - p) * np.log(q / p)).sum())
