"""Exact contributions of features to a sum of trees, against a background of rows.

The question: by how much did each column move the sum of a row away from the mean sum of the
background? The answer is the Shapley value of the game in which a coalition S of columns has the
row's values and the other columns have a background row's, averaged over the background rows
(interventional TreeSHAP; Lundberg et al., Nature Machine Intelligence 2 (2020) 56-67).

One leaf is a game of its own. Let d columns be compared on its path, X the set of those that the
row satisfies, and B the set of those that the background row satisfies. A hybrid row reaches the
leaf if each column is satisfied by the row that it is taken from. Unless X and B together are all d
columns, no hybrid does, and the leaf contributes nothing. Else, with p columns in X only and q in B
only, and the weight w of the leaf, each column in

    X only        has   w (p-1)! q! / (p+q)!
    B only        has  -w p! (q-1)! / (p+q)!
    both          has   0

X is one of 2^d bit patterns. So the sum over the background is prepared as a table by bit pattern
for each leaf with few columns (the idea of WOODELF, arXiv 2604.10569), and a row costs one look-up
a leaf. Leaves with more columns than TABLE_COLUMNS_MAX keep the distinct patterns of the background
and their shares, and are summed for each row. Both are exact.
"""

from dataclasses import dataclass
from functools import cache
from math import factorial

import numpy as np
from numpy.typing import NDArray

TABLE_COLUMNS_MAX = 8
"""Most columns of a leaf with a table; a table of 8 columns has 256 x 8 numbers."""
TABLE_BYTES_MAX = 128 * 2**20
"""Bytes of all tables of an ensemble. Leaves beyond it are summed for each row."""
PATH_COLUMNS_MAX = 64
"""Columns of one leaf that fit into the 64 bits of a pattern."""
PAIRS_MAX = 20_000_000
"""Background rows times leaves without a table; their patterns take up to 500 MB."""
CONDITIONS_AT_ONCE = 400_000
"""Comparisons whose results are in memory at once; more do not fit into a processor's cache."""
COMPARISONS = ("<=", "<", ">=", ">", "==", "!=")
"""Comparisons of a value with a threshold, by their number in LeafPaths.comparison."""


class TreeShapeError(ValueError):
    """The ensemble cannot be explained; the text says which bound it exceeds."""


@dataclass(frozen=True, eq=False, slots=True)
class LeafPaths:
    """A sum of trees: N comparisons, and the ones on the way to each of L leaves.

    column        (N,) int64, the column that a node compares, 0 to C - 1.
    threshold     (N,) float32, or float64 where the trees have it.
    comparison    (N,) uint8, a position in COMPARISONS.
    missing_true  (N,) bool, whether NaN goes to the true side.
    start         (L + 1,) int64, where the path of each leaf begins in *node*. The path of a tree
                  that is one leaf is empty.
    node          (P,) int64, the nodes of all paths.
    side          (P,) bool, the side that leads to the leaf.
    weight        (L, K) float64, what a leaf adds to each output.
    constant      (K,) float64, what is added to every row.
    columns       C.
    """

    column: NDArray[np.int64]
    threshold: NDArray[np.floating]
    comparison: NDArray[np.uint8]
    missing_true: NDArray[np.bool_]
    start: NDArray[np.int64]
    node: NDArray[np.int64]
    side: NDArray[np.bool_]
    weight: NDArray[np.float64]
    constant: NDArray[np.float64]
    columns: int


@dataclass(frozen=True, eq=False, slots=True)
class _Table:
    """The tables of leaves first to last - 1, which have equally many columns.

    shares  (leaves, 2^d, d): by leaf, pattern of the row and column, for a weight of 1.
    """

    first: int
    last: int
    shares: NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class _Pairs:
    """The distinct background patterns of the leaves without a table, sorted by leaf.

    leaf, pattern, share  (M,): the leaf, the pattern, and the share of background rows with it.
    """

    leaf: NDArray[np.int64]
    pattern: NDArray[np.uint64]
    share: NDArray[np.float64]


