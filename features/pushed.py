"""Rows that a streaming writer pushes, and the columns that the encoder takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.encode import Column
from features.errors import SourceError
from features.views import View


@dataclass(frozen=True, slots=True)
class PushedRow:
    """The features of one entity as of an instant, before encoding, as a transform returns them.

    ids            entity ids, in the order of the view's entities.
    event_time_ms  the instant at which the values became true, Unix ms.
    values         feature -> number, string or None. A feature that is left out is missing.
    """

    ids: tuple[str, ...]
    event_time_ms: int
    values: Mapping[str, float | str | None]


def pushed_columns(view: View, rows: Sequence[PushedRow]) -> dict[str, Column]:
    """Return the columns that a transform returns: entities, event_time_ms, features.

    Raises SourceError for a feature that the view does not declare, or a wrong number of ids.
    """
    known = {feature.name for feature in view.features}
    for row in rows:
        unknown = sorted(set(row.values) - known)
        if unknown or len(row.ids) != len(view.entities):
            raise SourceError(
                f"a row for view {view.name!r} has {len(row.ids)} ids and unknown features "
                f"{unknown}; the view has entities {list(view.entities)}"
            )
    columns: dict[str, Column] = {
        "event_time_ms": np.array([row.event_time_ms for row in rows], dtype=np.int64)
    }
    for index, entity in enumerate(view.entities):
        columns[entity] = _object_column([row.ids[index] for row in rows])
    for feature in view.features:
        columns[feature.name] = _object_column([row.values.get(feature.name) for row in rows])
    return columns


def _object_column(values: Sequence[object]) -> Column:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
