"""From raw typed columns to float32: the only code that turns a source's value into a feature.

The offline store, materialise and push all come through here, so that there is one rounding, one
dictionary and one meaning of "missing".
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from features.errors import SourceError
from features.views import Feature, View

Column: TypeAlias = NDArray[Any]
"""(N,) of one source column, as DuckDB's fetchnumpy gives it: numbers, bools, or objects holding
str and None; a masked array where some are NULL."""

Encoded: TypeAlias = tuple[NDArray[np.float32], NDArray[np.bool_]]


def encode_columns(view: View, columns: Mapping[str, Column]) -> Encoded:
    """Return (values, valid), each (N, F) in the view's order.

    category   its position in the dictionary; an unknown string is K, and valid; NULL is missing.
    number     cast to float32, to nearest; NULL, NaN, infinite (also once cast) or outside the
               bounds is missing. Bounds are compared as float32, both ends inclusive.
    missing    value = the feature's default, valid = False.

    Raises SourceError, naming them, when columns are absent, of unequal length or of a type that
    the feature cannot take.
    """
    absent = [feature.name for feature in view.features if feature.name not in columns]
    if absent:
        raise SourceError(
            f"view {view.name!r} declares {absent}, which its transform does not give; it gives "
            f"{sorted(columns)}"
        )
    lengths = {len(columns[feature.name]) for feature in view.features}
    if len(lengths) != 1:
        raise SourceError(f"view {view.name!r} got columns of {sorted(lengths)} rows")
    shape = (lengths.pop(), len(view.features))
    values = np.empty(shape, dtype=np.float32)
    valid = np.empty(shape, dtype=np.bool_)
    for place, feature in enumerate(view.features):
        coded, known = (_category if feature.dtype == "category" else _number)(
            view, feature, columns[feature.name]
        )
        values[:, place] = np.where(known, coded, np.float32(feature.default_value))
        valid[:, place] = known
    return values, valid


def _number(view: View, feature: Feature, column: Column) -> Encoded:
    present = ~np.ma.getmaskarray(column)
    raw = np.ma.getdata(column)
    if raw.dtype == object:
        raw, present = _from_objects(view, feature, raw, present)
    if raw.dtype.kind not in "biuf":
        raise SourceError(
            f"view {view.name!r}: {feature.name!r} is a number, but its column holds {raw.dtype}; "
            "cast it in the transform"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        # Through float64 always: a pushed Python int and a BIGINT column round alike.
        coded = raw.astype(np.float64).astype(np.float32)
        present = present & np.isfinite(coded)
        if feature.bounds is not None:
            lowest, highest = np.array(feature.bounds, dtype=np.float64).astype(np.float32)
            present &= (coded >= lowest) & (coded <= highest)
    return coded, present


def _from_objects(
    view: View, feature: Feature, raw: Column, present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers and None among objects: a column of NULLs only, or rows pushed one by one."""
    present = present & np.array([value is not None for value in raw], dtype=np.bool_)
    wrong = [v for v in raw[present] if not isinstance(v, int | float | np.number | np.bool_)]
    if wrong:
        raise SourceError(
            f"view {view.name!r}: {feature.name!r} is a number, but {len(wrong)} of {len(raw)} "
            f"rows hold {type(wrong[0]).__name__}; cast it in the transform"
        )
    numbers = np.full(len(raw), np.nan)
    numbers[present] = [float(value) for value in raw[present]]
    return numbers, present


def _category(view: View, feature: Feature, column: Column) -> Encoded:
    present = ~np.ma.getmaskarray(column)
    raw = np.ma.getdata(column)
    if raw.dtype.kind not in "OUT":
        if present.any():
            raise SourceError(
                f"view {view.name!r}: {feature.name!r} is a category, but its column holds "
                f"{raw.dtype}; cast it to VARCHAR in the transform"
            )
        raw = np.full(len(raw), None, dtype=object)
    codes: dict[object, float] = {name: float(code) for code, name in enumerate(feature.dictionary)}
    unknown = float(len(feature.dictionary))
    # A mask hides whatever lies below it; NULL and None are one.
    texts = [value if here else None for value, here in zip(raw, present, strict=True)]
    strangers = {type(value).__name__ for value in texts if not isinstance(value, str)}
    if strangers - {"NoneType"}:
        raise SourceError(
            f"view {view.name!r}: {feature.name!r} is a category, but its column holds "
            f"{sorted(strangers - {'NoneType'})}; cast it to VARCHAR in the transform"
        )
    coded = np.fromiter((codes.get(text, unknown) for text in texts), np.float32, len(texts))
    known = np.fromiter((text is not None for text in texts), np.bool_, len(texts))
    return coded, known
