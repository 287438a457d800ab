"""Monitoring's word holds a rollout, and lets it go on."""

import asyncio
from collections.abc import Callable

import pytest

from protos import registry_pb2
from rollout.controller.findings import Findings
from rollout.lifecycle.rollout import Trial
from rollout.policy.stages import Stage, Verdict
from tests.rollout.scripted_world import World, ended, in_canary


def finding(
    sequence: int, kind: str, version: str = "", text: str = "drift"
) -> registry_pb2.Finding:
    """One that the registry numbered."""
    return registry_pb2.Finding(
        sequence=sequence, model="churn", version=version, kind=kind, text=text, who="ann"
    )


def test_the_newest_word_on_each_counts() -> None:
    """On the model and on the version, apart; only a clear ends a hold; one without words, too."""
    seen = Findings()
    assert seen.hold("churn", "2") == ""
    seen.see(finding(1, "hold"))
    seen.see(finding(2, "hold", "2", "PSI .4"))
    assert seen.hold("churn", "2") == "drift; PSI .4"
    assert (seen.hold("churn", "3"), seen.hold("fraud", "2")) == ("drift", "")
    seen.see(finding(3, "outcome"))
    assert seen.hold("churn", "3") == "drift"
    seen.see(finding(4, "clear"))
    assert seen.hold("churn", "2") == "PSI .4"
    seen.see(finding(5, "hold", "2", ""))
    assert seen.hold("churn", "2") == "hold, by ann, no reason given"
    seen.see(finding(6, "clear", "2"))
    assert seen.hold("churn", "2") == ""
    assert seen.sequence == 6


def at_preload(trial: Trial) -> bool:
    """Whether it has no traffic yet."""
    return trial.place.stage == Stage.PRELOAD


def watched(trial: Trial) -> bool:
    """Whether everybody has its answers, and the old version stands by."""
    return trial.place.stage == Stage.WATCH


@pytest.mark.parametrize("where", [at_preload, in_canary, watched])
def test_a_hold_outlives_the_controller_that_heard_it(where: Callable[[Trial], bool]) -> None:
    """The next one knows it before its first look, however good the evidence; a clear, too."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(where)
        place = world.trial.place
        world.registry.found.append(finding(1, "hold", "2", "PSI .4"))
        await world.controller.findings.read(world.registry)
        for _ in range(6):
            await world.second()
        assert (world.trial.place, world.trial.verdict) == (place, Verdict.HOLD)
        assert world.trial.reason == "monitoring says: PSI .4"
        await world.restart()
        await world.act()
        assert (world.trial.place, world.trial.verdict) == (place, Verdict.HOLD)
        world.registry.found.append(finding(2, "clear", "2"))
        await world.restart()
        await world.until(ended)
        return world

    assert asyncio.run(walk()).held.production == "2"
