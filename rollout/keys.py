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
        fresh = keys - self.keys
        if self.keep < WHOLE_KEEP:
            fresh = {key for key in fresh if key % WHOLE_KEEP < self.keep}
        return fresh

    def add(self, keys: set[int]) -> None:
        """Count *keys*, and thin while there are too many."""
        self.keys |= keys
        while len(self.keys) > self.keys_max and self.keep > 1:
            self.keep //= 2
            self.keys = {key for key in self.keys if key % WHOLE_KEEP < self.keep}
