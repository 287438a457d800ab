"""The newest rows of the views that an adopted version reads, as a sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from features.offline import OfflineStore
from features.storage.newest_rows import LatestRows
from features.views import View
from training.adopted.sample import ROWS_MAX

ID_SEPARATOR = b"\x1f"
UNKNOWN = "\u2047"
"""Stands for a category outside of its dictionary, of which the store keeps no text."""


def newest_rows(contract: ModelContract, folder: Path) -> dict[str, NDArray[Any]]:
    """Return at most ROWS_MAX rows: `view:feature` -> (N,) numbers, or texts of a category.

    Rows of the view with the most entities, joined with those of the other views by their ids.
    Views whose entities are not among these give rows in order, so that such a row is mixed. Empty
    if a view has no rows.

    folder  of the offline store; it need not be there.
    """
    views = [use.view for use in contract.views]
    if not views or not folder.is_dir():
        return {}
    store = OfflineStore(folder)
    base = max(views, key=lambda view: len(view.entities))
    base_rows = _first_rows(store, base)
    table: dict[str, NDArray[Any]] = {}
    for use in contract.views:
        rows = base_rows if use.view is base else store.latest(use.view)
        if not len(rows):
            return {}
        found = _joined(base, base_rows, use.view, rows)
        for name, column in zip(use.features, use.columns, strict=True):
            values = rows.values[found, column]
            words = use.view.features[column].dictionary
            table[f"{use.view.name}:{name}"] = _words(values, words) if words else values
    return {name: _as_given(values) for name, values in table.items()}


def row_ids(contract: ModelContract, folder: Path) -> tuple[str, ...]:
    """Return the ids of one entity of each kind that the views know, in the contract's order.

    Empty if they do not have all of them.
    """
    ids: dict[str, str] = {}
    store = OfflineStore(folder)
    for use in contract.views:
        rows = _first_rows(store, use.view)
        if len(rows):
            parts = rows.ids[0].split(ID_SEPARATOR)
            known = dict(zip(use.view.entities, (part.decode() for part in parts), strict=True))
            ids = {**known, **ids}
    if set(ids) < set(contract.entities):
        return ()
    return tuple(ids[entity] for entity in contract.entities)


def _first_rows(store: OfflineStore, view: View) -> LatestRows:
    with store.open_newest(view) as newest:
        for batch in newest.batches(ROWS_MAX):
            return batch
    return LatestRows(
        [], np.empty(0, np.int64), np.empty((0, 0), np.float32), np.empty((0, 0), np.bool_)
    )


def _joined(base: View, base_rows: LatestRows, view: View, rows: LatestRows) -> NDArray[np.intp]:
    """Return the row of *view* for each row of *base*; by order where ids do not join."""
    count = len(base_rows)
    in_order = np.arange(count) % len(rows)
    if view is base or not set(view.entities) <= set(base.entities):
        return in_order
    positions = {identity: index for index, identity in enumerate(rows.ids)}
    parts = [base.entities.index(entity) for entity in view.entities]
    wanted = [_own_id(identity, parts) for identity in base_rows.ids]
    return np.array(
        [positions.get(identity, row) for identity, row in zip(wanted, in_order, strict=True)],
        dtype=np.intp,
    )


def _own_id(identity: bytes, parts: Sequence[int]) -> bytes:
    split = identity.split(ID_SEPARATOR)
    return ID_SEPARATOR.join(split[part] for part in parts)


def _words(values: NDArray[np.float32], words: tuple[str, ...]) -> NDArray[Any]:
    """Return the text of each position; None for NaN."""
    return np.array(
        [
            None if value != value else words[int(value)] if value < len(words) else UNKNOWN
            for value in values.tolist()
        ],
        dtype=object,
    )


def _as_given(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.dtype == object else values.astype(np.float64)
