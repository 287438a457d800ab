"""Labelled rows for training: ids, instants, labels and request inputs, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.offline import Spine
from training.errors import LabelsError

VALUES_SHOWN = 5
"""Most values of labels that an error lists."""


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """N labelled rows.

    ids        entity -> its N ids, for each entity of the model.
    as_of_ms   (N,) int64, Unix ms. Features are taken as they were known at this instant.
    positive   (N,) bool, the labels. Numbers that are all 0 or 1 are taken as bool.
    inputs     request input -> its N values at the instants: texts of a category, or numbers.
               None, NaN and what is masked are missing.
    immature   rows that were left out, because their outcome was not final yet.
    known_until_ms  the newest instant at which an outcome became known, Unix ms; 0: not known.

    Lists, arrays and columns of a data frame are taken alike, by position. Raises LabelsError when
    lengths differ, an id is no text, an instant is no whole number, a label is neither true nor
    false, or all labels are equal.
    """

    ids: Mapping[str, Sequence[str]]
    as_of_ms: NDArray[np.int64]
    positive: NDArray[np.bool_]
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    immature: int = 0
    known_until_ms: int = 0

    def __post_init__(self) -> None:
        # A column of a data frame has an index of its own, so each becomes plain values in order.
        object.__setattr__(self, "ids", {name: list(ids) for name, ids in self.ids.items()})
        object.__setattr__(self, "as_of_ms", _as_int64(self.as_of_ms))
        object.__setattr__(self, "positive", _as_bool(self.positive))
        inputs = {name: _as_column(values) for name, values in self.inputs.items()}
        object.__setattr__(self, "inputs", inputs)
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

        entities  the entities to join, in this order, whatever order the labels have.

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
    array = _one_dimensional(labels, "labels")
    if array.dtype == np.bool_:
        return array
    # Labels of three kinds would train a model of several classes, so nothing is guessed here.
    if array.dtype.kind in "iuf":
        wrong = ~((array == 0) | (array == 1))
        others = np.unique(array[wrong]).tolist()
    else:
        wrong = np.array([not _is_zero_or_one(value) for value in array.tolist()], dtype=np.bool_)
        others = list({repr(value): value for value in array[wrong].tolist()}.values())
    if wrong.any():
        shown = ", ".join(repr(value) for value in others[:VALUES_SHOWN])
        more = f" and {len(others) - VALUES_SHOWN} more" if len(others) > VALUES_SHOWN else ""
        raise LabelsError(
            f"a label is {shown}{more}, in {int(wrong.sum()):,} of {len(array):,} rows; a label is "
            "true or false, or the number 1 or 0: say which values are positive, and leave out "
            "the rows whose outcome is not known"
        )
    return array.astype(np.bool_)


def _as_int64(instants: ArrayLike) -> NDArray[np.int64]:
    """Return instants as (N,) int64; LabelsError for dates, and for what is no whole number."""
    array = _one_dimensional(instants, "instants")
    if array.dtype.kind == "M":
        raise LabelsError(
            f"instants are {array.dtype}; as_of_ms are Unix ms: "
            "values.astype('datetime64[ms]').astype('int64') of dates in UTC"
        )
    whole = array.dtype.kind in "iu" or (
        array.dtype.kind == "f" and bool((np.isfinite(array) & (array == np.trunc(array))).all())
    )
    if not whole:
        raise LabelsError(
            f"instants are {array.dtype} with values such as {array[:1].tolist()}; as_of_ms are "
            "Unix ms, a whole number for each row"
        )
    return array.astype(np.int64)


def _one_dimensional(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return an array (N,). A masked value is None, because its data means nothing."""
    array = np.asarray(values)
    if isinstance(values, np.ma.MaskedArray):
        array = np.where(np.ma.getmaskarray(values), None, array.astype(object))  # type: ignore[call-overload]
    if array.ndim != 1:
        raise LabelsError(f"{name} have the shape {array.shape}; they need one value for each row")
    return array


def _as_column(values: ArrayLike) -> NDArray[Any]:
    """Return the values of a request input as an array; a list keeps the type of each value."""
    if isinstance(values, np.ndarray):
        return values
    return np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)


def _is_zero_or_one(value: object) -> bool:
    return isinstance(value, int | float | np.bool_ | np.number) and bool(value in (0, 1))


def _check_texts(entity: str, ids: Sequence[str]) -> None:
    wrong = next((item for item in ids if not isinstance(item, str)), None)
    if wrong is not None:
        raise LabelsError(
            f"an id of {entity!r} is {wrong!r} ({type(wrong).__name__}); ids are texts, written as "
            "in the feature store"
        )
