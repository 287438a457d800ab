"""Hundreds of fates: whatever fails, nothing unproved is promoted, nobody unaccused taken back."""

import asyncio
from itertools import pairwise

import pytest

from registry.types import Deployment
from rollout.apply import place_of
from rollout.plan import Place, Stage, Verdict, next_place, stay_s
from stats.rate import clean_keys_needed
from tests.rollout.fates import HAND, POLICY, TICK_S, Fate

NEEDED = clean_keys_needed(POLICY.failure_bar, POLICY.promote_log_threshold)
BASELINE_FAILING_MIN = 5
"""Failing keys of production's below which nothing can be shown to fail less than it."""


def play(seed: int) -> Fate:
    """Let it happen."""
    fate = Fate(seed)
    asyncio.run(fate.run())
    return fate


def course(fate: Fate) -> list[tuple[Place, Deployment]]:
    """Every deployment, and which place of the plan it is."""
    found = []
    for held in fate.registry.log:
        assert fate.terms is not None
        place = place_of(held, fate.terms)
        if not held.rollout_id:
            place = Place(Stage.DONE if held.production == "2" else Stage.ROLLED_BACK)
        assert place is not None, f"revision {held.revision} is no place of the plan: {held}"
        found.append((place, held))
    return found


def check(fate: Fate) -> Stage:
    """Hold the promises against what was true; return how it ended."""
    steps = course(fate)
    accused = fate.bad_keys["canary"] + fate.bad_keys["promoted"]
    stage = [steps[0][1].revision]
    for (place, held), (to, written) in pairwise(steps):
        assert written.revision == held.revision + 1
        assert held.rollout_id or written.who == HAND, f"written over {held.who}'s: {written.why}"
        if to == place:
            assert written.who == HAND
            stage.append(written.revision)
            continue
        if to.stage == Stage.ROLLED_BACK:
            assert accused > 0 or written.who == HAND, f"nobody was accused: {written.why}"
        else:
            grown(fate, place, to, stage, written.revision)
        stage = [written.revision]
    end, last = steps[-1]
    assert (last.canary, last.standby, last.preload) == ("", "", ()), "it left something behind"
    if not accused and not any(held.who == HAND and not held.rollout_id for _, held in steps):
        assert end.stage == Stage.DONE
    if fate.kind == "failing":
        assert end.stage == Stage.ROLLED_BACK
    return end.stage


def grown(fate: Fate, place: Place, to: Place, stage: list[int], revision: int) -> None:
    """One step on, after its stay, on enough keys of that stage alone."""
    assert to == next_place(place, Verdict.HEALTHY, POLICY), f"{place} to {to}"
    stayed_s = fate.entered[revision] - fate.entered[stage[0]]
    assert stayed_s >= stay_s(place, POLICY) - TICK_S, f"{place} left after {stayed_s} s"
    if place.stage != Stage.PRELOAD:
        clean = len(set().union(*(fate.clean[one] for one in stage)))
        failing = fate.bad_keys["production"]
        assert clean >= NEEDED or failing >= BASELINE_FAILING_MIN, f"{clean} keys at {place}"


def hundred(first: int) -> None:
    """Check so many seeds from *first* on; say which one broke a promise."""
    for seed in range(first, first + 100):
        try:
            check(play(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.walk
@pytest.mark.parametrize("first", range(0, 500, 100))
def test_five_hundred_fates_end_as_they_must(first: int) -> None:
    """Never on without its stay and proof, never back without accusation, always to an end."""
    hundred(first)


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(500, 10_000, 100))
def test_ten_thousand_fates_end_as_they_must(first: int) -> None:
    """The same, until there are ten thousand."""
    hundred(first)


@pytest.mark.walk
def test_a_seed_is_one_fate() -> None:
    """Played again, every deployment comes at the same moment, by the same hand."""
    told = []
    for _ in range(2):
        fate = play(3)
        log = fate.registry.log
        told.append([(one.who, one.canary_bp, fate.entered[one.revision]) for one in log])
    assert told[0] == told[1]
