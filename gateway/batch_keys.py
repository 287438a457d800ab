"""Keys of a batch as one buffer: what calls are split, remembered and journalled by.

Hashed, and written to the wire, for a whole batch at once where the native library is built
(`ingress/src/ids.rs`): 20 ns a key. Without it one by one in Python, to the same bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from gateway.columns import Calls
from gateway.native_library import built
from protos.journal_pb2 import ServedBatch

Offsets = NDArray[np.uint32]
Hash = Callable[[bytes, bytes, Offsets, Offsets], bytes]
"""(before, buffer, starts, ends): xxh3_64 of *before* and each item, as the bytes of uint64s."""
Field = Callable[[int, bytes, Offsets, Offsets], bytes]
"""(number, buffer, starts, ends): a repeated field of these items."""

KEEP_ALL = 65_536
"""Of so many residues of a key's hash: thinning that leaves nothing out."""
ENTITY_IDS = ServedBatch.DESCRIPTOR.fields_by_name["entity_ids"].number


def kept(key_hash: NDArray[np.uint64], keep: int) -> NDArray[np.bool_]:
    """Return, for each (N,) hash, whether thinning to *keep* residues leaves its key in."""
    residues: NDArray[np.uint64] = key_hash & np.uint64(KEEP_ALL - 1)
    return residues < keep


def hashed(before: bytes, buffer: bytes, starts: Offsets, ends: Offsets) -> bytes:
    """Hash in Python."""
    items = zip(starts.tolist(), ends.tolist(), strict=True)
    values = [xxh3_64_intdigest(before + buffer[start:end]) for start, end in items]
    return np.array(values, dtype=np.uint64).tobytes()


def fielded(number: int, buffer: bytes, starts: Offsets, ends: Offsets) -> bytes:
    """Write ServedBatch.entity_ids in Python: the one field that is asked for."""
    assert number == ENTITY_IDS
    items = zip(starts.tolist(), ends.tolist(), strict=True)
    names = [buffer[start:end].decode() for start, end in items]
    return ServedBatch(entity_ids=names).SerializeToString()


HASH: Hash = getattr(built(), "hashes", hashed)
FIELD: Field = getattr(built(), "repeated_field", fielded)


@dataclass(frozen=True, slots=True)
class Keys:
    """N keys: key i is buffer[starts[i]:ends[i]]."""

    buffer: bytes
    starts: Offsets
    """(N,)."""
    ends: Offsets
    """(N,)."""

    @staticmethod
    def of(keys: Sequence[bytes]) -> "Keys":
        """Lay *keys* out."""
        ends = np.cumsum([0, *map(len, keys)]).astype(np.uint32)
        return Keys(b"".join(keys), ends[:-1], ends[1:])

    @staticmethod
    def of_rows(calls: Calls) -> "Keys":
        """Every id of every row of *calls*, row by row."""
        return Keys(calls.entity_ids, calls.entity_offsets[:-1], calls.entity_offsets[1:])

    @staticmethod
    def joined(several: "Sequence[Keys]") -> "Keys":
        """Lay the keys of *several* behind each other."""
        if len(several) == 1:
            return several[0]
        sizes = [len(one.buffer) for one in several]
        before = np.cumsum([0, *sizes[:-1]]).astype(np.uint32)
        shift = np.repeat(before, [len(one) for one in several])
        return Keys(
            b"".join([one.buffer for one in several]),
            np.concatenate([one.starts for one in several]) + shift,
            np.concatenate([one.ends for one in several]) + shift,
        )

    def __len__(self) -> int:
        """N."""
        return len(self.starts)

    def each(self) -> list[bytes]:
        """Return them one by one."""
        items = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [self.buffer[start:end] for start, end in items]

    def at(self, places: NDArray[np.intp] | slice) -> "Keys":
        """Return some of them."""
        return Keys(self.buffer, self.starts[places], self.ends[places])

    def whole(self) -> bool:
        """Whether none is empty."""
        return bool((self.ends > self.starts).all())

    def hashes(self, before: bytes) -> NDArray[np.uint64]:
        """(N,) xxh3_64 of *before* and each key: registry.types' hashes, by what comes before."""
        return np.frombuffer(HASH(before, self.buffer, self.starts, self.ends), np.uint64)

    def entity_ids(self) -> bytes:
        """Return them as ServedBatch.entity_ids on the wire."""
        return FIELD(ENTITY_IDS, self.buffer, self.starts, self.ends)
