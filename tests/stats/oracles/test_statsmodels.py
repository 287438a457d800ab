"""Our intervals against those of statsmodels 0.15.0: equal for one look, and wider for many."""

import math
from typing import Any

import numpy as np
import pytest

from stats.fairness.ratio_evidence import RateCounts
from stats.fairness.verdicts import ratio_figure
from stats.figure import Z, figure_difference, wilson_figure
from stats.rate import clean_keys_needed, log_e_below
from stats.ratio import log_e_mismatch, rate_ratio_interval
from stats.uplift.effect import (
    EffectLook,
    HoldoutBins,
    bins_of_customers,
    conversion_figures,
    effect_figure,
    effect_sequence,
    planned_spread,
    strata,
)
from tests.stats.oracles.oracle_environments import ask_libraries, ask_statsmodels

pytestmark = [pytest.mark.nightly, pytest.mark.walk, pytest.mark.timeout(2_400)]

COUNTS = [
    (56, 70, 48, 80),
    (0, 40, 3, 50),
    (12, 12, 90, 100),
    (1, 10, 0, 12),
    (900, 9_000, 40, 500),
]
"""Events and people of two groups, with none and all of them among the events."""


def two_groups(method: str, **options: str) -> list[dict[str, Any]]:
    """Return the arguments of confint_proportions_2indep for COUNTS."""
    names = ("count1", "nobs1", "count2", "nobs2")
    return [dict(zip(names, item, strict=True)) | {"method": method, **options} for item in COUNTS]


def test_shares_have_statsmodels_wilson_interval() -> None:
    """`wilson_figure` is the interval of every share that Turnout shows."""
    shares = [item[:2] for item in COUNTS] + [item[2:] for item in COUNTS]
    theirs = ask_statsmodels(
        "proportion.proportion_confint",
        [{"count": hits, "nobs": n, "method": "wilson"} for hits, n in shares],
    )
    for (hits, n), ends in zip(shares, theirs, strict=True):
        assert wilson_figure(hits, n).bounds()[1:] == pytest.approx(ends, abs=1e-9)


def test_difference_of_shares_is_newcombes() -> None:
    """It is statsmodels' default for a difference, from the Wilson intervals of both shares."""
    theirs = ask_statsmodels("proportion.confint_proportions_2indep", two_groups("newcomb"))
    for (hits, n, others, m), ends in zip(COUNTS, theirs, strict=True):
        gap = figure_difference(wilson_figure(hits, n), wilson_figure(others, m))
        assert gap.bounds()[1:] == pytest.approx(ends, abs=1e-9)


def test_ratio_of_rates_is_statsmodels_adjusted_log_interval() -> None:
    """Its default for a ratio: half an event is added to events and to people on both sides."""
    theirs = ask_statsmodels(
        "proportion.confint_proportions_2indep", two_groups("log-adjusted", compare="ratio")
    )
    for counts, ends in zip(COUNTS, theirs, strict=True):
        hits, n, others, m = counts
        ratio = ratio_figure(RateCounts(n, hits, m, others))
        assert ratio.bounds()[1:] == pytest.approx(ends, rel=1e-9)


def draw_customers(seed: int, n: int, levels: int) -> tuple[HoldoutBins, dict[str, Any]]:
    """Return customers whose score predicts the outcome, and a question about their strata."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, levels, n) / levels
    holdout = generator.random(n) < 0.3
    chances = 0.05 + 0.6 * scores + np.where(holdout, 0.0, 0.08)
    outcomes = (generator.random(n) < chances).astype(np.float64)
    question = {
        "kind": "strata",
        "strata": scores.tolist(),
        "treated": (~holdout).astype(int).tolist(),
        "outcomes": outcomes.tolist(),
    }
    return bins_of_customers(scores, holdout, outcomes), question


def test_effect_in_one_stratum_is_the_plain_difference() -> None:
    """Wald's interval divides by n. Our variance divides by n - 1, so ours is wider."""
    bins, _ = draw_customers(1, 2_000, levels=1)
    figures = conversion_figures(bins)
    (hits,), (n,), (others,), (m,) = (
        item.tolist() for item in (bins.treated_sum, bins.treated, bins.control_sum, bins.controls)
    )
    arguments = {"count1": hits, "nobs1": n, "count2": others, "nobs2": m, "method": "wald"}
    (theirs,) = ask_statsmodels("proportion.confint_proportions_2indep", [arguments])
    value, low, high = effect_figure(bins).bounds()
    treated, holdout = (figures[name].bounds()[0] for name in ("treated", "holdout"))
    assert value == pytest.approx(treated - holdout, abs=1e-12)
    assert (low, high) == pytest.approx(theirs, rel=0.005)
    variances = [treated * (1 - treated) / (n - 1), holdout * (1 - holdout) / (m - 1)]
    assert high - low == pytest.approx(2 * Z * math.sqrt(sum(variances)), rel=1e-9)
    assert high - low > theirs[1] - theirs[0]


