"""Measures how well each column alone tells positive rows from negative ones.

A feature that is the label under another name, or that is known only after the label's instant,
does so almost perfectly. No gate on the whole model shows that.
"""

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.area import placements

ROWS_MAX = 20_000
"""Most rows that are looked at, evenly spaced, and most positive rows among the others."""
ROWS_A_CODE = 20
"""Rows of each value on average, from which on the order of its shares is more than chance."""
CODES_MAX = 50
"""Most distinct values of a column whose order need not mean anything, as in a category."""


def strongest_column(
    columns: NDArray[np.float32], positive: NDArray[np.bool_], fitted: NDArray[np.bool_]
) -> tuple[int, float]:
    """Return the column of (N, F) with the largest area under its own ROC curve, and the area.

    positive  (N,) bool, the labels.
    fitted    (N,) bool, the rows that count, of both classes.

    The direction does not matter, so an area is at least .5. Few distinct values are ordered by
    their share of positive rows, and missing values count as one of them.
    """
    some = np.flatnonzero(fitted)
    if len(some) > ROWS_MAX:
        # Few positive rows may fall between the rows that are taken, so all of them stay.
        spread = some[np.linspace(0, len(some) - 1, ROWS_MAX).astype(np.int64)]
        some = np.union1d(spread, np.flatnonzero(fitted & positive)[:ROWS_MAX])
    columns, positive = columns[some], positive[some]
    areas = [_area(column, positive) for column in columns.T]
    strongest = int(np.argmax(areas))
    return strongest, areas[strongest]


def _area(column: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    values, codes = np.unique(column, return_inverse=True)
    # Whether a value is missing may tell as much as the value, on either end.
    if len(values) <= min(CODES_MAX, len(column) / ROWS_A_CODE):
        shares = np.bincount(codes, weights=positive) / np.bincount(codes)
        return float(placements(positive, shares[codes])[positive].mean())
    areas = []
    for filling in (-np.inf, np.inf):
        filled = np.where(np.isnan(column), filling, column).astype(np.float64)
        area = float(placements(positive, filled)[positive].mean())
        areas += [area, 1.0 - area]
    return max(areas)
