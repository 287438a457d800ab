"""What people may tell a rollout, and what they are refused."""

import asyncio
from dataclasses import replace

import pytest

from protos import registry_pb2, rollout_pb2
from rollout.controller import Controller
from rollout.errors import NotLeadingError, RolloutRefusedError, UnknownRolloutError
from rollout.plan import Stage
from rollout.steering import Steering
from tests.rollout.scripted import POLICIES
from tests.rollout.world import World, in_canary


def test_people_steer() -> None:
    """Pause stays, promote goes on, abort goes back; each says who and why."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        steering = Steering(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        await world.until(in_canary)
        await steering.pause("churn", "sam", "lunch", paused=True)
        for _ in range(6):
            await world.second()
        assert world.trial.place.step == 0
        await steering.promote("churn", "sam", "looks fine", full=False)
        assert world.trial.place.step == 1
        await steering.promote("churn", "sam", "sure", full=True)
        assert world.trial.place.stage == Stage.WATCH
        await steering.abort("churn", "sam", "changed my mind")
        with pytest.raises(RolloutRefusedError, match="has ended"):
            await steering.abort("churn", "sam", "again")
        with pytest.raises(UnknownRolloutError):
            await steering.abort("fraud", "sam", "what")
        return world

    world = asyncio.run(walk())
    assert (world.held.production, world.held.standby) == ("1", "")
    assert "aborted by sam: changed my mind" in world.held.why


def test_a_start_is_refused_in_words() -> None:
    """Unknown policy, no approval, a rejection, another rollout, no production."""

    async def walk() -> None:
        world = World()
        controller: Controller = world.controller
        steering = Steering(controller, world.registry, world.clock)  # type: ignore[arg-type]

        async def refused(
            match: str, kind: type[Exception] = RolloutRefusedError, **fields: str
        ) -> None:
            asked = {"model": "churn", "version": "2", "policy": "quick", **fields}
            with pytest.raises(kind, match=match):
                await steering.start(rollout_pb2.StartRolloutRequest(**asked), "sam")

        await refused("does not act", NotLeadingError)
        await controller.take_over(1)
        await refused("there are quick, quick-direct", UnknownRolloutError, policy="bold")
        await refused("has no approval")
        await refused("is production", version="1")
        for rejected in (False, True):
            world.registry.approved.append(
                registry_pb2.Approval(
                    id="a2",
                    model="churn",
                    version="2",
                    policy_digest=POLICIES["quick"].digest,
                    rejected=rejected,
                )
            )
        await refused("was rejected")
        await world.begin("quick-direct")
        await refused("is under way")
        world.registry.put(replace(world.held, rollout_id="", canary="3", canary_bp=5))
        await refused("set by hand")

    asyncio.run(walk())
