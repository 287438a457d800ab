"""Keys of a batch as one buffer: what calls are split, remembered and journalled by.

Hashed, and written to the wire, for a whole batch at once where the native library is built
(`ingress/src/accel/ids.rs`): 20 ns a key. Without it one by one in Python, to the same bytes.
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
"""(before, buffer, starts, ends): xxh3_64 of *before* and each item, as the bytes of uint64s."""
EncodeField = Callable[[int, bytes, Offsets, Offsets], bytes]
"""(number, buffer, starts, ends): a repeated field of these items."""

KEY_SAMPLE_ALL = 65_536
"""Of so many residues of a key's hash: thinning that leaves nothing out."""
ENTITY_IDS = ServedBatch.DESCRIPTOR.fields_by_name["entity_ids"].number


def in_key_sample(key_hash: NDArray[np.uint64], sampled: int) -> NDArray[np.bool_]:
    """Return, for each (N,) hash, whether thinning to *keep* residues leaves its key in."""
    residues: NDArray[np.uint64] = key_hash & np.uint64(KEY_SAMPLE_ALL - 1)
    return residues < sampled


def hash_keys_in_python(prefix: bytes, buffer: bytes, starts: Offsets, ends: Offsets) -> bytes:
    """Hash in Python."""
    items = zip(starts.tolist(), ends.tolist(), strict=True)
    values = [xxh3_64_intdigest(prefix + buffer[start:end]) for start, end in items]
    return np.array(values, dtype=np.uint64).tobytes()


def encode_field_in_python(number: int, buffer: bytes, starts: Offsets, ends: Offsets) -> bytes:
    """Write ServedBatch.entity_ids in Python: the one field that is asked for."""
    assert number == ENTITY_IDS
    items = zip(starts.tolist(), ends.tolist(), strict=True)
    names = [buffer[start:end].decode() for start, end in items]
    return ServedBatch(entity_ids=names).SerializeToString()


HASH_KEYS: HashKeys = getattr(load_native_library(), "hashes", hash_keys_in_python)
ENCODE_FIELD: EncodeField = getattr(load_native_library(), "repeated_field", encode_field_in_python)


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """N keys: key i is buffer[starts[i]:ends[i]]."""

    buffer: bytes
    starts: Offsets
    """(N,)."""
    ends: Offsets
    """(N,)."""

    @staticmethod
    def from_list(keys: Sequence[bytes]) -> "KeyColumn":
        """Lay *keys* out."""
        ends = np.cumsum([0, *map(len, keys)]).astype(np.uint32)
        return KeyColumn(b"".join(keys), ends[:-1], ends[1:])

    @staticmethod
    def from_entity_ids(calls: Calls) -> "KeyColumn":
        """Every id of every row of *calls*, row by row."""
        return KeyColumn(calls.entity_ids, calls.entity_offsets[:-1], calls.entity_offsets[1:])

    @staticmethod
    def concatenated(columns: "Sequence[KeyColumn]") -> "KeyColumn":
        """Lay the keys of *several* behind each other."""
        if len(columns) == 1:
            return columns[0]
        sizes = [len(one.buffer) for one in columns]
        before = np.cumsum([0, *sizes[:-1]]).astype(np.uint32)
        shift = np.repeat(before, [len(one) for one in columns])
        return KeyColumn(
            b"".join([one.buffer for one in columns]),
            np.concatenate([one.starts for one in columns]) + shift,
            np.concatenate([one.ends for one in columns]) + shift,
        )

    def __len__(self) -> int:
        """N."""
        return len(self.starts)

    def to_list(self) -> list[bytes]:
        """Return them one by one."""
        items = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [self.buffer[start:end] for start, end in items]

    def select(self, indexes: NDArray[np.intp] | slice) -> "KeyColumn":
        """Return some of them."""
        return KeyColumn(self.buffer, self.starts[indexes], self.ends[indexes])

    def none_empty(self) -> bool:
        """Whether none is empty."""
        return bool((self.ends > self.starts).all())

    def hashes(self, prefix: bytes) -> NDArray[np.uint64]:
        """(N,) xxh3_64 of *before* and each key: registry.types' hashes, by what comes before."""
        return np.frombuffer(HASH_KEYS(prefix, self.buffer, self.starts, self.ends), np.uint64)

    def to_entity_ids_field(self) -> bytes:
        """Return them as ServedBatch.entity_ids on the wire."""
        return ENCODE_FIELD(ENTITY_IDS, self.buffer, self.starts, self.ends)
