"""Are two groups treated alike? Rates with intervals, and a verdict that may be: too few rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import Estimate, Statistic, intervals

ROWS_MIN = 100
RATIO_BAND = (0.8, 1.25)
"""29 CFR 1607.4(D)'s four fifths, and its inverse."""


def compare_groups(
    member: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    scores: NDArray[np.float64],
    *,
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """Compare members of a group with all others; returns JSON values for the card.

    selection_rate_ratio  P(decided | member) / P(decided | other); the fair band is .8 to 1.25.
    tpr_gap               P(decided | member, positive) - P(decided | other, positive).
    verdict               "within band", "outside band" (its whole 95 % interval lies outside),
                          "undecided", or "not enough data" under 100 rows on either side.
    """
    decided = scores >= threshold
    sides = {"member": member, "other": ~member}
    counted = {
        side: {
            "rows": int(rows.sum()),
            "positives": int((rows & positive).sum()),
            "selected": int((rows & decided).sum()),
        }
        for side, rows in sides.items()
    }
    report: dict[str, Any] = {"counts": counted, "threshold": threshold}
    if min(side["rows"] for side in counted.values()) < ROWS_MIN:
        return {
            **report,
            "selection_rate_ratio": None,
            "tpr_gap": None,
            "verdict": "not enough data",
        }
    rates = {side: _rate(rows, decided) for side, rows in sides.items()}
    hits = {side: _rate(rows & positive, decided) for side, rows in sides.items()}
    estimates = intervals(
        {
            "ratio": lambda weights: _divide(rates["member"](weights), rates["other"](weights)),
            "gap": lambda weights: hits["member"](weights) - hits["other"](weights),
        },
        rows=len(member),
        seed=seed,
    )
    return {
        **report,
        "selection_rate_ratio": estimates["ratio"].definition(),
        "tpr_gap": estimates["gap"].definition(),
        "verdict": ratio_in_words(estimates["ratio"]),
    }


def ratio_in_words(ratio: Estimate) -> str:
    """Say in words where the interval of a selection-rate ratio lies."""
    lowest, highest = RATIO_BAND
    if ratio.low is None or ratio.high is None:
        return "not enough data"
    if lowest <= ratio.low and ratio.high <= highest:
        return "within band"
    if ratio.high < lowest or ratio.low > highest:
        return "outside band"
    return "undecided"


def _rate(rows: NDArray[np.bool_], decided: NDArray[np.bool_]) -> Statistic:
    top, bottom = (rows & decided).astype(np.float64), rows.astype(np.float64)
    return lambda weights: _divide(weights @ top, weights @ bottom)


def _divide(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0: not defined, left out upstream
        return np.asarray(top / bottom)
