"""A controller goes on from the checkpoints of a controller that was killed."""

import asyncio
import logging
from dataclasses import replace

import pytest

from protos import rollout_pb2, window_pb2
from registry.types import RegistryUnavailableError
from rollout.api.commands import RolloutCommands
from rollout.api.explain import explanation_text
from rollout.checkpoint.codec import to_state
from rollout.controller.policy_book import PolicyBook
from rollout.errors import CheckpointError, RolloutRefusedError, UnknownRolloutError
from rollout.evidence.inbox import source_name
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import CanaryStep, Policy
from rollout.policy.stages import Stage
from tests.rollout.scripted_parts import POLICIES
from tests.rollout.scripted_world import ScriptedWorld, has_ended, is_in_canary

QUICK_DIRECT = POLICIES["quick-direct"]
OTHER = replace(
    QUICK_DIRECT,
    canary=(CanaryStep(share_bp=2_000, bake_s=3_600.0),),
    standby_bp=900,
    watch_s=3_600.0,
    failure_bar=0.3,
    alpha=0.5,
    outcome=None,
    freeze=("2020-01-01 - 2040-01-01",),
    keys_max=10,
)
"""A policy with the name of QUICK_DIRECT and other values in all fields that the judge reads."""


def comparable_state(rollout: Rollout) -> rollout_pb2.RolloutState:
    """Return the state without the number of duplicate batches, which differs by design."""
    state = to_state(rollout)
    state.ClearField("duplicate_batches")
    return state


def test_recovery_acts_on_a_guard_that_was_saved() -> None:
    """The controller was killed after it saved the guard and before it acted."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        sender = world.workers[0]
        guard = window_pb2.HardGuard(model="churn", version="2", kind="LOAD_REFUSED")
        world.controller.receive(
            window_pb2.WindowBatch(
                source=sender.source, sequence=sender.sequence + 1, guards=[guard]
            )
        )
        await world.controller.save()
        await world.restart()
        await world.act_once()
        return world

    assert asyncio.run(walk()).rollout.position.stage == Stage.ROLLED_BACK


def test_controller_acknowledges_only_what_is_in_a_checkpoint() -> None:
    """Without a rollout it acknowledges everything that it received."""

    async def walk() -> None:
        world = ScriptedWorld()
        await world.controller.start_leading(1)
        name = source_name(world.workers[0].source)
        await world.pass_second()
        assert world.controller.acknowledged_sequence(name) == 1
        await world.start_rollout("quick-direct")
        await world.pass_second(save=False)
        await world.controller.save()
        acknowledged = world.controller.acknowledged_sequence(name)
        world.registry.down = True
        await world.pass_second(save=False)
        with pytest.raises(RegistryUnavailableError):
            await world.controller.save()
        assert world.controller.acknowledged_sequence(name) == acknowledged == 2
        world.registry.down = False
        await world.controller.save()
        assert world.controller.acknowledged_sequence(name) == 3

    asyncio.run(walk())


@pytest.mark.walk
@pytest.mark.parametrize("fails", [0.0, 0.03])
@pytest.mark.parametrize("policy", [QUICK_DIRECT, OTHER], ids=["same file", "changed file"])
def test_recovery_goes_on_bit_for_bit_after_a_kill(fails: float, policy: Policy) -> None:
    """The controller is killed at every other second, saved or not, and with any policy file.

    Evidence, outcomes and decisions are identical.
    """

    async def course(kill_at: int, *, saved: bool) -> list[bytes]:
        # Twelve seconds, of which one ends with a kill.
        world = ScriptedWorld(fails)
        await world.start_rollout("quick-direct")
        states = []
        for number in range(12):
            killed = number == kill_at
            await world.pass_second(save=saved or not killed)
            if killed:
                world.policies["quick-direct"] = policy
                await world.restart()
                await world.act_once()
            state = comparable_state(world.rollout)
            decided = [(entry.stage, entry.revision, entry.verdict) for entry in state.decisions]
            for field in ("status", "decisions", "split_salt", "open_windows"):
                state.ClearField(field)
            if world.rollout.ended:  # how long it is listened to after its end is no evidence
                state.ClearField("sources")
                state.ClearField("closed_second")
            states.append(state.SerializeToString(deterministic=True) + repr(decided).encode())
        assert world.rollout.evidence.metrics["outcome"].canary_events > 0
        return states

    async def compare() -> None:
        reference = await course(-1, saved=True)
        for kill_at in range(1, 12, 2):
            for saved in (False, True):
                assert await course(kill_at, saved=saved) == reference, (kill_at, saved)

    asyncio.run(compare())


@pytest.mark.walk
def test_recovery_finds_a_move_that_is_in_no_checkpoint() -> None:
    """The controller was killed between the deployment and the checkpoint.

    The deployment is the truth.
    """

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        before = dict(world.registry.checkpoints)
        await world.run_until(lambda rollout: rollout.position.step == 1)
        world.registry.checkpoints = before
        await world.restart()
        await world.act_once()
        assert (world.rollout.position.stage, world.rollout.position.step) == (Stage.CANARY, 1)
        await world.run_until(has_ended)
        return world

    world = asyncio.run(walk())
    assert world.deployment.production == "2"


def test_recovery_finds_a_rollback_that_is_in_no_checkpoint() -> None:
    """Its deployment has the reason and the time of the verdict."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld(fails=0.2)
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        before = dict(world.registry.checkpoints)
        await world.run_until(has_ended)
        world.registry.checkpoints = before
        await world.restart()
        await world.act_once()
        return world

    world = asyncio.run(walk())
    assert world.rollout.position.stage == Stage.ROLLED_BACK
    assert world.rollout.times.verdict_ns == world.deployment.at_unix_ns
    assert "errors" in world.rollout.reason


