"""The key and the bytes of stored rows: packing, and decoding many rows into a matrix.

One row, little-endian (examples are in tests/vectors/feature_rows.json):

    offset  0  8 B        first 8 bytes of the view's hash
            8  u64        xxh3_64 of the joined entity id
           16  i64        event time, Unix milliseconds
           24  W x u64    validity bits, least significant first; W = ceil(F / 64)
       24+8W  F x f32     the features; an invalid feature holds its default

`ViewRows.decode` and `decode_row` run for every batch of a gateway, and are written for speed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from features.entity_ids import id_hashes as hashes_of
from features.staleness import is_forgotten, is_from_future, is_stale
from features.views import View
from protos import predict_pb2

MISSING = int(predict_pb2.MISSING)
STALE = int(predict_pb2.STALE)
DEFAULTED = int(predict_pb2.DEFAULTED)

EVENT_MS_MAX = 2**53
"""Event times are below this, so that they are exact as doubles: Redis's Lua compares doubles."""

WORD_BITS = 64
FLOATS = np.dtype("<f4")

_HEAD = Struct("<QQq")
"""The first three fields of a row: view, id and event time."""


@dataclass(slots=True)
class DecodedRows:
    """B decoded rows of one view, to be copied into a model's input matrix."""

    values: NDArray[np.float32]
    """(B, F) in C order. Missing, stale and invalid features have their defaults."""
    flags: NDArray[np.uint32]
    """(B,) turnout.v1.RowFlag bits: MISSING, STALE, DEFAULTED. A missing or stale row is always
    DEFAULTED as well."""
    broken: int
    """Number of rows with another view's hash, another entity's id, a wrong length or an event in
    the future. They are MISSING. A number above 0 means that a writer or a cache is broken."""


class RowLayout(NamedTuple):
    """The constants that native code needs to build keys and to decode rows of one view."""

    view: int
    """First 8 bytes of the view hash, as a little-endian integer."""
    ttl_ms: int
    tail: bytes
    """The part of a key that follows the id. The part before the id is "{"."""
    all_valid: bytes
    """The validity bits of a row in which every feature is valid."""
    defaults: bytes
    """F float32 in little-endian order."""


