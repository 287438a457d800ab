"""Simulated worlds with two controllers and several faults keep every promise.

A world that fails can be played again: python -m tests.rollout.sim --seed N
"""

import logging
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from rollout.policy.stages import Stage
from tests.rollout.sim.promises import broken_promises
from tests.rollout.sim.simulated_world import WorldResult, simulate_world


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """Disable logging, because thousands of controllers are killed."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def world_story(result: WorldResult) -> list[object]:
    """Return what happened in a world, without names that the operating system chose."""
    assert result.registry is not None
    writes = [
        (
            write.at_s,
            write.lease_token,
            write.deployment.production,
            write.deployment.canary_bp,
            write.deployment.standby,
        )
        for write in result.registry.writes
    ]
    return [result.kind, result.duration_s, result.events, writes]


@cache
def played(seed: int) -> WorldResult:
    """Return the world of *seed*, which two tests look at and none changes."""
    return simulate_world(seed)


@pytest.mark.walk
def test_world_is_the_same_for_the_same_seed() -> None:
    """A world that broke a promise can be played again."""
    assert world_story(simulate_world(8)) == world_story(simulate_world(8))


@pytest.mark.walk
def test_150_worlds_keep_every_promise() -> None:
    """There is one production, growth and rollback need evidence, and every rollout ends.

    10,000 are played at night.
    """
    wrong, ends = {}, Counter[str]()
    for seed in range(150):
        result = played(seed)
        if broken := broken_promises(result):
            wrong[seed] = broken
        ends[result.rollout.position.stage.name if result.rollout else "none"] += 1
    assert not wrong
    assert min(ends[Stage.DONE.name], ends[Stage.ROLLED_BACK.name]) > 30


@pytest.mark.walk
def test_world_is_the_same_when_policy_files_change_later() -> None:
    """The next controller finds other policies of these names."""
    compared = 0
    for seed in range(150):
        again = simulate_world(seed, changed_files=True)
        if again.rollout is None or not again.rollout.policy_note:
            continue  # the leading controller started it itself
        result = played(seed)
        assert world_story(again) == world_story(result), seed
        assert result.rollout is not None
        assert result.rollout.policy_note == ""
        assert list(again.rollout.status().evidence) == list(result.rollout.status().evidence)
        compared += 1
    assert compared > 10


@pytest.mark.nightly
def test_10000_worlds_keep_every_promise() -> None:
    """It plays further worlds than the test above."""
    assert not {
        seed: broken
        for seed in range(150, 10_150)
        if (broken := broken_promises(simulate_world(seed)))
    }
