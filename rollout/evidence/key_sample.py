"""Sets of sticky keys whose memory is bounded, because they are thinned by the bits of the keys."""

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np

from protos import rollout_pb2

SAMPLE_ALL = 65_536
LOW_BITS = SAMPLE_ALL - 1


@dataclass(slots=True)
class KeySample:
    """Keys counted so far. When they are too many, the limit of the sample is halved.

    Whether a key is in the sample depends on its hash alone, as in the gateways. So thinning is as
    fair to both arms as the split is, and the order of arrival does not matter.
    """

    keys_max: int
    keys: set[int] = field(default_factory=set)
    sampled_of_65536: int = SAMPLE_ALL
    """Only keys whose hash modulo 65,536 is less are in the sample."""

    def uncounted(self, keys: AbstractSet[int]) -> AbstractSet[int]:
        """Return those of *keys* in the sample that are not counted; *keys* itself if all are."""
        if self.sampled_of_65536 < SAMPLE_ALL:
            keys = set(self._in_sample(keys))
        return keys if keys.isdisjoint(self.keys) else keys - self.keys

    def count_new(
        self, candidate_keys: Iterable[int], baseline_keys: Iterable[int]
    ) -> tuple[int, int]:
        """Count both arms' keys. Return how many of each were not counted before.

        It is `add_new` for the case that only the numbers matter, and looks each key up once.
        """
        known = self.keys
        before = len(known)
        if self.sampled_of_65536 < SAMPLE_ALL:
            candidate_keys, baseline_keys = (
                self._in_sample(candidate_keys),
                self._in_sample(baseline_keys),
            )
        known.update(candidate_keys)
        between = len(known)
        known.update(baseline_keys)
        after = len(known)
        if after > self.keys_max:
            self._thin()
        return between - before, after - between

    def add_new(
        self, candidate_keys: AbstractSet[int], baseline_keys: AbstractSet[int]
    ) -> tuple[AbstractSet[int], AbstractSet[int]]:
        """Count both arms' keys. Return those of each that were not counted before.

        A key in both arms counts for the candidate.
        """
        candidate, baseline = self.uncounted(candidate_keys), self.uncounted(baseline_keys)
        if candidate and baseline and not candidate.isdisjoint(baseline):
            baseline = baseline - candidate
        self.keys.update(candidate)
        self.add_keys(baseline)
        return candidate, baseline

    def add_keys(self, keys: AbstractSet[int]) -> None:
        """Count *keys*, which are in the sample, and thin if there are too many."""
        self.keys.update(keys)
        if len(self.keys) > self.keys_max:
            self._thin()

    def _in_sample(self, keys: Iterable[int]) -> list[int]:
        limit = self.sampled_of_65536
        return [key for key in keys if key & LOW_BITS < limit]

    def _thin(self) -> None:
        while len(self.keys) > self.keys_max and self.sampled_of_65536 > 1:
            self.sampled_of_65536 //= 2
            self.keys = set(self._in_sample(self.keys))

    def to_proto(self) -> rollout_pb2.KeySet:
        """Return the keys and the limit of the sample; equal samples give equal messages."""
        limit = 0 if self.sampled_of_65536 == SAMPLE_ALL else self.sampled_of_65536
        return rollout_pb2.KeySet(keys=pack_keys(self.keys), sampled_of_65536=limit)

    @staticmethod
    def from_proto(message: rollout_pb2.KeySet, keys_max: int) -> "KeySample":
        """Restore a sample; *keys_max* comes from the policy."""
        limit = message.sampled_of_65536 or SAMPLE_ALL
        return KeySample(keys_max, unpack_keys(message.keys), limit)


def pack_keys(keys: Collection[int]) -> bytes:
    """Return sorted keys, 8 bytes each, little-endian."""
    return np.sort(np.fromiter(keys, dtype="<u8", count=len(keys))).tobytes()


def unpack_keys(packed: bytes) -> set[int]:
    """Return the keys that `pack_keys` wrote."""
    return set(np.frombuffer(packed, dtype="<u8").tolist())
