"""Monitoring's word holds a rollout, and lets it go on."""

import asyncio
from collections.abc import Callable

import pytest

from protos import registry_pb2
from rollout.controller.findings import Findings
from rollout.lifecycle.rollout import Rollout
from rollout.policy.stages import Stage, Verdict
from tests.rollout.scripted_world import ScriptedWorld, has_ended, is_in_canary


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
    assert seen.hold_reason("churn", "2") == ""
    seen.add_finding(finding(1, "hold"))
    seen.add_finding(finding(2, "hold", "2", "PSI .4"))
    assert seen.hold_reason("churn", "2") == "drift; PSI .4"
    assert (seen.hold_reason("churn", "3"), seen.hold_reason("fraud", "2")) == ("drift", "")
    seen.add_finding(finding(3, "outcome"))
    assert seen.hold_reason("churn", "3") == "drift"
    seen.add_finding(finding(4, "clear"))
    assert seen.hold_reason("churn", "2") == "PSI .4"
    seen.add_finding(finding(5, "hold", "2", ""))
    assert seen.hold_reason("churn", "2") == "hold, by ann, no reason given"
    seen.add_finding(finding(6, "clear", "2"))
    assert seen.hold_reason("churn", "2") == ""
    assert seen.sequence == 6


def is_at_preload(rollout: Rollout) -> bool:
    """Whether it has no traffic yet."""
    return rollout.position.stage == Stage.PRELOAD


def is_watched(rollout: Rollout) -> bool:
    """Whether everybody has its answers, and the old version stands by."""
    return rollout.position.stage == Stage.WATCH


@pytest.mark.parametrize("where", [is_at_preload, is_in_canary, is_watched])
def test_a_hold_outlives_the_controller_that_heard_it(where: Callable[[Rollout], bool]) -> None:
    """The next one knows it before its first look, however good the evidence; a clear, too."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(where)
        place = world.rollout.position
        world.registry.findings_written.append(finding(1, "hold", "2", "PSI .4"))
        await world.controller.findings.load_all(world.registry)
        for _ in range(6):
            await world.pass_second()
        assert (world.rollout.position, world.rollout.verdict) == (place, Verdict.HOLD)
        assert world.rollout.reason == "monitoring says: PSI .4"
        await world.restart()
        await world.act_once()
        assert (world.rollout.position, world.rollout.verdict) == (place, Verdict.HOLD)
        world.registry.findings_written.append(finding(2, "clear", "2"))
        await world.restart()
        await world.run_until(has_ended)
        return world

    assert asyncio.run(walk()).deployment.production == "2"
