"""Rows that a streaming writer sends one by one, as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.encode import Column
from features.errors import SourceError
from features.views import View


@dataclass(frozen=True, slots=True)
class PushedRow:
    """What a stream knows of one entity at an instant, raw, as a transform would give it.

    ids      in the order of the view's entities.
    values   feature -> number, string or None; a feature left out is missing.
    """

    ids: tuple[str, ...]
    event_time_ms: int
    values: Mapping[str, float | str | None]


def pushed_columns(view: View, rows: Sequence[PushedRow]) -> dict[str, Column]:
    """Turn rows into the columns that a transform gives: entities, event_time_ms, features.

    Raises SourceError for a feature that the view does not declare, or a wrong number of ids.
    """
    known = {feature.name for feature in view.features}
    for row in rows:
        strangers = sorted(set(row.values) - known)
        if strangers or len(row.ids) != len(view.entities):
            raise SourceError(
                f"a row for view {view.name!r} has {len(row.ids)} ids and unknown features "
                f"{strangers}; the view has entities {list(view.entities)}"
            )
    columns: dict[str, Column] = {
        "event_time_ms": np.array([row.event_time_ms for row in rows], dtype=np.int64)
    }
    for place, entity in enumerate(view.entities):
        columns[entity] = _objects([row.ids[place] for row in rows])
    for feature in view.features:
        columns[feature.name] = _objects([row.values.get(feature.name) for row in rows])
    return columns


def _objects(values: Sequence[object]) -> Column:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
