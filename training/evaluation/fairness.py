"""Compares the decisions, or the errors, of each value of an attribute with all other rows.

A value is a category, a number, or a band of numbers. Rows without a value are a group of their
own, because people of whom less is known may be treated worse for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import Bootstrap, Estimate, Floats, Statistic, divide

ROWS_MIN = 100
RATIO_BAND = (0.8, 1.25)
"""The four-fifths rule of 29 CFR 1607.4(D), and its inverse."""
NUMBERS_MAX = 20
"""Most distinct numbers that are groups each; more are put into bands."""
ERROR_PART = 0.2
"""Part of the mean absolute error by which the mean error of a group may differ from others."""
BANDS = 4
"""Bands of numbers for which the recipe names no edges."""
GROUPS_AT_ONCE = 50
"""Groups whose sums are in memory together: 32 MB for each fifty."""
VERDICTS = ("outside band", "undecided", "within band", "not enough data")
"""From the worst on. An attribute has the worst verdict of its groups."""


@dataclass(frozen=True, eq=False, slots=True)
class Attribute:
    """The groups that N rows belong to.

    name    the audited feature, as in "profile:region".
    codes   (N,) int64, the group of each row, from 0 to the number of groups - 1.
    groups  the name of each group. None is the group of the rows without a value.
    """

    name: str
    codes: NDArray[np.int64]
    groups: tuple[str | None, ...]


def categories(
    name: str, values: NDArray[np.float32], known: NDArray[np.bool_], dictionary: Sequence[str]
) -> Attribute:
    """Return a group for each text of *dictionary*, and one for rows without one of these texts.

    values  (N,) float32, positions in the dictionary; others are texts that it does not have.
    known   (N,) bool, False where the value is a default.
    """
    positions = values.astype(np.int64)
    listed = known & (positions >= 0) & (positions < len(dictionary))
    codes = np.where(listed, positions, len(dictionary))
    return Attribute(name, codes, (*dictionary, None))


def numbers(
    name: str,
    values: NDArray[np.float32],
    known: NDArray[np.bool_],
    edges: Sequence[float] = (),
) -> Attribute:
    """Return a group for each band between *edges*, and one for rows without a number.

    Without edges, each distinct number is a group; more than 20 are put into four bands of about
    equally many rows.

    values  (N,) float32.
    known   (N,) bool, False where the value is a default.
    """
    # Few numbers are groups each.
    known = known & ~np.isnan(values)
    distinct = np.unique(values[known])
    if not edges and len(distinct) <= NUMBERS_MAX:
        names: list[str] = [f"{value:g}" for value in distinct.tolist()]
        codes = np.searchsorted(distinct, values)
    else:
        if not edges:
            shares = np.arange(1, BANDS) / BANDS
            inner = np.quantile(values[known], shares, method="inverted_cdf")
            edges = np.unique(inner).tolist()
        # A band begins with its lower edge.
        names = [
            f"below {edges[0]:g}",
            *(f"{low:g} to below {high:g}" for low, high in pairwise(edges)),
            f"{edges[-1]:g} and above",
        ]
        codes = np.searchsorted(np.array(edges, dtype=np.float32), values, side="right")
    return Attribute(name, np.where(known, codes, len(names)), (*names, None))


def compare_groups(
    attribute: Attribute,
    positive: NDArray[np.bool_],
    scores: NDArray[np.float64],
    *,
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """Compare decisions at *threshold*. Return JSON values for the card.

    positive  (N,) bool, the labels.
    scores    (N,) P(positive).
    """
    selected = scores >= threshold
    return {
        "threshold": threshold,
        **compare_decisions(attribute, positive, selected, seed=seed),
    }


def compare_decisions(
    attribute: Attribute,
    positive: NDArray[np.bool_],
    selected: NDArray[np.bool_],
    *,
    seed: int,
) -> dict[str, Any]:
    """Compare each group with all other rows. Return JSON values for the card.

    positive  (N,) bool, the labels.
    selected  (N,) bool, the rows for which a decision is taken.

    `groups` has these keys for each group that has a row, besides its value and counts:

    selection_rate_ratio  P(selected | member) / P(selected | other). The band is .8 to 1.25.
    tpr_gap               P(selected | member, positive) - P(selected | other, positive).
    verdict               "within band", "outside band" if the whole 95 % interval is outside,
                          "undecided", or "not enough data" below 100 rows on either side.

    The `verdict` of the attribute is the worst of its groups'.
    """
    # Estimate the rates of groups with enough rows, and of all others.
    present, compared = _present_and_compared(attribute)
    estimates = _estimates(attribute.codes, compared, positive, selected, seed)
    # The other groups have counts and no verdict.
    groups = []
    for code in present:
        member = attribute.codes == code
        ratio, gap = estimates.get(code, (None, None))
        groups.append(
            {
                "value": attribute.groups[code],
                "counts": {
                    "member": _count_rows(member, positive, selected),
                    "other": _count_rows(~member, positive, selected),
                },
                "selection_rate_ratio": None if ratio is None else ratio.definition(),
                "tpr_gap": None if gap is None else gap.definition(),
                "verdict": "not enough data" if ratio is None else ratio_verdict(ratio),
            }
        )
    return {"groups": groups, "verdict": _worst(groups)}


def compare_errors(
    attribute: Attribute, errors: NDArray[np.float64], *, seed: int
) -> dict[str, Any]:
    """Compare the mean error of each group with that of all other rows, as JSON values.

    errors  (N,) predicted - actual.

    `groups` has for each group that has a row, besides its value and counts:

    mean_error_gap  mean error of members - mean error of others, in the unit of the errors. The
                    `band` is ERROR_PART of the mean absolute error of all rows, on either side.
    verdict         as of compare_decisions.
    """
    band = ERROR_PART * float(np.abs(errors).mean())
    present, compared = _present_and_compared(attribute)
    estimates = _error_gaps(attribute.codes, compared, errors, seed)
    groups = []
    for code in present:
        member = int((attribute.codes == code).sum())
        gap = estimates.get(code)
        groups.append(
            {
                "value": attribute.groups[code],
                "counts": {"member": {"rows": member}, "other": {"rows": len(errors) - member}},
                "mean_error_gap": None if gap is None else gap.definition(),
                "verdict": "not enough data" if gap is None else band_verdict(gap, (-band, band)),
            }
        )
    return {"band": [-band, band], "groups": groups, "verdict": _worst(groups)}


def _present_and_compared(attribute: Attribute) -> tuple[list[int], list[int]]:
    """Return the groups that have a row, and those with enough rows for a verdict."""
    rows = np.bincount(attribute.codes, minlength=len(attribute.groups))
    present = np.flatnonzero(rows).tolist()
    most = len(attribute.codes) - ROWS_MIN
    return present, [code for code in present if ROWS_MIN <= rows[code] <= most]


def _worst(groups: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdict on an attribute: one group that is treated otherwise is enough."""
    found = {group["verdict"] for group in groups}
    return next(verdict for verdict in VERDICTS if verdict in found)


