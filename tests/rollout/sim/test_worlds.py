"""Two controllers, three kinds of trouble at once, any order: the promises hold in every world.

A seed that fails plays the same again: python -m tests.rollout.sim --seed N
"""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from rollout.policy.stages import Stage
from tests.rollout.sim.promises import broken
from tests.rollout.sim.simulated_world import Told, world


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of killed controllers have nothing to say that a test would read."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def story(told: Told) -> list[object]:
    """Return what a world did, without names drawn by the operating system."""
    assert told.registry is not None
    writes = [
        (one.at_s, one.token, one.held.production, one.held.canary_bp, one.held.standby)
        for one in told.registry.writes
    ]
    return [told.kind, told.took_s, told.events, writes]


@pytest.mark.walk
def test_a_seed_plays_the_same_again() -> None:
    """A world that broke a promise can be looked at as often as it takes."""
    assert story(world(8)) == story(world(8))


@pytest.mark.walk
def test_500_worlds_keep_every_promise() -> None:
    """One production, fenced writes, growth and rollback on evidence only, and always an end."""
    wrong, ends = {}, Counter[str]()
    for seed in range(500):
        told = world(seed)
        if found := broken(told):
            wrong[seed] = found
        ends[told.trial.place.stage.name if told.trial else "none"] += 1
    assert not wrong
    assert min(ends[Stage.DONE.name], ends[Stage.ROLLED_BACK.name]) > 100


@pytest.mark.walk
def test_what_the_policy_files_say_by_then_changes_no_world() -> None:
    """Whoever takes over finds other policies of these names, and each world is what it was."""
    kept = 0
    for seed in range(150):
        again = world(seed, changed_files=True)
        if again.trial is None or not again.trial.policy_note:
            continue  # whoever leads began it
        told = world(seed)
        assert story(again) == story(told), seed
        assert told.trial is not None
        assert told.trial.policy_note == ""
        assert list(again.trial.status().evidence) == list(told.trial.status().evidence)
        kept += 1
    assert kept > 10


@pytest.mark.nightly
def test_10000_worlds_keep_every_promise() -> None:
    """The same, twenty times as often."""
    assert not {seed: found for seed in range(500, 10_500) if (found := broken(world(seed)))}