class ViewRows:
    """Builds keys, packs and decodes rows of one view. It does not change after construction.

    namespace  of the store's URL (features.online.store_url); it stands in every key.
    """

    def __init__(self, view: View, namespace: str = "") -> None:
        self.width = len(view.features)
        """F, the number of features."""
        self._single_row_shape = (1, self.width)
        self._valid_word_count = -(-self.width // WORD_BITS)
        # The row as a numpy record, so that all rows of a batch are read at once.
        self._layout = np.dtype(
            [
                ("view", "<u8"),
                ("id", "<u8"),
                ("event_ms", "<i8"),
                ("valid", "<u8", (self._valid_word_count,)),
                ("values", "<f4", (self.width,)),
            ]
        )
        self.row_bytes = self._layout.itemsize
        self._values_at = self._layout.fields["values"][1] if self._layout.fields else 0
        # The constants that every row or key of this view has.
        self._ttl_ms = view.ttl_ms
        self._view = int.from_bytes(bytes.fromhex(view.view_hash)[:8], "little")
        prefix = f"{namespace}:" if namespace else ""
        self._tail = f"}}:{prefix}{view.name}@{view.view_hash[:16]}".encode()
        self._defaults = np.array(
            [feature.default_value for feature in view.features], dtype=np.float32
        )
        self._all_valid = pack_valid(np.ones((1, self.width), dtype=np.bool_))[0]
        self._all_valid_bytes = self._all_valid.astype("<u8").tobytes()
        # A row that stands for an absent one: its view differs from this view in every bit.
        absent = np.zeros(1, dtype=self._layout)
        absent["view"] = self._view ^ 0xFFFF_FFFF_FFFF_FFFF
        self._absent_row = absent.tobytes()

    @property
    def layout(self) -> RowLayout:
        """The constants of this view, for the native library."""
        defaults = self._defaults.astype("<f4").tobytes()
        return RowLayout(self._view, self._ttl_ms, self._tail, self._all_valid_bytes, defaults)

    def store_key(self, entity_id: bytes) -> bytes:
        """Return the store key of a joined id.

        The braces are a Redis Cluster hash tag: all views of an entity are on one node.
        """
        return b"{" + entity_id + self._tail

    def store_keys(self, ids: Sequence[bytes]) -> list[bytes]:
        """Return the store keys of joined ids, in order."""
        tail = self._tail
        return [b"{" + entity_id + tail for entity_id in ids]

    def pack(
        self,
        ids: Sequence[bytes],
        event_times_ms: NDArray[np.int64],
        values: NDArray[np.float32],
        valid: NDArray[np.bool_],
    ) -> list[bytes]:
        """Return the stored bytes of N rows, each by itself. See `pack_joined`."""
        joined, step = self.pack_joined(ids, event_times_ms, values, valid), self.row_bytes
        return [joined[start : start + step] for start in range(0, len(joined), step)]

    def pack_joined(
        self,
        ids: Sequence[bytes],
        event_times_ms: NDArray[np.int64],
        values: NDArray[np.float32],
        valid: NDArray[np.bool_],
    ) -> bytes:
        """Return the stored bytes of N rows, joined.

        ids             N checked and joined ids (features.entity_ids).
        event_times_ms  (N,) int64, Unix ms, from 0 to below 2**53.
        values, valid   (N, F) as features.encode returns them: invalid features hold the default.

        Raises ValueError when shapes disagree or an event time is out of range.
        """
        # Wrong arguments must not become bytes that a reader would trust.
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
        # Fill all rows as one record array.
        rows = np.zeros(len(ids), dtype=self._layout)
        rows["view"] = self._view
        rows["id"] = hashes_of(ids)
        rows["event_ms"] = event_times_ms
        rows["valid"] = pack_valid(valid)
        rows["values"] = values
        return rows.tobytes()

    def unpack(
        self, rows: Sequence[bytes]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.float32]]:
        """Return event times (N,), validity words (N, W) and values (N, F) of rows from `pack`."""
        read = np.frombuffer(b"".join(rows), dtype=self._layout)
        return read["event_ms"], read["valid"], read["values"]

    def decode(
        self, replies: Sequence[bytes | None], id_hashes: NDArray[np.uint64], now_ms: int
    ) -> DecodedRows:
        """Decode the values of one MGET. No content of a value makes this raise.

        replies    B stored values, in the order of the keys; None for an absent key.
        id_hashes  (B,) uint64: xxh3_64 of the joined id of each key.
        now_ms     the instant of the read, Unix ms, from which ages are counted.

        The values are joined and read as one record array. 64 rows of 20 features take about
        12 us (benchmarks/micro/row_decode.py).
        """
        size, absent = self.row_bytes, self._absent_row
        # A value of a wrong length would shift all rows behind it, so it is replaced first.
        values_or_absent = [
            reply if reply is not None and len(reply) == size else absent for reply in replies
        ]
        rows = np.frombuffer(b"".join(values_or_absent), dtype=self._layout)
        values = np.array(rows["values"], dtype=np.float32, order="C")
        age_ms = now_ms - rows["event_ms"]
        present = (rows["view"] == self._view) & (rows["id"] == id_hashes) & ~is_from_future(age_ms)
        usable = present & ~is_stale(age_ms, self._ttl_ms)
        if self._valid_word_count == 1:
            defaulted = rows["valid"][:, 0] != self._all_valid[0]
        else:
            defaulted = (rows["valid"] != self._all_valid).any(axis=1)
        # Nearly every batch ends here.
        if usable.all():
            return DecodedRows(values, defaulted * np.uint32(DEFAULTED), 0)
        # Some rows cannot be used: they get the defaults, and flags that say why.
        broken = len(replies) - int(np.count_nonzero(present)) - list(replies).count(None)
        values[~usable] = self._defaults
        missing = ~present | is_forgotten(age_ms, self._ttl_ms)
        flags = row_flags(missing, ~usable & ~missing, defaulted)
        return DecodedRows(values, flags, broken)

    def decode_row(
        self, reply: bytes | None, entity_id: bytes, now_ms: int
    ) -> tuple[NDArray[np.float32], int, int]:
        """Decode one value, as `decode` does: return (1, F) values, RowFlag bits, and 1 if broken.

        A fresh row with all features valid takes 2 us, because it needs one numpy call instead of
        a dozen.
        """
        values_at = self._values_at
        if reply is not None and len(reply) == self.row_bytes:
            view, row_id, event_ms = _HEAD.unpack_from(reply)
            if (
                view == self._view
                and row_id == xxh3_64_intdigest(entity_id)
                and not is_stale(now_ms - event_ms, self._ttl_ms)
                and not is_from_future(now_ms - event_ms)
                and reply[_HEAD.size : values_at] == self._all_valid_bytes
            ):
                return np.ndarray(self._single_row_shape, FLOATS, reply, values_at), 0, 0
        decoded = self.decode([reply], hashes_of([entity_id]), now_ms)
        return decoded.values, int(decoded.flags[0]), decoded.broken

    def default_rows(self, rows: int) -> DecodedRows:
        """Return *rows* missing rows, with which models score while the store does not answer."""
        values = np.empty((rows, self.width), dtype=np.float32)
        values[:] = self._defaults
        return DecodedRows(values, np.full(rows, MISSING | DEFAULTED, dtype=np.uint32), 0)


def row_flags(
    missing: NDArray[np.bool_], stale: NDArray[np.bool_], defaulted: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Return RowFlag bits (N,) for the online read and the offline join, from three (N,) columns.

    A missing or stale row is DEFAULTED as well.
    """
    has_default = missing | stale | defaulted
    return (
        missing * np.uint32(MISSING) | stale * np.uint32(STALE) | has_default * np.uint32(DEFAULTED)
    )


def pack_valid(valid: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack (N, F) bool into a bitmap: (N, ceil(F / 64)) uint64, least significant bit first."""
    count, width = valid.shape
    word_count = -(-width // WORD_BITS)
    packed = np.zeros((count, word_count * 8), dtype=np.uint8)
    if width:
        bits = np.packbits(valid, axis=1, bitorder="little")
        packed[:, : bits.shape[1]] = bits
    return packed.view("<u8").astype(np.uint64, copy=False)


def unpack_valid(bitmap: NDArray[np.uint64], width: int) -> NDArray[np.bool_]:
    """Unpack a bitmap (N, W) uint64 into (N, *width*) bool, the inverse of `pack_valid`."""
    packed = np.ascontiguousarray(bitmap.astype("<u8", copy=False)).view(np.uint8)
    return np.unpackbits(packed, axis=1, count=width, bitorder="little").astype(np.bool_)
