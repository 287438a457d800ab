"""The four models of the virtual year: their inputs, customers, outcomes and policies.

A customer has a latent standard normal value for each input, from which the served value follows.
The log odds of a model are a weighted sum of what its inputs say about the latent values, and the
outcomes of the world follow the same sum. So a version that is fitted on the world of its day is
calibrated on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.watching.policy import MonitoringPolicy, OutcomePolicy

Floats = NDArray[np.float32]

CATEGORIES = 6
CATEGORY_ENDS = np.array([-1.0, -0.4, 0.1, 0.6, 1.2], dtype=np.float32)
"""A category is the number of these ends below the latent value."""
CATEGORY_MIDDLES = np.array([-1.5, -0.7, -0.15, 0.35, 0.9, 1.7, 0.0], dtype=np.float32)
"""The latent value that stands for each category; the last is that of an unknown one."""
AMOUNT_MEAN, AMOUNT_SD = 3.0, 0.6
"""The logarithm of an amount in euros is normal with them."""


class ValueKind(Enum):
    """How a served value follows from its latent one."""

    NORMAL = "normal"
    AMOUNT = "amount"
    """Euros: the exponential of the latent value."""
    MOSTLY_ZERO = "mostly zero"
    """The latent value where it is above 0, and 0 elsewhere."""
    CATEGORY = "category"
    """A code of a dictionary with CATEGORIES entries."""


@dataclass(frozen=True, slots=True)
class YearFeature:
    """One input of a model."""

    name: str
    weight: float
    """Log odds of the outcome by standard deviation of what the value says."""
    kind: ValueKind = ValueKind.NORMAL
    weekend: float = 0.0
    """Standard deviations by which the latent value is higher on weekends."""
    billing: float = 0.0
    """Standard deviations by which it rises and falls over the month of billing."""

    @property
    def view(self) -> str:
        """The feature view of the input."""
        return self.name.partition(":")[0]

    def served(self, latent: Floats) -> Floats:
        """Return the (N,) served values of (N,) latent ones."""
        if self.kind is ValueKind.AMOUNT:
            return np.asarray(np.exp(AMOUNT_MEAN + AMOUNT_SD * latent), dtype=np.float32)
        if self.kind is ValueKind.MOSTLY_ZERO:
            return np.maximum(latent, np.float32(0.0))
        if self.kind is ValueKind.CATEGORY:
            return np.searchsorted(CATEGORY_ENDS, latent).astype(np.float32)
        return latent

    def meaning(self, served: Floats) -> Floats:
        """Return what (N,) served values say about the latent ones; 0 for a missing value."""
        present = ~np.isnan(served)
        said: NDArray[Any] = served
        if self.kind is ValueKind.AMOUNT:
            said = (np.log(np.where(present, served, 1.0)) - AMOUNT_MEAN) / AMOUNT_SD
        elif self.kind is ValueKind.CATEGORY:
            said = CATEGORY_MIDDLES[np.where(present, served, CATEGORIES).astype(np.int64)]
        return np.where(present, said, 0.0).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class YearModel:
    """One model, and the world that it is asked about."""

    name: str
    features: tuple[YearFeature, ...]
    outcome: str
    intercept: float
    """Log odds of the outcome where all inputs say 0."""
    persons_a_day: int
    """Customers on an ordinary day."""
    horizon_days: int
    """Days from a prediction until its outcome is decided."""
    holdout: float = 0.0
    """The part of the customers on whom nobody acts."""
    acted: float = 0.0
    """The part of the other customers on whom somebody acts, those with the highest scores."""
    acting_adds: float = 0.0
    """What an act adds to the probability of the outcome."""
    money: Mapping[str, float] = field(default_factory=dict)
    """value and cost of the policy's outcome."""
    sensitive: tuple[str, ...] = ()

    @property
    def customers(self) -> int:
        """How many customers there are."""
        return 4 * self.persons_a_day

    @property
    def policy(self) -> MonitoringPolicy:
        """The monitoring policy of the model. Every decision is kept."""
        outcome = OutcomePolicy(
            positive_when=">= 1",
            horizon=f"{self.horizon_days}d",
            grace="3d",
            absent="negative",
            **self.money,
        )
        return MonitoringPolicy(
            decisions=0, outcomes={self.outcome: outcome}, sensitive=self.sensitive
        )


USAGE = (
    YearFeature("usage:data_gb", 0.5, weekend=0.4),
    YearFeature("usage:calls", -0.3),
    YearFeature("usage:roaming", 0.2, ValueKind.MOSTLY_ZERO),
)
"""Inputs from the view that three models read."""

YEAR_MODELS = (
    YearModel(
        name="churn",
        features=(
            *USAGE,
            YearFeature("billing:amount", 0.6, ValueKind.AMOUNT, billing=0.06),
            YearFeature("billing:late_payments", 0.4, ValueKind.MOSTLY_ZERO),
            YearFeature("customer:tenure", -0.7),
            YearFeature("customer:contract", 0.5, ValueKind.CATEGORY),
        ),
        outcome="churned",
        intercept=-2.6,
        persons_a_day=3_000,
        horizon_days=30,
    ),
    YearModel(
        name="fraud",
        features=(
            *USAGE,
            YearFeature("card:amount", 0.9, ValueKind.AMOUNT),
            YearFeature("card:country", 0.5, ValueKind.CATEGORY),
            YearFeature("card:hour_distance", 0.8),
            YearFeature("card:devices", 0.6, ValueKind.MOSTLY_ZERO),
        ),
        outcome="fraud",
        intercept=-4.6,
        persons_a_day=6_000,
        horizon_days=14,
    ),
    YearModel(
        name="propensity",
        features=(
            *USAGE,
            YearFeature("billing:amount", 0.4, ValueKind.AMOUNT),
            YearFeature("customer:tenure", 0.3),
            YearFeature("campaign:opened", 0.7, ValueKind.MOSTLY_ZERO),
        ),
        outcome="bought",
        intercept=-2.5,
        persons_a_day=4_000,
        horizon_days=14,
        holdout=0.2,
        acted=0.3,
        acting_adds=0.067,
        money={"value": 40.0, "cost": 0.1},
    ),
    YearModel(
        name="credit",
        features=(
            YearFeature("income:monthly", -0.6, ValueKind.AMOUNT),
            YearFeature("income:months", -0.4),
            YearFeature("bureau:score", -0.9),
            YearFeature("bureau:inquiries", 0.4, ValueKind.MOSTLY_ZERO),
            YearFeature("customer:employment", 0.4, ValueKind.CATEGORY),
        ),
        outcome="defaulted",
        intercept=-2.4,
        persons_a_day=3_000,
        horizon_days=42,
        sensitive=("people",),
    ),
)
