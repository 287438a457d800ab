"""The controller in scripted time: promotes, rolls back, waits, survives, steps aside."""

import asyncio
from dataclasses import replace

import pytest

from protos import registry_pb2, rollout_pb2, window_pb2
from registry.types import FencedError, RegistryUnavailableError
from rollout.checkpoint import to_state
from rollout.controller import Controller
from rollout.errors import NotLeadingError, RolloutRefusedError, UnknownRolloutError
from rollout.inbox import source_name
from rollout.plan import Stage, Verdict
from rollout.steering import Steering
from rollout.trial import Trial
from tests.rollout.scripted import POLICIES
from tests.rollout.world import World


def ended(trial: Trial) -> bool:
    """Whether nothing follows."""
    return trial.ended


def in_canary(trial: Trial) -> bool:
    """Whether it answers as a canary."""
    return trial.place.stage == Stage.CANARY


def told(trial: Trial) -> rollout_pb2.RolloutState:
    """Return the state without what differs by design: decisions' times, resent batches."""
    state = to_state(trial)
    state.ClearField("duplicate_batches")
    return state


def test_a_healthy_candidate_walks_all_the_way() -> None:
    """PRELOAD, SHADOW, 10 %, 50 %, WATCH, DONE: one deployment each, nobody else's help."""

    async def walk() -> World:
        world = World()
        await world.begin()
        await world.until(ended)
        return world

    world = asyncio.run(walk())
    assert [Stage(int(one.stage)).name for one in world.trial.decisions] == [
        "PRELOAD", "SHADOW", "CANARY", "CANARY", "WATCH", "DONE",
    ]  # fmt: skip
    assert [one.canary_bp for one in world.registry.log] == [0, 0, 1_000, 5_000, 0, 0]
    assert [one.standby_bp for one in world.registry.log] == [0, 0, 0, 0, 500, 0]
    assert (world.held.production, world.held.rollout_id) == ("2", "")
    assert all(one.why.startswith("rollout r") for one in world.registry.log)


def test_a_faulty_canary_is_rolled_back_with_four_times_in_order() -> None:
    """First bad <= verdict <= moved; the last bad answer is kept; the state is remembered."""

    async def walk() -> World:
        world = World(fails=0.08)
        await world.begin("quick-direct")
        await world.until(ended)
        await world.until(world.controller.is_finished)
        return world

    world = asyncio.run(walk())
    trial = world.trial
    assert (trial.place.stage, trial.verdict) == (Stage.ROLLED_BACK, Verdict.FAULTY)
    assert (world.held.production, world.held.canary) == ("1", "")
    times = trial.times
    assert 0 < times.first_bad <= times.verdict <= times.moved
    assert times.first_bad <= times.last_bad
    assert trial.evidence.totals.failed == 0
    assert world.registry.checkpoints[trial.terms.rollout_id].sequence == trial.checkpoint


def test_a_fault_after_promotion_goes_back_to_the_standby() -> None:
    """The watch compares with the old version, and returns to it."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(lambda trial: trial.place.stage == Stage.WATCH)
        world.fails = 0.3
        await world.until(ended)
        return world

    world = asyncio.run(walk())
    assert world.trial.place.stage == Stage.ROLLED_BACK
    assert (world.held.production, world.held.standby) == ("1", "")


def test_a_faulty_shadow_never_reaches_a_customer() -> None:
    """It ends in the shadow stage; no deployment ever gave it a share."""

    async def walk() -> World:
        world = World(fails=0.08)
        await world.begin()
        await world.until(ended)
        return world

    world = asyncio.run(walk())
    assert world.trial.place.stage == Stage.ROLLED_BACK
    assert {one.canary_bp for one in world.registry.log} == {0}


def test_a_hard_guard_acts_at_once() -> None:
    """No window has closed, and the canary is out."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(in_canary)
        guard = window_pb2.HardGuard(
            model="churn",
            version="2",
            revision=world.held.revision,
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
        await world.act()
        return world

    world = asyncio.run(walk())
    assert world.trial.place.stage == Stage.ROLLED_BACK
    assert "5 of 5" in world.trial.reason


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


@pytest.mark.parametrize("fails", [0.0, 0.03])
def test_a_killed_controller_goes_on_bit_for_bit(fails: float) -> None:
    """Killed at every other second, before or after saving: the evidence is identical."""

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


def test_zero_traffic_never_moves() -> None:
    """An idle hour promotes nothing, and asks a person at the limit."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(in_canary)
        world.traffic = False
        for _ in range(120):
            await world.second(save=False)
        return world

    world = asyncio.run(walk())
    assert in_canary(world.trial)
    assert world.trial.verdict == Verdict.HOLD
    assert "a person decides" in world.trial.reason


def test_a_silent_gateway_holds() -> None:
    """One of two workers sends nothing: the other's good evidence promotes nothing."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(in_canary)
        world.silent = {1}
        for _ in range(10):
            await world.second()
        return world

    world = asyncio.run(walk())
    assert in_canary(world.trial) or world.trial.place.stage == Stage.WATCH
    assert world.trial.verdict == Verdict.HOLD
    assert "worker g/1" in world.trial.reason


def test_a_split_changed_by_hand_ends_the_rollout_and_stays() -> None:
    """People win; the rollout says by whom it was superseded."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(in_canary)
        by_hand = replace(world.held, canary="", canary_bp=0, rollout_id="", who="sam", why="no")
        world.controller.see_deployment(world.registry.put(by_hand))
        await world.act()
        return world

    world = asyncio.run(walk())
    assert world.trial.place.stage == Stage.ROLLED_BACK
    assert "superseded by sam" in world.trial.reason
    assert world.held.who == "sam"


def test_another_field_changed_by_hand_is_adopted() -> None:
    """A new holdout share does not end a rollout; it goes on from the new revision."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(in_canary)
        world.controller.see_deployment(world.registry.put(replace(world.held, holdout_bp=100)))
        await world.until(ended)
        return world

    world = asyncio.run(walk())
    assert (world.held.production, world.held.holdout_bp) == ("2", 100)


def test_a_fenced_controller_stops() -> None:
    """The lease passed on: its next write is refused, it says so, and nothing was written."""

    async def walk() -> None:
        world = World()
        await world.begin("quick-direct")
        await world.until(in_canary)
        world.registry.lease_token += 1
        written = len(world.registry.log)
        with pytest.raises(FencedError):
            await world.controller.save()
        for _ in range(8):
            await world.second(save=False)
        assert world.controller.fenced
        assert len(world.registry.log) == written
        await world.controller.give_up()
        with pytest.raises(NotLeadingError):
            world.controller.receive(window_pb2.WindowBatch())
        with pytest.raises(NotLeadingError):
            world.controller.trial("churn")

    asyncio.run(walk())


def test_an_unreachable_registry_delays_and_loses_nothing() -> None:
    """The canary stays as it is; when the registry answers again, the rollout goes on."""

    async def walk() -> World:
        world = World()
        await world.begin("quick-direct")
        await world.until(in_canary)
        world.registry.down = True
        for _ in range(5):
            await world.second(save=False)
        assert in_canary(world.trial)
        assert world.trial.place.step == 0
        assert "cannot move" in world.trial.reason
        world.registry.down = False
        await world.until(ended)
        return world

    assert asyncio.run(walk()).held.production == "2"


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
