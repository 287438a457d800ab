"""Labelled rows for training, and the split into held-out rows and rows to fit on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from xxhash import xxh3_64_intdigest

from features.offline import Spine
from training.errors import LabelsError

HASH_BUCKETS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """N labelled rows.

    ids        entity -> its N ids, for each entity of the model.
    as_of_ms   (N,) int64, Unix ms. Features are taken as they were known at this instant.
    positive   (N,) bool, the labels. Numbers that are all 0 or 1 are taken as bool.
    inputs     request input -> its N values at the instants: texts of a category, or numbers.
               None, NaN and what is masked are missing.

    Raises LabelsError when lengths differ, an id is no text, a label is neither true nor false, or
    all labels are equal.
    """

    ids: Mapping[str, Sequence[str]]
    as_of_ms: NDArray[np.int64]
    positive: NDArray[np.bool_]
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positive", _as_bool(self.positive))
        sizes = {
            **{name: len(ids) for name, ids in self.ids.items()},
            "as_of_ms": len(self.as_of_ms),
            "positive": len(self.positive),
            **{name: len(values) for name, values in self.inputs.items()},
        }
        if len(set(sizes.values())) != 1 or not self.ids:
            raise LabelsError(
                f"labels differ in length: {sizes}; each row needs an id, an instant and a label"
            )
        for name, ids in self.ids.items():
            _check_texts(name, ids)
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

    def joined_ids(self, entities: Sequence[str]) -> list[bytes]:
        """Return the ids of each row joined by 0x1F, the keys that the split hashes.

        entities  the entities of the contract, in its order. So the split of a model does not
                  depend on the order in which one set of labels names them.

        Raises LabelsError when the rows lack one of the entities.
        """
        missing = [name for name in entities if name not in self.ids]
        if missing:
            raise LabelsError(
                f"the labels have no ids of {missing}; they name {list(self.ids)}, and the model "
                f"is keyed by {list(entities)}"
            )
        columns = [self.ids[name] for name in entities]
        return ["\x1f".join(row).encode() for row in zip(*columns, strict=True)]

    def selected(self, chosen: NDArray[np.bool_]) -> "LabelledRows":
        """Return the rows where *chosen* (N,) is true, in the same order."""
        indices = np.flatnonzero(chosen).tolist()
        return LabelledRows(
            ids={name: [ids[index] for index in indices] for name, ids in self.ids.items()},
            as_of_ms=self.as_of_ms[chosen],
            positive=self.positive[chosen],
            inputs={name: values[chosen] for name, values in self.inputs.items()},
        )


def _as_bool(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return labels as (N,) bool; LabelsError when one of them is neither true nor false."""
    array = np.asarray(labels)
    if array.ndim != 1:
        raise LabelsError(f"labels have the shape {array.shape}; they need one value for each row")
    if array.dtype == np.bool_:
        return array
    # Labels of three kinds would train a model of several classes, so nothing is guessed here.
    values = array.tolist()
    wrong = next((value for value in values if not _is_zero_or_one(value)), None)
    if wrong is not None or any(value is None for value in values):
        raise LabelsError(
            f"a label is {wrong!r}; a label is true or false, or the number 1 or 0: say which "
            "values are positive, and leave out the rows whose outcome is not known"
        )
    return array.astype(np.bool_)


def _is_zero_or_one(value: object) -> bool:
    return isinstance(value, int | float) and value in (0, 1)


def _check_texts(entity: str, ids: Sequence[str]) -> None:
    wrong = next((item for item in ids if not isinstance(item, str)), None)
    if wrong is not None:
        raise LabelsError(
            f"an id of {entity!r} is {wrong!r} ({type(wrong).__name__}); ids are texts, written as "
            "in the feature store"
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
