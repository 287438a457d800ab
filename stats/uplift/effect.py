"""What acting on scores changes, measured against the holdout, and what it is worth.

Customers of the holdout are drawn at random and are never acted on, so the difference of outcomes
between the others and them is the effect of acting (intention to treat). Within strata of the score
customers are alike, which makes the difference more exact:

    effect = sum_b (n_b / n) (y1_b - y0_b)
    variance = sum_b (n_b / n)^2 (s1_b^2 / n1_b + s0_b^2 / n0_b)

The unit is a customer, at the first look of a period. While a period is under way,
`effect_sequence` is valid at every look.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.labelled_bins import sum_by
from stats.figure import Figure, no_figure, normal_figure, not_enough, wilson_figure

Floats = NDArray[np.float64]

STRATA_MAX = 10
CONTROLS_NEEDED = 30
"""Customers of the holdout in each stratum."""
CONTROLS_NEEDED_AT_ALL = 100
EVENTS_NEEDED = 10
"""Customers with the outcome below which its rate in the holdout is a matter of chance."""
VARIANCE_ROWS = 5.0


@dataclass(frozen=True, eq=False, slots=True)
class HoldoutBins:
    """Customers, outcomes and squares of outcomes by bin of the score, in and out of the holdout.

    scores             (J,) float64, rising.
    treated, controls  (J,) float64, customers that may be acted on, and of the holdout.
    treated_sum, treated_squares, control_sum, control_squares  (J,) of their outcomes.

    Raises ValueError for other shapes and for numbers that are not finite or cannot be counts.
    """

    scores: Floats
    treated: Floats
    treated_sum: Floats
    treated_squares: Floats
    controls: Floats
    control_sum: Floats
    control_squares: Floats

    def __post_init__(self) -> None:
        columns = self.columns()
        if any(column.shape != self.scores.shape for column in columns) or self.scores.ndim != 1:
            raise ValueError("each bin has a score and six sums")
        if not all(np.isfinite(column).all() for column in (self.scores, *columns)):
            raise ValueError("a NaN or an infinite outcome is no outcome; leave its customer out")
        if (np.diff(self.scores) <= 0).any() or min(
            float(column.min(initial=0.0))
            for column in (
                self.treated,
                self.controls,
                self.treated_squares,
                self.control_squares,
            )
        ) < 0:
            raise ValueError("scores of bins rise, and customers and squares are not negative")

    def columns(self) -> tuple[Floats, ...]:
        """Return the six sums, those of the treated first."""
        return (
            self.treated,
            self.treated_sum,
            self.treated_squares,
            self.controls,
            self.control_sum,
            self.control_squares,
        )

    def merged(self, groups: NDArray[np.int64]) -> "HoldoutBins":
        """Return the bins added up by *groups* (J,), 0 to G-1 and rising with the score."""
        count = int(groups.max(initial=-1)) + 1
        rows = self.treated + self.controls
        rows = np.where(rows > 0, rows, 1e-12)
        scores = sum_by(groups, rows * self.scores, count) / sum_by(groups, rows, count)
        return HoldoutBins(scores, *(sum_by(groups, column, count) for column in self.columns()))


def bins_of_customers(scores: Floats, holdout: NDArray[np.bool_], outcomes: Floats) -> HoldoutBins:
    """Return one bin for each distinct score of customers, (N,) each.

    outcomes  1 or 0 for what happened or not, or a value.
    """
    if not len(scores) == len(holdout) == len(outcomes):
        raise ValueError("each customer has a score, a side and an outcome")
    if not np.isfinite(scores).all() or not np.isfinite(outcomes).all():
        raise ValueError("a NaN or an infinite score or outcome is none; leave its customer out")
    levels, level = np.unique(scores, return_inverse=True)
    sums: list[Floats] = []
    for side in (~holdout, holdout):
        member = side.astype(np.float64)
        columns = (member, member * outcomes, member * outcomes**2)
        sums += [sum_by(level, column, len(levels)) for column in columns]
    return HoldoutBins(levels.astype(np.float64), *sums)


def strata(bins: HoldoutBins, *, largest: int = STRATA_MAX) -> HoldoutBins:
    """Return at most *largest* strata of the score with 30 customers of the holdout each.

    Strata have about equally many customers of the holdout. Where they are too few for two strata,
    there is one.
    """
    controls = bins.controls
    total = float(controls.sum())
    count = int(min(largest, max(total // CONTROLS_NEEDED, 1)))
    while True:
        middle = np.cumsum(controls) - controls / 2
        groups = np.minimum((middle / max(total, 1.0) * count).astype(np.int64), count - 1)
        groups = np.unique(groups, return_inverse=True)[1]
        merged = bins.merged(groups)
        fewest = min(merged.controls.min(initial=total), merged.treated.min(initial=math.inf))
        if count == 1 or fewest >= min(CONTROLS_NEEDED, total):
            return merged
        count -= 1


def effect_figure(bins: HoldoutBins) -> Figure:
    """Return the mean effect of acting on a customer, with a normal interval."""
    n = int(bins.treated.sum() + bins.controls.sum())
    if lacking := lacking_customers(bins, CONTROLS_NEEDED_AT_ALL):
        return no_figure(n, lacking)
    effects, variances = stratum_effects(strata(bins))
    return normal_figure(float(effects.sum()), math.sqrt(float(variances.sum())), n)


def lacking_customers(bins: HoldoutBins, needed: int) -> str:
    """Return what is missing for an effect, or "": *needed* customers a side, and outcomes."""
    controls, treated = float(bins.controls.sum()), float(bins.treated.sum())
    if lacking := not_enough(controls, needed, "customers of the holdout") or not_enough(
        treated, needed, "customers out of the holdout"
    ):
        return lacking
    # Of outcomes that happen or not, the sum is their number.
    happened = float(bins.control_sum.sum())
    if is_conversion(bins):
        return not_enough(happened, EVENTS_NEEDED, "outcomes in the holdout") or not_enough(
            controls - happened, EVENTS_NEEDED, "customers without the outcome in the holdout"
        )
    if float(bins.control_squares.sum()) * controls - happened**2 <= 0.0:
        return "all outcomes in the holdout are equal, so there is nothing to compare with"
    return ""


def is_conversion(bins: HoldoutBins) -> bool:
    """Tell whether every outcome is 1 or 0."""
    return bool(
        np.allclose(bins.treated_sum, bins.treated_squares)
        and np.allclose(bins.control_sum, bins.control_squares)
    )


def stratum_effects(bins: HoldoutBins) -> tuple[Floats, Floats]:
    """Return what each stratum adds to the effect, and its variance, (J,) each.

    bins  strata, each with two customers a side at least.
    """
    n = bins.treated + bins.controls
    shares = n / n.sum()
    treated_mean, treated_error = _mean_and_error(
        bins.treated, bins.treated_sum, bins.treated_squares
    )
    mean, error = _mean_and_error(bins.controls, bins.control_sum, bins.control_squares)
    return shares * (treated_mean - mean), shares**2 * (treated_error + error)


def _mean_and_error(n: Floats, total: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """Return the mean of each stratum and the variance of that mean.

    A stratum of few customers may have no outcome and so no spread. Its variance is therefore
    drawn to that of all strata by as much as VARIANCE_ROWS customers would.
    """
    mean = total / n
    squared = np.maximum(squares - n * mean**2, 0.0)
    pooled = float(squared.sum() / max(float((n - 1.0).sum()), 1.0))
    return mean, (squared + VARIANCE_ROWS * pooled) / (n - 1.0 + VARIANCE_ROWS) / n


def conversion_figures(bins: HoldoutBins) -> dict[str, Figure]:
    """Return the rate of an outcome that happens or not, of both sides, with Wilson's intervals.

    Raises ValueError if an outcome is a value other than 0 and 1.
    """
    if not is_conversion(bins):
        raise ValueError("a conversion is of outcomes that are 1 or 0, and these are values")
    return {
        "treated": wilson_figure(
            float(bins.treated_sum.sum()), float(bins.treated.sum()), needed=CONTROLS_NEEDED
        ),
        "holdout": wilson_figure(
            float(bins.control_sum.sum()), float(bins.controls.sum()), needed=CONTROLS_NEEDED
        ),
    }


def effect_of_an_act(effect: Figure, acted_share: Figure) -> Figure:
    """Return the effect on a customer who was acted on, for those who were.

    acted_share  the share of customers out of the holdout on whom somebody acted. None of the
                 holdout was, so the effect is that of the others divided by it (Bloom, 1984).
    """
    if not effect.known or not acted_share.known:
        return no_figure(effect.n, effect.lacking or acted_share.lacking)
    value, low, high = effect.bounds()
    share, _, _ = acted_share.bounds()
    if share <= 0:
        return no_figure(effect.n, "nobody was acted on, so there is no effect of an act")
    return Figure(value / share, low / share, high / share, effect.n)


def money_figure(effect: Figure, *, customers: int, value: float, acts: int, cost: float) -> Figure:
    """Return what acting was worth: effect x customers x value - acts x cost.

    customers  customers out of the holdout. value  of one outcome. cost  of one act, not negative.
    """
    if customers < 0 or acts < 0 or not cost >= 0 or not math.isfinite(value):
        raise ValueError(f"{customers} customers, {acts} acts at {cost}: none is negative")
    if not effect.known:
        return no_figure(effect.n, effect.lacking)
    spent = acts * cost
    worth, low, high = (end * customers * value - spent for end in effect.bounds())
    return Figure(worth, min(low, high), max(low, high), effect.n)


@dataclass(frozen=True, slots=True)
class EffectLook:
    """Sums over the customers who became known in one look, for `effect_sequence`.

    treated, controls  customers. *_sum, *_squares  of their outcomes.
    holdout_share      configured probability of the holdout.
    """

    treated: int
    treated_sum: float
    treated_squares: float
    controls: int
    control_sum: float
    control_squares: float
    holdout_share: float


def planned_spread(customers: int, second_moment: float, holdout_share: float) -> float:
    """Return S of `effect_sequence` at the end of a period, as it is expected before.

    customers      of both sides. second_moment  mean of squared outcomes.
    """
    return customers * second_moment * (1.0 / (1.0 - holdout_share) + 1.0 / holdout_share)


def effect_sequence(looks: Sequence[EffectLook], planned: float, alpha: float = 0.05) -> Figure:
    """Return the effect with an interval that is valid at every look.

    planned  S at which the interval is the narrowest, above 0, from `planned_spread`. It is chosen
             before the first look: one that is chosen by the outcomes is not valid.

    It weights each customer by the configured probability of its side: the design-based confidence
    sequence of Ham et al. (arXiv 2210.08639), with S = sum y^2 (w/r^2 + (1-w)/(1-r)^2).
    """
    if not 0.0 < alpha < 1.0 or any(not 0.0 < look.holdout_share < 1.0 for look in looks):
        raise ValueError(f"alpha {alpha} and the shares of the holdout lie between 0 and 1")
    if not 0.0 < planned < math.inf:
        raise ValueError(f"a planned spread of {planned}: it is above 0")
    n = sum(look.treated + look.controls for look in looks)
    controls = sum(look.controls for look in looks)
    if lacking := not_enough(controls, CONTROLS_NEEDED_AT_ALL, "customers of the holdout"):
        return no_figure(n, lacking)
    total = spread = 0.0
    for look in looks:
        r, rest = 1.0 - look.holdout_share, look.holdout_share
        total += look.treated_sum / r - look.control_sum / rest
        spread += look.treated_squares / r**2 + look.control_squares / rest**2
    narrow = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned
    inner = spread * narrow + 1.0
    half = math.sqrt(inner / narrow * math.log(inner / alpha**2)) / n
    return Figure(total / n, total / n - half, total / n + half, n)
