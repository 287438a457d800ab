"""The parity certificate: scikit-learn and ONNX say the same, on real rows and on the edges."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIFFERENCE_MAX = 1e-5


@dataclass(frozen=True, slots=True)
class ParityCertificate:
    """What was compared and how far apart the two were.

    difference_max   largest |dp|; infinite when one side is NaN and the other is not.
    rows_over_limit       rows beyond the allowed difference.
    decisions_changed  rows decided differently at the threshold; a score within the allowed
                     difference of the threshold itself may be.
    worst_row        index of the worst row: held-out rows first, then edge rows.
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
        """Whether no row is further apart than allowed."""
        return self.rows_over_limit == 0

    def definition(self) -> dict[str, Any]:
        """Return JSON values, as the card holds them; an infinite difference is null."""
        return {
            "held_out_rows": self.held_out_rows,
            "edge_rows": self.edge_rows,
            "difference_allowed": self.difference_allowed,
            "difference_max": self.difference_max if np.isfinite(self.difference_max) else None,
            "rows_over_limit": self.rows_over_limit,
            "decisions_changed": self.decisions_changed,
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
    """Compare P(positive) row by row.

    fitted         (N,) by scikit-learn.
    converted      (N,) by ONNX Runtime, the same rows.
    held_out_rows  how many of the N, from the start, are held-out; the rest are edge rows.
    """
    apart = np.abs(fitted - converted)
    apart[np.isnan(fitted) & np.isnan(converted)] = 0.0
    apart[np.isnan(apart)] = np.inf
    worst = int(np.argmax(apart))
    return ParityCertificate(
        held_out_rows=held_out_rows,
        edge_rows=len(fitted) - held_out_rows,
        difference_allowed=difference_allowed,
        difference_max=float(apart[worst]),
        rows_over_limit=int((apart > difference_allowed).sum()),
        decisions_changed=int(((fitted >= threshold) != (converted >= threshold)).sum()),
        worst_row=worst,
    )
