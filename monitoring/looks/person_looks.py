"""Counts each person once in a period, from the rows that are kept as decisions.

A person who calls ten times a day is one person-look: the first row of the first call. Alarms are
about people, because ten rows of one person are no ten pieces of evidence. R is the number of rows,
F the inputs and K the outputs of the version.
"""

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
    """Takes the rows of one version day by day, and counts the first row of each person.

    Of days before it keeps the keys of their persons only, so a week needs the memory of a day.
    """

    def __init__(self, facts: SealedFacts) -> None:
        self._facts = facts
        self._shape = len(facts.bins.features), len(facts.scale.outputs)
        self._parts: list[DecisionRows] = []
        """The first rows of the calls of the day under way."""
        self._persons = np.zeros(0, dtype=np.uint64)
        """(P,) growing: the keys that were counted."""
        self._counts = CellCounts()

    def add(self, rows: DecisionRows) -> None:
        """Take rows of one day in any order. Rows of another shape than the version's are left out.

        Rows of a later day may follow `end_day` only.
        """
        if (rows.vectors.shape[1], rows.scores.shape[1]) == self._shape:
            self._parts.append(rows if (rows.row == 0).all() else rows.only(rows.row == 0))

    def end_day(self) -> None:
        """Count the persons of the day who were not counted before, each by the earliest call."""
        if not self._parts:
            return
        keys = np.concatenate([part.key_hash for part in self._parts])
        at = np.concatenate([part.at_unix_ns for part in self._parts])
        vectors = np.concatenate([part.vectors for part in self._parts])
        scores = np.concatenate([part.scores for part in self._parts])
        self._parts = []
        # The earliest call of each person of the day.
        order = np.lexsort((at, keys))
        starts = np.ones(len(order), dtype=np.bool_)
        starts[1:] = keys[order][1:] != keys[order][:-1]
        first = order[starts]
        # Of them, those who are new.
        place = np.searchsorted(self._persons, keys[first])
        known = np.zeros(len(first), dtype=np.bool_)
        inside = place < len(self._persons)
        known[inside] = self._persons[place[inside]] == keys[first][inside]
        first, place = first[~known], place[~known]
        self._persons = np.insert(self._persons, place, keys[first])
        self._count(vectors[first], scores[first])

    def counted(self, last_day: int, days: int) -> PersonLooks:
        """Return the counts of all persons so far, as those of *days* days up to *last_day*."""
        self.end_day()
        return PersonLooks(last_day, days, len(self._persons), self._counts)

    def _count(self, vectors: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
        scale = self._facts.scale
        self._counts.add(PREDICTED, np.bincount(scale.bins(scores), minlength=scale.size + 3))
        columns = np.ascontiguousarray(vectors.T)
        for feature, column in zip(self._facts.bins.features, columns, strict=True):
            self._counts.add(feature_column(feature.name), count_feature(column, feature))
