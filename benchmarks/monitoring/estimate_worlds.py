"""Customers that are made up for `--only estimates`: scores, outcomes, holdouts and groups."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.labelled_bins import bins_of_rows, merge_bins, sigmoid
from stats.estimates.without_labels import LiveRows, ReferenceRows
from stats.uplift.effect import HoldoutBins, bins_of_customers

Floats = NDArray[np.float64]

LIVE_BINS = 300
COLUMNS = 6


@dataclass(frozen=True, slots=True)
class CovariateShift:
    """How far features move, in standard deviations.

    seen    the feature with the largest weight in the score.
    unseen  a feature that the outcome depends on and the score does not have.
    """

    name: str
    seen: float
    unseen: float


SHIFTS = (
    CovariateShift("no shift", 0.0, 0.0),
    CovariateShift("shift that the score sees", 0.7, 0.0),
    CovariateShift("shift that the score does not see", 0.0, 0.7),
    CovariateShift("both, towards fewer outcomes", -0.5, -0.5),
)


def draw_rows(generator: np.random.Generator, n: int, shift: CovariateShift) -> ReferenceRows:
    """Return *n* customers. Given their features they behave alike under every shift."""
    features = generator.normal(size=(n, COLUMNS))
    features[:, 0] += shift.seen
    features[:, 1] += shift.unseen
    # The outcome has an interaction, and the score is too extreme and lacks a feature.
    known = -1.8 + 1.1 * features[:, 0] + 0.5 * features[:, 2] * features[:, 3]
    chances = sigmoid(known + 0.8 * features[:, 1])
    scores = sigmoid(1.3 * known + 0.2 * features[:, 4] + 0.2)
    return ReferenceRows(features, generator.random(n) < chances, scores)


def rows_by_score(rows: ReferenceRows) -> LiveRows:
    """Return the rows by bin of the score, without labels."""
    everybody = np.ones(len(rows.scores), dtype=np.bool_)
    merged = merge_bins(bins_of_rows(everybody, rows.scores), LIVE_BINS)
    return LiveRows(merged.scores, merged.positives)


@dataclass(frozen=True, slots=True)
class UpliftWorld:
    """Customers with a holdout.

    customers, holdout_share, base_rate  as named. effect  the mean effect of acting.
    knowing  the effect is proportional to the score, instead of the same for all.
    value    outcomes are values with this mean, instead of 1 and 0; 0: they are not.
    """

    name: str
    customers: int
    holdout_share: float
    base_rate: float
    effect: float
    knowing: bool = False
    value: float = 0.0


UPLIFT_WORLDS = (
    UpliftWorld("2 points, 5 % holdout, 40,000 customers", 40_000, 0.05, 0.10, 0.02),
    UpliftWorld("2 points, 5 % holdout, 8,000 customers", 8_000, 0.05, 0.10, 0.02),
    UpliftWorld("2 points, 5 % holdout, by score", 40_000, 0.05, 0.10, 0.02, knowing=True),
    UpliftWorld("rare outcome of .5 %, no effect", 60_000, 0.10, 0.005, 0.0),
    UpliftWorld("amounts with a long tail", 20_000, 0.05, 0.10, 0.02, value=40.0),
)


def draw_holdout(generator: np.random.Generator, world: UpliftWorld) -> HoldoutBins:
    """Return the customers of one period by bin of the score."""
    n = world.customers
    scores = generator.beta(2, 6, n)
    holdout = generator.random(n) < world.holdout_share
    relative = scores / 0.25
    effect = world.effect * (relative if world.knowing else 1.0)
    chances = np.clip(world.base_rate * relative + np.where(holdout, 0.0, effect), 0.0, 1.0)
    outcomes = (generator.random(n) < chances).astype(np.float64)
    if world.value:
        outcomes *= generator.lognormal(np.log(world.value) - 0.5, 1.0, n)
    return bins_of_customers(scores.round(3), holdout, outcomes)


def true_effect(world: UpliftWorld) -> float:
    """Return the mean effect on a customer, in the unit of the outcomes."""
    return world.effect * (world.value or 1.0)