def test_effect_in_strata_is_that_of_least_squares() -> None:
    """A mean and an effect for each stratum, with errors of kind HC2: the same figure.

    Its interval is narrower than that of the plain difference, because the score predicts the
    outcome. Ours draws the spread of a stratum to that of all, which is below 1 % with 300 each.
    """
    bins, question = draw_customers(2, 10_000, levels=10)
    assert len(strata(bins).scores) == 10
    effect, low, high = ask_libraries([question])[0]
    found = effect_figure(bins)
    assert found.value == pytest.approx(effect, abs=1e-12)
    assert found.bounds()[1:] == pytest.approx((low, high), rel=0.01)
    one = bins.merged(np.zeros(len(bins.scores), dtype=np.int64))
    assert found.value is not None
    plain = effect_figure(one).bounds()
    assert high - low < 0.95 * (plain[2] - plain[1])


def test_effect_of_few_customers_has_the_spread_that_least_squares_misses() -> None:
    """A stratum without an outcome has no spread by itself, so HC2 is too sure of it.

    Ours draws it to that of all strata, and is wider.
    """
    scores = np.repeat([0.1, 0.9], 400)
    number = np.tile(np.arange(400), 2)
    holdout = number < np.where(scores < 0.5, 30, 200)
    # Nobody with a low score has the outcome.
    outcomes = ((scores > 0.5) & (number % 3 == 0)).astype(np.float64)
    question = {
        "kind": "strata",
        "strata": scores.tolist(),
        "treated": (~holdout).astype(int).tolist(),
        "outcomes": outcomes.tolist(),
    }
    effect, low, high = ask_libraries([question])[0]
    found = effect_figure(bins_of_customers(scores, holdout, outcomes))
    assert found.value == pytest.approx(effect, abs=1e-12)
    value, ours_low, ours_high = found.bounds()
    assert ours_low < low < value < high < ours_high
    assert ours_high - ours_low > 1.02 * (high - low)


def test_effect_sequence_is_wider_because_it_is_looked_at_each_day() -> None:
    """An interval for one look, as statsmodels has, calls an effect where there is none.

    It does so in more than 15 % of 200 periods that are looked at 20 times. Ours holds at every
    look, and does so in 5 % at most; after the last look it is 1.2 to 3 times as wide.
    """
    periods, days, rate, share = 200, 20, 0.1, 0.2
    generator = np.random.default_rng(5)
    controls = generator.binomial(1_000, share, (periods, days))
    treated = 1_000 - controls
    hits, misses = generator.binomial(treated, rate), generator.binomial(controls, rate)
    # Both see all days so far.
    sums = [np.cumsum(item, axis=1) for item in (hits, treated, misses, controls)]
    names = ("count1", "nobs1", "count2", "nobs2")
    arguments: dict[str, Any] = {
        name: item.tolist() for name, item in zip(names, sums, strict=True)
    }
    low, high = np.array(
        ask_statsmodels("proportion.confint_proportions_2indep", [arguments | {"method": "wald"}])[
            0
        ]
    )
    theirs = ((low > 0) | (high < 0)).any(axis=1)
    assert theirs.mean() > 0.15
    # Ours.
    planned = planned_spread(days * 1_000, rate, share)
    called = 0
    for period in range(periods):
        looks: list[EffectLook] = []
        outside = False
        for n, hit, m, miss in zip(
            *(item[period].tolist() for item in (treated, hits, controls, misses)), strict=True
        ):
            looks.append(EffectLook(n, hit, hit, m, miss, miss, share))
            _, ours_low, ours_high = effect_sequence(looks, planned).bounds()
            outside |= ours_low > 0 or ours_high < 0
        called += outside
        wider = (ours_high - ours_low) / (high[period, -1] - low[period, -1])
        assert 1.2 < wider < 3
    assert called <= 0.05 * periods


