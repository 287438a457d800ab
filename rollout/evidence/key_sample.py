"""Sticky keys, each once. Memory is bounded by thinning on the keys' own bits."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

WHOLE_KEEP = 65_536
LOW_BITS = WHOLE_KEEP - 1


@dataclass(slots=True)
class KeySample:
    """Keys counted so far, of those kept; when they are too many, half of the kept go.

    Whether a key is kept depends on its hash alone, as in the gateways, so thinning is as fair to
    both arms as the split is, and the order of arrival does not matter.
    """

    keys_max: int
    keys: set[int] = field(default_factory=set)
    keep: int = WHOLE_KEEP
    """Those whose hash modulo 65,536 is less."""

    def fresh(self, keys: AbstractSet[int]) -> AbstractSet[int]:
        """Return those of *keys* that are kept and were not counted yet; *keys* itself if all."""
        if self.keep < WHOLE_KEEP:
            keys = set(self._kept(keys))
        return keys if keys.isdisjoint(self.keys) else keys - self.keys

    def count(self, accused: Iterable[int], others: Iterable[int]) -> tuple[int, int]:
        """The same as `first` where only their numbers matter: each key is looked up once."""
        known = self.keys
        before = len(known)
        if self.keep < WHOLE_KEEP:
            accused, others = self._kept(accused), self._kept(others)
        known.update(accused)
        between = len(known)
        known.update(others)
        after = len(known)
        if after > self.keys_max:
            self._thin()
        return between - before, after - between

    def first(
        self, accused: AbstractSet[int], others: AbstractSet[int]
    ) -> tuple[AbstractSet[int], AbstractSet[int]]:
        """Count both arms' keys; return those of each that were not counted yet.

        A key of both is the accused arm's.
        """
        mine, theirs = self.fresh(accused), self.fresh(others)
        if mine and theirs and not mine.isdisjoint(theirs):
            theirs = theirs - mine
        self.keys.update(mine)
        self.add(theirs)
        return mine, theirs

    def add(self, keys: AbstractSet[int]) -> None:
        """Count *keys*, and thin while there are too many."""
        self.keys.update(keys)
        if len(self.keys) > self.keys_max:
            self._thin()

    def _kept(self, keys: Iterable[int]) -> list[int]:
        keep = self.keep
        return [key for key in keys if key & LOW_BITS < keep]

    def _thin(self) -> None:
        while len(self.keys) > self.keys_max and self.keep > 1:
            self.keep //= 2
            self.keys = set(self._kept(self.keys))
