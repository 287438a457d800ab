"""Uplift: its definition, the coverage of its intervals, and a holdout that is broken."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stats.figure import wilson_figure
from stats.uplift.effect import (
    EffectLook,
    HoldoutBins,
    bins_of_customers,
    conversion_figures,
    effect_figure,
    effect_of_an_act,
    effect_sequence,
    money_figure,
    planned_spread,
    strata,
    stratum_effects,
)
from stats.uplift.holdout import HoldoutCounts, check_holdout
from stats.uplift.qini import qini_curve
from tests.property_examples import examples

Floats = NDArray[np.float64]


def draw_customers(
    seed: int, n: int = 6_000, share: float = 0.1, effect: float = 0.05
) -> HoldoutBins:
    """Return customers whose outcome depends on the score, and on acting the more the higher."""
    generator = np.random.default_rng(seed)
    scores = generator.beta(1, 3, n).round(3)
    holdout = generator.random(n) < share
    chances = 0.05 + 0.3 * scores + np.where(holdout, 0.0, effect * 4 * scores)
    return bins_of_customers(scores, holdout, (generator.random(n) < chances).astype(np.float64))


@examples(60)
@given(st.integers(0, 10_000))
def test_effect_is_the_weighted_difference_of_strata(seed: int) -> None:
    """It is computed again, stratum by stratum, from the rows."""
    generator = np.random.default_rng(seed)
    n = 400
    scores = generator.integers(0, 2, n) / 2
    holdout, outcomes = generator.random(n) < 0.4, generator.normal(3, 2, n)
    bins = bins_of_customers(scores, holdout, outcomes)
    expected = sum(
        (scores == score).mean()
        * (
            outcomes[(scores == score) & ~holdout].mean()
            - outcomes[(scores == score) & holdout].mean()
        )
        for score in (0.0, 0.5)
    )
    assert effect_figure(bins).value == pytest.approx(expected)
    assert stratum_effects(strata(bins))[0].sum() == pytest.approx(expected)


@examples(40)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 90)), min_size=1, max_size=40))
def test_strata_lose_no_customer_and_have_controls(sides: list[tuple[int, int]]) -> None:
    """At most ten strata; each has 30 customers of the holdout, or there is one."""
    controls = np.array([c for c, _ in sides], dtype=np.float64)
    treated = np.array([t for _, t in sides], dtype=np.float64)
    zeros = np.zeros(len(sides))
    bins = HoldoutBins(
        np.arange(len(sides), dtype=np.float64), treated, zeros, zeros, controls, zeros, zeros
    )
    found = strata(bins)
    assert found.controls.sum() == controls.sum()
    assert found.treated.sum() == treated.sum()
    assert len(found.scores) <= 10
    assert len(found.scores) == 1 or found.controls.min() >= 30


@pytest.mark.walk
def test_intervals_of_effect_and_qini_cover() -> None:
    """At least 93 % of 300 worlds, for the effect and for the area under the curve."""
    wide = draw_customers(1, n=2_000_000, share=0.5)
    effect = 0.05 * 4 * 0.25
    area = qini_curve(wide, seed=1).area.bounds()[0]
    covered = [0, 0]
    for seed in range(300):
        bins = draw_customers(seed + 10)
        for position, (figure, truth) in enumerate(
            ((effect_figure(bins), effect), (qini_curve(bins, seed=seed).area, area))
        ):
            _, low, high = figure.bounds()
            covered[position] += low <= truth <= high
    assert min(covered) >= 279, covered


def test_qini_tells_a_score_that_knows_whom_acting_changes() -> None:
    """Its area is above 0 there, and about 0 where the effect is the same for all."""
    knowing = qini_curve(draw_customers(3, n=60_000, share=0.3), seed=1)
    assert knowing.area.bounds()[1] > 0.0
    assert knowing.shares[-1] == pytest.approx(1.0)
    assert knowing.gained[-1].value == pytest.approx(
        effect_figure(draw_customers(3, n=60_000, share=0.3)).value
    )
    generator = np.random.default_rng(4)
    scores, holdout = generator.random(60_000).round(2), generator.random(60_000) < 0.3
    outcomes = (generator.random(60_000) < np.where(holdout, 0.1, 0.15)).astype(np.float64)
    _, low, high = qini_curve(bins_of_customers(scores, holdout, outcomes), seed=1).area.bounds()
    assert low < 0.0 < high


@pytest.mark.walk
def test_effect_sequence_covers_at_every_look() -> None:
    """At most 5 % of 200 periods ever have an interval without the effect, at 20 looks each."""
    generator = np.random.default_rng(5)
    planned = planned_spread(20_000, 0.1, 0.1)
    missed = 0
    for _ in range(200):
        looks = []
        outside = False
        for _ in range(20):
            controls = int(generator.binomial(1_000, 0.1))
            hits, misses = generator.binomial([1_000 - controls, controls], [0.12, 0.1]).tolist()
            looks.append(EffectLook(1_000 - controls, hits, hits, controls, misses, misses, 0.1))
            figure = effect_sequence(looks, planned)
            if figure.known:
                _, low, high = figure.bounds()
                outside |= not low <= 0.02 <= high
        missed += outside
    assert missed <= 10
    assert effect_sequence([], planned).lacking.startswith("not enough data: 0 of 100")
    with pytest.raises(ValueError, match="above 0"):
        effect_sequence([], 0.0)


def test_money_follows_from_the_effect_and_its_ends() -> None:
    """10,000 customers at 40 each, less 3,000 acts at 2; a loss has its ends in order too."""
    effect = effect_figure(draw_customers(6))
    value, low, high = effect.bounds()
    money = money_figure(effect, customers=10_000, value=40.0, acts=3_000, cost=2.0)
    assert money.bounds() == pytest.approx(
        (value * 400_000 - 6_000, low * 400_000 - 6_000, high * 400_000 - 6_000)
    )
    loss = money_figure(effect, customers=10, value=-1.0, acts=0, cost=0.0)
    assert loss.bounds()[1] < loss.bounds()[2]
    act = effect_of_an_act(effect, wilson_figure(300, 600))
    assert act.value == pytest.approx(2 * value)
    assert "nobody" in effect_of_an_act(effect, wilson_figure(0, 600)).lacking
    with pytest.raises(ValueError, match="negative"):
        money_figure(effect, customers=-1, value=1.0, acts=0, cost=0.0)


def test_conversion_of_both_sides_is_a_share() -> None:
    """A value has no conversion rate."""
    bins = draw_customers(7)
    found = conversion_figures(bins)
    assert found["holdout"].value == pytest.approx(bins.control_sum.sum() / bins.controls.sum())
    with pytest.raises(ValueError, match="1 or 0"):
        conversion_figures(replace(bins, control_squares=bins.control_squares * 3))


@pytest.mark.parametrize(
    ("treated", "controls", "outcome", "lacking"),
    [
        (0, 0, 1.0, "not enough data: 0 of 100 customers of the holdout needed"),
        (900, 1, 1.0, "not enough data: 1 of 100 customers of the holdout needed"),
        (3, 900, 1.0, "not enough data: 3 of 100 customers out of the holdout needed"),
        (900, 900, 0.0, "not enough data: 0 of 10 outcomes in the holdout needed"),
        (900, 900, 1.0, "not enough data: 0 of 10 customers without the outcome"),
        (900, 900, 5.0, "all outcomes in the holdout are equal"),
    ],
)
def test_too_few_customers_or_equal_outcomes_have_no_effect(
    treated: int, controls: int, outcome: float, lacking: str
) -> None:
    """Nothing that looks right comes of nothing."""
    n = treated + controls
    holdout = np.arange(n) >= treated
    bins = bins_of_customers(np.linspace(0, 1, n), holdout, np.full(n, outcome))
    figure = effect_figure(bins)
    assert figure.lacking.startswith(lacking)
    assert money_figure(figure, customers=9, value=1.0, acts=0, cost=0.0).value is None
    assert qini_curve(bins, seed=1).area.value is None


def test_equal_scores_have_an_effect_and_no_curve() -> None:
    """There is one stratum, and nothing to order customers by."""
    bins = draw_customers(8)
    single = bins.merged(np.zeros(len(bins.scores), dtype=np.int64))
    assert effect_figure(single).known
    assert "no curve" in qini_curve(single, seed=1).lacking


def test_numbers_that_are_none_are_refused() -> None:
    """NaN as a score or as an outcome raises, and so does a sum that is NaN."""
    one = np.ones(1)
    for score, outcome in ((np.nan, 1.0), (0.5, np.inf)):
        with pytest.raises(ValueError, match="leave its customer out"):
            bins_of_customers(np.array([score]), np.array([True]), np.array([outcome]))
    with pytest.raises(ValueError, match="leave its customer out"):
        HoldoutBins(one, one, one * math.nan, one, one, one, one)
    with pytest.raises(ValueError, match="not negative"):
        HoldoutBins(one, -one, one, one, one, one, one)


def test_holdout_that_is_broken_says_how() -> None:
    """A wrong share, customers who were acted on, and a new draw; a whole one says nothing."""
    whole = HoldoutCounts(controls=5_040, treated=95_100, share=0.05)
    assert check_holdout(whole).intact
    assert check_holdout(whole).reason == ""
    reason = check_holdout(replace(whole, controls=4_000)).reason
    assert reason.startswith("the holdout is broken: 4.04% of customers are in it, and 5.00% are")
    assert (
        "3 of its 5040 customers were acted on"
        in check_holdout(replace(whole, acted_controls=3)).reason
    )
    assert "under 2 salts" in check_holdout(replace(whole, salts=2)).reason
    assert not check_holdout(replace(whole, moved=1)).intact
    with pytest.raises(ValueError, match="between 0 and 1"):
        HoldoutCounts(controls=1, treated=1, share=0.0)


def test_holdout_of_the_right_share_is_seldom_called_broken() -> None:
    """None of 300 periods with 20 looks each; the bound is 1 in 1,000."""
    generator = np.random.default_rng(9)
    inside = np.cumsum(generator.binomial(2_000, 0.05, (300, 20)), axis=1)
    assert all(
        check_holdout(HoldoutCounts(int(c), 2_000 * (look + 1) - int(c), 0.05)).intact
        for row in inside
        for look, c in enumerate(row)
    )
