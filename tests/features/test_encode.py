"""Tests of encode_columns: rounding, dictionaries and missing values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encode import encode_columns
from features.errors import SourceError
from features.pushed import PushedRow, pushed_columns
from tests.features.small_views import NOW_MS, float32_array, plan_view
from tests.property_examples import examples


def one_row_columns(**replaced: object) -> dict[str, np.ndarray]:
    """The columns of one valid row, with some replaced."""
    prepaid = np.array(["prepaid"], dtype=object)
    row = {"kind": prepaid, "spend": [1.0], "balance": [2.0], **replaced}
    return {
        name: value if isinstance(value, np.ndarray) else np.array(value)
        for name, value in row.items()
    }


def test_encode_gives_categories_their_dictionary_position() -> None:
    """An unknown text is K and valid. NULL is the default and not valid."""
    values, valid = encode_columns(
        plan_view(),
        one_row_columns(
            kind=np.array(["prepaid", "postpaid", "satellite", None], dtype=object),
            spend=[1.0] * 4,
            balance=[1.0] * 4,
        ),
    )
    assert values[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert valid[:, 0].tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("spend", "value", "valid"),
    [
        (0.0, 0.0, True),
        (1_000.0, 1_000.0, True),
        (1_000.0001, 10.5, False),
        (-1e-9, 10.5, False),
        (float("nan"), 10.5, False),
        (float("inf"), 10.5, False),
        (1e300, 10.5, False),
    ],
)
def test_encode_finds_numbers_out_of_bounds_missing(
    spend: float, value: float, valid: bool
) -> None:
    """Both bounds are inside. NaN, infinity and float32 overflow are missing."""
    values, known = encode_columns(plan_view(), one_row_columns(spend=[spend]))
    assert (values[0, 1], known[0, 1]) == (value, valid)


@pytest.mark.parametrize("balance", [float("inf"), float("-inf"), float("nan"), -1e39])
def test_encode_finds_numbers_that_are_not_finite_missing(balance: float) -> None:
    """Infinity and numbers that overflow float32 are missing without bounds as well."""
    values, known = encode_columns(plan_view(), one_row_columns(balance=[balance]))
    assert np.isnan(values[0, 2])
    assert not known[0, 2]


def test_encode_ignores_values_below_a_mask() -> None:
    """DuckDB returns NULL as a mask over any bits, for integers too."""
    masked = np.ma.MaskedArray(np.array([7, 7]), mask=[False, True])
    texts = np.ma.MaskedArray(np.array(["prepaid", "prepaid"], object), mask=[False, True])
    values, valid = encode_columns(
        plan_view(), one_row_columns(kind=texts, spend=masked, balance=masked)
    )
    assert valid.tolist() == [[True] * 3, [False] * 3]
    assert values[1, :2].tolist() == [3.0, 10.5]
    assert np.isnan(values[1, 2])


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("spend", np.array(["1.0"], dtype=object), "'spend' is a number, but 1 of 1 rows hold str"),
        ("spend", np.array(["2026-01-01"], dtype="M8[us]"), "holds datetime64"),
        ("kind", np.array([1]), "'kind' is a category, but its column holds int64"),
        ("kind", np.array([1], dtype=object), "holds .'int'"),
        ("spend", np.array([1.0, 2.0]), "columns of .1, 2. rows"),
    ],
)
def test_encode_refuses_a_column_of_another_type(
    name: str, column: np.ndarray, message: str
) -> None:
    """The text "1.0" is not read as a number, and 1 is not read as a text."""
    with pytest.raises(SourceError, match=message):
        encode_columns(plan_view(), one_row_columns(**{name: column}))


def test_encode_names_an_absent_column() -> None:
    """The message names the columns that are missing and those that are there."""
    with pytest.raises(SourceError, match=r"declares \['spend'\]"):
        encode_columns(
            plan_view(), {"kind": np.array(["prepaid"], object), "balance": float32_array(1)}
        )


NUMBERS = st.one_of(st.none(), st.floats(), st.integers(-(2**62), 2**62))


@examples(60)
@given(st.lists(st.tuples(NUMBERS, st.sampled_from([None, "prepaid", "x"])), min_size=1))
def test_encode_gives_pushed_rows_and_columns_the_same_bits(
    rows: list[tuple[float | None, str | None]],
) -> None:
    """Python values of a stream and typed columns of a table become equal bytes."""
    numbers = [number for number, _ in rows]
    column = np.ma.MaskedArray(
        np.array([0 if n is None else n for n in numbers], dtype=np.float64),
        mask=[n is None for n in numbers],
    )
    kinds = np.array([kind for _, kind in rows], dtype=object)
    table = encode_columns(plan_view(), {"kind": kinds, "spend": column, "balance": column})
    pushed = [
        PushedRow(("S1",), NOW_MS, {"kind": kind, "spend": number, "balance": number})
        for number, kind in rows
    ]
    stream = encode_columns(plan_view(), pushed_columns(plan_view(), pushed))
    assert stream[0].tobytes() == table[0].tobytes()
    assert stream[1].tobytes() == table[1].tobytes()


def test_encode_rounds_pushed_integers_through_float64() -> None:
    """2**62 + 2**38 + 1 rounds differently without float64 in between. Both ways use it."""
    number = 2**62 + 2**38 + 1
    table, _ = encode_columns(plan_view(), one_row_columns(balance=np.array([number])))
    pushed = pushed_columns(plan_view(), [PushedRow(("S1",), NOW_MS, {"balance": number})])
    assert encode_columns(plan_view(), pushed)[0][0, 2] == table[0, 2]


def test_pushed_columns_refuse_undeclared_features() -> None:
    """A misspelt feature would otherwise be missing for ever without a message."""
    with pytest.raises(SourceError, match=r"unknown features \['spent'\]"):
        pushed_columns(plan_view(), [PushedRow(("S1",), NOW_MS, {"spent": 1.0})])
    with pytest.raises(SourceError, match="has 2 ids"):
        pushed_columns(plan_view(), [PushedRow(("S1", "S2"), NOW_MS, {})])
