"""Writes the SQL that encodes the columns of a transform, as features.encode does for arrays.

A source may have more rows than fit into memory, so DuckDB encodes them where they lie. A test
compares both, value by value.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np

from features.errors import SourceError
from features.ingest.columns import INTEGER_TYPES, is_number
from features.rows import WORD_BITS
from features.storage.database import identifier, quoted
from features.views import Feature, View

FLOAT32_INTEGER_MAX = 2**24
"""Every whole number up to this is a float32. Above it, only some are."""


@dataclass(frozen=True, slots=True)
class EncodedFeature:
    """SQL over the columns of a transform for one feature."""

    feature: Feature
    value: str
    """FLOAT: the stored value. A missing feature has its default."""
    present: str
    """BOOLEAN, never NULL: the value is valid."""
    unknown: str
    """BOOLEAN, never NULL: a category that is not in the dictionary."""
    inexact: str
    """BOOLEAN, never NULL: a whole number that float32 changes."""
    number: str
    """DOUBLE: the number before bounds and rounding, NULL for a category."""


def encoded_features(
    connection: duckdb.DuckDBPyConnection, view: View, types: Mapping[str, str], table: str
) -> list[EncodedFeature]:
    """Return the SQL of each feature, and make the types of its dictionaries in *connection*.

    types  column of *table* -> DuckDB type, as the transform returned them.
    table  the table with the rows. It is asked whether a column of a wrong type is all NULL.

    Raises SourceError when a column is absent, or has a type that its feature cannot take.
    """
    # Every feature needs its column.
    present = {name.lower(): kind for name, kind in types.items()}
    absent = [feature.name for feature in view.features if feature.name not in present]
    if absent:
        raise SourceError(
            f"the view declares {absent}, which its transform does not return; it "
            f"returns {sorted(types)}"
        )
    encoded = []
    for number, feature in enumerate(view.features):
        # A column of a wrong type is accepted if it is all NULL.
        kind = present[feature.name]
        fits = is_number(kind) if feature.dtype == "number" else _is_text(kind)
        if not fits and _has_values(connection, table, feature.name):
            cast = "a number" if feature.dtype == "number" else "VARCHAR"
            raise SourceError(
                f"{feature.name!r} is a {feature.dtype}, but its column holds {kind}; cast it to "
                f"{cast} in the transform"
            )
        if not fits:
            encoded.append(_all_missing(feature))
        elif feature.dtype == "number":
            encoded.append(_number(feature, kind))
        else:
            entries = ", ".join(quoted(entry) for entry in feature.dictionary)
            connection.execute(f"CREATE TYPE dictionary_{number} AS ENUM ({entries})").fetchall()
            encoded.append(_category(feature, f"dictionary_{number}"))
    return encoded


def validity_sql(encoded: list[EncodedFeature]) -> list[str]:
    """Return SQL for the validity words: bit f % 64 of word f // 64 says that f is valid."""
    words = []
    for start in range(0, len(encoded), WORD_BITS):
        bits = [
            f"(CASE WHEN {item.present} THEN {1 << bit}::UBIGINT ELSE 0::UBIGINT END)"
            for bit, item in enumerate(encoded[start : start + WORD_BITS])
        ]
        words.append(" | ".join(bits))
    return words


def _number(feature: Feature, kind: str) -> EncodedFeature:
    # Always through DOUBLE, as features.encode does. What float32 cannot hold becomes NULL.
    column = identifier(feature.name)
    wide = f"CAST({column} AS DOUBLE)"
    coded = column if kind == "FLOAT" else f"TRY_CAST({wide} AS FLOAT)"
    present = f"coalesce(isfinite({coded})"
    if feature.bounds is not None:
        with np.errstate(over="ignore"):
            lowest, highest = (_float32(bound) for bound in feature.bounds)
        present += f" AND {coded} >= {lowest} AND {coded} <= {highest}"
    present += ", false)"
    # Fractions are rounded as everywhere. A whole number that changes may be an id.
    exact = (
        f"CAST({coded} AS HUGEINT) = CAST({column} AS HUGEINT)"
        if kind in INTEGER_TYPES
        else (f"({wide} = CAST({coded} AS DOUBLE) OR {wide} <> trunc({wide}))")
    )
    large = f"abs({wide}) > {FLOAT32_INTEGER_MAX}"
    inexact = (
        "false"
        if kind in {"FLOAT", "BOOLEAN"}
        else (f"({present} AND coalesce({large} AND NOT {exact}, false))")
    )
    value = f"CASE WHEN {present} THEN {coded} ELSE {_default(feature)} END"
    return EncodedFeature(feature, value, present, "false", inexact, wide)


def _category(feature: Feature, dictionary: str) -> EncodedFeature:
    column = f"CAST({identifier(feature.name)} AS VARCHAR)"
    entry = f"TRY_CAST({column} AS {dictionary})"
    unknown = _float32(len(feature.dictionary))
    value = (
        f"CASE WHEN {column} IS NULL THEN {_default(feature)} "
        f"ELSE coalesce(CAST(enum_code({entry}) AS FLOAT), {unknown}) END"
    )
    return EncodedFeature(
        feature,
        value,
        f"({column} IS NOT NULL)",
        f"({column} IS NOT NULL AND {entry} IS NULL)",
        "false",
        "CAST(NULL AS DOUBLE)",
    )


def _all_missing(feature: Feature) -> EncodedFeature:
    return EncodedFeature(
        feature, _default(feature), "false", "false", "false", "CAST(NULL AS DOUBLE)"
    )


def _default(feature: Feature) -> str:
    return _float32(feature.default_value)


def _float32(number: float) -> str:
    """Return SQL for *number* as float32."""
    return f"CAST('{float(np.float32(number))!r}' AS FLOAT)"


def _is_text(kind: str) -> bool:
    return kind == "VARCHAR" or kind.startswith("ENUM")


def _has_values(connection: duckdb.DuckDBPyConnection, table: str, name: str) -> bool:
    rows = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {identifier(name)} IS NOT NULL LIMIT 1)"
    ).fetchall()
    return bool(rows[0][0])