def test_rate_below_a_bar_implies_the_exact_test() -> None:
    """Whatever reaches E = 20 has an exact p of 5 % at most, and the exact test asks for less.

    It asks for 598 clean keys and ours for 600, and with failures ours asks for more: it may be
    looked at after each key.
    """
    bar = 0.005
    cases = [(clean, failed) for failed in range(6) for clean in (400, 598, 600, 1_500, 3_000)]
    cases += [(clean, 0) for clean in (596, 597)]
    p = ask_statsmodels(
        "proportion.binom_test",
        [
            {"count": failed, "nobs": clean + failed, "prop": bar, "alternative": "smaller"}
            for clean, failed in cases
        ],
    )
    passed = [log_e_below(bar, clean, failed) >= math.log(20) for clean, failed in cases]
    exact = dict(zip(cases, p, strict=True))
    assert all(exact[case] <= 0.05 for case, ours in zip(cases, passed, strict=True) if ours)
    assert exact[597, 0] > 0.05 >= exact[598, 0]
    assert clean_keys_needed(bar, math.log(20)) == 600
    assert sum(passed) < sum(value <= 0.05 for value in p)


def ask_rate_ratios(events: list[tuple[int, int]]) -> list[list[float]]:
    """Return statsmodels' interval of the ratio by events of a canary of 10 %, and of the rest."""
    exposures = {"exposure1": 0.1, "exposure2": 0.9, "method": "score"}
    return ask_statsmodels(
        "rates.confint_poisson_2indep",
        [{"count1": canary, "count2": baseline, **exposures} for canary, baseline in events],
    )


def test_rate_ratio_interval_holds_statsmodels_interval() -> None:
    """The interval for one look lies within ours, which holds at every look."""
    events = [(30, 300), (120, 100), (5, 40), (1_000, 9_500)]
    for (canary, baseline), (low, high) in zip(events, ask_rate_ratios(events), strict=True):
        ours = rate_ratio_interval({1_000: (canary, baseline)})
        assert ours.low <= low < high <= ours.high
        if canary >= 30:
            wider = math.log(ours.high / ours.low) / math.log(high / low)
            assert 1.2 < wider < 3


def test_statsmodels_has_one_point_where_a_side_has_no_event() -> None:
    """Both ends of its score interval are the same ratio then. Ours goes to 0, or has no end."""
    (low, high), (turned_low, turned_high) = ask_rate_ratios([(0, 60), (60, 0)])
    assert low == pytest.approx(high, rel=1e-6)
    assert turned_low == pytest.approx(turned_high, rel=1e-6)
    none, all_of_them = (rate_ratio_interval({1_000: item}) for item in ((0, 60), (60, 0)))
    assert none.low == 0.0 < low < none.high < 1.0
    assert 1.0 < all_of_them.low < turned_high < all_of_them.high == math.inf


def test_mismatch_of_sizes_is_not_called_at_one_of_many_looks() -> None:
    """An interval for one look calls a quarter of 300 healthy splits wrong in 100 looks."""
    splits, looks, share = 300, 100, 0.1
    generator = np.random.default_rng(9)
    canary = np.cumsum(generator.binomial(200, share, (splits, looks)), axis=1)
    keys = np.broadcast_to(200 * np.arange(1, looks + 1), canary.shape)
    low, high = np.array(
        ask_statsmodels(
            "proportion.proportion_confint",
            [{"count": canary.tolist(), "nobs": keys.tolist(), "method": "wilson"}],
        )[0]
    )
    assert ((low > share) | (high < share)).any(axis=1).mean() > 0.25
    called = 0
    for counts, totals in zip(canary.tolist(), keys.tolist(), strict=True):
        log_e = [log_e_mismatch(c, n - c, share) for c, n in zip(counts, totals, strict=True)]
        called += max(log_e) >= math.log(20)
    assert called <= 0.05 * splits
