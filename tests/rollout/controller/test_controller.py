"""The controller in scripted time."""

import asyncio
from dataclasses import replace

import pytest

from protos import window_pb2
from registry.types import FencedError
from rollout.errors import NotLeadingError
from rollout.policy.stages import Stage, Verdict
from tests.rollout.scripted_world import ScriptedWorld, has_ended, is_in_canary


def test_controller_moves_a_healthy_candidate_through_every_stage() -> None:
    """There is one deployment for each of PRELOAD, SHADOW, 10 %, 50 %, WATCH and DONE."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout()
        await world.run_until(has_ended)
        return world

    world = asyncio.run(walk())
    # The decisions, and the shares of the deployments.
    assert [Stage(int(entry.stage)).name for entry in world.rollout.decisions] == [
        "PRELOAD", "SHADOW", "CANARY", "CANARY", "WATCH", "DONE",
    ]  # fmt: skip
    assert [entry.canary_bp for entry in world.registry.deployments_written] == [
        0,
        0,
        1_000,
        5_000,
        0,
        0,
    ]
    assert [entry.standby_bp for entry in world.registry.deployments_written] == [
        0,
        0,
        0,
        0,
        500,
        0,
    ]
    # The end, and the reasons.
    assert (world.deployment.production, world.deployment.rollout_id) == ("2", "")
    assert all(entry.why.startswith("rollout r") for entry in world.registry.deployments_written)


def test_controller_rolls_back_a_faulty_canary_with_four_times_in_order() -> None:
    """The first bad answer comes before the verdict, and the verdict before the move."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld(fails=0.08)
        await world.start_rollout("quick-direct")
        await world.run_until(has_ended)
        await world.run_until(world.controller.is_finished)
        return world

    world = asyncio.run(walk())
    rollout = world.rollout
    assert (rollout.position.stage, rollout.verdict) == (Stage.ROLLED_BACK, Verdict.FAULTY)
    assert (world.deployment.production, world.deployment.canary) == ("1", "")
    times = rollout.times
    assert 0 < times.first_bad_answer_ns <= times.verdict_ns <= times.traffic_moved_ns
    assert times.first_bad_answer_ns <= times.last_bad_answer_ns
    assert rollout.evidence.totals.failed == 0
    assert (
        world.registry.checkpoints[rollout.spec.rollout_id].sequence == rollout.checkpoint_sequence
    )


def test_controller_rolls_back_to_the_standby_in_the_watch() -> None:
    """The watch compares with the old version and returns to it."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(lambda rollout: rollout.position.stage == Stage.WATCH)
        world.failure_rate = 0.3
        await world.run_until(has_ended)
        return world

    world = asyncio.run(walk())
    assert world.rollout.position.stage == Stage.ROLLED_BACK
    assert (world.deployment.production, world.deployment.standby) == ("1", "")


def test_controller_rolls_back_a_faulty_shadow_without_any_share() -> None:
    """No deployment gave it a canary share."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld(fails=0.08)
        await world.start_rollout()
        await world.run_until(has_ended)
        return world

    world = asyncio.run(walk())
    assert world.rollout.position.stage == Stage.ROLLED_BACK
    assert {entry.canary_bp for entry in world.registry.deployments_written} == {0}


def test_controller_rolls_back_on_a_hard_guard_at_once() -> None:
    """No second has closed by then."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        guard = window_pb2.HardGuard(
            model="churn",
            version="2",
            revision=world.deployment.revision,
            kind="BREAKER_OPEN",
            reason="5 of 5 runs failed",
            at_unix_ns=world.clock.ns,
        )
        sender = world.workers[0]
        world.controller.receive(
            window_pb2.WindowBatch(
                source=sender.source, sequence=sender.sequence + 1, guards=[guard]
            )
        )
        assert world.controller.wake.is_set()
        await world.act_once()
        return world

    world = asyncio.run(walk())
    assert world.rollout.position.stage == Stage.ROLLED_BACK
    assert "5 of 5" in world.rollout.reason


def test_controller_without_traffic_moves_nothing() -> None:
    """At the time limit it is held, and a person decides."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        world.traffic = False
        for _ in range(120):
            await world.pass_second(save=False)
        return world

    world = asyncio.run(walk())
    assert is_in_canary(world.rollout)
    assert world.rollout.verdict == Verdict.HOLD
    assert "a person decides" in world.rollout.reason


def test_controller_holds_when_a_worker_is_silent() -> None:
    """The good evidence of the other worker promotes nothing."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        world.silent_slots = {1}
        for _ in range(10):
            await world.pass_second()
        return world

    world = asyncio.run(walk())
    assert is_in_canary(world.rollout) or world.rollout.position.stage == Stage.WATCH
    assert world.rollout.verdict == Verdict.HOLD
    assert "worker g/1" in world.rollout.reason


def test_controller_ends_a_rollout_whose_split_a_person_changed() -> None:
    """The reason names the person, and the deployment stays."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        by_hand = replace(
            world.deployment, canary="", canary_bp=0, rollout_id="", who="sam", why="no"
        )
        world.controller.see_deployment(world.registry.write_deployment(by_hand))
        await world.act_once()
        return world

    world = asyncio.run(walk())
    assert world.rollout.position.stage == Stage.ROLLED_BACK
    assert "superseded by sam" in world.rollout.reason
    assert world.deployment.who == "sam"


def test_controller_adopts_a_change_of_another_field() -> None:
    """A new holdout share does not end the rollout."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        world.controller.see_deployment(
            world.registry.write_deployment(replace(world.deployment, holdout_bp=100))
        )
        await world.run_until(has_ended)
        return world

    world = asyncio.run(walk())
    assert (world.deployment.production, world.deployment.holdout_bp) == ("2", 100)


def test_controller_that_is_fenced_writes_nothing() -> None:
    """The lease has passed on: its next write is refused, and it stops."""

    async def walk() -> None:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        world.registry.lease_token += 1
        written = len(world.registry.deployments_written)
        with pytest.raises(FencedError):
            await world.controller.save()
        for _ in range(8):
            await world.pass_second(save=False)
        assert world.controller.fenced
        assert len(world.registry.deployments_written) == written
        await world.controller.stop_leading()
        with pytest.raises(NotLeadingError):
            world.controller.receive(window_pb2.WindowBatch())
        with pytest.raises(NotLeadingError):
            world.controller.rollout("churn")

    asyncio.run(walk())


def test_controller_waits_for_an_unreachable_registry() -> None:
    """The canary stays. When the registry answers again, the rollout goes on."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        world.registry.down = True
        for _ in range(5):
            await world.pass_second(save=False)
        assert is_in_canary(world.rollout)
        assert world.rollout.position.step == 0
        assert "cannot move" in world.rollout.reason
        world.registry.down = False
        await world.run_until(has_ended)
        return world

    assert asyncio.run(walk()).deployment.production == "2"
