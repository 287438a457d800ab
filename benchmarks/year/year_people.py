"""The customers of one model of the virtual year, day by day.

Customers are sticky: each has latent values of its own, and a fifth of them comes on most days.
Every fiftieth is replaced by another each week. More come on workdays, and campaigns bring more of
some. N is the number of customers of a day, F the inputs of the model.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from benchmarks.year.year_models import CATEGORIES, Floats, YearModel

STICKY = np.float32(0.98)
"""Correlation of a customer's latent value on one day with that on another."""
WEEKEND_PART = 0.8
"""Customers on a day of the weekend, as a part of those on a workday."""
RENEWED_A_WEEK = 0.02
TRAIT_LOADING = 0.4
"""Correlation of the first inputs with the trait that campaigns choose customers by."""
BILLING_DAYS = 30
FIRST_HOUR = 8
HOURLY = np.array([5, 8, 10, 10, 9, 9, 9, 9, 10, 10, 8, 5])
"""Calls by hour from FIRST_HOUR on. There are none by night, which halves the cells."""
GROUPS = ("a", "b", "rare")
GROUP_PARTS = (0.6, 0.397, 0.003)
"""The groups of people that only fairness looks know, and their parts."""
DAY_NS = 86_400 * 10**9


@dataclass(slots=True)
class DayEffects:
    """What is otherwise on one day of one model. Planted events fill it."""

    # The customers.
    moved: dict[str, float] = field(default_factory=dict)
    """Input -> standard deviations by which its latent value is higher."""
    presence: float = 1.0
    """Factor of the number of customers."""
    campaign: float = 0.0
    """Log odds of being there, by standard deviation of the trait."""
    # What is served.
    scaled: dict[str, float] = field(default_factory=dict)
    """Input -> factor of its served value."""
    missing: dict[str, float] = field(default_factory=dict)
    """View -> share of its rows that are missing."""
    unknown: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Input -> share of rows with an unknown category, and the host; -1: all hosts."""
    lost: float = 0.0
    """Share of the journal of the first host that is lost."""
    silent_hours: tuple[int, int] = (0, 0)
    """From this hour on, up to and without that one, nobody calls."""
    # The outcomes.
    log_odds: float = 0.0
    """Added to the log odds of the outcome."""
    weights: dict[str, float] = field(default_factory=dict)
    """Input -> another weight in the log odds of the outcome."""
    late_days: int = 0
    """Days by which reports of outcomes are late."""
    doubled: float = 0.0
    """Share of reports that come twice."""
    corrected: float = 0.0
    """Share of reports that another value follows."""
    constant: bool = False
    """Whether no customer has the outcome."""
    acting_adds: float | None = None
    """Another value of YearModel.acting_adds."""
    acts_on_holdout: float = 0.0
    """Share of the holdout on whom somebody acts."""


@dataclass(frozen=True, eq=False, slots=True)
class PeopleOfDay:
    """The customers of one day, in the order of their calls."""

    person: NDArray[np.int64]
    """(N,) number of the customer."""
    key_hash: NDArray[np.uint64]
    entity_ids: tuple[str, ...]
    at_unix_ns: NDArray[np.int64]
    host: NDArray[np.int64]
    """(N,) position in served_days.HOSTS."""
    holdout: NDArray[np.bool_]
    group: NDArray[np.int64]
    """(N,) position in GROUPS."""
    vectors: Floats
    """(N, F) what is served."""
    missing: NDArray[np.bool_]
    """(N,) whether a view of the row is missing."""
    probability: NDArray[np.float64]
    """(N,) of the outcome, without acts."""


@dataclass(frozen=True, eq=False, slots=True)
class TrainingRows:
    """M customers from which a version is fitted."""

    vectors: Floats
    """(M, F) what is served."""
    group: NDArray[np.int64]
    """(M,) position in GROUPS."""
    probability: NDArray[np.float64]
    """(M,) of the outcome."""


class YearPeople:
    """The customers of one model."""

    def __init__(self, model: YearModel, seed: int) -> None:
        self.model = model
        self._rng = np.random.default_rng([seed, xxh3_64_intdigest(model.name.encode()) % 2**32])
        customers, features = model.customers, len(model.features)
        # A fifth of the customers of a day comes on four days of five.
        heavy = self._rng.random(customers) < 0.2 * model.persons_a_day / customers
        others = (model.persons_a_day - 0.8 * heavy.sum()) / (customers - heavy.sum())
        self._rate = np.where(heavy, 0.8, others)
        self._trait = np.empty(customers, dtype=np.float32)
        self._latent = np.empty((customers, features), dtype=np.float32)
        self._key = np.empty(customers, dtype=np.uint64)
        self._name = np.empty(customers, dtype=object)
        self._holdout = np.empty(customers, dtype=np.bool_)
        self._group = np.empty(customers, dtype=np.int64)
        self._born = 0
        self.group_of: dict[str, int] = {}
        """Name of a customer -> position in GROUPS."""
        self._draw(np.arange(customers))

    @property
    def keys(self) -> NDArray[np.uint64]:
        """(K,) the keys of all customers; a key changes when another customer takes the place."""
        return self._key

    def day(self, day: int, effects: DayEffects) -> PeopleOfDay:
        """Return the customers of a Unix day with what they are served."""
        if day % 7 == 4:  # Unix day 4 was a Monday
            self._draw(np.flatnonzero(self._rng.random(len(self._rate)) < RENEWED_A_WEEK))
        person = self._present(day, effects)
        return self._served(person, day, effects)

    def training_rows(self, day: int, effects: DayEffects, rows: int) -> TrainingRows:
        """Return *rows* customers as a training set of the week before *day* has them.

        effects  of the day, those that last.
        """
        person = self._rng.choice(len(self._rate), rows, p=self._rate / self._rate.sum())
        parts = [
            self._served(part, day - 7 + offset, effects)
            for offset, part in enumerate(np.array_split(person, 7))
        ]
        return TrainingRows(
            np.concatenate([part.vectors for part in parts]),
            np.concatenate([part.group for part in parts]),
            np.concatenate([part.probability for part in parts]),
        )

    def _draw(self, persons: NDArray[np.int64]) -> None:
        """Draw new customers in the place of others."""
        rng, features = self._rng, len(self.model.features)
        trait = rng.standard_normal(len(persons), dtype=np.float32)
        latent = rng.standard_normal((len(persons), features), dtype=np.float32)
        first = latent[:, : features // 2]
        first *= np.float32(np.sqrt(1 - TRAIT_LOADING**2))
        first += np.float32(TRAIT_LOADING) * trait[:, None]
        self._trait[persons], self._latent[persons] = trait, latent
        names = [f"{self.model.name}-{self._born + number}" for number in range(len(persons))]
        self._born += len(persons)
        self._name[persons] = names
        self._key[persons] = [xxh3_64_intdigest(name.encode()) for name in names]
        self._holdout[persons] = rng.random(len(persons)) < self.model.holdout
        groups = rng.choice(len(GROUPS), len(persons), p=GROUP_PARTS)
        self._group[persons] = groups
        self.group_of.update(zip(names, groups.tolist(), strict=True))

    def _present(self, day: int, effects: DayEffects) -> NDArray[np.int64]:
        """Return the customers of a day in the order of their calls."""
        factor = effects.presence * (WEEKEND_PART if _is_weekend(day) else 1.0)
        factor *= float(np.exp(0.05 * self._rng.standard_normal()))
        tilt = np.exp(effects.campaign * self._trait - effects.campaign**2 / 2)
        rate = np.minimum(self._rate * factor * tilt, 0.95)
        person = np.flatnonzero(self._rng.random(len(rate)) < rate)
        self._rng.shuffle(person)
        return person

    def _served(self, person: NDArray[np.int64], day: int, effects: DayEffects) -> PeopleOfDay:
        rng, model = self._rng, self.model
        at = self._instants(day, len(person))
        # Those who would call in hours of silence do not.
        hours = (at // (3_600 * 10**9)) % 24
        silent = (hours >= effects.silent_hours[0]) & (hours < effects.silent_hours[1])
        person, at = person[~silent], at[~silent]
        host = rng.integers(0, 2, len(person))
        # What the customers are like on this day, and what follows.
        latent = STICKY * self._latent[person]
        noise = rng.standard_normal(latent.shape, dtype=np.float32)
        latent += np.float32(np.sqrt(1 - STICKY**2)) * noise
        vectors = np.empty_like(latent)
        log_odds = np.full(len(person), model.intercept + effects.log_odds)
        for number, feature in enumerate(model.features):
            latent[:, number] += self._offset(number, day, effects)
            vectors[:, number] = feature.served(latent[:, number])
            weight = effects.weights.get(feature.name, feature.weight)
            log_odds += weight * feature.meaning(vectors[:, number])
        probability = 1 / (1 + np.exp(-log_odds))
        if effects.constant:
            probability[:] = 0.0
        # What is broken on the way to the model.
        missing = self._break(vectors, host, effects)
        return PeopleOfDay(
            person=person,
            key_hash=self._key[person],
            entity_ids=tuple(self._name[person].tolist()),
            at_unix_ns=at,
            host=host,
            holdout=self._holdout[person],
            group=self._group[person],
            vectors=vectors,
            missing=missing,
            probability=probability,
        )

    def _offset(self, number: int, day: int, effects: DayEffects) -> np.float32:
        """Return by how much the latent values of an input are higher on a day."""
        feature = self.model.features[number]
        season = feature.weekend if _is_weekend(day) else 0.0
        month = feature.billing * np.sin(2 * np.pi * (day % BILLING_DAYS) / BILLING_DAYS)
        return np.float32(season + month + effects.moved.get(feature.name, 0.0))

    def _break(
        self, vectors: Floats, host: NDArray[np.int64], effects: DayEffects
    ) -> NDArray[np.bool_]:
        """Change served values as faults do; return the rows with a missing view."""
        missing = np.zeros(len(vectors), dtype=np.bool_)
        for view, share in effects.missing.items():
            rows = self._rng.random(len(vectors)) < share
            columns = [number for number, it in enumerate(self.model.features) if it.view == view]
            for column in columns:
                vectors[rows, column] = np.nan
            missing |= rows if columns else False
        for number, feature in enumerate(self.model.features):
            if feature.name in effects.scaled:
                vectors[:, number] *= np.float32(effects.scaled[feature.name])
            if feature.name in effects.unknown:
                share, where = effects.unknown[feature.name]
                rows = self._rng.random(len(vectors)) < share
                vectors[rows & ((host == where) | (where < 0)), number] = CATEGORIES
        return missing

    def _instants(self, day: int, number: int) -> NDArray[np.int64]:
        hours = FIRST_HOUR + np.sort(self._rng.choice(len(HOURLY), number, p=HOURLY / HOURLY.sum()))
        seconds = self._rng.random(number) * 3_600
        return np.asarray(day * DAY_NS + ((hours * 3_600 + seconds) * 1e9).astype(np.int64))


def _is_weekend(day: int) -> bool:
    return day % 7 in (2, 3)  # Unix day 0 was a Thursday
