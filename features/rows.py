"""One stored row: its key, its bytes, and many of them at once as a matrix.

Layout, little-endian (tests/vectors/feature_rows.json):

    offset  0  8 B        first 8 bytes of the view's hash
            8  u64        xxh3_64 of the joined entity id
           16  i64        event time, Unix milliseconds
           24  W x u64    validity bits, least significant first; W = ceil(F / 64)
       24+8W  F x f32     the features; an invalid slot holds its default
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from features.entity_ids import id_hashes as hashes_of
from features.staleness import is_forgotten, is_stale
from features.views import View
from protos import predict_pb2

MISSING = int(predict_pb2.MISSING)
STALE = int(predict_pb2.STALE)
DEFAULTED = int(predict_pb2.DEFAULTED)

EVENT_MS_MAX = 2**53
"""Event times lie in 0 .. 2**53: exact as the doubles that Redis's Lua compares."""

WORD_BITS = 64
FLOATS = np.dtype("<f4")

_HEAD = Struct("<QQq")
"""View, id and event time."""


@dataclass(slots=True)
class DecodedRows:
    """B rows of one view, ready to be copied into a model's matrix."""

    values: NDArray[np.float32]
    """(B, F), C order; defaults where missing, stale or invalid."""
    flags: NDArray[np.uint32]
    """(B,) turnout.v1.RowFlag bits: MISSING, STALE, DEFAULTED. A missing or stale row is always
    DEFAULTED too."""
    broken: int
    """Rows with another view's hash, another entity's id or a wrong length; all MISSING. Above 0
    means that a writer or a cache is broken."""


class RowLayout(NamedTuple):
    """What finding and decoding the rows of a view takes, for Rust (ingress/src/accel/rows.rs)."""

    view: int
    """The first 8 bytes of its hash."""
    ttl_ms: int
    tail: bytes
    """What follows an id in a key; "{" comes before it."""
    all_valid: bytes
    """A row's validity words when nothing is defaulted."""
    defaults: bytes
    """F float32."""


