"""Compares the rates of positive decisions of two groups, with intervals and a verdict."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import Estimate, Statistic, intervals

ROWS_MIN = 100
RATIO_BAND = (0.8, 1.25)
"""The four-fifths rule of 29 CFR 1607.4(D), and its inverse."""


def compare_groups(
    member: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    scores: NDArray[np.float64],
    *,
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """Compare the members of a group with all others. Return JSON values for the card.

    member    (N,) bool, the group.
    positive  (N,) bool, the labels.
    scores    (N,) P(positive).

    The result has these keys, besides counts and threshold:

    selection_rate_ratio  P(selected | member) / P(selected | other). The band is .8 to 1.25.
    tpr_gap               P(selected | member, positive) - P(selected | other, positive).
    verdict               "within band", "outside band" if the whole 95 % interval is outside,
                          "undecided", or "not enough data" below 100 rows on either side.
    """
    selected = scores >= threshold
    groups = {"member": member, "other": ~member}
    counts = {group: _count_rows(rows, positive, selected) for group, rows in groups.items()}
    report: dict[str, Any] = {"counts": counts, "threshold": threshold}
    # Too few rows give no verdict.
    if min(group_counts["rows"] for group_counts in counts.values()) < ROWS_MIN:
        return {
            **report,
            "selection_rate_ratio": None,
            "tpr_gap": None,
            "verdict": "not enough data",
        }
    # Estimate ratio and gap with their intervals.
    rates = {group: _rate(rows, selected) for group, rows in groups.items()}
    true_positive_rates = {
        group: _rate(rows & positive, selected) for group, rows in groups.items()
    }
    estimates = intervals(
        {
            "ratio": lambda weights: _divide(rates["member"](weights), rates["other"](weights)),
            "gap": lambda weights: (
                true_positive_rates["member"](weights) - true_positive_rates["other"](weights)
            ),
        },
        rows=len(member),
        seed=seed,
    )
    # Judge the ratio. The gap has no verdict.
    return {
        **report,
        "selection_rate_ratio": estimates["ratio"].definition(),
        "tpr_gap": estimates["gap"].definition(),
        "verdict": ratio_verdict(estimates["ratio"]),
    }


def ratio_verdict(ratio: Estimate) -> str:
    """Return the verdict on a selection-rate ratio, from the position of its interval."""
    lowest, highest = RATIO_BAND
    if ratio.low is None or ratio.high is None:
        return "not enough data"
    if lowest <= ratio.low and ratio.high <= highest:
        return "within band"
    if ratio.high < lowest or ratio.low > highest:
        return "outside band"
    return "undecided"


def _count_rows(
    rows: NDArray[np.bool_], positive: NDArray[np.bool_], selected: NDArray[np.bool_]
) -> dict[str, int]:
    return {
        "rows": int(rows.sum()),
        "positives": int((rows & positive).sum()),
        "selected": int((rows & selected).sum()),
    }


def _rate(rows: NDArray[np.bool_], selected: NDArray[np.bool_]) -> Statistic:
    numerator, denominator = (rows & selected).astype(np.float64), rows.astype(np.float64)
    return lambda weights: _divide(weights @ numerator, weights @ denominator)


def _divide(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> NDArray[np.float64]:
    # 0/0 is NaN. `intervals` leaves such resamples out.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator / denominator)