class TreeExplainer:
    """Contributions to the outputs of a sum of trees, against one background."""

    def __init__(self, paths: LeafPaths, background: NDArray[np.floating]) -> None:
        """Prepare the tables of *paths* for the (R, C) *background*, R at least 1.

        Raises TreeShapeError for a leaf below more than PATH_COLUMNS_MAX columns, and for too many
        leaves without a table.
        """
        if background.ndim != 2 or background.shape[1] != paths.columns or not len(background):
            raise ValueError(
                f"a background of {background.shape} for trees of {paths.columns} columns; it is "
                "at least one row of all columns"
            )
        self._paths = paths
        self._lay_out()
        long = int(np.count_nonzero(self._width > TABLE_COLUMNS_MAX))
        if long * len(background) > PAIRS_MAX:
            raise TreeShapeError(
                f"its trees have {long} leaves below more than {TABLE_COLUMNS_MAX} columns, and "
                f"against {len(background)} rows at most {PAIRS_MAX // len(background)} can be "
                "explained; fewer or shallower trees can (max_depth, max_leaves)"
            )
        # What the background does at each leaf.
        patterns = self._patterns(background)
        self._reached = (patterns == self._full).mean(axis=0)
        self._tables = self._make_tables(patterns)
        first = self._tables[-1].last if self._tables else 0
        # Tables cover the first leaves, so their entries come first. Order these by column.
        covered = self._entry_column[: int(self._width[:first].sum())]
        self._table_order = np.argsort(covered, kind="stable")
        self._table_columns, self._table_start = np.unique(
            covered[self._table_order], return_index=True
        )
        self._pairs = _distinct_patterns(patterns, first)

    def base(self, output: NDArray[np.float64]) -> float:
        """Return the mean of an output over the background.

        output  (K,) how much of each output of the trees is in it.
        """
        return self._constant(output) + float(self._reached @ self._weights(output))

    def sums(self, rows: NDArray[np.floating], output: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the output of the trees for *rows* (N, C), as (N,) float64."""
        reached = self._patterns(rows) == self._full
        sums: NDArray[np.float64] = self._constant(output) + reached @ self._weights(output)
        return sums

    def contributions(
        self, rows: NDArray[np.floating], output: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return what each column contributes to an output for *rows* (N, C), as (N, C) float64.

        `base` and the contributions of a row add up to its `sums`.
        """
        weights = self._weights(output)
        found = np.zeros((len(rows), self._paths.columns))
        at_once = max(1, CONDITIONS_AT_ONCE // max(1, len(self._condition_node)))
        for start in range(0, len(rows), at_once):
            patterns = self._patterns(rows[start : start + at_once])
            found[start : start + at_once] = self._contributions_of_tables(patterns, weights)
            if len(self._pairs.leaf):
                for row, pattern in enumerate(patterns, start):
                    found[row] += self._contributions_of_pairs(pattern, weights)
        return found

    def _lay_out(self) -> None:
        """Order leaves by their number of columns, and conditions by leaf and column.

        An *entry* is a column that is compared on the way to a leaf, however often.
        """
        paths = self._paths
        lengths = np.diff(paths.start)
        leaf = np.repeat(np.arange(len(lengths)), lengths)
        column = paths.column[paths.node]
        # Find the entries of each leaf, and order the leaves that have any by how many.
        order = np.lexsort((column, leaf))
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = (np.diff(leaf[order]) != 0) | (np.diff(column[order]) != 0)
        counts = np.bincount(leaf[order][new], minlength=len(lengths))
        if counts.max(initial=0) > PATH_COLUMNS_MAX:
            raise TreeShapeError(
                f"a leaf lies below {counts.max()} different columns, and at most "
                f"{PATH_COLUMNS_MAX} can be explained exactly"
            )
        self._leaves = np.argsort(counts, kind="stable")[np.count_nonzero(counts == 0) :]
        self._single = np.flatnonzero(counts == 0)
        # Conditions in the order of leaf, column.
        rank = np.empty(len(counts), dtype=np.int64)
        rank[self._leaves] = np.arange(len(self._leaves))
        order = np.lexsort((column, rank[leaf]))
        self._condition_node, self._condition_side = paths.node[order], paths.side[order]
        leaf, column = rank[leaf][order], column[order]
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = (np.diff(leaf) != 0) | (np.diff(column) != 0)
        self._entry_start = np.flatnonzero(new)
        self._entry_column = column[new]
        # Where the entries of a leaf begin, and the bit of each.
        self._width = counts[self._leaves]
        self._leaf_start = np.cumsum(self._width) - self._width
        bit = np.arange(len(self._entry_start)) - np.repeat(self._leaf_start, self._width)
        self._entry_bit = bit.astype(np.uint64)
        ones = np.uint64(2**64 - 1)
        self._full = ones >> (np.uint64(PATH_COLUMNS_MAX) - self._width.astype(np.uint64))

    def _weights(self, output: NDArray[np.float64]) -> NDArray[np.float64]:
        weights: NDArray[np.float64] = (self._paths.weight @ output)[self._leaves]
        return weights

    def _constant(self, output: NDArray[np.float64]) -> float:
        single = self._paths.weight[self._single].sum(axis=0)
        return float((self._paths.constant + single) @ output)

    def _patterns(self, rows: NDArray[np.floating]) -> NDArray[np.uint64]:
        """Return for each row and leaf which of its entries are satisfied, (N, leaves) uint64."""
        if not len(self._leaves):
            return np.zeros((len(rows), 0), dtype=np.uint64)
        found = np.empty((len(rows), len(self._leaves)), dtype=np.uint64)
        at_once = max(1, CONDITIONS_AT_ONCE // len(self._condition_node))
        for start in range(0, len(rows), at_once):
            sides = self._sides(rows[start : start + at_once])
            satisfied = sides[:, self._condition_node] == self._condition_side
            entries = np.logical_and.reduceat(satisfied, self._entry_start, axis=1)
            bits = entries.astype(np.uint64) << self._entry_bit
            found[start : start + at_once] = np.bitwise_or.reduceat(bits, self._leaf_start, axis=1)
        return found

    def _sides(self, rows: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return for each row and node whether the row goes to the true side, (N, nodes)."""
        paths = self._paths
        values, thresholds = rows[:, paths.column], paths.threshold
        compare = (np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal)
        kinds = np.unique(paths.comparison)
        if len(kinds) == 1:
            true = compare[kinds[0]](values, thresholds)
        else:
            true = np.empty(values.shape, dtype=np.bool_)
            for kind in kinds:
                nodes = paths.comparison == kind
                true[:, nodes] = compare[kind](values[:, nodes], thresholds[nodes])
        sides: NDArray[np.bool_] = true | (np.isnan(values) & paths.missing_true)
        return sides

    def _make_tables(self, patterns: NDArray[np.uint64]) -> list[_Table]:
        """Return the tables of the leaves with the fewest columns, as many as have room."""
        tables: list[_Table] = []
        bytes_left = TABLE_BYTES_MAX
        for width in range(1, TABLE_COLUMNS_MAX + 1):
            first, last = np.searchsorted(self._width, [width, width + 1])
            size = int(last - first) * 2**width * width * 8
            if size > bytes_left:
                break
            bytes_left -= size
            # The share of the background with each pattern, by leaf.
            count = 2**width
            index = patterns[:, first:last].astype(np.int64) + count * np.arange(last - first)
            counted = np.bincount(index.ravel(), minlength=count * int(last - first))
            shares = counted.reshape(-1, count) / len(patterns)
            values = shares @ _pattern_values(width).reshape(count, -1)
            tables.append(_Table(int(first), int(last), values.reshape(-1, count, width)))
        return tables

    def _contributions_of_tables(
        self, patterns: NDArray[np.uint64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return what the leaves with a table contribute, by (N, leaves) patterns; (N, C)."""
        found = np.zeros((len(patterns), self._paths.columns))
        if not self._tables:
            return found
        parts = []
        for table in self._tables:
            leaves = np.arange(table.last - table.first)
            own = patterns[:, table.first : table.last].astype(np.int64)
            values = table.shares[leaves, own] * weights[table.first : table.last, None]
            parts.append(values.reshape(len(patterns), -1))
        # Entries of one column are brought beside each other, and added.
        values = np.concatenate(parts, axis=1)[:, self._table_order]
        found[:, self._table_columns] = np.add.reduceat(values, self._table_start, axis=1)
        return found

    def _contributions_of_pairs(
        self, patterns: NDArray[np.uint64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return what the leaves without a table contribute to one row, (C,)."""
        pairs = self._pairs
        own = patterns[pairs.leaf]
        # Only pairs of which each column is satisfied by one of the two rows reach the leaf.
        valid = np.flatnonzero((own | pairs.pattern) == self._full[pairs.leaf])
        if not len(valid):
            return np.zeros(self._paths.columns)
        leaf, pattern, own = pairs.leaf[valid], pairs.pattern[valid], own[valid]
        row_only, other_only = own & ~pattern, pattern & ~own
        p, q = np.bitwise_count(row_only), np.bitwise_count(other_only)
        share = pairs.share[valid] * weights[leaf]
        gain, loss = (table[p, q] * share for table in _coalition_weights())
        # One line for each bit of each pair, whose place is the entry of the leaf.
        width = self._width[leaf]
        line = np.repeat(np.arange(len(valid)), width)
        bit = np.arange(len(line)) - np.repeat(np.cumsum(width) - width, width)
        entry = self._leaf_start[leaf][line] + bit
        bit = bit.astype(np.uint64)
        one = np.uint64(1)
        values = np.where((row_only[line] >> bit) & one, gain[line], 0.0)
        values -= np.where((other_only[line] >> bit) & one, loss[line], 0.0)
        columns = self._entry_column[entry]
        return np.bincount(columns, values, self._paths.columns).astype(np.float64)


def _distinct_patterns(patterns: NDArray[np.uint64], first: int) -> _Pairs:
    """Return the distinct patterns of each leaf from *first* on, with their shares."""
    rows, leaves = patterns.shape
    if first == leaves:
        return _Pairs(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0))
    ordered = np.sort(patterns[:, first:], axis=0).T
    new = np.ones(ordered.shape, dtype=np.bool_)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, ordered.size))
    return _Pairs(starts // rows + first, ordered.ravel()[starts], counts / rows)


@cache
def _coalition_weights() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (p-1)! q! / (p+q)! and p! (q-1)! / (p+q)! by p and q; 0 where p or q is 0."""
    gain = np.zeros((PATH_COLUMNS_MAX + 1, PATH_COLUMNS_MAX + 1))
    for p in range(1, PATH_COLUMNS_MAX + 1):
        for q in range(PATH_COLUMNS_MAX + 1 - p):
            gain[p, q] = factorial(p - 1) * factorial(q) / factorial(p + q)
    return gain, gain.T.copy()


@cache
def _pattern_values(width: int) -> NDArray[np.float64]:
    """Return by background pattern, the row's pattern and column, (2^d, 2^d, d), the value."""
    count = 2**width
    other = np.arange(count)[:, None]
    own = np.arange(count)[None, :]
    row_only, other_only = own & ~other, other & ~own
    p, q = np.bitwise_count(row_only), np.bitwise_count(other_only)
    gain, loss = (table[p, q] for table in _coalition_weights())
    reached = (own | other) == count - 1
    bits = np.arange(width)
    values = np.where((row_only[..., None] >> bits) & 1, gain[..., None], 0.0)
    values -= np.where((other_only[..., None] >> bits) & 1, loss[..., None], 0.0)
    result: NDArray[np.float64] = np.where(reached[..., None], values, 0.0)
    return result
