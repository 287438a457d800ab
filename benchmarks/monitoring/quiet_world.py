"""Simulates customers of models in which nothing relevant changes, and counts their person-looks.

A model has K customers with 20 features and a score that depends on them. What keeps it from being
a textbook stream is what real ones have:

    sticky keys    the same customers come back; a fifth of them comes on four days of five
    weeks          other customers come on weekends, and five features have other values there
    campaign days  one day in ten has up to three times the customers, drawn by a trait
    renewal        one customer in fifty is replaced every week, by a customer who differs by .3
                   standard deviations on some features
    shapes         continuous features, features that are mostly 0, and two-valued ones

Every customer is drawn with all features, so the features of a model depend on each other as theirs
do. Customers are counted once a day, and once a week for weekly looks.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float32]

FEATURES = 20
STREAMS = FEATURES + 1
"""The score is the last stream."""
BINS = 10
SETTLING_DAYS = 14
DAYS = SETTLING_DAYS + 91
WEEKS = DAYS // 7
SEASONAL = 5
"""The first features have other values on weekends."""
LAYERS = 4
"""Bins of a customer on workdays and on weekends, without what is planted and with it."""
DECILES = np.array([NormalDist().inv_cdf(share / 10) for share in range(1, 10)], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSettings:
    """How far the customers of a quiet world differ from day to day."""

    keys_a_day: tuple[int, int] = (300, 5_000)
    """Customers on an ordinary day; a model's number is drawn between both, in logarithms."""
    weekend_tilt: float = 0.3
    """Log odds of coming on a weekend, by standard deviation of the trait."""
    weekend_shift: float = 0.5
    """Standard deviations by which the seasonal features are higher on weekends."""
    campaign_tilt: float = 0.25
    """Log odds of being in a campaign, by standard deviation of the trait."""
    campaign_part: float = 0.1
    """Days with a campaign."""
    renewed_a_week: float = 0.02
    renewal_shift: float = 0.3
    """Standard deviations by which new customers differ, on the features of the trait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedShift:
    """One feature is higher from some instant on, as after a changed unit or a new source."""

    feature: int
    shift: float
    """Standard deviations."""
    day: int
    """The first day with it."""
    first_part: float = 1.0
    """Share of the first day's customers with it: 1.0 from midnight on, .5 from noon on."""


@dataclass(frozen=True, eq=False, slots=True)
class ModelCounts:
    """The person-looks of one model."""

    daily: Counts
    """(DAYS, STREAMS, BINS). The first SETTLING_DAYS make the reference."""
    weekly: Counts
    """(WEEKS, STREAMS, BINS)."""


def simulate_model(
    rng: np.random.Generator,
    settings: WorldSettings,
    weeks: int = WEEKS,
    planted: PlantedShift | None = None,
) -> ModelCounts:
    """Return the counts of one model over some *weeks*, quiet ones but for what is *planted*."""
    # How many customers there are, and how often each comes.
    low, high = np.log(settings.keys_a_day)
    keys = float(np.exp(rng.uniform(low, high)))
    customers = int(keys * rng.uniform(2, 5))
    heavy = rng.random(customers) < 0.2 * keys / customers
    rate = np.where(heavy, 0.8, (keys - 0.8 * heavy.sum()) / (customers - heavy.sum()))
    # What they are like. A trait says who comes on weekends and in campaigns.
    features = _Features(rng, settings, planted)
    trait = np.empty(customers, dtype=np.float32)
    bins = np.empty((LAYERS, customers, STREAMS), dtype=np.int64)
    features.draw_into(trait, bins, np.arange(customers), shift=0.0)
    daily, weekly = [], []
    for week in range(weeks):
        # Some customers are replaced by others.
        renewed = np.flatnonzero(rng.random(customers) < settings.renewed_a_week)
        features.draw_into(trait, bins, renewed, shift=settings.renewal_shift)
        # Who comes on each day of the week, Monday first, and who comes on any.
        present = _presence(rng, rate, trait, settings)
        for day in range(7):
            after = _planted_part(planted, 7 * week + day)
            layer = (day >= 5) + 2 * (rng.random(int(present[day].sum())) < after)
            daily.append(_count(bins[layer, np.flatnonzero(present[day])]))
        weekly.append(_count(bins[0][present.any(axis=0)]))
    return ModelCounts(np.array(daily), np.array(weekly))


