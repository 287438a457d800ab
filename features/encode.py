"""Turns the typed columns of a source into float32 features. No other code does this.

The offline store, materialise and push all use it. So all three round a value, code it and
recognise a missing value in the same way.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from features.errors import SourceError
from features.views import Feature, View

Column: TypeAlias = NDArray[Any]
"""(N,) values of one source column, as DuckDB's fetchnumpy returns them: numbers, bools, or objects
that are str or None. A column with NULLs is a masked array."""

Encoded: TypeAlias = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Values, and whether each is valid (not missing)."""


def encode_columns(view: View, columns: Mapping[str, Column]) -> Encoded:
    """Return values and validity, each (N, F), with the features in the view's order.

    category   becomes its position in the dictionary. An unknown string becomes K and is valid.
               NULL is missing.
    number     is rounded to the nearest float32. NULL, NaN, infinity (also after rounding) and
               numbers outside the bounds are missing. The bounds are float32 and inclusive.
    missing    the value is the feature's default, and it is not valid.

    Raises SourceError when a column is absent, has another length than the others, or has a type
    that its feature cannot take. The message names the column.
    """
    # All columns must be there, with the same number of rows.
    absent = [feature.name for feature in view.features if feature.name not in columns]
    if absent:
        raise SourceError(
            f"view {view.name!r} declares {absent}, which its transform does not return; it "
            f"returns {sorted(columns)}"
        )
    lengths = {len(columns[feature.name]) for feature in view.features}
    if len(lengths) != 1:
        raise SourceError(f"view {view.name!r} got columns of {sorted(lengths)} rows")
    shape = (lengths.pop(), len(view.features))
    values = np.empty(shape, dtype=np.float32)
    valid = np.empty(shape, dtype=np.bool_)
    # Encode one column at a time; the default replaces what is missing.
    for index, feature in enumerate(view.features):
        encode_column = _encode_category if feature.dtype == "category" else _encode_number
        coded, present = encode_column(view, feature, columns[feature.name])
        values[:, index] = np.where(present, coded, np.float32(feature.default_value))
        valid[:, index] = present
    return values, valid


def _encode_number(view: View, feature: Feature, column: Column) -> Encoded:
    present = ~np.ma.getmaskarray(column)
    raw = np.ma.getdata(column)
    if raw.dtype == object:
        raw, present = _numbers_from_objects(view, feature, raw, present)
    if raw.dtype.kind not in "biuf":
        raise SourceError(
            f"view {view.name!r}: {feature.name!r} is a number, but its column holds {raw.dtype}; "
            "cast it in the transform"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        # Always through float64, so that a pushed Python int and a BIGINT column round alike.
        coded = raw.astype(np.float64).astype(np.float32)
        present = present & np.isfinite(coded)
        if feature.bounds is not None:
            lowest, highest = np.array(feature.bounds, dtype=np.float64).astype(np.float32)
            present &= (coded >= lowest) & (coded <= highest)
    return coded, present


def _numbers_from_objects(
    view: View, feature: Feature, raw: Column, present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Convert objects that are numbers or None: a column of only NULLs, or pushed rows."""
    present = present & np.array([value is not None for value in raw], dtype=np.bool_)
    wrong = [
        value for value in raw[present] if not isinstance(value, int | float | np.number | np.bool_)
    ]
    if wrong:
        raise SourceError(
            f"view {view.name!r}: {feature.name!r} is a number, but {len(wrong)} of {len(raw)} "
            f"rows hold {type(wrong[0]).__name__}; cast it in the transform"
        )
    numbers = np.full(len(raw), np.nan)
    numbers[present] = [float(value) for value in raw[present]]
    return numbers, present


def _encode_category(view: View, feature: Feature, column: Column) -> Encoded:
    # Only texts are accepted. A column of only NULLs may have any type.
    present = ~np.ma.getmaskarray(column)
    raw = np.ma.getdata(column)
    if raw.dtype.kind not in "OUT":
        if present.any():
            raise SourceError(
                f"view {view.name!r}: {feature.name!r} is a category, but its column holds "
                f"{raw.dtype}; cast it to VARCHAR in the transform"
            )
        raw = np.full(len(raw), None, dtype=object)
    # NULL and None both mean missing. Below a mask, the value has no meaning.
    texts = [value if is_present else None for value, is_present in zip(raw, present, strict=True)]
    other_types = {type(value).__name__ for value in texts if not isinstance(value, str)}
    other_types -= {"NoneType"}
    if other_types:
        raise SourceError(
            f"view {view.name!r}: {feature.name!r} is a category, but its column holds "
            f"{sorted(other_types)}; cast it to VARCHAR in the transform"
        )
    # The code of a text is its position in the dictionary, or K.
    codes: dict[object, float] = {name: float(code) for code, name in enumerate(feature.dictionary)}
    unknown = float(len(feature.dictionary))
    coded = np.fromiter((codes.get(text, unknown) for text in texts), np.float32, len(texts))
    known = np.fromiter((text is not None for text in texts), np.bool_, len(texts))
    return coded, known