def ratio_verdict(ratio: Estimate) -> str:
    """Return the verdict on a selection-rate ratio, from the position of its interval."""
    return band_verdict(ratio, RATIO_BAND)


def band_verdict(estimate: Estimate, band: tuple[float, float]) -> str:
    """Return the verdict on a number whose interval should be within *band*."""
    lowest, highest = band
    if estimate.low is None or estimate.high is None:
        return "not enough data"
    if lowest <= estimate.low and estimate.high <= highest:
        return "within band"
    if estimate.high < lowest or estimate.low > highest:
        return "outside band"
    return "undecided"


def _error_gaps(
    codes: NDArray[np.int64], compared: Sequence[int], errors: NDArray[np.float64], seed: int
) -> dict[int, Estimate]:
    """Return code -> the gap of mean errors."""
    bootstrap = Bootstrap(len(codes), seed=seed)
    everyone = np.ones(len(codes), dtype=np.bool_)
    gaps: dict[int, Estimate] = {}
    for start in range(0, len(compared), GROUPS_AT_ONCE):
        statistics = {}
        for code in compared[start : start + GROUPS_AT_ONCE]:
            member = codes == code
            statistics[str(code)] = bootstrap.statistic(
                _rate_gap, errors * member, member, errors, everyone
            )
        found = bootstrap.intervals(statistics)
        gaps |= {int(code): estimate for code, estimate in found.items()}
    return gaps


def _estimates(
    codes: NDArray[np.int64],
    compared: Sequence[int],
    positive: NDArray[np.bool_],
    selected: NDArray[np.bool_],
    seed: int,
) -> dict[int, tuple[Estimate, Estimate]]:
    """Return code -> the ratio of selection rates and the gap of true positive rates."""
    bootstrap = Bootstrap(len(codes), seed=seed)
    everyone = np.ones(len(codes), dtype=np.bool_)
    estimates: dict[int, tuple[Estimate, Estimate]] = {}
    for start in range(0, len(compared), GROUPS_AT_ONCE):
        some = compared[start : start + GROUPS_AT_ONCE]
        statistics: dict[str, Statistic] = {}
        for code in some:
            member = codes == code
            # Others are everyone less the members.
            statistics[f"ratio {code}"] = bootstrap.statistic(
                _rate_ratio, selected & member, member, selected, everyone
            )
            hit = selected & positive
            statistics[f"gap {code}"] = bootstrap.statistic(
                _rate_gap, hit & member, positive & member, hit, positive
            )
        found = bootstrap.intervals(statistics)
        estimates |= {code: (found[f"ratio {code}"], found[f"gap {code}"]) for code in some}
    return estimates


def _rate_ratio(ours: Floats, members: Floats, chosen: Floats, everyone: Floats) -> Floats:
    return divide(divide(ours, members), divide(chosen - ours, everyone - members))


def _rate_gap(ours: Floats, members: Floats, chosen: Floats, everyone: Floats) -> Floats:
    return divide(ours, members) - divide(chosen - ours, everyone - members)


def _count_rows(
    rows: NDArray[np.bool_], positive: NDArray[np.bool_], selected: NDArray[np.bool_]
) -> dict[str, int]:
    return {
        "rows": int(rows.sum()),
        "positives": int((rows & positive).sum()),
        "selected": int((rows & selected).sum()),
    }
