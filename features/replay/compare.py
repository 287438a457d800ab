"""Compares served rows with the offline join at the instants at which they were served.

A row that equals an older stored row of its entity is *late*: the online store had not got the
newer one yet. All other differences are skew, and are counted by feature:

    missing    the default was served, and the offline row has a value
    extra      a value was served, and the offline row has the default
    different  another value was served
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract, ViewUse
from features.offline import History, OfflineStore
from features.replay.causes import Differences, probable_cause, same
from features.replay.served_rows import ServedRows
from features.views import Feature
from protos.predict_pb2 import DEGRADED

EXAMINED_ROWS_MAX = 50_000
"""Differing rows of a view whose stored history is read, to find those that are late, and why the
others differ. Further differing rows are counted as skew."""

HISTORY_STEPS = 8
"""A late row equals one of so many stored rows before the one that was right."""


@dataclass
class FeatureResult:
    """The comparison of one feature."""

    view: str
    feature: Feature
    different: int = 0
    missing: int = 0
    extra: int = 0
    late: int = 0
    """Rows in which it differs, and which are late."""
    found: list[Differences] = field(default_factory=list)

    @property
    def name(self) -> str:
        """`view:feature`."""
        return f"{self.view}:{self.feature.name}"

    @property
    def skew(self) -> int:
        """Rows in which it differs and which are not late."""
        return self.different + self.missing + self.extra

    @property
    def cause(self) -> str:
        """The probable cause of the skew; empty without skew."""
        if not self.skew:
            return ""
        columns = ("served", "offline", "before", "after")
        parts = [
            np.concatenate([getattr(found, column) for found in self.found] or [np.empty(0)])
            for column in columns
        ]
        return probable_cause(self.feature, Differences(*parts))


@dataclass
class ReplayReport:
    """The comparison of all stored features of one contract."""

    features: list[FeatureResult]
    rows: int = 0
    """Rows that were compared."""
    degraded: int = 0
    """Rows that were left out: the store had not answered in time."""
    from_ms: int = 0
    """The first instant of the rows that were compared, Unix ms; 0 without rows."""
    to_ms: int = 0
    """The last of these instants."""
    late_ms: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)
    """View -> for each late row, how long the newer stored row had been known, in ms."""

    @property
    def skewed(self) -> list[FeatureResult]:
        """The features with skew, the worst first."""
        return sorted(
            (result for result in self.features if result.skew), key=lambda one: -one.skew
        )

    def lag_ms(self, view: str) -> tuple[int, int, int]:
        """Return the number of late rows of a view, and the median and longest lag in ms."""
        lags = np.concatenate([*self.late_ms.get(view, []), np.empty(0, dtype=np.int64)])
        if not len(lags):
            return 0, 0, 0
        return len(lags), int(np.median(lags)), int(lags.max())

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "rows": self.rows,
            "degraded": self.degraded,
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "features": [
                {
                    "feature": result.name,
                    "different": result.different,
                    "missing": result.missing,
                    "extra": result.extra,
                    "late": result.late,
                    "cause": result.cause,
                }
                for result in self.features
            ],
            "views": {
                view: dict(
                    zip(("late", "lag_ms_median", "lag_ms_max"), self.lag_ms(view), strict=True)
                )
                for view in sorted({result.view for result in self.features})
            },
        }


def compare_served(
    store: OfflineStore, contract: ModelContract, chunks: Iterable[ServedRows]
) -> ReplayReport:
    """Compare served rows with what the offline store knew at their instants.

    Raises as `OfflineStore.training_set` does.
    """
    results = [
        FeatureResult(use.view.name, use.view.features[column])
        for use in contract.views
        for column in use.columns
    ]
    report = ReplayReport(results)
    for chunk in chunks:
        # Rows for which the store did not answer say nothing about features.
        kept = (chunk.flags & DEGRADED) == 0
        report.degraded += int((~kept).sum())
        if kept.any():
            instants = chunk.spine.as_of_ms[kept]
            first_ms = int(instants.min())
            report.from_ms = min(report.from_ms, first_ms) if report.rows else first_ms
            report.to_ms = max(report.to_ms, int(instants.max()))
        report.rows += int(kept.sum())
        offline = store.training_set(contract, chunk.spine)
        # Each view is compared by itself, since its rows are written by themselves.
        first = 0
        for use in contract.views:
            columns = slice(first, first + len(use.features))
            served, right = chunk.vectors[:, columns], offline.values[:, columns]
            rows = np.flatnonzero(kept & ~same(served, right).all(axis=1))
            view_rows = _ViewRows(use, chunk, rows, served[rows], right[rows])
            _count(report, results[columns], view_rows, store)
            first += len(use.features)
    return report


@dataclass(frozen=True, slots=True)
class _ViewRows:
    """The D rows of a chunk that differ in one view, with the C features that the model uses."""

    use: ViewUse
    chunk: ServedRows
    rows: NDArray[np.intp]
    served: NDArray[np.float32]
    offline: NDArray[np.float32]


def _count(
    report: ReplayReport, results: Sequence[FeatureResult], found: _ViewRows, store: OfflineStore
) -> None:
    """Sort the differing rows of a view into late ones and skew, and count by feature."""
    if not len(found.rows):
        return
    # The stored rows around the right one say which rows are late.
    examined = found.rows[:EXAMINED_ROWS_MAX]
    neighbours = _neighbours(found, examined, store)
    late = np.zeros(len(found.rows), dtype=np.bool_)
    late[: len(examined)] = neighbours.late
    view = found.use.view.name
    report.late_ms.setdefault(view, []).append(neighbours.lag_ms[neighbours.late])
    # Count each feature by itself.
    differs = ~same(found.served, found.offline)
    for column, result in enumerate(results):
        default = np.float32(result.feature.default_value)
        served, offline = found.served[:, column], found.offline[:, column]
        result.late += int((differs[:, column] & late).sum())
        skewed = differs[:, column] & ~late
        was_default = same(served, np.full_like(served, default))
        is_default = same(offline, np.full_like(offline, default))
        result.missing += int((skewed & was_default).sum())
        result.extra += int((skewed & is_default).sum())
        result.different += int((skewed & ~was_default & ~is_default).sum())
        at = np.flatnonzero(skewed[: len(examined)])
        result.found.append(
            Differences(
                served[at],
                offline[at],
                neighbours.before[at, column],
                neighbours.after[at, column],
            )
        )


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """What the stored history says of E rows."""

    late: NDArray[np.bool_]
    lag_ms: NDArray[np.int64]
    before: NDArray[np.float32]
    """(E, C) the stored row before the one that was right; NaN without one."""
    after: NDArray[np.float32]


def _neighbours(found: _ViewRows, rows: NDArray[np.intp], store: OfflineStore) -> _Neighbours:
    view, columns = found.use.view, list(found.use.columns)
    joined = found.chunk.spine.joined(view)
    ids = [joined[row].decode() for row in rows.tolist()]
    history = store.history(view, sorted(set(ids)))
    values = history.values[:, columns]
    defaults = np.array(
        [view.features[column].default_value for column in columns], dtype=np.float32
    )
    count = len(rows)
    late, lag_ms = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.int64)
    before = np.full((count, len(columns)), np.nan, dtype=np.float32)
    after = before.copy()
    for index, entity_id in enumerate(ids):
        at_ms = int(found.chunk.spine.as_of_ms[rows[index]])
        first = int(np.searchsorted(history.ids, entity_id))
        end = int(np.searchsorted(history.ids, entity_id, side="right"))
        # The right row is the newest that was known at the instant.
        right = _newest_known(history, first, end, at_ms)
        if right > first:
            before[index] = values[right - 1]
        if right + 1 < end:
            after[index] = values[right + 1]
        # An older row that equals the served one says since when the store is behind.
        for step in range(1, HISTORY_STEPS + 1):
            older = right - step
            if right < first or older < first - 1:
                break
            expected = values[older] if older >= first else defaults
            if same(found.served[index], expected).all():
                late[index], lag_ms[index] = True, at_ms - int(history.known_ms[older + 1])
                break
    return _Neighbours(late, lag_ms, before, after)


def _newest_known(history: History, first: int, end: int, at_ms: int) -> int:
    """Return the index of the newest of an entity's rows that was known; first - 1 without one."""
    known = np.flatnonzero(history.known_ms[first:end] <= at_ms)
    return first + int(known[-1]) if len(known) else first - 1
