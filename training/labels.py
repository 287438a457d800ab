"""Labels for training, and the split into held-out rows and rows to fit on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from features.offline import Spine
from training.errors import LabelsError

HASH_BUCKETS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Labels:
    """N labelled rows.

    ids        entity -> its N ids, for each entity of the model.
    as_of_ms   (N,) int64, Unix ms. Features are taken as they were known at this instant.
    positive   (N,) bool, the labels.

    Raises LabelsError when lengths differ, or when all labels are equal.
    """

    ids: Mapping[str, Sequence[str]]
    as_of_ms: NDArray[np.int64]
    positive: NDArray[np.bool_]

    def __post_init__(self) -> None:
        sizes = {
            **{name: len(ids) for name, ids in self.ids.items()},
            "as_of_ms": len(self.as_of_ms),
            "positive": len(self.positive),
        }
        if len(set(sizes.values())) != 1 or not self.ids:
            raise LabelsError(
                f"labels differ in length: {sizes}; each row needs an id, an instant and a label"
            )
        if self.positive.all() or not self.positive.any():
            raise LabelsError(
                f"all {len(self.positive)} labels are {bool(self.positive.all())}; a model needs "
                "both classes"
            )

    def __len__(self) -> int:
        return len(self.positive)

    @property
    def spine(self) -> Spine:
        """The ids and instants, as the offline store takes them."""
        return Spine(ids=self.ids, as_of_ms=self.as_of_ms)

    def joined_ids(self) -> list[bytes]:
        """Return the ids of each row joined by 0x1F, the keys that the split hashes."""
        return ["\x1f".join(row).encode() for row in zip(*self.ids.values(), strict=True)]

    def selected(self, chosen: NDArray[np.bool_]) -> "Labels":
        """Return the rows where *chosen* (N,) is true, in the same order."""
        indices = np.flatnonzero(chosen).tolist()
        return Labels(
            ids={name: [ids[index] for index in indices] for name, ids in self.ids.items()},
            as_of_ms=self.as_of_ms[chosen],
            positive=self.positive[chosen],
        )


def is_held_out(model: str, keys: Sequence[bytes], share: float) -> NDArray[np.bool_]:
    """Return (N,) bool, True for the rows that no version of *model* is fitted on.

    The choice is a hash of the key, so it depends on no order, run or machine.

    keys    the key of each row. Rows with the same key are on the same side.
    share   share of the distinct keys that is held out, 0 to 1. The keys of a smaller share are
            among those of a larger share.
    """
    salt = b"held-out\x00" + model.encode() + b"\x00"
    limit = round(share * HASH_BUCKETS)
    return np.array(
        [xxh3_64_intdigest(salt + key) % HASH_BUCKETS < limit for key in keys], dtype=np.bool_
    )
