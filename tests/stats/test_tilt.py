"""The tilt e-process is valid, quick, and resumes exactly."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.tilt import (
    FEWER_EVENTS,
    LATENCY,
    MORE_EVENTS,
    Grid,
    TiltState,
    events_to_fire,
    log_add,
    log_sum,
    non_inferior,
    start_tilt,
    step_tilt,
)
from tests.property_examples import examples

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tilt.json").read_text())
GRIDS = {
    "WORSE": MORE_EVENTS,
    "LESS": FEWER_EVENTS,
    "LATENCY": LATENCY,
    "non_inferior(2)": non_inferior(2.0),
}
SHARES = st.floats(0.001, 0.999)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_step_tilt_gives_the_committed_vectors(vector: dict[str, object]) -> None:
    """Another implementation or host gives the same evidence to 1e-9."""
    grid = GRIDS[str(vector["grid"])]
    state = start_tilt(grid)
    looks = vector["looks"]
    assert isinstance(looks, list)
    for canary, baseline, share, log_e in looks:
        state = step_tilt(grid, state, canary, baseline, share, int(str(vector["looks_max"])))
        assert state.log_e == pytest.approx(log_e, abs=1e-9)


@examples(40)
@given(SHARES, st.floats(-3, 0), st.sampled_from(sorted(GRIDS)))
def test_step_tilt_expects_no_gain_under_the_null_hypothesis(
    share: float, below: float, name: str
) -> None:
    """E[e^l] <= 1 at and inside every null hypothesis, which Ville's bound needs."""
    grid = GRIDS[name]
    toward = 1.0 if grid.deltas[0] > grid.margin else -1.0
    ratio = math.exp(grid.margin + toward * below)
    canary = share * ratio / (share * ratio + 1.0 - share)

    in_canary = step_tilt(grid, start_tilt(grid), 1, 0, share).log_s
    in_baseline = step_tilt(grid, start_tilt(grid), 0, 1, share).log_s

    for in_canary_log_s, other in zip(in_canary, in_baseline, strict=True):
        assert canary * math.exp(in_canary_log_s) + (1.0 - canary) * math.exp(other) <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("share", "at_100", "at_1000"),
    [(0.01, 2, 3), (0.05, 3, 4), (0.10, 3, 4), (0.25, 5, 7), (0.50, 9, 12)],
)
def test_events_to_fire_gives_the_published_table(share: float, at_100: int, at_1000: int) -> None:
    """It is the table of the plain mixture."""
    assert events_to_fire(MORE_EVENTS, share, math.log(100)) == at_100
    assert events_to_fire(MORE_EVENTS, share, math.log(1000)) == at_1000


def test_step_tilt_seldom_fires_for_healthy_rollouts() -> None:
    """At most 5 % of 500 A/A rollouts with 60 looks ever reach 20."""
    rng = np.random.default_rng(20_261_122)
    events = rng.poisson(0.4, size=(500, 60))
    canary = rng.binomial(events, 0.1)
    false_alarms = 0
    for row, hits in zip(events.tolist(), canary.tolist(), strict=True):
        state = start_tilt(MORE_EVENTS)
        for total, hit in zip(row, hits, strict=True):
            if total:
                state = step_tilt(MORE_EVENTS, state, hit, total - hit, 0.1, 60)
        false_alarms += state.log_e_max >= math.log(20)
    assert false_alarms <= 25


def test_step_tilt_finds_a_failing_canary_early_and_late() -> None:
    """Ten times the errors at a share of 10 % are found within 60 events, also after an hour."""
    for healthy_looks in (0, 3600):
        state = start_tilt(MORE_EVENTS)
        for _ in range(healthy_looks):
            state = step_tilt(MORE_EVENTS, state, 0, 0, 0.1, 3600)
        looks = 0
        while state.log_e < math.log(500):
            looks += 1
            state = step_tilt(MORE_EVENTS, state, 1, 1, 0.1, 3600)
        assert looks <= 30


@examples(30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), SHARES), min_size=1, max_size=20),
    st.data(),
)
def test_tilt_state_resumes_bit_for_bit(
    looks: list[tuple[int, int, float]], data: st.DataObject
) -> None:
    """A state that is rebuilt from its numbers goes on as the original."""
    cut = data.draw(st.integers(0, len(looks)))
    through = resumed = start_tilt(MORE_EVENTS)
    for index, (canary, baseline, share) in enumerate(looks):
        if index == cut:
            numbers = (resumed.log_s, resumed.prior_spent, resumed.log_e, resumed.log_e_max)
            resumed = TiltState(*numbers, looks=resumed.looks)
        through = step_tilt(MORE_EVENTS, through, canary, baseline, share, 10)
        resumed = step_tilt(MORE_EVENTS, resumed, canary, baseline, share, 10)
    assert resumed == through


