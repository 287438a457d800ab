"""Which groups are shown: ten people or more, and none whose counts would follow from others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stats.fairness.groups import (
    DeclaredAttribute,
    declared_comparisons,
    shown_cells,
    shown_groups,
)
from tests.property_examples import examples


def people(name: str, *sizes: int) -> DeclaredAttribute:
    """Return an attribute with groups A, B, ... of these sizes."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return DeclaredAttribute(name, codes, tuple("ABCDEFG"[: len(sizes)]))


def test_groups_are_compared_with_all_others_that_are_counted() -> None:
    """The twelve people of D and E are in no group and in no rest."""
    groups = shown_groups([people("region", 50, 30, 20, 7, 5)])
    assert [group.name for group in groups] == ["region=A", "region=B", "region=C"]
    assert [int(group.members.sum()) for group in groups] == [50, 30, 20]
    assert [int(group.rest.sum()) for group in groups] == [50, 70, 80]
    assert shown_groups([people("region", 50, 1)]) == []
    assert shown_groups([people("region", 50)]) == []
    assert shown_groups([people("region")]) == []
    assert shown_groups([]) == []


def test_people_of_a_small_group_are_in_no_sum_of_another_attribute() -> None:
    """Else their decisions would be the difference of two sums. Nine people here leave nine old."""
    region = people("region", 60, 9)
    age = DeclaredAttribute("age", np.r_[np.arange(60) % 2, np.zeros(9, dtype=int)], ("x", "y"))
    sums = {group.name: int(group.members.sum()) for group in shown_groups([region, age], depth=1)}
    assert sums == {"age=x": 30, "age=y": 30}
    # The loss of these nine takes the group z below ten, so its people are left out as well.
    codes = np.r_[np.arange(51) % 2, np.full(18, 2)]
    years = DeclaredAttribute("age", codes, ("x", "y", "z"))
    chained = shown_groups([people("region", 60, 9), years], depth=1)
    assert {group.name: int(group.members.sum()) for group in chained} == {
        "age=x": 26,
        "age=y": 25,
    }


def test_pairs_have_both_values_and_the_unknown_one_is_a_group() -> None:
    """The name has both values; people without an age are compared too."""
    region = people("region", 60, 60)
    age = DeclaredAttribute("age", np.tile([0, 1, -1], 40), ("young", "old"))
    groups = shown_groups([region, age])
    assert [group.name for group in groups] == [
        "region=A",
        "region=B",
        "age=young",
        "age=old",
        "age=unknown",
        *(f"region={r}, age={a}" for r in "AB" for a in ("young", "old", "unknown")),
    ]
    assert int(groups[5].members.sum()) == 20
    assert int(groups[5].rest.sum()) == 100
    assert len(shown_groups([region, age], depth=1)) == 5


def lines_of(table: NDArray[np.int64]) -> list[tuple[slice, slice]]:
    """Return the rows and columns of a table."""
    everything = slice(None)
    rows = [(slice(row, row + 1), everything) for row in range(table.shape[0])]
    return rows + [(everything, slice(column, column + 1)) for column in range(table.shape[1])]


@examples(200)
@given(st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=2, max_size=4))
def test_no_small_cell_is_shown_nor_follows_from_a_sum(rows: list[list[int]]) -> None:
    """In no row and column is the hidden part one small cell, unless the line shows nothing."""
    table = np.array(rows)
    shown = shown_cells(table)
    assert (table[shown] >= 10).all()
    for line in lines_of(table):
        hidden = table[line][~shown[line] & (table[line] > 0)]
        assert not shown[line].any() or not hidden.size or (hidden.size > 1 and hidden.sum() >= 10)


@examples(60)
@given(st.integers(1, 60), st.integers(0, 1_000))
def test_no_text_of_the_groups_names_a_small_one(n: int, seed: int) -> None:
    """Neither names nor repr have a group with fewer than ten people."""
    generator = np.random.default_rng(seed)
    region = DeclaredAttribute("region", generator.integers(-1, 4, n), ("N", "E", "S", "W"))
    age = DeclaredAttribute("age", generator.integers(-1, 3, n), ("x", "y", "z"))
    text = repr(shown_groups([region, age]))
    for row, place in enumerate(region.values):
        if (region.codes == row).sum() < 10:
            assert f"region={place}'" not in text
        for column, years in enumerate(age.values):
            if ((region.codes == row) & (age.codes == column)).sum() < 10:
                assert f"region={place}, age={years}'" not in text


def test_attributes_that_do_not_fit_are_refused() -> None:
    """Other lengths, names that stand twice, codes beyond the values, and depth 3 raise."""
    region = people("region", 20, 20)
    with pytest.raises(ValueError, match="one name"):
        shown_groups([region, region])
    with pytest.raises(ValueError, match="same people"):
        shown_groups([region, people("age", 5)])
    with pytest.raises(ValueError, match="depth 3"):
        shown_groups([region], depth=3)
    with pytest.raises(ValueError, match="position among 2"):
        DeclaredAttribute("region", np.array([2]), ("N", "S"))
    assert declared_comparisons({"region": 4, "age": 3}, 3) == 3 * (5 + 4 + 20)
    assert declared_comparisons({"region": 4, "age": 3}, 3, depth=1) == 27
