"""The expected shift: how the candidate's scores differ from the champion's on held-out rows.

The approver accepts it by its digest, and with it sections of the card: the shift has a digest of
each. In a rollout, prediction evidence tests for a departure from
this shift, not for a difference from production, because a better model is different.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from training.artifacts.reference import bin_indices

ACCEPTED_SECTIONS = ("data", "fairness", "gate", "joined", "metrics")
"""The sections of a card that an approver accepts together with the expected shift."""


@dataclass(frozen=True, eq=False)
class ExpectedShift:
    """Counts of rows by the champion's and the candidate's score bin, on the champion's edges.

    champion         the champion's version id (hex).
    edges            (J - 1,) float32, the champion's score edges.
    table            (J, J) int64: first index the champion's bin, second the candidate's bin.
    flips            rows with another decision, each version at its own threshold.
    to_positive      flips to a positive decision.
    mean_difference  mean of candidate - champion.
    sections         section of the card -> its SHA-256 (hex). Empty in cards of drills and in older
                     cards, so their digests stay as they are.
    """

    champion: str
    edges: NDArray[np.float32]
    table: NDArray[np.int64]
    flips: int
    to_positive: int
    mean_difference: float
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
        return {
            "champion": self.champion,
            "rows": self.rows,
            "edges": self.edges.tolist(),
            "table": self.table.tolist(),
            "flips": self.flips,
            "to_positive": self.to_positive,
            "flip_rate": self.flip_rate,
            "mean_difference": self.mean_difference,
            "psi": self.psi,
            **({"sections": dict(self.sections)} if self.sections else {}),
        }


def section_digests(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return section -> SHA-256 (hex) of its canonical JSON, for what an approver accepts.

    facts  the card, with each of these sections.

    The registry computes the same again before it takes an approval.
    """
    return {name: sha256_hex(canonical_json(facts[name])) for name in ACCEPTED_SECTIONS}


def shift_without_champion(sections: Mapping[str, str]) -> dict[str, Any]:
    """Return what a card has in place of a shift when there is no champion: sections, digest."""
    definition = {"champion": None, "sections": dict(sections)}
    return {**definition, "digest": sha256_hex(canonical_json(definition))}


def expected_shift(
    champion_scores: NDArray[np.float32],
    candidate_scores: NDArray[np.float32],
    *,
    champion: str,
    edges: NDArray[np.float32],
    champion_threshold: float,
    candidate_threshold: float,
) -> ExpectedShift:
    """Return the shift between the finite scores, (N,) each, of two versions for the same rows."""
    size = len(edges) + 1
    joint = bin_indices(champion_scores, edges) * size + bin_indices(candidate_scores, edges)
    before, after = champion_scores >= champion_threshold, candidate_scores >= candidate_threshold
    difference = candidate_scores.astype(np.float64) - champion_scores.astype(np.float64)
    return ExpectedShift(
        champion=champion,
        edges=edges,
        table=np.bincount(joint, minlength=size * size).reshape(size, size).astype(np.int64),
        flips=int((before != after).sum()),
        to_positive=int((after & ~before).sum()),
        mean_difference=float(difference.mean()),
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