def test_step_tilt_is_finite_for_a_billion_events() -> None:
    """It is neither infinite nor NaN, for strong and for absent evidence."""
    for canary, baseline in ((10**9, 0), (0, 10**9), (10**9, 10**9)):
        state = start_tilt(MORE_EVENTS)
        for _ in range(3):
            state = step_tilt(MORE_EVENTS, state, canary, baseline, 0.05, 3600)
            assert all(map(math.isfinite, (*state.log_s, state.log_e, state.log_e_max)))


def test_step_tilt_keeps_the_running_maximum() -> None:
    """Later events do not lower evidence that was reached."""
    state = step_tilt(MORE_EVENTS, start_tilt(MORE_EVENTS), 8, 0, 0.1, 3600)
    later = step_tilt(MORE_EVENTS, state, 0, 200, 0.1, 3600)
    assert later.log_e < state.log_e == later.log_e_max


def test_step_tilt_spends_the_prior_once() -> None:
    """Half is spent at the first look and the rest evenly over looks_max."""
    state = start_tilt(MORE_EVENTS)
    spent = [0.0]
    for _ in range(30):
        state = step_tilt(MORE_EVENTS, state, 1, 9, 0.1, 10)
        spent.append(state.prior_spent)
    assert all(before <= after for before, after in pairwise(spent))
    assert spent[1] == 0.5
    assert spent[-1] == pytest.approx(1.0)


def test_step_tilt_keeps_the_prior_of_windows_without_events() -> None:
    """E stays the same. A fault that begins after them finds the same bets."""
    idle = start_tilt(MORE_EVENTS)
    for _ in range(7):
        idle = step_tilt(MORE_EVENTS, idle, 0, 0, 0.5, 10)
        assert (idle.log_e, idle.log_e_max) == (0.0, 0.0)
    late = step_tilt(MORE_EVENTS, idle, 3, 1, 0.5, 10)
    prior = math.log(0.5 + 0.5 * 7 / 10)
    for log_s, first_log_s in zip(
        late.log_s, step_tilt(MORE_EVENTS, start_tilt(MORE_EVENTS), 3, 1, 0.5).log_s, strict=True
    ):
        assert log_s == pytest.approx(first_log_s + prior)


def test_non_inferior_grid_needs_events() -> None:
    """Without events nothing is shown. Equal rates show "less than twice"."""
    grid = non_inferior(2.0)
    assert step_tilt(grid, start_tilt(grid), 0, 0, 0.5).log_e == pytest.approx(0.0)
    assert step_tilt(grid, start_tilt(grid), 60, 60, 0.5).log_e > math.log(20)
    assert step_tilt(grid, start_tilt(grid), 120, 60, 0.5).log_e < 0.0


@pytest.mark.parametrize("deltas", [(), (0.0,), (-1.0, 1.0)])
def test_grid_refuses_ratios_on_both_sides_of_its_margin(deltas: tuple[float, ...]) -> None:
    """Such a grid has no null hypothesis."""
    with pytest.raises(ValueError, match="one side"):
        Grid(deltas)


@pytest.mark.parametrize("counts", [(-1, 0, 0.5), (0, -1, 0.5), (1, 1, 0.0), (1, 1, 1.0)])
def test_step_tilt_refuses_impossible_counts(counts: tuple[int, int, float]) -> None:
    """With a share of 0 or 1 there is no second arm."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        step_tilt(MORE_EVENTS, start_tilt(MORE_EVENTS), *counts)


def test_events_to_fire_refuses_an_unreachable_threshold() -> None:
    """At a share near 1 no number of events is enough."""
    with pytest.raises(ValueError, match="do not reach"):
        events_to_fire(MORE_EVENTS, 1 - 1e-12, 1.0)


def test_log_add_and_log_sum_take_minus_infinity_as_zero() -> None:
    """That holds in both orders."""
    assert log_add(-math.inf, 1.0) == log_add(1.0, -math.inf) == 1.0
    assert log_add(-math.inf, -math.inf) == log_sum([-math.inf]) == -math.inf
    assert log_sum([0.0, 0.0]) == pytest.approx(math.log(2))
