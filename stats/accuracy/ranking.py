"""How well the offers of a call are ordered: NDCG and hits, by call."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.probabilities import ROWS_NEEDED
from stats.figure import Figure, no_figure, normal_figure, not_enough

Floats = NDArray[np.float64]

OFFERS_SHOWN = 5
"""Offers of a call that count for NDCG: a caller seldom shows more."""


@dataclass(frozen=True, eq=False, slots=True)
class CallOrder:
    """How well the offers of each call are ordered. C is the number of calls that are judged.

    A call is judged if its offers differ: where all of them were worth the same, every order is as
    good.

    ndcg  (C,) the discounted gain of the first OFFERS_SHOWN offers, over the largest possible.
    hits  (C,) whether the first offer was one of the best, 0 to 1.
    """

    ndcg: Floats
    hits: Floats


def order_calls(
    offsets: NDArray[np.int64], worth: Floats, scores: Floats, shown: int = OFFERS_SHOWN
) -> CallOrder:
    """Return how well *scores* (N,) order the offers of each call by their *worth* (N,), from 0 on.

    offsets  (calls + 1,) where the rows of each call begin.
    shown    the number of offers that count for NDCG.

    Offers with equal scores come in any order, so each has the mean of their places. Equal scores
    for all offers give what a random order gives on average.
    """
    sizes = np.diff(offsets)
    call_of = np.repeat(np.arange(len(sizes)), sizes)
    starts = offsets[:-1]
    best = np.maximum.reduceat(worth, starts)
    differ = best > np.minimum.reduceat(worth, starts)
    # Discount each place, and share those of equal scores.
    order = np.lexsort((-scores, call_of))
    places = np.arange(len(scores)) - starts[call_of]
    discounts = np.where(places < shown, 1.0 / np.log2(places + 2.0), 0.0)
    gained = _sums_of_calls(worth[order] * _shared(discounts, order, call_of, scores), starts)
    ideal = _sums_of_calls(worth[np.lexsort((-worth, call_of))] * discounts, starts)
    # The first place is shared in the same way.
    first = _shared((places == 0).astype(np.float64), order, call_of, scores)
    is_best = (worth == best[call_of])[order]
    hits = _sums_of_calls(first * is_best, starts)
    with np.errstate(invalid="ignore"):
        return CallOrder(np.asarray((gained / ideal)[differ]), hits[differ])


def order_figures(order: CallOrder) -> dict[str, Figure]:
    """Return NDCG and the hit rate: the share of calls whose best offer has the largest score."""
    return {
        "ndcg": _mean_of_calls(order.ndcg, highest=1.0),
        "hit_rate": _mean_of_calls(order.hits, highest=1.0),
    }


def position_figures(
    offsets: NDArray[np.int64], worth: Floats, positions: NDArray[np.int64], shown: int
) -> tuple[Figure, ...]:
    """Return for each of the first *shown* positions the mean worth of the offer that stood there.

    offsets    (calls + 1,) where the rows of each call begin. Each call has a row.
    worth      (N,) what each offer turned out to be worth: 1 if it was taken and 0 if not.
    positions  (N,) where the offer stood, from 0 on.

    Offers are taken more often because they stand first, so the rates of two versions compare at
    equal positions only. Raises ValueError for columns of different lengths and for NaN.
    """
    if len(worth) != len(positions) or offsets[-1] != len(worth) or not np.isfinite(worth).all():
        raise ValueError(
            f"{len(worth)} worths and {len(positions)} positions of {offsets[-1]} offers: each "
            "offer has one of both, and a worth is finite"
        )
    return tuple(_mean_of_calls(worth[positions == position]) for position in range(shown))


def _mean_of_calls(values: Floats, highest: float = math.inf) -> Figure:
    n = len(values)
    if lacking := not_enough(n, ROWS_NEEDED, "calls"):
        return no_figure(n, lacking)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    return normal_figure(float(values.mean()), error, n, lowest=0.0, highest=highest)


def _shared(
    weights: Floats, order: NDArray[np.int64], call_of: NDArray[np.int64], scores: Floats
) -> Floats:
    """Return the mean of *weights* (N,), by place, over the offers of a call with equal scores."""
    ordered, calls = scores[order], call_of[order]
    begins = np.r_[True, (ordered[1:] != ordered[:-1]) | (calls[1:] != calls[:-1])]
    tie = np.cumsum(begins) - 1
    return np.asarray((np.bincount(tie, weights=weights) / np.bincount(tie))[tie])


def _sums_of_calls(values: Floats, starts: NDArray[np.int64]) -> Floats:
    return np.asarray(np.add.reduceat(values, starts))
