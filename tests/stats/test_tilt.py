"""The tilt e-process: valid, quick, exact to resume."""

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
def test_committed_vectors(vector: dict[str, object]) -> None:
    """Another implementation, or host, gives the same evidence to 1e-9."""
    grid = GRIDS[str(vector["grid"])]
    state = start_tilt(grid)
    looks = vector["looks"]
    assert isinstance(looks, list)
    for canary, baseline, share, log_e in looks:
        state = step_tilt(grid, state, canary, baseline, share, int(str(vector["looks_max"])))
        assert state.log_e == pytest.approx(log_e, abs=1e-9)


@examples(40)
@given(SHARES, st.floats(-3, 0), st.sampled_from(sorted(GRIDS)))
def test_one_event_is_expected_to_win_nothing(share: float, below: float, name: str) -> None:
    """E[e^l] <= 1 at and inside every null: the identity that makes Ville's bound hold."""
    grid = GRIDS[name]
    toward = 1.0 if grid.deltas[0] > grid.margin else -1.0
    ratio = math.exp(grid.margin + toward * below)
    canary = share * ratio / (share * ratio + 1.0 - share)

    in_canary = step_tilt(grid, start_tilt(grid), 1, 0, share).log_s
    in_baseline = step_tilt(grid, start_tilt(grid), 0, 1, share).log_s

    for one, other in zip(in_canary, in_baseline, strict=True):
        assert canary * math.exp(one) + (1.0 - canary) * math.exp(other) <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("share", "at_100", "at_1000"),
    [(0.01, 2, 3), (0.05, 3, 4), (0.10, 3, 4), (0.25, 5, 7), (0.50, 9, 12)],
)
def test_fewest_events_that_can_fire(share: float, at_100: int, at_1000: int) -> None:
    """The published table of the plain mixture: no verdict can rest on fewer."""
    assert events_to_fire(MORE_EVENTS, share, math.log(100)) == at_100
    assert events_to_fire(MORE_EVENTS, share, math.log(1000)) == at_1000


def test_healthy_rollouts_are_seldom_accused() -> None:
    """500 A/A rollouts of 60 looks at a = .05: at most 5 % ever reach 20."""
    draw = np.random.default_rng(20_261_122)
    events = draw.poisson(0.4, size=(500, 60))
    canary = draw.binomial(events, 0.1)
    false_alarms = 0
    for row, hits in zip(events.tolist(), canary.tolist(), strict=True):
        state = start_tilt(MORE_EVENTS)
        for total, hit in zip(row, hits, strict=True):
            if total:
                state = step_tilt(MORE_EVENTS, state, hit, total - hit, 0.1, 60)
        false_alarms += state.log_e_max >= math.log(20)
    assert false_alarms <= 25


def test_a_failing_canary_is_found_early_and_late() -> None:
    """Ten times the errors at 10 % share: found within 60 events, also after an hour of health."""
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
def test_a_state_resumes_bit_for_bit(
    looks: list[tuple[int, int, float]], data: st.DataObject
) -> None:
    """Kept as numbers and read back, a state goes on as if nothing had happened."""
    cut = data.draw(st.integers(0, len(looks)))
    through = resumed = start_tilt(MORE_EVENTS)
    for index, (canary, baseline, share) in enumerate(looks):
        if index == cut:
            kept = (resumed.log_s, resumed.prior_spent, resumed.log_e, resumed.log_e_max)
            resumed = TiltState(*kept, looks=resumed.looks)
        through = step_tilt(MORE_EVENTS, through, canary, baseline, share, 10)
        resumed = step_tilt(MORE_EVENTS, resumed, canary, baseline, share, 10)
    assert resumed == through


