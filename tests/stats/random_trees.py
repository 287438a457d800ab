"""Random sums of trees for tests of their contributions, and the definition by coalitions."""

from dataclasses import dataclass, field
from itertools import chain, combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from stats.tree_shapley import LeafPaths


@dataclass
class _Growing:
    """The lists of a LeafPaths while trees are drawn."""

    column: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    comparison: list[int] = field(default_factory=list)
    missing: list[bool] = field(default_factory=list)
    paths: list[list[tuple[int, bool]]] = field(default_factory=list)


def random_paths(
    rng: np.random.Generator,
    *,
    trees: int,
    leaves: int,
    columns: int,
    outputs: int = 1,
    comparisons: tuple[int, ...] = (0, 1, 2, 3),
    deep: bool = False,
) -> LeafPaths:
    """Trees of so many leaves that compare random columns with whole numbers from 0 to 9.

    deep  each split is of the newest leaf, so the depth is the number of leaves less 1.
    """
    # Split leaves until there are enough.
    grown = _Growing()
    for _ in range(trees):
        tree: list[list[tuple[int, bool]]] = [[]]
        while len(tree) < leaves:
            path = tree.pop(-1 if deep else int(rng.integers(len(tree))))
            node = len(grown.column)
            grown.column.append(int(rng.integers(columns)))
            grown.threshold.append(float(rng.integers(10)))
            grown.comparison.append(int(rng.choice(comparisons)))
            grown.missing.append(bool(rng.random() < 0.5))
            tree += [[*path, (node, True)], [*path, (node, False)]]
        grown.paths += tree
    # The paths of all leaves, one after another.
    flat = list(chain.from_iterable(grown.paths))
    return LeafPaths(
        column=np.array(grown.column, dtype=np.int64),
        threshold=np.array(grown.threshold, dtype=np.float32),
        comparison=np.array(grown.comparison, dtype=np.uint8),
        missing_true=np.array(grown.missing, dtype=np.bool_),
        start=np.cumsum([0, *map(len, grown.paths)]),
        node=np.array([node for node, _ in flat], dtype=np.int64),
        side=np.array([side for _, side in flat], dtype=np.bool_),
        weight=rng.normal(size=(len(grown.paths), outputs)),
        constant=rng.normal(size=outputs),
        columns=columns,
    )


def random_rows(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """Whole and half numbers around the thresholds, a tenth of them missing."""
    values = (rng.integers(-1, 21, (rows, columns)) / 2).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    return values


def sum_by_walking(paths: LeafPaths, row: NDArray[np.float32]) -> NDArray[np.float64]:
    """Walk to the leaves of *row* one comparison at a time; (K,)."""
    compare = (
        lambda x, t: x <= t,
        lambda x, t: x < t,
        lambda x, t: x >= t,
        lambda x, t: x > t,
        lambda x, t: x == t,
        lambda x, t: x != t,
    )
    total = paths.constant.copy()
    for leaf, (first, last) in enumerate(zip(paths.start, paths.start[1:], strict=False)):
        reached = True
        for node, side in zip(paths.node[first:last], paths.side[first:last], strict=True):
            value = row[paths.column[node]]
            true = bool(compare[paths.comparison[node]](value, paths.threshold[node]))
            true = true or bool(np.isnan(value) and paths.missing_true[node])
            reached = reached and true == side
        if reached:
            total += paths.weight[leaf]
    return total


def contributions_by_coalitions(
    paths: LeafPaths, row: NDArray[np.float32], background: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The Shapley values of every column by its definition, over all coalitions; (C, K)."""
    columns = range(paths.columns)
    worth = {}
    for coalition in chain.from_iterable(combinations(columns, n) for n in range(len(columns) + 1)):
        mixed = background.copy()
        mixed[:, list(coalition)] = row[list(coalition)]
        worth[coalition] = np.mean([sum_by_walking(paths, hybrid) for hybrid in mixed], axis=0)
    values = np.zeros((paths.columns, len(paths.constant)))
    for coalition, value in worth.items():
        for column in set(columns) - set(coalition):
            size = len(coalition)
            share = factorial(size) * factorial(len(columns) - size - 1) / factorial(len(columns))
            joined = tuple(sorted((*coalition, column)))
            values[column] += share * (worth[joined] - value)
    return values
