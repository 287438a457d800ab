"""Tests that DuckDB encodes a column as features.encode does, value by value and bit by bit."""

import math

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encode import encode_columns
from features.ingest.encoding import encoded_features, validity_sql
from features.rows import unpack_valid
from features.views import Feature, View
from tests.property_examples import examples

pytestmark = pytest.mark.walk

KINDS = {
    "BOOLEAN": st.booleans(),
    "TINYINT": st.integers(-(2**7), 2**7 - 1),
    "UINTEGER": st.integers(0, 2**32 - 1),
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "UBIGINT": st.integers(0, 2**64 - 1),
    "FLOAT": st.floats(width=32),
    "DOUBLE": st.floats()
    | st.sampled_from([3.4028234663852886e38, 3.4028235677973366e38, 3.4028235677973362e38, -0.0])
    | st.floats(-1e39, 1e39),
}

BOUNDS = st.none() | st.sampled_from([(0.0, 1.0), (-3.5e38, 3.5e38), (0.1, 0.3), (5.0, 1e300)])

DICTIONARY = ("prepaid", "", "B'x", 'ü"', "1")


def from_duckdb(view: View, kind: str, values: list[object]) -> tuple[np.ndarray, np.ndarray]:
    """Values (N, 1) and validity (N, 1) of one column, encoded by SQL."""
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE staged (x {kind})")
        connection.executemany("INSERT INTO staged VALUES (?)", [[value] for value in values])
        encoded = encoded_features(connection, view, {"x": kind}, "staged")
        columns = connection.execute(
            f"SELECT {encoded[0].value} AS value, {validity_sql(encoded)[0]} AS valid FROM staged"
        ).fetchnumpy()
    # DuckDB may return NaN as masked.
    raw = np.ma.getdata(columns["value"]).astype(np.float32)
    raw[np.ma.getmaskarray(columns["value"])] = np.nan
    return raw[:, None], unpack_valid(np.ma.getdata(columns["valid"])[:, None], 1)


def from_numpy(view: View, kind: str, values: list[object]) -> tuple[np.ndarray, np.ndarray]:
    """features.encode takes the array that DuckDB gives."""
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE staged (x {kind})")
        connection.executemany("INSERT INTO staged VALUES (?)", [[value] for value in values])
        return encode_columns(view, connection.execute("SELECT x FROM staged").fetchnumpy())


def one_feature(feature: Feature) -> View:
    """A view of one feature."""
    return View(
        name="v",
        entities=("e",),
        features=(feature,),
        ttl_ms=1,
        transform="SELECT * FROM source",
    )


@examples(60)
@given(data=st.data(), bounds=BOUNDS, default=st.none() | st.sampled_from([0.1, -0.0, 3e38]))
def test_encoding_of_numbers_equals_numpy(
    data: st.DataObject, bounds: tuple[float, float] | None, default: float | None
) -> None:
    """Rounding, infinities, NaN, bounds and defaults have the same bits."""
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    values = data.draw(st.lists(st.none() | KINDS[kind], min_size=1, max_size=12))
    view = one_feature(Feature(name="x", bounds=bounds, default=default))
    (ours, valid), (expected, expected_valid) = (
        from_duckdb(view, kind, values),
        from_numpy(view, kind, values),
    )
    assert valid.tolist() == expected_valid.tolist()
    assert np.isnan(ours).tolist() == np.isnan(expected).tolist()
    numbers = ~np.isnan(expected)
    assert ours[numbers].tobytes() == expected[numbers].tobytes()


@examples(40)
@given(
    values=st.lists(
        st.none() | st.sampled_from([*DICTIONARY, "PREPAID", " prepaid"]) | st.text(max_size=3),
        min_size=1,
        max_size=12,
    )
)
def test_encoding_of_categories_equals_numpy(values: list[object]) -> None:
    """Texts are compared byte by byte, whatever they contain."""
    texts = [value for value in values if value is None or "\x00" not in str(value)]
    values = [None, *(text for text in texts if text is None or is_utf8(str(text)))]
    view = one_feature(Feature(name="x", dtype="category", dictionary=DICTIONARY, default=9.5))
    ours, expected = from_duckdb(view, "VARCHAR", values), from_numpy(view, "VARCHAR", values)
    assert [array.tolist() for array in ours] == [array.tolist() for array in expected]


def is_utf8(text: str) -> bool:
    """DuckDB holds no half characters."""
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def test_encoding_of_a_wide_view_fills_every_validity_word() -> None:
    """Bit f % 64 of word f // 64 belongs to feature f."""
    view = View(
        name="v",
        entities=("e",),
        features=tuple(Feature(name=f"x{i}") for i in range(130)),
        ttl_ms=1,
        transform="SELECT * FROM source",
    )
    with duckdb.connect() as connection:
        columns = ", ".join(f"{'NULL' if i % 3 else i}::DOUBLE AS x{i}" for i in range(130))
        connection.execute(f"CREATE TABLE staged AS SELECT {columns}")
        encoded = encoded_features(
            connection, view, {f"x{i}": "DOUBLE" for i in range(130)}, "staged"
        )
        row = connection.execute(f"SELECT {', '.join(validity_sql(encoded))} FROM staged")
        words = np.array(row.fetchall(), dtype=np.uint64)
    assert words.shape == (1, math.ceil(130 / 64))
    assert unpack_valid(words, 130)[0].tolist() == [i % 3 == 0 for i in range(130)]