def test_a_billion_events_are_ordinary_numbers() -> None:
    """Neither inf nor nan, however strong or however absent the evidence is."""
    for canary, baseline in ((10**9, 0), (0, 10**9), (10**9, 10**9)):
        state = start_tilt(MORE_EVENTS)
        for _ in range(3):
            state = step_tilt(MORE_EVENTS, state, canary, baseline, 0.05, 3600)
            assert all(map(math.isfinite, (*state.log_s, state.log_e, state.log_e_max)))


def test_the_running_maximum_is_kept() -> None:
    """Evidence once reached is not talked away by what comes after."""
    state = step_tilt(MORE_EVENTS, start_tilt(MORE_EVENTS), 8, 0, 0.1, 3600)
    later = step_tilt(MORE_EVENTS, state, 0, 200, 0.1, 3600)
    assert later.log_e < state.log_e == later.log_e_max


def test_the_prior_is_spent_once_and_no_more() -> None:
    """Half at the first look, the rest evenly over looks_max, then nothing."""
    state = start_tilt(MORE_EVENTS)
    spent = [0.0]
    for _ in range(30):
        state = step_tilt(MORE_EVENTS, state, 1, 9, 0.1, 10)
        spent.append(state.prior_spent)
    assert all(before <= after for before, after in pairwise(spent))
    assert spent[1] == 0.5
    assert spent[-1] == pytest.approx(1.0)


def test_a_window_without_events_changes_nothing_and_its_prior_is_not_lost() -> None:
    """E stays what it is; a fault that sets in after them finds the same bets as one look each."""
    idle = start_tilt(MORE_EVENTS)
    for _ in range(7):
        idle = step_tilt(MORE_EVENTS, idle, 0, 0, 0.5, 10)
        assert (idle.log_e, idle.log_e_max) == (0.0, 0.0)
    late = step_tilt(MORE_EVENTS, idle, 3, 1, 0.5, 10)
    prior = math.log(0.5 + 0.5 * 7 / 10)
    for log_s, one in zip(
        late.log_s, step_tilt(MORE_EVENTS, start_tilt(MORE_EVENTS), 3, 1, 0.5).log_s, strict=True
    ):
        assert log_s == pytest.approx(one + prior)


def test_non_inferiority_needs_events_to_say_so() -> None:
    """Without events nothing is promoted; with equal rates, "less than twice" is shown."""
    grid = non_inferior(2.0)
    assert step_tilt(grid, start_tilt(grid), 0, 0, 0.5).log_e == pytest.approx(0.0)
    assert step_tilt(grid, start_tilt(grid), 60, 60, 0.5).log_e > math.log(20)
    assert step_tilt(grid, start_tilt(grid), 120, 60, 0.5).log_e < 0.0


@pytest.mark.parametrize("deltas", [(), (0.0,), (-1.0, 1.0)])
def test_a_grid_bets_in_one_direction(deltas: tuple[float, ...]) -> None:
    """A grid around its margin would have no null; its author learns at once."""
    with pytest.raises(ValueError, match="one side"):
        Grid(deltas)


@pytest.mark.parametrize("counts", [(-1, 0, 0.5), (0, -1, 0.5), (1, 1, 0.0), (1, 1, 1.0)])
def test_impossible_counts_are_refused(counts: tuple[int, int, float]) -> None:
    """A share of 0 or 1 has no second arm to compare with."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        step_tilt(MORE_EVENTS, start_tilt(MORE_EVENTS), *counts)


def test_an_unreachable_threshold_says_so() -> None:
    """At a share near 1, no number of events is told rather than a loop without end."""
    with pytest.raises(ValueError, match="do not reach"):
        events_to_fire(MORE_EVENTS, 1 - 1e-12, 1.0)


def test_logarithms_add_with_zero() -> None:
    """-inf is zero, in both orders."""
    assert log_add(-math.inf, 1.0) == log_add(1.0, -math.inf) == 1.0
    assert log_add(-math.inf, -math.inf) == log_sum([-math.inf]) == -math.inf
    assert log_sum([0.0, 0.0]) == pytest.approx(math.log(2))