class ViewRows:
    """Keys and bytes of one view's rows. Built once a view; holds no state after that."""

    def __init__(self, view: View) -> None:
        self.width = len(view.features)
        self._single_row_shape = (1, self.width)
        self._valid_word_count = words = -(-self.width // WORD_BITS)
        self._layout = np.dtype(
            [
                ("view", "<u8"),
                ("id", "<u8"),
                ("event_ms", "<i8"),
                ("valid", "<u8", (words,)),
                ("values", "<f4", (self.width,)),
            ]
        )
        self.row_bytes = self._layout.itemsize
        self._ttl_ms = view.ttl_ms
        self._view = int.from_bytes(bytes.fromhex(view.view_hash)[:8], "little")
        self._tail = f"}}:{view.name}@{view.view_hash[:16]}".encode()
        self._defaults = np.array([f.default_value for f in view.features], dtype=np.float32)
        self._all_valid = valid_words(np.ones((1, self.width), dtype=np.bool_))[0]
        self._all_valid_bytes = self._all_valid.astype("<u8").tobytes()
        self._values_at = self._layout.fields["values"][1] if self._layout.fields else 0
        # Stands in for a row that is not there: it can never carry this view's hash.
        absent = np.zeros(1, dtype=self._layout)
        absent["view"] = self._view ^ 0xFFFF_FFFF_FFFF_FFFF
        self._absent_row = absent.tobytes()

    @property
    def layout(self) -> RowLayout:
        """How its rows lie."""
        defaults = self._defaults.astype("<f4").tobytes()
        return RowLayout(self._view, self._ttl_ms, self._tail, self._all_valid_bytes, defaults)

    def store_key(self, entity_id: bytes) -> bytes:
        """Return the store's key of one joined id; the braces keep an entity on one node."""
        return b"{" + entity_id + self._tail

    def store_keys(self, ids: Sequence[bytes]) -> list[bytes]:
        """Return the store's keys of joined ids, in order."""
        tail = self._tail
        return [b"{" + entity_id + tail for entity_id in ids]

    def pack(
        self,
        ids: Sequence[bytes],
        event_times_ms: NDArray[np.int64],
        values: NDArray[np.float32],
        valid: NDArray[np.bool_],
    ) -> list[bytes]:
        """Return the stored bytes of N rows.

        ids             N joined ids, checked (features.entity_ids).
        event_times_ms  (N,) int64 Unix ms, 0 to 2**53.
        values, valid   (N, F) as features.encode gives them: invalid slots hold the default.

        Raises ValueError when a shape or an event time is off.
        """
        shape = (len(ids), self.width)
        if values.shape != shape or valid.shape != shape or event_times_ms.shape != shape[:1]:
            raise ValueError(
                f"{len(ids)} ids came with values {values.shape}, valid {valid.shape}, event times "
                f"{event_times_ms.shape}; this view's rows need {shape}, {shape}, {shape[:1]}"
            )
        if len(ids) and not 0 <= event_times_ms.min() <= event_times_ms.max() < EVENT_MS_MAX:
            raise ValueError(
                f"event times run from {event_times_ms.min()} to {event_times_ms.max()}; they are "
                f"Unix milliseconds, 0 to {EVENT_MS_MAX}"
            )
        rows = np.zeros(len(ids), dtype=self._layout)
        rows["view"] = self._view
        rows["id"] = hashes_of(ids)
        rows["event_ms"] = event_times_ms
        rows["valid"] = valid_words(valid)
        rows["values"] = values
        joined, step = rows.tobytes(), self.row_bytes
        return [joined[start : start + step] for start in range(0, len(joined), step)]

    def decode(
        self, replies: Sequence[bytes | None], id_hashes: NDArray[np.uint64], now_ms: int
    ) -> DecodedRows:
        """Turn one MGET's replies into a matrix; never raises for what the replies hold.

        replies    B stored values, in the order asked; None: no such key.
        id_hashes  (B,) xxh3_64 of the joined id asked for, each.
        now_ms     Unix ms; the instant rows are judged stale at.

        One join and one view over all rows; 64 rows of 20 take about 12 us
        (benchmarks/micro/row_decode.py). A value of a wrong length is replaced before the join, so
        it cannot shift its neighbours.
        """
        size, absent = self.row_bytes, self._absent_row
        whole = [r if r is not None and len(r) == size else absent for r in replies]
        rows = np.frombuffer(b"".join(whole), dtype=self._layout)
        present = (rows["view"] == self._view) & (rows["id"] == id_hashes)
        values = np.array(rows["values"], dtype=np.float32, order="C")
        age_ms = now_ms - rows["event_ms"]
        usable = present & ~is_stale(age_ms, self._ttl_ms)
        if self._valid_word_count == 1:
            defaulted = rows["valid"][:, 0] != self._all_valid[0]
        else:
            defaulted = (rows["valid"] != self._all_valid).any(axis=1)
        if usable.all():
            return DecodedRows(values, defaulted * np.uint32(DEFAULTED), 0)
        broken = len(whole) - int(np.count_nonzero(present)) - list(replies).count(None)
        values[~usable] = self._defaults
        missing = ~present | is_forgotten(age_ms, self._ttl_ms)
        flags = row_flags(missing, ~usable & ~missing, defaulted)
        return DecodedRows(values, flags, broken)

    def decode_row(
        self, reply: bytes | None, entity_id: bytes, now_ms: int
    ) -> tuple[NDArray[np.float32], int, int]:
        """Return one row's (1, F) values, its flags and 1 if it was broken: `decode` of one reply.

        A fresh, whole row is read without numpy's dozen calls for columns, in 2 us.
        """
        values_at = self._values_at
        if reply is not None and len(reply) == self.row_bytes:
            view, row_id, event_ms = _HEAD.unpack_from(reply)
            if (
                view == self._view
                and row_id == xxh3_64_intdigest(entity_id)
                and not is_stale(now_ms - event_ms, self._ttl_ms)
                and reply[_HEAD.size : values_at] == self._all_valid_bytes
            ):
                return np.ndarray(self._single_row_shape, FLOATS, reply, values_at), 0, 0
        decoded = self.decode([reply], hashes_of([entity_id]), now_ms)
        return decoded.values, int(decoded.flags[0]), decoded.broken

    def default_rows(self, rows: int) -> DecodedRows:
        """Return *rows* missing rows: what a model sees while the store does not answer."""
        values = np.empty((rows, self.width), dtype=np.float32)
        values[:] = self._defaults
        return DecodedRows(values, np.full(rows, MISSING | DEFAULTED, dtype=np.uint32), 0)


def row_flags(
    missing: NDArray[np.bool_], stale: NDArray[np.bool_], defaulted: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Return RowFlag bits (N,): what both the online read and the offline join report."""
    took_default = missing | stale | defaulted
    return (
        missing * np.uint32(MISSING)
        | stale * np.uint32(STALE)
        | took_default * np.uint32(DEFAULTED)
    )


def valid_words(valid: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack (N, F) bool into (N, ceil(F / 64)) words, least significant bit first."""
    count, width = valid.shape
    words = -(-width // WORD_BITS)
    packed = np.zeros((count, words * 8), dtype=np.uint8)
    if width:
        bits = np.packbits(valid, axis=1, bitorder="little")
        packed[:, : bits.shape[1]] = bits
    return packed.view("<u8").astype(np.uint64, copy=False)


def valid_flags(valid_words: NDArray[np.uint64], width: int) -> NDArray[np.bool_]:
    """Undo `valid_words`: (N, W) words to (N, *width*) bool."""
    packed = np.ascontiguousarray(valid_words.astype("<u8", copy=False)).view(np.uint8)
    return np.unpackbits(packed, axis=1, count=width, bitorder="little").astype(np.bool_)
