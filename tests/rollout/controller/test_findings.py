"""Findings of monitoring hold a rollout and let it go on."""

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
    """Return a finding with a sequence number of the registry."""
    return registry_pb2.Finding(
        sequence=sequence, model="churn", version=version, kind=kind, text=text, who="ann"
    )


def test_findings_use_the_newest_of_each_model_and_version() -> None:
    """A hold ends with a clear finding about the same model and version. The text may be empty."""
    findings = Findings()
    assert findings.hold_reason("churn", "2") == ""
    findings.add_finding(finding(1, "hold"))
    findings.add_finding(finding(2, "hold", "2", "PSI .4"))
    assert findings.hold_reason("churn", "2") == "drift; PSI .4"
    assert (findings.hold_reason("churn", "3"), findings.hold_reason("fraud", "2")) == ("drift", "")
    findings.add_finding(finding(3, "outcome"))
    assert findings.hold_reason("churn", "3") == "drift"
    findings.add_finding(finding(4, "clear"))
    assert findings.hold_reason("churn", "2") == "PSI .4"
    findings.add_finding(finding(5, "hold", "2", ""))
    assert findings.hold_reason("churn", "2") == "hold, by ann, no reason given"
    findings.add_finding(finding(6, "clear", "2"))
    assert findings.hold_reason("churn", "2") == ""
    assert findings.sequence == 6


def is_at_preload(rollout: Rollout) -> bool:
    """Whether the rollout is at its preload."""
    return rollout.position.stage == Stage.PRELOAD


def is_watched(rollout: Rollout) -> bool:
    """Whether the rollout is in the watch."""
    return rollout.position.stage == Stage.WATCH


@pytest.mark.parametrize("where", [is_at_preload, is_in_canary, is_watched])
def test_findings_hold_a_rollout_also_after_a_restart(where: Callable[[Rollout], bool]) -> None:
    """The next controller knows hold and clear before it first judges."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(where)
        position = world.rollout.position
        world.registry.findings_written.append(finding(1, "hold", "2", "PSI .4"))
        await world.controller.findings.load_all(world.registry)
        for _ in range(6):
            await world.pass_second()
        assert (world.rollout.position, world.rollout.verdict) == (position, Verdict.HOLD)
        assert world.rollout.reason == "monitoring says: PSI .4"
        await world.restart()
        await world.act_once()
        assert (world.rollout.position, world.rollout.verdict) == (position, Verdict.HOLD)
        world.registry.findings_written.append(finding(2, "clear", "2"))
        await world.restart()
        await world.run_until(has_ended)
        return world

    assert asyncio.run(walk()).deployment.production == "2"