def _planted_part(planted: PlantedShift | None, day: int) -> float:
    """Return the share of a day's customers with what is planted."""
    if planted is None or day < planted.day:
        return 0.0
    return planted.first_part if day == planted.day else 1.0


class _Features:
    """How the features of one model are distributed, and how they become bins."""

    def __init__(
        self, rng: np.random.Generator, settings: WorldSettings, planted: PlantedShift | None
    ) -> None:
        self._rng, self._settings, self._planted = rng, settings, planted
        # Half of the features have nothing to do with the trait.
        loadings = rng.uniform(-0.7, 0.7, size=FEATURES) * (rng.random(FEATURES) < 0.5)
        self._loadings = loadings.astype(np.float32)
        self._weights = rng.dirichlet(np.ones(FEATURES)).astype(np.float32)
        self._shapes = rng.choice(3, size=FEATURES, p=[0.6, 0.2, 0.2])
        if planted is not None:
            self._shapes[planted.feature] = 0
        covariance = np.outer(loadings, loadings) + np.diag(1 - loadings**2)
        self._score_sd = float(np.sqrt(self._weights @ covariance @ self._weights))

    def draw_into(self, trait: Floats, bins: Counts, customers: Counts, shift: float) -> None:
        """Draw new *customers*: their (K,) trait and (LAYERS, K, STREAMS) bins.

        shift  standard deviations by which the features of the trait differ.
        """
        drawn = self._rng.standard_normal(len(customers), dtype=np.float32)
        own = self._rng.standard_normal((len(customers), FEATURES), dtype=np.float32)
        values = drawn[:, None] * self._loadings + own * np.sqrt(1 - self._loadings**2)
        values += shift * np.sign(self._loadings)
        trait[customers] = drawn
        on_weekend = values.copy()
        on_weekend[:, :SEASONAL] += self._settings.weekend_shift
        for layer, days in enumerate((values, on_weekend)):
            bins[layer, customers] = self._bins(days)
            if self._planted is not None:
                days[:, self._planted.feature] += self._planted.shift
                bins[layer + 2, customers] = self._bins(days)

    def _bins(self, values: Floats) -> Counts:
        """Return (K, STREAMS) bins of (K, FEATURES) values, counted on through all streams."""
        bins = np.empty((len(values), STREAMS), dtype=np.int64)
        features = np.searchsorted(DECILES, values)
        # Features that are mostly 0 have one bin for six deciles; two-valued ones have two bins.
        features = np.where(self._shapes == 1, np.maximum(features - 5, 0), features)
        bins[:, :FEATURES] = np.where(self._shapes == 2, features // 8, features)
        bins[:, FEATURES] = np.searchsorted(DECILES, (values @ self._weights) / self._score_sd)
        return bins + np.arange(STREAMS) * BINS


def _presence(
    rng: np.random.Generator, rate: NDArray[np.float64], trait: Floats, settings: WorldSettings
) -> NDArray[np.bool_]:
    """Return (7, K): which customer comes on which day of a week."""
    weekend = np.arange(7)[:, None] >= 5
    tilt = np.where(weekend, settings.weekend_tilt, 0.0) * trait
    probability = np.clip(rate * np.exp(tilt - tilt**2 / 2), 0.0, 0.95)
    # A campaign reaches as many customers again as come on an ordinary day, or twice as many.
    reach = rng.uniform(1.0, 2.0, size=(7, 1)) * rate.mean()
    reach *= rng.random((7, 1)) < settings.campaign_part
    reached = np.clip(reach * np.exp(settings.campaign_tilt * trait), 0.0, 0.95)
    probability = 1 - (1 - probability) * (1 - reached)
    return np.asarray(rng.random(probability.shape) < probability)


def _count(bins: Counts) -> Counts:
    """Return the (STREAMS, BINS) counts of (K, STREAMS) bins."""
    counts = np.bincount(bins.reshape(-1), minlength=STREAMS * BINS)
    return counts.astype(np.int64).reshape(STREAMS, BINS)
