"""Columns that give the label away: they are known only because the outcome is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.storage.database import identifier
from project.guess.table import Table, TableColumn

AUC_MAX = 0.98
"""A column that separates the classes better than this by itself is taken for a leak."""
ROWS_MIN = 50


def leaking_columns(
    table: Table, columns: Sequence[TableColumn], positive_sql: str
) -> dict[str, str]:
    """Return column -> why it gives the label away.

    positive_sql  SQL of the label, BOOLEAN.
    """
    # Read every column twice: its value, and whether it has one.
    expressions = {"label": f"({positive_sql})::DOUBLE"}
    for column in columns:
        quoted = identifier(column.name)
        expressions[f"value {column.name}"] = _number_sql(column)
        expressions[f"missing {column.name}"] = f"({quoted} IS NULL)::DOUBLE"
    sample = table.sample(expressions, f"({positive_sql}) IS NOT NULL")
    positive = sample["label"] > 0.5
    if len(positive) < ROWS_MIN or positive.all() or not positive.any():
        return {}
    # A value that is missing may tell as much as one that is there.
    leaks = {}
    for column in columns:
        name, ordered = column.name, column.is_number or column.is_instant
        values = sample[f"value {name}"].astype(np.float64)
        missing = sample[f"missing {name}"] > 0.5
        by_missing = _separation(missing.astype(np.float64), positive)
        if by_missing > AUC_MAX:
            leaks[name] = f"whether it is missing tells the label (AUC {by_missing:.3f})"
            continue
        scores = values if ordered else _target_rates(values, positive)
        scores = np.where(np.isnan(scores), np.nanmedian(scores), scores)
        by_value = _separation(scores, positive)
        if by_value > AUC_MAX:
            leaks[name] = f"alone it tells the label (AUC {by_value:.3f})"
    return leaks


def _number_sql(column: TableColumn) -> str:
    """Return SQL of a number for each value, in the order of the values if they have one."""
    quoted = identifier(column.name)
    if column.is_number:
        return f"{quoted}::DOUBLE"
    return f"epoch({quoted})" if column.is_instant else f"hash({quoted}::VARCHAR)::DOUBLE"


def _separation(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the AUC of *scores*, or of their negative, whichever is larger."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # Equal scores share the middle of their ranks.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(positive.sum())
    negatives = len(positive) - positives
    above = ranks[positive].sum() - positives * (positives + 1) / 2
    auc = float(above / (positives * negatives))
    return max(auc, 1 - auc)


def _target_rates(codes: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return for each row the share of positives of its category among the other half of the rows.

    In its own half a category with one row would tell its label.
    """
    rates = np.full(len(codes), positive.mean())
    half = np.arange(len(codes)) % 2 == 0
    for own, other in ((half, ~half), (~half, half)):
        values, inverse = np.unique(codes[other], return_inverse=True)
        sums = np.bincount(inverse, weights=positive[other].astype(np.float64))
        means = sums / np.bincount(inverse)
        index = np.clip(np.searchsorted(values, codes[own]), 0, len(values) - 1)
        known = values[index] == codes[own]
        rates[np.flatnonzero(own)[known]] = means[index[known]]
    return rates
