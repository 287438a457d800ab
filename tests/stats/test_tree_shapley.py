"""Contributions of columns to sums of trees are the Shapley values, also where paths are long."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats import tree_shapley
from stats.tree_shapley import PATH_COLUMNS_MAX, TreeExplainer, TreeShapeError
from tests.property_examples import examples
from tests.stats.random_trees import (
    contributions_by_coalitions,
    random_paths,
    random_rows,
    sum_by_walking,
)

ONE = np.ones(1)


@examples(40)
@given(
    seed=st.integers(0, 2**32 - 1),
    trees=st.integers(1, 3),
    leaves=st.integers(1, 9),
    columns=st.integers(1, 5),
    rows=st.integers(1, 4),
    table_columns=st.sampled_from([0, 2, 8]),
)
def test_contributions_are_the_shapley_values(
    seed: int, trees: int, leaves: int, columns: int, rows: int, table_columns: int
) -> None:
    """The definition, over all coalitions, gives the same: by tables, by pairs and by both."""
    rng = np.random.default_rng(seed)
    paths = random_paths(
        rng, trees=trees, leaves=leaves, columns=columns, comparisons=(0, 1, 2, 3, 4, 5)
    )
    background, row = random_rows(rng, rows, columns), random_rows(rng, 1, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_shapley, "TABLE_COLUMNS_MAX", table_columns)
        explainer = TreeExplainer(paths, background)
    found = explainer.contributions(row, ONE)[0]
    expected = contributions_by_coalitions(paths, row[0], background)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    mean = np.mean([sum_by_walking(paths, other) for other in background])
    assert explainer.base(ONE) == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("deep", [False, True])
def test_contributions_add_up_to_the_sum(deep: bool) -> None:
    """30 trees of 31 leaves, also each 30 deep, with 40 columns and missing values."""
    rng = np.random.default_rng(5)
    paths = random_paths(rng, trees=30, leaves=31, columns=40, deep=deep)
    explainer = TreeExplainer(paths, random_rows(rng, 50, 40))
    rows = random_rows(rng, 5, 40)
    total = explainer.base(ONE) + explainer.contributions(rows, ONE).sum(axis=1)
    np.testing.assert_allclose(total, explainer.sums(rows, ONE), atol=1e-10)
    walked = [sum_by_walking(paths, row)[0] for row in rows[:3]]
    np.testing.assert_allclose(total[:3], walked, atol=1e-10)


def test_long_paths_have_the_shapley_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """63 leaves, 62 deep, without tables; 6 columns are few enough for the definition."""
    monkeypatch.setattr(tree_shapley, "TABLE_COLUMNS_MAX", 0)
    rng = np.random.default_rng(6)
    paths = random_paths(rng, trees=1, leaves=63, columns=6, deep=True)
    background, row = random_rows(rng, 2, 6), random_rows(rng, 1, 6)
    found = TreeExplainer(paths, background).contributions(row, ONE)[0]
    expected = contributions_by_coalitions(paths, row[0], background)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_outputs_are_combined_as_asked() -> None:
    """Contributions are linear in the outputs, so a difference of two is explained at once."""
    rng = np.random.default_rng(7)
    paths = random_paths(rng, trees=5, leaves=8, columns=4, outputs=3)
    explainer = TreeExplainer(paths, random_rows(rng, 10, 4))
    row = random_rows(rng, 1, 4)
    first, second = (explainer.contributions(row, np.eye(3)[index]) for index in (0, 1))
    difference = explainer.contributions(row, np.array([1.0, -1.0, 0.0]))
    np.testing.assert_allclose(difference, first - second, atol=1e-12)


def test_column_that_no_tree_compares_contributes_nothing() -> None:
    """It is exactly 0, not a small number."""
    rng = np.random.default_rng(8)
    paths = random_paths(rng, trees=4, leaves=8, columns=3)
    unused = paths.columns
    wider = tree_shapley.LeafPaths(
        **{name: getattr(paths, name) for name in paths.__slots__ if name != "columns"},
        columns=unused + 1,
    )
    explainer = TreeExplainer(wider, random_rows(rng, 5, unused + 1))
    assert explainer.contributions(random_rows(rng, 1, unused + 1), ONE)[0, unused] == 0.0


def test_trees_of_one_leaf_are_a_constant() -> None:
    """Nothing is compared, so nothing contributes, and the base is the sum."""
    rng = np.random.default_rng(9)
    paths = random_paths(rng, trees=3, leaves=1, columns=2)
    explainer = TreeExplainer(paths, random_rows(rng, 2, 2))
    assert not explainer.contributions(random_rows(rng, 1, 2), ONE).any()
    assert explainer.base(ONE) == pytest.approx(float(paths.weight.sum() + paths.constant.sum()))


def test_path_below_too_many_columns_is_refused() -> None:
    """A pattern has a bit for each column of a path."""
    rng = np.random.default_rng(10)
    count = PATH_COLUMNS_MAX + 1
    paths = random_paths(rng, trees=1, leaves=count + 1, columns=count, deep=True)
    paths.column[:] = np.arange(count)
    with pytest.raises(TreeShapeError, match="65 different columns, and at most 64"):
        TreeExplainer(paths, np.zeros((1, count), dtype=np.float32))


def test_background_of_another_width_is_refused() -> None:
    """Rows of other columns would be compared at random."""
    paths = random_paths(np.random.default_rng(11), trees=1, leaves=4, columns=3)
    with pytest.raises(ValueError, match="trees of 3 columns"):
        TreeExplainer(paths, np.zeros((4, 2), dtype=np.float32))


def test_too_many_long_paths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how many leaves there may be; memory is never taken without a bound."""
    monkeypatch.setattr(tree_shapley, "PAIRS_MAX", 100)
    rng = np.random.default_rng(12)
    paths = random_paths(rng, trees=2, leaves=31, columns=40, deep=True)
    TreeExplainer(paths, random_rows(rng, 2, 40))
    with pytest.raises(TreeShapeError, match="against 20 rows at most 5 can be explained"):
        TreeExplainer(paths, random_rows(rng, 20, 40))
