"""A rollout that raises is held. The other rollouts and the controller go on."""

import asyncio

import pytest

from protos import rollout_pb2, window_pb2
from registry.types import Deployment
from rollout.api.commands import RolloutCommands
from rollout.evidence.inbox import source_name
from rollout.lifecycle.rollout import Rollout
from rollout.policy.stages import Stage, Verdict
from tests.rollout.scripted_world import SOURCES, ScriptedWorld, has_ended, is_in_canary

BREAKS = {
    "counting": lambda rollout: setattr(rollout.evidence, "validity", None),
    "judging": lambda rollout: setattr(rollout.evidence.stage, "failed_in_sample", None),
    "keeping": lambda rollout: setattr(rollout, "since_unix_ms", 10**30),
}


async def two_rollouts() -> tuple[ScriptedWorld, Rollout, Rollout]:
    """Return a world with churn in its canary, and credit in its preload."""
    world = ScriptedWorld()
    await world.start_rollout("quick-direct")
    await world.run_until(is_in_canary)
    churn = world.rollout
    world.registry.write_deployment(Deployment(model="credit", production="1"))
    for model in ("churn", "credit"):
        world.controller.see_deployment(world.registry.deployments[model])
    approved = type(world.registry.approvals_given[0])()
    approved.CopyFrom(world.registry.approvals_given[0])
    approved.model = "credit"
    world.registry.approvals_given.append(approved)
    commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
    request = rollout_pb2.StartRolloutRequest(
        model="credit", version="2", policy="quick-direct", reason="better"
    )
    return world, churn, await commands.start(request, "sam")


def acknowledged_of_first_worker(world: ScriptedWorld) -> int:
    """Return the sequence number that the first worker may forget."""
    return world.controller.acknowledged_sequence(source_name(SOURCES[0]))


@pytest.mark.parametrize("what", BREAKS)
def test_controller_holds_only_the_rollout_that_raises(what: str) -> None:
    """The other rollout is judged, saved and acknowledged.

    An operator ends or resumes the rollout on hold.
    """

    async def walk() -> None:
        world, churn, credit = await two_rollouts()
        await world.pass_second()
        revision, before = churn.revision, acknowledged_of_first_worker(world)
        # The other rollout is judged and saved while this one raises.
        BREAKS[what](churn)
        for _ in range(3):
            judged_unix_ms, saved = credit.judged_unix_ms, credit.checkpoint_sequence
            await world.pass_second()
            assert credit.judged_unix_ms > judged_unix_ms
            assert credit.checkpoint_sequence > saved
        assert acknowledged_of_first_worker(world) == before + 3
        # The rollout that raises is held at its revision.
        assert (churn.verdict, churn.revision) == (Verdict.HOLD, revision)
        assert churn.reason.startswith("judging it raised ")
        assert "abort it, or resume it" in churn.waiting_for[0]
        assert credit.verdict == Verdict.UNDECIDED
        assert world.controller.leading
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        if what != "counting":
            return
        # A person resumes it.
        churn.evidence.validity = type(credit.evidence.validity)(100, 0.02, 7.0)
        await commands.pause("churn", "sam", "it is mended", paused=False)
        await world.run_until(has_ended)
        assert churn.position.stage == Stage.DONE

    asyncio.run(walk())


def test_controller_holds_a_rollout_whose_move_raises() -> None:
    """The deployment is written, and entering the stage raises. A person can end the rollout."""

    async def walk() -> None:
        world, churn, credit = await two_rollouts()
        churn.evidence.latency.enter_stage = None  # type: ignore[method-assign,assignment]
        await world.run_until(lambda _: bool(churn.judging_error), 10)
        assert (world.deployment.canary_bp, churn.revision) == (5_000, world.deployment.revision)
        judged_unix_ms = credit.judged_unix_ms
        await world.pass_second()
        assert credit.judged_unix_ms > judged_unix_ms
        assert churn.verdict == Verdict.HOLD
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        await commands.abort("churn", "sam", "seen enough")
        assert churn.position.stage == Stage.ROLLED_BACK
        assert (world.deployment.production, world.deployment.canary) == ("1", "")

    asyncio.run(walk())


def test_controller_rolls_back_a_rollout_on_hold_for_a_hard_guard() -> None:
    """A hard guard needs no counting."""

    async def walk() -> None:
        world, churn, _ = await two_rollouts()
        BREAKS["counting"](churn)
        await world.pass_second()
        assert churn.judging_error
        world.guards = [
            window_pb2.HardGuard(
                model="churn",
                version="2",
                revision=churn.revision,
                kind=window_pb2.HardGuard.BREAKER_OPEN,
                reason="failed on every key",
            )
        ]
        await world.pass_second()
        await world.run_pending_tasks()
        assert churn.position.stage == Stage.ROLLED_BACK
        assert churn.decisions[-1].reason == "BREAKER_OPEN: failed on every key"
        assert (world.deployment.production, world.deployment.canary) == ("1", "")

    asyncio.run(walk())
