"""The smallest change of what a person can change that would have decided otherwise.

Candidates are values beside the thresholds of the version's own trees, beside the edges of its
reference, and the words of dictionaries. One or two inputs are changed, in the direction and within
the range that are allowed, and every candidate is scored by the version's ONNX file. So what is
found is proven, and what is not found was tried.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from registry.explanation.reasons import ChangeDirection

VALUES_MAX = 512
"""Values of one input that are tried alone; of more, evenly spaced ones."""
PAIR_VALUES_MAX = 24
"""Values of one input that are tried together with another."""
INPUTS_MAX = 12
"""Inputs that are tried; more would be too many pairs."""
SCORED_AT_ONCE = 2_048

Score = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, F) -> (N, K)."""


@dataclass(frozen=True, eq=False, slots=True)
class ChangeableInput:
    """One input that a person can change.

    position    its column among the model's inputs.
    direction   where it may go.
    thresholds  (T,) rising: where trees or the reference cut it. Between two of them the score of
                boosted trees is the same.
    low, high   the range within which a change lies.
    unit        a change of so much counts as 1.
    integral    whether its values are whole numbers.
    categories  number of words of a category; 0 for a number.
    """

    position: int
    direction: ChangeDirection
    thresholds: NDArray[np.float64]
    low: float
    high: float
    unit: float
    integral: bool
    categories: int

    def values(self, now: float) -> NDArray[np.float32]:
        """Return the values that are tried, the nearest to *now* first."""
        words = np.arange(self.categories, dtype=np.float32)
        tried = words if self.categories else self._beside_thresholds()
        tried = tried[(tried != now) & np.isfinite(tried)]
        if self.direction != "any" and np.isfinite(now):
            tried = tried[tried > now] if self.direction == "up" else tried[tried < now]
        distances = self.distances(tried, now)
        nearest: NDArray[np.float32] = tried[np.argsort(distances, kind="stable")]
        return nearest

    def distances(self, values: NDArray[np.float32], now: float) -> NDArray[np.float64]:
        """Return how far values are from *now*, in units; every other word is 1 away."""
        if self.categories or not np.isfinite(now):
            return np.ones(len(values))
        found: NDArray[np.float64] = np.abs(values.astype(np.float64) - now) / self.unit
        return found

    def _beside_thresholds(self) -> NDArray[np.float32]:
        """Return the values at each threshold and next to it, within the range."""
        cuts = self.thresholds[(self.thresholds >= self.low) & (self.thresholds <= self.high)]
        if self.integral:
            tried = np.concatenate([np.floor(cuts), np.floor(cuts) + 1, np.ceil(cuts) - 1])
            tried = tried.astype(np.float32)
        else:
            at = cuts.astype(np.float32)
            beside = [np.nextafter(at, np.float32(towards)) for towards in (-np.inf, np.inf)]
            tried = np.concatenate([at, *beside])
        ends = np.array([self.low, self.high], dtype=np.float32)
        tried = np.unique(np.concatenate([tried, ends]))
        within: NDArray[np.float32] = tried[(tried >= self.low) & (tried <= self.high)]
        return within


@dataclass(frozen=True, slots=True)
class DecidingChange:
    """A change that decides otherwise. changes: (position, value before, value after)."""

    changes: tuple[tuple[int, float, float], ...]
    distance: float
    score: float


def smallest_change(
    row: NDArray[np.float32],
    inputs: Sequence[ChangeableInput],
    score: Score,
    decides_otherwise: Callable[[NDArray[np.float32]], NDArray[np.bool_]],
) -> tuple[DecidingChange | None, int]:
    """Return the smallest change of one or two inputs that decides otherwise, and rows tried.

    row                (F,) the row that was decided.
    decides_otherwise  (N,) scores -> whether they are the other decision.

    None: none of the candidates decides otherwise.
    """

    def alone(rows: NDArray[np.float32]) -> tuple[float, bool]:
        # Sums round otherwise in a batch, so what is found is scored by itself as well.
        own = score(rows)[:, 0]
        return float(own[0]), bool(decides_otherwise(own)[0])

    # One input alone; then pairs that are nearer than what was found.
    best: DecidingChange | None = None
    tried = 0
    singles = [
        (item, _thinned(item.values(float(row[item.position])), VALUES_MAX)) for item in inputs
    ]
    for grid, distances, positions in _grids(row, singles[:INPUTS_MAX]):
        nearer = len(distances) if best is None else int(np.searchsorted(distances, best.distance))
        for start in range(0, nearer, SCORED_AT_ONCE):
            part = grid[start : min(start + SCORED_AT_ONCE, nearer)]
            rows = np.repeat(row[np.newaxis], len(part), axis=0)
            rows[:, positions] = part
            scores = score(rows)[:, 0]
            tried += len(rows)
            hit = _first_proven(rows, np.flatnonzero(decides_otherwise(scores)), alone)
            if hit is not None:
                at, own = hit
                before = [float(row[position]) for position in positions]
                best = DecidingChange(
                    tuple(zip(positions, before, map(float, part[at]), strict=True)),
                    float(distances[start + at]),
                    own,
                )
                break
    return best, tried


def _first_proven(
    rows: NDArray[np.float32],
    hits: NDArray[np.int64],
    alone: Callable[[NDArray[np.float32]], tuple[float, bool]],
) -> tuple[int, float] | None:
    """Return the first of *hits* that decides otherwise by itself too, and its score."""
    for hit in hits.tolist():
        own, proven = alone(rows[hit : hit + 1])
        if proven:
            return hit, own
    return None


def _grids(
    row: NDArray[np.float32],
    singles: Sequence[tuple[ChangeableInput, NDArray[np.float32]]],
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64], list[int]]]:
    """Yield values (N, 1 or 2), their distances (N,) rising, and the inputs' positions."""
    for item, values in singles:
        if len(values):
            distances = item.distances(values, float(row[item.position]))
            yield values[:, np.newaxis], distances, [item.position]
    for first, second in combinations(singles, 2):
        sides = [
            (item, _thinned(values, PAIR_VALUES_MAX), float(row[item.position]))
            for item, values in (first, second)
        ]
        mesh = np.meshgrid(*(values for _, values, _ in sides), indexing="ij")
        grid = np.stack([side.ravel() for side in mesh], axis=1)
        if not len(grid):
            continue
        # Two changes are as far as both together.
        parts = [item.distances(grid[:, at], now) for at, (item, _, now) in enumerate(sides)]
        distances = parts[0] + parts[1]
        order = np.argsort(distances, kind="stable")
        yield grid[order], distances[order], [item.position for item, _, _ in sides]


def _thinned(values: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Return *values*, or evenly spaced ones of too many, with the first and the last."""
    if len(values) <= most:
        return values
    return values[np.unique(np.linspace(0, len(values) - 1, most).astype(np.int64))]
