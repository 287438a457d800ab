"""One view's rows for a whole batch: keys out of its ids, replies into its matrix.

In one native call each where the library is built (`ingress/src/accel/rows.rs`), for a third of a
microsecond a row less; a view of several entities, and everything without the library, goes through
features.rows, to the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.entity_ids import id_hashes, join_ids
from features.rows import DecodedRows, ViewRows
from gateway.key_column import KeyColumn
from gateway.native_library import load_native_library


class NativeViewRows(Protocol):
    """turnout_ingress.NativeViewRows."""

    def store_keys(self, buffer: bytes, starts: object, ends: object) -> list[bytes]:
        """Return each id's key."""
        ...

    def decode_rows(
        self,
        replies: Sequence[bytes | None],
        buffer: bytes,
        starts: object,
        ends: object,
        now_ms: int,
    ) -> tuple[bytes, bytes, int]:
        """Return values, flags and how many are broken, as `ViewRows.decode`."""
        ...


def load_native_rows(rows: ViewRows) -> NativeViewRows | None:
    """Return what reads this view's rows natively; None: nobody."""
    made = getattr(load_native_library(), "NativeViewRows", None)
    return None if made is None else made(*rows.layout)


@dataclass(frozen=True, slots=True)
class ViewRead:
    """One view to read for every row of a batch: its rows, and which of Row.keys name it."""

    rows: ViewRows
    entity_positions: tuple[int, ...]
    native: NativeViewRows | None = None

    def request(self, ids: KeyColumn, entities: int) -> "ViewRequest":
        """Say what is asked of the store. *ids*: every row's *entities*, row by row."""
        if self.native is not None and len(self.entity_positions) == 1:
            return NativeViewRequest(
                self, ids.select(slice(self.entity_positions[0], None, entities))
            )
        columns = [
            ids.select(slice(place, None, entities)).to_list() for place in self.entity_positions
        ]
        if len(columns) == 1:
            return PythonViewRequest(self.rows, columns[0])
        return PythonViewRequest(
            self.rows, [join_ids(several) for several in zip(*columns, strict=True)]
        )


class ViewRequest(Protocol):
    """One view's rows of one batch."""

    def store_keys(self) -> list[bytes]:
        """Return the store's key of each row."""
        ...

    def decode_replies(self, replies: Sequence[bytes | None], now_ms: int) -> DecodedRows:
        """Read what the store said of them, at this Unix ms."""
        ...


@dataclass(frozen=True, slots=True)
class PythonViewRequest:
    """By features.rows."""

    rows: ViewRows
    ids: list[bytes]

    def store_keys(self) -> list[bytes]:
        """Return the store's key of each row."""
        return self.rows.store_keys(self.ids)

    def decode_replies(self, replies: Sequence[bytes | None], now_ms: int) -> DecodedRows:
        """Read what the store said of them."""
        return self.rows.decode(replies, id_hashes(self.ids), now_ms)


@dataclass(frozen=True, slots=True)
class NativeViewRequest:
    """By the library; what it returns cannot be written to."""

    view_read: ViewRead
    ids: KeyColumn

    def store_keys(self) -> list[bytes]:
        """Return the store's key of each row."""
        assert self.view_read.native is not None
        return self.view_read.native.store_keys(self.ids.buffer, self.ids.starts, self.ids.ends)

    def decode_replies(self, replies: Sequence[bytes | None], now_ms: int) -> DecodedRows:
        """Read what the store said of them."""
        assert self.view_read.native is not None
        ids = self.ids
        values, flags, broken = self.view_read.native.decode_rows(
            replies, ids.buffer, ids.starts, ids.ends, now_ms
        )
        matrix: NDArray[np.float32] = np.frombuffer(values, np.float32)
        shape = (len(ids), self.view_read.rows.width)
        return DecodedRows(matrix.reshape(shape), np.frombuffer(flags, np.uint32), broken)
