"""Sticky keys, each once. Memory is bounded by thinning on the keys' own bits."""

from dataclasses import dataclass, field

WHOLE_KEEP = 65_536


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

    def fresh(self, keys: set[int]) -> set[int]:
        """Return those of *keys* that are kept and were not counted yet."""
        if not keys:
            return keys
        if self.keep < WHOLE_KEEP:
            keys = {key for key in keys if key % WHOLE_KEEP < self.keep}
        return keys - self.keys

    def first(self, accused: set[int], others: set[int]) -> tuple[set[int], set[int]]:
        """Count both arms' keys; return those of each that were not counted yet.

        A key of both is the accused arm's.
        """
        mine, theirs = self.fresh(accused), self.fresh(others)
        if mine and theirs and not mine.isdisjoint(theirs):
            theirs = theirs - mine
        if mine:
            self.add(mine)
        if theirs:
            self.add(theirs)
        return mine, theirs

    def add(self, keys: set[int]) -> None:
        """Count *keys*, and thin while there are too many."""
        self.keys |= keys
        while len(self.keys) > self.keys_max and self.keep > 1:
            self.keep //= 2
            self.keys = {key for key in self.keys if key % WHOLE_KEEP < self.keep}
