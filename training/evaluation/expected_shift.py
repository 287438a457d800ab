"""What will change: the candidate's scores beside the champion's on the same held-out rows.

The approver accepts this by its digest; prediction evidence fires on departure from it, not on a
difference from production, because a better model differs.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from training.artifacts.reference import bin_indices


@dataclass(frozen=True, eq=False)
class ExpectedShift:
    """Champion -> candidate, on the champion's score bins.

    champion         the champion's id (hex).
    edges            (J - 1,) the champion's score edges.
    table            (J, J) int64: rows by champion's bin, columns by candidate's bin.
    flips            rows decided differently, each version at its own threshold.
    mean_difference  of candidate - champion.
    """

    champion: str
    edges: NDArray[np.float32]
    table: NDArray[np.int64]
    flips: int
    to_positive: int
    mean_difference: float

    @property
    def rows(self) -> int:
        """How many rows both versions scored."""
        return int(self.table.sum())

    @property
    def flip_rate(self) -> float:
        """Share of rows decided differently."""
        return self.flips / self.rows

    @property
    def psi(self) -> float:
        """Population stability index of the two score distributions, as the table has them."""
        return population_stability(self.table.sum(axis=1), self.table.sum(axis=0))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical definition: what an approval names as accepted."""
        return sha256_hex(canonical_json(self._definition()))

    def definition(self) -> dict[str, Any]:
        """Return JSON values, as the card holds them, digest included."""
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
        }


def expected_shift(
    champion_scores: NDArray[np.float32],
    candidate_scores: NDArray[np.float32],
    *,
    champion: str,
    edges: NDArray[np.float32],
    champion_threshold: float,
    candidate_threshold: float,
) -> ExpectedShift:
    """Return the shift from two (N,) finite score columns of the same rows."""
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
    """PSI of two count vectors (J,), half a row added to each bin so that an empty one is finite.

    Both count the same rows, so chance is not taken off (stats.psi does, for two samples).
    """
    p = (before + 0.5) / (before.sum() + 0.5 * len(before))
    q = (after + 0.5) / (after.sum() + 0.5 * len(after))
    return float(((q - p) * np.log(q / p)).sum())