def test_recovery_goes_on_under_the_approved_policy_when_its_file_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log, the status and the explanation say so.

    A rollout that starts later needs an approval of the new policy.
    """

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        assert not world.rollout.status().policy_note
        world.policies["quick-direct"] = OTHER
        with caplog.at_level(logging.WARNING):
            await world.restart()
            await world.run_until(has_ended)
        return world

    world = asyncio.run(walk())
    # It ended under the approved policy.
    digests = QUICK_DIRECT.digest, OTHER.digest
    assert world.deployment.production == "2"
    assert [entry.canary_bp for entry in world.registry.deployments_written] == [
        0,
        1_000,
        5_000,
        0,
        0,
    ]
    assert [entry.standby_bp for entry in world.registry.deployments_written] == [0, 0, 0, 500, 0]
    # Status, explanation and log say that the file differs.
    status = world.rollout.status()
    message = f"kept from its start; there is now another edition ({digests[1][:12]})"
    assert (status.policy_digest, status.policy_note) == (digests[0], message)
    assert message in explanation_text(status, [])
    assert [entry.getMessage().split("goes on ")[1] for entry in caplog.records] == [
        f"under policy 'quick-direct' ({digests[0][:12]}): {message}"
    ]

    # Another rollout starts under the new policy, and needs its approval.
    async def begin_anew() -> None:
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        request = rollout_pb2.StartRolloutRequest(model="churn", version="3", policy="quick-direct")
        with pytest.raises(RolloutRefusedError, match="starts nothing in '2020-01-01"):
            await commands.start(request, "sam")
        world.controller.policies = PolicyBook({"quick-direct": replace(OTHER, freeze=())})
        with pytest.raises(RolloutRefusedError, match=r"has no approval under .*quick-direct"):
            await commands.start(request, "sam")

    asyncio.run(begin_anew())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("altered", f"{QUICK_DIRECT.digest[:12]} was approved: it was altered"),
        ("not kept", f"under policy 'quick-direct' ({QUICK_DIRECT.digest[:12]}), which its"),
        ("no state", "its checkpoint cannot be read: DecodeError"),
    ],
    ids=["altered", "not kept", "no state"],
)
def test_recovery_names_an_unreadable_rollout_and_abort_ends_it(how: str, message: str) -> None:
    """Every command says why and names the way out. `abort` needs no policy."""

    async def walk() -> ScriptedWorld:
        # Damage the checkpoint of a rollout in its canary stage.
        world = ScriptedWorld()
        rollout = await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        checkpoint = world.registry.checkpoints[rollout.spec.rollout_id]
        state = rollout_pb2.RolloutState.FromString(checkpoint.state)
        state.policy_json = b"" if how == "not kept" else state.policy_json + b" "
        checkpoint.state = b"\xff" if how == "no state" else state.SerializeToString()
        world.policies["quick-direct"] = OTHER
        # The next controller leaves the split as it is, and every command says why.
        await world.restart()
        await world.act_once()
        assert (world.deployment.canary, world.deployment.canary_bp) == ("2", 1_000)
        with pytest.raises(CheckpointError, match="`turnout rollout abort churn` gives") as caught:
            world.controller.rollout("churn")
        assert message in str(caught.value)
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        if how == "no state":
            with pytest.raises(RolloutRefusedError, match="splits set churn --canary none"):
                await commands.abort("churn", "sam", "enough")
            world.registry.write_deployment(
                replace(world.deployment, canary="", canary_bp=0, rollout_id="")
            )
            await begin_again(world)
            return world
        # Abort ends it, and the list of rollouts shows it.
        status = await commands.abort("churn", "sam", "enough")
        assert (status.stage, status.reason) == (rollout_pb2.ROLLED_BACK, "aborted by sam: enough")
        with pytest.raises(UnknownRolloutError):
            world.controller.rollout("churn")
        listed = (await commands.list_rollouts("churn"))[0]
        assert [(entry.rollout_id, entry.stage) for entry in listed] == [
            (rollout.spec.rollout_id, rollout_pb2.ROLLED_BACK)
        ]
        # All traffic is back, and another rollout can start.
        assert (
            world.deployment.production,
            world.deployment.canary,
            world.deployment.rollout_id,
        ) == ("1", "", "")
        assert world.deployment.why == f"rollout {rollout.spec.rollout_id}: aborted by sam: enough"
        await world.restart()
        with pytest.raises(CheckpointError, match=r"The rollout has ended$"):
            world.controller.rollout("churn")
        await begin_again(world)
        return world

    async def begin_again(world: ScriptedWorld) -> None:
        world.policies["quick-direct"] = QUICK_DIRECT
        await world.start_rollout("quick-direct")
        await world.run_until(has_ended)

    assert asyncio.run(walk()).deployment.production == "2"
