"""One rollout that cannot be judged is held; the others go on, and so does the controller."""

import asyncio

import pytest

from protos import rollout_pb2, window_pb2
from registry.types import Deployment
from rollout.api.commands import Steering
from rollout.evidence.inbox import source_name
from rollout.lifecycle.rollout import Trial
from rollout.policy.stages import Stage, Verdict
from tests.rollout.scripted_world import SOURCES, World, ended, in_canary

BREAKS = {
    "counting": lambda trial: setattr(trial.evidence, "doubts", None),
    "judging": lambda trial: setattr(trial.evidence.stage, "failed_kept", None),
    "keeping": lambda trial: setattr(trial, "since_unix_ms", 10**30),
}


async def two_rollouts() -> tuple[World, Trial, Trial]:
    """One of churn in its canary, and credit, which waits for a gateway that has loaded it."""
    world = World()
    await world.begin("quick-direct")
    await world.until(in_canary)
    churn = world.trial
    world.registry.put(Deployment(model="credit", production="1"))
    for model in ("churn", "credit"):
        world.controller.see_deployment(world.registry.deployments[model])
    approved = type(world.registry.approved[0])()
    approved.CopyFrom(world.registry.approved[0])
    approved.model = "credit"
    world.registry.approved.append(approved)
    steering = Steering(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
    asked = rollout_pb2.StartRolloutRequest(
        model="credit", version="2", policy="quick-direct", reason="better"
    )
    return world, churn, await steering.start(asked, "sam")


def kept(world: World) -> int:
    """What the first worker may forget."""
    return world.controller.kept(source_name(SOURCES[0]))


@pytest.mark.parametrize("what", BREAKS)
def test_what_one_rollout_raises_holds_that_one_alone(what: str) -> None:
    """It says why and stays; the other is judged, kept and acknowledged; a person ends it."""

    async def walk() -> None:
        world, churn, credit = await two_rollouts()
        await world.second()
        revision, before = churn.revision, kept(world)
        BREAKS[what](churn)
        for _ in range(3):
            looked, saved = credit.looked_unix_ms, credit.checkpoint
            await world.second()
            assert credit.looked_unix_ms > looked
            assert credit.checkpoint > saved
        assert kept(world) == before + 3
        assert (churn.verdict, churn.revision) == (Verdict.HOLD, revision)
        assert churn.reason.startswith("judging it raised ")
        assert "abort it, or resume it" in churn.missing[0]
        assert credit.verdict == Verdict.UNDECIDED
        assert world.controller.leading
        steering = Steering(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        if what != "counting":
            return
        churn.evidence.doubts = type(credit.evidence.doubts)(100, 0.02, 7.0)
        await steering.pause("churn", "sam", "it is mended", paused=False)
        await world.until(ended)
        assert churn.place.stage == Stage.DONE

    asyncio.run(walk())


def test_a_move_that_raises_is_held_where_it_got_to() -> None:
    """The deployment is written, entering the stage raises: held, told, and ended by a person."""

    async def walk() -> None:
        world, churn, credit = await two_rollouts()
        churn.evidence.latency.enter_stage = None  # type: ignore[method-assign,assignment]
        await world.until(lambda _: bool(churn.broken), 10)
        assert (world.held.canary_bp, churn.revision) == (5_000, world.held.revision)
        looked = credit.looked_unix_ms
        await world.second()
        assert credit.looked_unix_ms > looked
        assert churn.verdict == Verdict.HOLD
        steering = Steering(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        await steering.abort("churn", "sam", "seen enough")
        assert churn.place.stage == Stage.ROLLED_BACK
        assert (world.held.production, world.held.canary) == ("1", "")

    asyncio.run(walk())


def test_a_held_rollout_is_still_taken_back_by_a_hard_guard() -> None:
    """A breaker needs no counting; nor does a person."""

    async def walk() -> None:
        world, churn, _ = await two_rollouts()
        BREAKS["counting"](churn)
        await world.second()
        assert churn.broken
        world.guards = [
            window_pb2.HardGuard(
                model="churn",
                version="2",
                revision=churn.revision,
                kind=window_pb2.HardGuard.BREAKER_OPEN,
                reason="failed on every key",
            )
        ]
        await world.second()
        await world.settle()
        assert churn.place.stage == Stage.ROLLED_BACK
        assert churn.decisions[-1].reason == "BREAKER_OPEN: failed on every key"
        assert (world.held.production, world.held.canary) == ("1", "")

    asyncio.run(walk())
