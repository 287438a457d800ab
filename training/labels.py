"""What really happened: entities, instants, and whether the label was true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.offline import Spine
from training.errors import LabelsError


@dataclass(frozen=True, kw_only=True)
class Labels:
    """N labelled rows.

    ids        entity -> its N ids; the entities are the model's.
    as_of_ms   (N,) int64 Unix ms: features are taken as they were known then.
    positive   (N,) bool.
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
            raise LabelsError(f"labels differ in length: {sizes}; one id, time and label a row")
        if self.positive.all() or not self.positive.any():
            raise LabelsError(
                f"all {len(self.positive)} labels are {bool(self.positive.all())}; a model needs "
                "both classes"
            )

    def __len__(self) -> int:
        return len(self.positive)

    @property
    def spine(self) -> Spine:
        """The questions these labels answer, as the offline store takes them."""
        return Spine(ids=self.ids, as_of_ms=self.as_of_ms)

    def joined_ids(self) -> list[bytes]:
        """Each row's entities as one key, joined by 0x1F: what the split hashes."""
        return ["\x1f".join(row).encode() for row in zip(*self.ids.values(), strict=True)]

    def selected(self, chosen: NDArray[np.bool_]) -> "Labels":
        """Return the rows where *chosen* (N,) is true, in the same order."""
        places = np.flatnonzero(chosen).tolist()
        return Labels(
            ids={name: [ids[place] for place in places] for name, ids in self.ids.items()},
            as_of_ms=self.as_of_ms[chosen],
            positive=self.positive[chosen],
        )
