"""Tests that the staleness rule is the same in Python, numpy and SQL."""

import duckdb
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.staleness import (
    CLOCK_SKEW_MS_MAX,
    forgotten_sql,
    is_forgotten,
    is_from_future,
    is_stale,
    stale_sql,
)
from tests.property_examples import examples

TTL = st.integers(1, 2**50)
AGES = st.lists(st.integers(-(2**52), 2**52), max_size=50)


def test_row_is_fresh_at_exactly_its_ttl() -> None:
    """It is stale 1 ms later. A row from the future is fresh."""
    assert not is_stale(1_000, 1_000)
    assert is_stale(1_001, 1_000)
    assert not is_stale(-5, 1_000)


def test_row_of_the_next_hour_is_usable_and_a_later_one_is_not() -> None:
    """Clocks may differ by an hour."""
    assert not is_from_future(-CLOCK_SKEW_MS_MAX)
    assert is_from_future(-CLOCK_SKEW_MS_MAX - 1)


@examples(8)
@given(AGES, TTL)
def test_staleness_is_equal_in_sql_and_numpy(ages: list[int], ttl: int) -> None:
    """The condition of the offline join and the function of the online read agree."""
    ages = [*ages, ttl, ttl + 1, 2 * ttl, 2 * ttl + 1]
    column = np.array(ages, dtype=np.int64)
    rows = ", ".join(f"({age}::BIGINT)" for age in ages)
    with duckdb.connect() as connection:
        sql = connection.execute(
            f"SELECT {stale_sql('age', ttl)} AS stale, {forgotten_sql('age', ttl)} AS forgotten "
            f"FROM (VALUES {rows}) ages(age)"
        ).fetchnumpy()
    assert sql["stale"].tolist() == is_stale(column, ttl).tolist()
    assert sql["stale"].tolist() == [is_stale(age, ttl) for age in ages]
    assert sql["forgotten"].tolist() == is_forgotten(column, ttl).tolist()
