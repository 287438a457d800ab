"""Keys of a batch as one buffer with offsets; used for the split, evidence and the journal.

Where the native library is built, it hashes and encodes a whole batch at once, at 20 ns a key
(`ingress/src/accel/ids.rs`). Without it Python does so key by key, with the same bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from gateway.columns import Calls
from gateway.native_library import load_native_library
from protos.journal_pb2 import ServedBatch

Offsets = NDArray[np.uint32]
HashKeys = Callable[[bytes, bytes, Offsets, Offsets], bytes]
"""(prefix, buffer, starts, ends) -> (N,) uint64 as bytes: xxh3_64 of *prefix* + each key."""
EncodeField = Callable[[int, bytes, Offsets, Offsets], bytes]
"""(field number, buffer, starts, ends) -> the keys as a repeated field on the wire."""

KEY_SAMPLE_ALL = 65_536
"""Residues that the key sample divides hashes into; a sample of this many has every key."""
ENTITY_IDS = ServedBatch.DESCRIPTOR.fields_by_name["entity_ids"].number


def in_key_sample(key_hash: NDArray[np.uint64], sampled: int) -> NDArray[np.bool_]:
    """Return (N,) for (N,) key hashes: whether the key is in the key sample of *sampled* residues.

    sampled  0 to KEY_SAMPLE_ALL.
    """
    residues: NDArray[np.uint64] = key_hash & np.uint64(KEY_SAMPLE_ALL - 1)
    return residues < sampled


def hash_keys_in_python(prefix: bytes, buffer: bytes, starts: Offsets, ends: Offsets) -> bytes:
    """Hash keys without the native library; HashKeys."""
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    hashes = [xxh3_64_intdigest(prefix + buffer[start:end]) for start, end in spans]
    return np.array(hashes, dtype=np.uint64).tobytes()


def encode_field_in_python(number: int, buffer: bytes, starts: Offsets, ends: Offsets) -> bytes:
    """Encode keys without the native library; EncodeField for ServedBatch.entity_ids only."""
    assert number == ENTITY_IDS
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    entity_ids = [buffer[start:end].decode() for start, end in spans]
    return ServedBatch(entity_ids=entity_ids).SerializeToString()


HASH_KEYS: HashKeys = getattr(load_native_library(), "hashes", hash_keys_in_python)
ENCODE_FIELD: EncodeField = getattr(load_native_library(), "repeated_field", encode_field_in_python)


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """N keys: key i is buffer[starts[i]:ends[i]]. starts and ends are (N,)."""

    buffer: bytes
    starts: Offsets
    ends: Offsets

    @staticmethod
    def from_list(keys: Sequence[bytes]) -> "KeyColumn":
        """Join *keys* into one buffer."""
        ends = np.cumsum([0, *map(len, keys)]).astype(np.uint32)
        return KeyColumn(b"".join(keys), ends[:-1], ends[1:])

    @staticmethod
    def from_entity_ids(calls: Calls) -> "KeyColumn":
        """The entity ids of all rows of *calls*, row by row; the buffer is shared."""
        return KeyColumn(calls.entity_ids, calls.entity_offsets[:-1], calls.entity_offsets[1:])

    @staticmethod
    def concatenated(columns: "Sequence[KeyColumn]") -> "KeyColumn":
        """Join the keys of several columns, in order."""
        if len(columns) == 1:
            return columns[0]
        # Each column's offsets move by the length of the buffers before it.
        sizes = [len(column.buffer) for column in columns]
        buffer_starts = np.cumsum([0, *sizes[:-1]]).astype(np.uint32)
        shifts = np.repeat(buffer_starts, [len(column) for column in columns])
        return KeyColumn(
            b"".join([column.buffer for column in columns]),
            np.concatenate([column.starts for column in columns]) + shifts,
            np.concatenate([column.ends for column in columns]) + shifts,
        )

    def __len__(self) -> int:
        """The number of keys."""
        return len(self.starts)

    def to_list(self) -> list[bytes]:
        """Return each key as bytes of its own."""
        spans = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [self.buffer[start:end] for start, end in spans]

    def select(self, indexes: NDArray[np.intp] | slice) -> "KeyColumn":
        """Return the keys at *indexes*; the buffer is shared."""
        return KeyColumn(self.buffer, self.starts[indexes], self.ends[indexes])

    def none_empty(self) -> bool:
        """Whether every key has at least one byte."""
        return bool((self.ends > self.starts).all())

    def hashes(self, prefix: bytes) -> NDArray[np.uint64]:
        """Return (N,) xxh3_64 of *prefix* + each key; the prefixes are those of registry.types."""
        return np.frombuffer(HASH_KEYS(prefix, self.buffer, self.starts, self.ends), np.uint64)

    def to_entity_ids_field(self) -> bytes:
        """Return the keys as ServedBatch.entity_ids on the wire."""
        return ENCODE_FIELD(ENTITY_IDS, self.buffer, self.starts, self.ends)
