"""A controller killed anywhere: the next one goes on from what was kept."""

import asyncio

import pytest

from protos import rollout_pb2, window_pb2
from registry.types import RegistryUnavailableError
from rollout.checkpoint import to_state
from rollout.inbox import source_name
from rollout.plan import Stage
from rollout.trial import Trial
from tests.rollout.world import World, ended, in_canary


def told(trial: Trial) -> rollout_pb2.RolloutState:
    """Return the state without what differs by design: decisions' times, resent batches."""
    state = to_state(trial)
    state.ClearField("duplicate_batches")
    return state


def test_a_guard_outlives_the_controller_that_heard_it() -> None:
    """Saved and acknowledged, then killed before acting: the next one acts on it."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(in_canary)
        sender = world.workers[0]
        guard = window_pb2.HardGuard(model="churn", version="2", kind="LOAD_REFUSED")
        world.controller.receive(
            window_pb2.WindowBatch(
                source=sender.source, sequence=sender.sequence + 1, guards=[guard]
            )
        )
        await world.controller.save()
        await world.restart()
        await world.act()
        return world

    assert asyncio.run(walk()).trial.place.stage == Stage.ROLLED_BACK


def test_nothing_is_acknowledged_before_it_is_kept() -> None:
    """What a gateway may forget is in the checkpoint; without a rollout, what was received."""

    async def walk() -> None:
        world = World()
        await world.controller.take_over(1)
        name = source_name(world.workers[0].source)
        await world.second()
        assert world.controller.kept(name) == 1
        await world.begin("quick-direct")
        await world.second(save=False)
        await world.controller.save()
        kept = world.controller.kept(name)
        world.registry.down = True
        await world.second(save=False)
        with pytest.raises(RegistryUnavailableError):
            await world.controller.save()
        assert world.controller.kept(name) == kept == 2
        world.registry.down = False
        await world.controller.save()
        assert world.controller.kept(name) == 3

    asyncio.run(walk())


@pytest.mark.walk
@pytest.mark.parametrize("fails", [0.0, 0.03])
def test_a_killed_controller_goes_on_bit_for_bit(fails: float) -> None:
    """Killed at every other second, saved or not: the evidence is identical, outcomes too."""

    async def course(kill_at: int, *, saved: bool) -> list[bytes]:
        world = World(fails)
        await world.begin("quick-direct")
        states = []
        for number in range(12):
            killed = number == kill_at
            await world.second(save=saved or not killed)
            if killed:
                await world.restart()
                await world.act()
            state = told(world.trial)
            for field in ("status", "decisions", "split_salt", "open_windows"):
                state.ClearField(field)
            if world.trial.ended:  # how long it is listened to after its end is no evidence
                state.ClearField("sources")
                state.ClearField("closed_second")
            states.append(state.SerializeToString(deterministic=True))
        assert world.trial.evidence.metrics["outcome"].canary_events > 0
        return states

    async def compare() -> None:
        reference = await course(-1, saved=True)
        for kill_at in range(1, 12, 2):
            for saved in (False, True):
                assert await course(kill_at, saved=saved) == reference, (kill_at, saved)

    asyncio.run(compare())


def test_a_move_that_was_written_but_not_remembered_is_found_again() -> None:
    """Killed between the deployment and the checkpoint: the deployment is the truth."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(in_canary)
        before = dict(world.registry.checkpoints)
        await world.until(lambda trial: trial.place.step == 1)
        world.registry.checkpoints = before
        await world.restart()
        await world.act()
        assert (world.trial.place.stage, world.trial.place.step) == (Stage.CANARY, 1)
        await world.until(ended)
        return world

    world = asyncio.run(walk())
    assert world.held.production == "2"


def test_a_rollback_that_was_not_remembered_is_found_again() -> None:
    """Its deployment says why; the four times go on."""

    async def walk() -> World:
        world = World(fails=0.2)
        await world.begin("quick-direct")
        await world.until(in_canary)
        before = dict(world.registry.checkpoints)
        await world.until(ended)
        world.registry.checkpoints = before
        await world.restart()
        await world.act()
        return world

    world = asyncio.run(walk())
    assert world.trial.place.stage == Stage.ROLLED_BACK
    assert world.trial.times.verdict == world.held.at_unix_ns
    assert "errors" in world.trial.reason
