"""Reads one view's rows for a whole batch: it makes the store's keys and decodes the replies.

Where the native library is built, each step is one native call (`ingress/src/accel/rows.rs`), which
saves .3 us a row. A view of several entities, and every view without the library, goes through
features.rows, with the same bits.
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
    """Reads rows of one view natively; turnout_ingress.NativeViewRows is one."""

    def store_keys(self, buffer: bytes, starts: object, ends: object) -> Sequence[bytes]:
        """Return the store's key of each entity id, as turnout_ingress.StoreKeys."""
        ...

    def decode_rows(
        self,
        replies: Sequence[bytes | None],
        buffer: bytes,
        starts: object,
        ends: object,
        now_ms: int,
    ) -> tuple[bytes, bytes, int]:
        """Return (R, F) float32 values, (R,) uint32 flags and the number of broken rows.

        The arrays come as bytes, with the bits of ViewRows.decode.
        """
        ...


def load_native_rows(rows: ViewRows) -> NativeViewRows | None:
    """Return the native reader of this view, or None when there is no native library with one."""
    reader = getattr(load_native_library(), "NativeViewRows", None)
    return None if reader is None else reader(*rows.layout)


@dataclass(frozen=True, slots=True)
class ViewRead:
    """How one view is read for the rows of a model.

    rows              the view's layout and decoder.
    entity_positions  positions in Row.keys of the ids that name the view's entity.
    native            the native reader, where there is one.
    """

    rows: ViewRows
    entity_positions: tuple[int, ...]
    native: NativeViewRows | None = None

    @property
    def native_position(self) -> int | None:
        """The position of the entity id by which the native reader reads; None if it cannot."""
        return self.entity_positions[0] if self.native and len(self.entity_positions) == 1 else None

    def request(self, ids: KeyColumn, entities: int) -> "ViewRequest":
        """Return the request for one batch. *ids* has *entities* ids a row, row by row."""
        if self.native_position is not None:
            return NativeViewRequest(self, ids.select(slice(self.native_position, None, entities)))
        columns = [
            ids.select(slice(position, None, entities)).to_list()
            for position in self.entity_positions
        ]
        if len(columns) == 1:
            return PythonViewRequest(self.rows, columns[0])
        return PythonViewRequest(
            self.rows, [join_ids(row_ids) for row_ids in zip(*columns, strict=True)]
        )


class ViewRequest(Protocol):
    """The request for one view's rows of one batch."""

    def store_keys(self) -> Sequence[bytes]:
        """Return the store's key of each row."""
        ...

    def decode_replies(self, replies: Sequence[bytes | None], now_ms: int) -> DecodedRows:
        """Decode the store's replies, which are in the order of the keys, at this Unix ms."""
        ...


@dataclass(frozen=True, slots=True)
class PythonViewRequest:
    """A ViewRequest that uses features.rows."""

    rows: ViewRows
    ids: list[bytes]

    def store_keys(self) -> Sequence[bytes]:
        """Return the store's key of each row (ViewRequest)."""
        return self.rows.store_keys(self.ids)

    def decode_replies(self, replies: Sequence[bytes | None], now_ms: int) -> DecodedRows:
        """Decode the store's replies (ViewRequest)."""
        return self.rows.decode(replies, id_hashes(self.ids), now_ms)


@dataclass(frozen=True, slots=True)
class NativeViewRequest:
    """A ViewRequest that uses the native library; the arrays it returns are read-only."""

    view_read: ViewRead
    ids: KeyColumn

    def store_keys(self) -> Sequence[bytes]:
        """Return the store's key of each row (ViewRequest)."""
        assert self.view_read.native is not None
        return self.view_read.native.store_keys(self.ids.buffer, self.ids.starts, self.ids.ends)

    def decode_replies(self, replies: Sequence[bytes | None], now_ms: int) -> DecodedRows:
        """Decode the store's replies (ViewRequest)."""
        assert self.view_read.native is not None
        ids = self.ids
        values, flags, broken = self.view_read.native.decode_rows(
            replies, ids.buffer, ids.starts, ids.ends, now_ms
        )
        matrix: NDArray[np.float32] = np.frombuffer(values, np.float32)
        shape = (len(ids), self.view_read.rows.width)
        return DecodedRows(matrix.reshape(shape), np.frombuffer(flags, np.uint32), broken)
