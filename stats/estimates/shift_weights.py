"""Weights under which labelled reference rows look like the rows of today.

If customers changed and behave as before, a reference row counts by how much more often its kind is
seen today. A classifier tells today's rows from reference rows by their features, and its odds are
that ratio. This is importance weighting (Sugiyama, Krauledat and Mueller, JMLR 8, 2007).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.labelled_bins import sigmoid
from stats.accuracy.probabilities import fit_logistic

Floats = NDArray[np.float64]

WEIGHT_MIN, WEIGHT_MAX = 0.001, 20.0
REFERENCE_CHANCE_MIN = 0.05
PRODUCTS_MAX = 20
"""Columns up to which products of two columns are terms too."""
RIDGE = 3.0
CLIPPED_AT = 4.0
"""Standard deviations at which a column is clipped, so that no row decides alone."""


@dataclass(frozen=True, eq=False, slots=True)
class ShiftWeights:
    """A weight for each reference row, (M,) float64 with mean 1, and what it is worth.

    effective_rows  (sum w)^2 / sum w^2: as many rows of equal weight say as much.
    """

    weights: Floats
    effective_rows: float


def shift_weights(reference: Floats, live: Floats) -> ShiftWeights:
    """Return the weights of the reference rows.

    reference  (M, F) float64 features, NaN where missing. live  (N, F), a sample of today's rows.

    The classifier is logistic, of the standardised columns, their squares, their products (up to 20
    columns) and whether they are missing. Raises ValueError for tables without rows or with other
    numbers of columns.
    """
    if reference.ndim != 2 or live.ndim != 2 or reference.shape[1] != live.shape[1]:
        raise ValueError(f"features of shapes {reference.shape} and {live.shape} do not compare")
    m, n = len(reference), len(live)
    if not m or not n or not reference.shape[1]:
        raise ValueError(f"{m} reference rows and {n} rows of today: both need a row and a column")
    terms = _terms(np.concatenate([reference, live]), m)
    today = np.r_[np.zeros(m), np.ones(n)]
    line, _ = fit_logistic(terms, today, np.ones(m + n), np.zeros(m + n), RIDGE)
    chance = sigmoid(terms[:m] @ line)
    odds = m / n * chance / np.maximum(1.0 - chance, REFERENCE_CHANCE_MIN)
    weights = np.clip(odds, WEIGHT_MIN, WEIGHT_MAX)
    weights /= weights.mean()
    return ShiftWeights(weights, float(weights.sum() ** 2 / (weights**2).sum()))


def _terms(rows: Floats, reference_rows: int) -> Floats:
    """Return the (R, T) terms of the classifier; the first column is the constant."""
    missing = ~np.isfinite(rows)
    known = np.where(missing, np.nan, rows)
    # Columns are standardised by the reference; a column without a number there is left out.
    with_numbers = ~missing[:reference_rows].all(axis=0)
    known, gaps = known[:, with_numbers], missing[:, with_numbers]
    means = np.nanmean(known[:reference_rows], axis=0)
    spreads = np.nanstd(known[:reference_rows], axis=0)
    scaled = (known - means) / np.where(spreads > 0, spreads, 1.0)
    scaled = np.clip(np.where(gaps, 0.0, scaled), -CLIPPED_AT, CLIPPED_AT)
    columns = [np.ones(len(rows)), *scaled.T, *(scaled**2).T]
    columns += [column.astype(np.float64) for column in missing.T if column.any()]
    if scaled.shape[1] <= PRODUCTS_MAX:
        columns += [
            scaled[:, first] * scaled[:, second]
            for first in range(scaled.shape[1])
            for second in range(first)
        ]
    return np.column_stack(columns)
