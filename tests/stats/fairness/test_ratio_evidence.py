"""Evidence on ratios of rates: valid under each null hypothesis, quick beyond it, resumable."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.fairness.ratio_evidence import (
    NULLS,
    RateCounts,
    add_look,
    look_gains,
    ratio_evidence_from,
    restart_change,
    start_ratio_evidence,
)
from tests.property_examples import examples

RATES = st.floats(0.02, 0.95)


def binomial(events: int, people: int, rate: float) -> float:
    """Return the probability of so many events."""
    return math.comb(people, events) * rate**events * (1 - rate) ** (people - events)


@examples(120)
@given(
    RATES,
    st.floats(0.0, 1.5),
    st.integers(1, 7),
    st.integers(1, 7),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.sampled_from(sorted(NULLS)),
)
def test_one_look_expects_no_gain_under_its_null(
    rest_rate: float, inside: float, people: int, rest: int, earlier: tuple[int, int], name: str
) -> None:
    """Every outcome of the look is enumerated: E[E] <= 1 at and inside the null, at any rate."""
    null = NULLS[name]
    rate = min(null.bound * rest_rate * math.exp(-null.direction * inside), 1.0)
    if rate == 1.0 and null.direction < 0:
        rest_rate = min(rest_rate, 1.0 / null.bound)
        rate = null.bound * rest_rate
    before = RateCounts(40, earlier[0], 40, earlier[1])
    mean = sum(
        binomial(a, people, rate)
        * binomial(b, rest, rest_rate)
        * np.exp(look_gains(name, RateCounts(people, a, rest, b), before)).mean()
        for a, b in itertools.product(range(people + 1), range(rest + 1))
    )
    assert mean <= 1.0 + 1e-9


@pytest.mark.walk
@pytest.mark.parametrize(("rate", "ratio"), [(0.05, 0.8), (0.3, 1.25), (0.7, 0.8), (0.7, 1.0)])
def test_healthy_groups_are_seldom_called_outside(rate: float, ratio: float) -> None:
    """At most 5 % of 200 runs at the very edge ever reach 20 on a side, while rates change."""
    generator = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        evidence = start_ratio_evidence()
        for month in range(12):
            now = rate * (0.6 if month % 2 else 1.0)
            people, rest = (120, 900) if month % 3 else (40, 300)
            own, other = generator.binomial([people, rest], [now * ratio, now]).tolist()
            evidence = add_look(evidence, RateCounts(people, own, rest, other))
        alarms += max(
            evidence.log_e_max["outside low"], evidence.log_e_max["outside high"]
        ) >= math.log(40)
    assert alarms <= 10


@pytest.mark.parametrize(("rate", "people"), [(0.05, 1_200), (0.3, 300), (0.7, 120)])
def test_group_at_half_the_rate_is_found(rate: float, people: int) -> None:
    """E exceeds 1,000 within 20 looks of so many people in nine of ten runs, and most are equal."""
    generator = np.random.default_rng(2)
    found = within = 0
    for _ in range(20):
        unfair, fair = start_ratio_evidence(), start_ratio_evidence()
        for _ in range(20):
            own, equal = generator.binomial([people, people], [rate / 2, rate]).tolist()
            other = int(generator.binomial(5 * people, rate))
            unfair = add_look(unfair, RateCounts(people, own, 5 * people, other))
            fair = add_look(fair, RateCounts(people, equal, 5 * people, other))
        found += unfair.log_e_max["outside low"] >= math.log(1_000)
        within += min(fair.log_e("inside low"), fair.log_e("inside high")) >= math.log(20)
    assert found >= 18
    assert within >= 18


@examples(30)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), min_size=1, max_size=8), st.data()
)
def test_evidence_resumes_exactly_from_json(
    looks: list[tuple[int, int]], data: st.DataObject
) -> None:
    """A state that went through JSON goes on as the original."""
    cut = data.draw(st.integers(0, len(looks)))
    through = resumed = start_ratio_evidence()
    for index, (own, other) in enumerate(looks):
        if index == cut:
            resumed = ratio_evidence_from(json.loads(json.dumps(resumed.definition())))
        look = RateCounts(9, own, 50, other)
        through, resumed = add_look(through, look), add_look(resumed, look)
    assert resumed == through


def test_look_with_one_side_says_nothing_and_impossible_counts_raise() -> None:
    """An empty group leaves the evidence as it was."""
    start = start_ratio_evidence()
    assert add_look(start, RateCounts(0, 0, 50, 5)) == start
    assert not any(look_gains("outside low", RateCounts(5, 1, 0, 0), RateCounts(0, 0, 0, 0)))
    for counts in ((1, 2, 3, 1), (3, -1, 3, 1), (3, 1, 3, 4)):
        with pytest.raises(ValueError, match="between none and all"):
            RateCounts(*counts)
    for look in (RateCounts(50, 50, 50, 50), RateCounts(50, 0, 50, 0)):
        evidence = add_look(add_look(start, look), look)
        assert all(math.isfinite(evidence.log_e(name)) for name in NULLS)


def test_change_after_a_fair_year_is_found_soon() -> None:
    """Evidence since the first look is far below 1 then, and M exceeds 10,000 within five looks."""
    generator = np.random.default_rng(3)
    evidence = start_ratio_evidence()
    for _ in range(52):
        own, other = generator.binomial([300, 1_500], [0.2, 0.2]).tolist()
        evidence = add_look(evidence, RateCounts(300, own, 1_500, other))
    assert evidence.log_change("outside low") < math.log(100)
    assert evidence.log_e("outside low") < math.log(1e-3)
    for _ in range(5):
        own, other = generator.binomial([300, 1_500], [0.1, 0.2]).tolist()
        evidence = add_look(evidence, RateCounts(300, own, 1_500, other))
    assert evidence.log_change("outside low") > math.log(10_000)
    assert evidence.log_e_max["outside low"] < math.log(1_000)
    restarted = restart_change(evidence)
    assert restarted.log_change("outside low") == -math.inf
    assert restarted.counts == evidence.counts
