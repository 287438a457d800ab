"""The parity certificate compares scikit-learn and ONNX on held-out rows and on edge rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIFFERENCE_MAX = 1e-5


@dataclass(frozen=True, slots=True)
class ParityCertificate:
    """The result of a comparison of two columns of probabilities.

    difference_max     largest difference; infinite if one side is NaN and the other is not.
    rows_over_limit    number of rows with more than the allowed difference.
    decisions_changed  number of rows with another decision at the threshold. Scores very near to
                       the threshold may change it within the allowed difference.
    worst_row          index of the row with the largest difference; held-out rows come first.
    """

    held_out_rows: int
    edge_rows: int
    difference_allowed: float
    difference_max: float
    rows_over_limit: int
    decisions_changed: int
    worst_row: int

    @property
    def passed(self) -> bool:
        """True if every row is within the allowed difference."""
        return self.rows_over_limit == 0

    def definition(self) -> dict[str, Any]:
        """Return the certificate as JSON values for the card. An infinite difference is null."""
        return {
            "held_out_rows": self.held_out_rows,
            "edge_rows": self.edge_rows,
            "difference_allowed": self.difference_allowed,
            "difference_max": self.difference_max if np.isfinite(self.difference_max) else None,
            # The keys are part of every card that was written, so they keep their names.
            "rows_apart": self.rows_over_limit,
            "decisions_apart": self.decisions_changed,
            "passed": self.passed,
        }


def certify_parity(
    fitted: NDArray[np.float64],
    converted: NDArray[np.float32],
    *,
    held_out_rows: int,
    threshold: float,
    difference_allowed: float = DIFFERENCE_MAX,
) -> ParityCertificate:
    """Compare P(positive) of the same rows by scikit-learn and by ONNX Runtime.

    fitted         (N,) by scikit-learn.
    converted      (N,) by ONNX Runtime.
    held_out_rows  number of held-out rows, which come first. The others are edge rows.
    threshold      decision threshold.
    """
    # NaN on both sides is equal, and NaN on one side is an infinite difference.
    differences = np.abs(fitted - converted)
    differences[np.isnan(fitted) & np.isnan(converted)] = 0.0
    differences[np.isnan(differences)] = np.inf
    worst = int(np.argmax(differences))
    return ParityCertificate(
        held_out_rows=held_out_rows,
        edge_rows=len(fitted) - held_out_rows,
        difference_allowed=difference_allowed,
        difference_max=float(differences[worst]),
        rows_over_limit=int((differences > difference_allowed).sum()),
        decisions_changed=int(((fitted >= threshold) != (converted >= threshold)).sum()),
        worst_row=worst,
    )
