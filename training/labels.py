"""Labels for training: entity ids, instants, and whether the label was true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.offline import Spine
from training.errors import LabelsError


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
