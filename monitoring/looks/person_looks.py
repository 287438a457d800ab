"""Counts each person once in a period, from the rows that are kept as decisions.

A person who calls ten times a day is one person-look: the first row of the first call. Alarms are
about people, because ten rows of one person are no ten pieces of evidence. R is the number of rows,
F the inputs and K the outputs of the version.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from monitoring.cells.cell import CellCounts, feature_column
from monitoring.cells.counting import count_feature
from monitoring.cells.decision_rows import DecisionRows
from monitoring.looks.day_looks import SealedFacts
from monitoring.store.look_store import PersonLooks

PREDICTED = "predicted"
"""The column with the bins of stats.score_scale: those of the predicted output of a row."""


class PersonCounter:
    """Takes the rows of one version in one period, and counts the first row of each person."""

    def __init__(self, facts: SealedFacts) -> None:
        self._facts = facts
        features, outputs = len(facts.bins.features), len(facts.scale.outputs)
        self._keys = np.zeros(0, dtype=np.uint64)
        self._at = np.zeros(0, dtype=np.int64)
        self._vectors = np.zeros((0, features), dtype=np.float32)
        self._scores = np.zeros((0, outputs), dtype=np.float32)

    def add(self, rows: DecisionRows) -> None:
        """Take rows in any order. Rows of another shape than the version's are left out."""
        shape = rows.vectors.shape[1], rows.scores.shape[1]
        if shape != (self._vectors.shape[1], self._scores.shape[1]):
            return
        # The first row of each call only.
        first = np.flatnonzero(rows.row == 0)
        keys = np.concatenate([self._keys, rows.key_hash[first]])
        at = np.concatenate([self._at, rows.at_unix_ns[first]])
        # The earliest call of each person.
        order = np.lexsort((at, keys))
        starts = np.ones(len(order), dtype=np.bool_)
        starts[1:] = keys[order][1:] != keys[order][:-1]
        kept = order[starts]
        self._keys, self._at = keys[kept], at[kept]
        self._vectors = np.concatenate([self._vectors, rows.vectors[first]])[kept]
        self._scores = np.concatenate([self._scores, rows.scores[first]])[kept]

    def counted(self, last_day: int, days: int) -> PersonLooks:
        """Return the counts of all persons so far, as those of *days* days up to *last_day*."""
        counts = CellCounts()
        scale = self._facts.scale
        counts.add(PREDICTED, np.bincount(scale.bins(self._scores), minlength=scale.size + 3))
        for feature, column in zip(self._facts.bins.features, self._columns(), strict=True):
            counts.add(feature_column(feature.name), count_feature(column, feature))
        return PersonLooks(last_day, days, len(self._keys), counts)

    def _columns(self) -> Iterable[NDArray[np.float32]]:
        return np.ascontiguousarray(self._vectors.T)
