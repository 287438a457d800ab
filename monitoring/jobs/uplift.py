"""From customers, acts and outcomes of one period to what a model is worth. No input or output.

The integrity of the holdout comes first: a broken one has a reason in place of every number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stats.figure import Figure, no_figure, wilson_figure
from stats.uplift.effect import (
    HoldoutBins,
    conversion_figures,
    effect_figure,
    effect_of_an_act,
    is_conversion,
    money_figure,
)
from stats.uplift.holdout import MISMATCH_E, HoldoutCounts, HoldoutIntegrity, check_holdout
from stats.uplift.qini import QiniCurve, qini_curve


@dataclass(frozen=True, slots=True, kw_only=True)
class BusinessSettings:
    """What an outcome is worth, and what an act costs, in one currency.

    value  of one outcome that happens, below 0 for a loss; None: not stated.
    """

    value: float | None = None
    cost: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class SegmentCustomers:
    """Customers of one segment and period, each at the first look.

    bins   outcomes by bin of the score. acts  acts on customers out of the holdout.
    acted  customers out of the holdout on whom somebody acted; None: nobody reports that.
    """

    bins: HoldoutBins
    acts: int = 0
    acted: int | None = None


@dataclass(frozen=True, slots=True)
class SegmentUplift:
    """What acting on the scores of one segment was worth.

    effect       mean effect on a customer. effect_of_an_act  on one who was acted on.
    conversion   rate of the outcome out of the holdout ("treated") and in it; empty for values.
    money        in the currency of the settings.
    """

    effect: Figure
    effect_of_an_act: Figure
    conversion: Mapping[str, Figure]
    qini: QiniCurve
    money: Figure

    def definition(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "effect": self.effect.definition(),
            "effect_of_an_act": self.effect_of_an_act.definition(),
            "conversion": {name: rate.definition() for name, rate in self.conversion.items()},
            "qini": {
                "shares": list(self.qini.shares),
                "gained": [figure.definition() for figure in self.qini.gained],
                "area": self.qini.area.definition(),
            },
            "money": self.money.definition(),
        }


@dataclass(frozen=True, slots=True)
class ModelUplift:
    """The uplift of a model by segment; "" is the segment of all customers."""

    integrity: HoldoutIntegrity
    segments: Mapping[str, SegmentUplift]

    def definition(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "holdout": {"intact": self.integrity.intact, "broken": list(self.integrity.broken)},
            "segments": {name: part.definition() for name, part in self.segments.items()},
        }


def model_uplift(
    segments: Mapping[str, SegmentCustomers],
    counts: HoldoutCounts,
    settings: BusinessSettings,
    *,
    seed: int,
    mismatch_e: float = MISMATCH_E,
) -> ModelUplift:
    """Return the uplift of each segment, or the reason why the holdout allows none.

    counts  of the whole model, from which the integrity of its holdout follows.
    mismatch_e  the e-value from which on the share of the holdout is not the configured one.
    """
    integrity = check_holdout(counts, mismatch_e)
    return ModelUplift(
        integrity,
        {
            name: _segment_uplift(customers, settings, integrity, seed)
            for name, customers in segments.items()
        },
    )


def _segment_uplift(
    customers: SegmentCustomers,
    settings: BusinessSettings,
    integrity: HoldoutIntegrity,
    seed: int,
) -> SegmentUplift:
    bins = customers.bins
    treated, controls = float(bins.treated.sum()), float(bins.controls.sum())
    if not integrity.intact:
        missing = no_figure(int(treated + controls), integrity.reason)
        return SegmentUplift(
            missing, missing, {}, QiniCurve((), (), missing, integrity.reason), missing
        )
    effect = effect_figure(bins)
    # The effect of an act needs reports of who was acted on.
    acted = no_figure(int(treated), "nobody reports on whom somebody acted")
    if customers.acted is not None:
        acted = wilson_figure(customers.acted, treated, of="customers")
    # Money needs the value of an outcome, and the number of acts where each costs some.
    money = no_figure(effect.n, "the policy states no value of the outcome")
    if settings.value is not None and settings.cost > 0 and customers.acted is None:
        money = no_figure(effect.n, "nobody reports acts, each of which has a cost by the policy")
    elif settings.value is not None:
        money = money_figure(
            effect,
            customers=int(treated),
            value=settings.value,
            acts=customers.acts,
            cost=settings.cost,
        )
    return SegmentUplift(
        effect,
        effect_of_an_act(effect, acted),
        conversion_figures(bins) if is_conversion(bins) else {},
        qini_curve(bins, seed=seed),
        money,
    )
