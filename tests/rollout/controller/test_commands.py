"""The commands that people give to rollouts, and their refusals."""

import asyncio
from dataclasses import replace

import pytest

from features.replay.record import REPLAY, ReplayRecord
from protos import registry_pb2, rollout_pb2
from rollout.api.commands import RolloutCommands
from rollout.controller.controller import Controller
from rollout.controller.policy_book import PolicyBook
from rollout.errors import NotLeadingError, RolloutRefusedError, UnknownRolloutError
from rollout.policy.stages import Stage
from tests.rollout.scripted_parts import POLICIES, SCRIPT_START_S
from tests.rollout.scripted_world import ScriptedWorld, has_ended, is_in_canary


def test_commands_pause_promote_and_abort() -> None:
    """Each reason has the actor and the actor's words."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        await world.run_until(is_in_canary)
        await commands.pause("churn", "sam", "lunch", paused=True)
        for _ in range(6):
            await world.pass_second()
        assert world.rollout.position.step == 0
        with pytest.raises(RolloutRefusedError, match=r"so none is skipped.*quick-direct --direct"):
            await commands.promote("churn", "sam", "sure", full=True)
        await commands.promote("churn", "sam", "looks fine", full=False)
        assert world.rollout.position.step == 1
        await commands.promote("churn", "sam", "sure", full=True)
        assert world.rollout.position.stage == Stage.WATCH
        await commands.abort("churn", "sam", "changed my mind")
        with pytest.raises(RolloutRefusedError, match="has ended"):
            await commands.abort("churn", "sam", "again")
        with pytest.raises(UnknownRolloutError):
            await commands.abort("fraud", "sam", "what")
        return world

    world = asyncio.run(walk())
    assert (world.deployment.production, world.deployment.standby) == ("1", "")
    assert "aborted by sam: changed my mind" in world.deployment.why


def test_start_is_refused_with_the_reason() -> None:
    """Policy, approval, another rollout and the deployment are checked."""

    async def walk() -> None:
        world = ScriptedWorld()
        controller: Controller = world.controller
        commands = RolloutCommands(controller, world.registry, world.clock)  # type: ignore[arg-type]

        async def refused(
            match: str, kind: type[Exception] = RolloutRefusedError, **fields: str
        ) -> None:
            request_fields = {"model": "churn", "version": "2", "policy": "quick", **fields}
            with pytest.raises(kind, match=match):
                await commands.start(rollout_pb2.StartRolloutRequest(**request_fields), "sam")

        # Without leadership, policy or approval.
        await refused("does not act", NotLeadingError)
        await controller.start_leading(1)
        await refused("there are quick, quick-direct", UnknownRolloutError, policy="bold")
        await refused("has no approval")
        await refused("is production", version="1")
        for rejected in (False, True):
            world.registry.approvals_given.append(
                registry_pb2.Approval(
                    id="a2",
                    model="churn",
                    version="2",
                    policy_digest=POLICIES["quick"].digest,
                    rejected=rejected,
                )
            )
        # A rejection after an approval, a rollout under way, and a split set by hand.
        await refused("was rejected")
        await world.start_rollout("quick-direct")
        await refused("is under way")
        world.registry.write_deployment(
            replace(world.deployment, rollout_id="", canary="3", canary_bp=5)
        )
        await refused("set by hand")

    asyncio.run(walk())


def test_start_waits_for_a_clean_replay_of_production() -> None:
    """A replay that was recorded just now counts, also before the watch has brought it."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        asking = replace(POLICIES["quick-direct"], name="asking", replay_days=2.0)
        world.policies["asking"] = asking
        await world.restart()
        with pytest.raises(RolloutRefusedError, match=r"version 1 of 'churn'.*there is none"):
            await world.start_rollout("asking")
        # Of the candidate, of two days ago, and of now.
        now_ms = SCRIPT_START_S * 1_000
        for sequence, version, to_ms, why in (
            (1, "2", now_ms, "there is none"),
            (2, "1", now_ms - 200_000_000, "the rows of the newest"),
        ):
            world.registry.findings_written.append(replay_of(version, to_ms, sequence))
            with pytest.raises(RolloutRefusedError, match=why):
                await world.start_rollout("asking")
        world.registry.findings_written.append(replay_of("1", now_ms, 3))
        await world.start_rollout("asking")
        return world

    world = asyncio.run(walk())
    assert world.rollout.spec.policy.replay_days == 2.0


def replay_of(version: str, to_ms: int, sequence: int) -> registry_pb2.Finding:
    """The finding of a replay without a difference, whose last row was served at *to_ms*."""
    record = ReplayRecord(
        version_digest=version,
        model_contract="",
        from_ms=0,
        to_ms=to_ms,
        rows=1_000,
        degraded_rows=0,
        late_values=0,
        skewed_features=0,
        skewed={},
    )
    return registry_pb2.Finding(
        sequence=sequence,
        model="churn",
        version=version,
        kind=REPLAY,
        text=record.text(),
        who="olga",
        at_unix_ms=SCRIPT_START_S * 1_000,
    )


def test_set_weight_takes_only_shares_of_the_policy() -> None:
    """The share can go up and down."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        await world.start_rollout("quick-direct")
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        with pytest.raises(RolloutRefusedError, match="no canary share to set"):
            await commands.set_weight("churn", 5_000, "sam", "now")
        await world.run_until(is_in_canary)
        with pytest.raises(RolloutRefusedError, match="approved with 1000, 5000"):
            await commands.set_weight("churn", 2_000, "sam", "a bit")
        with pytest.raises(RolloutRefusedError, match="1000 basis points already"):
            await commands.set_weight("churn", 1_000, "sam", "same")
        await commands.set_weight("churn", 5_000, "sam", "more")
        assert world.deployment.canary_bp == 5_000
        await commands.set_weight("churn", 1_000, "sam", "less")
        assert (world.deployment.canary_bp, world.rollout.position.step) == (1_000, 0)
        return world

    assert "set to 10 % by sam: less" in asyncio.run(walk()).deployment.why


def test_retry_rolls_out_the_same_version_under_the_same_policy() -> None:
    """It is refused while a rollout is under way."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld(fails=0.3)
        first = await world.start_rollout("quick-direct")
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        with pytest.raises(RolloutRefusedError, match="only one that was rolled back"):
            await commands.retry("churn", "sam", "again")
        await world.run_until(has_ended)
        world.failure_rate = 0.0
        again = await commands.retry("churn", "sam", "the store is back")
        assert again.spec.rollout_id != first.spec.rollout_id
        await world.run_until(has_ended)
        return world

    world = asyncio.run(walk())
    assert world.deployment.production == "2"
    assert world.rollout.decisions[0].reason.startswith("started by sam: the store is back (again")


async def rolled_back_then_retried() -> tuple[ScriptedWorld, str, str]:
    """Return a world after a rollback and a retry that succeeded, and the ids of both."""
    world = ScriptedWorld(fails=1.0)
    first = await world.start_rollout("quick-direct")
    await world.run_until(has_ended)
    world.failure_rate = 0.0
    commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
    second = await commands.retry("churn", "sam", "the store is back")
    await world.run_until(has_ended)
    return world, first.spec.rollout_id, second.spec.rollout_id


def test_list_rollouts_has_the_rollouts_of_earlier_controllers() -> None:
    """They come newest first, each as it ended."""

    async def walk() -> None:
        world, first, second = await rolled_back_then_retried()
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        before = [
            (status.rollout_id, status.stage)
            for status in (await commands.list_rollouts("churn"))[0]
        ]
        await world.restart()
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        after = (await commands.list_rollouts(""))[0]
        assert [(status.rollout_id, status.stage) for status in after] == before
        assert before == [
            (second, rollout_pb2.DONE),
            (first, rollout_pb2.ROLLED_BACK),
        ]
        assert "keys failed" in after[1].reason or "BREAKER" in after[1].reason

    asyncio.run(walk())


def test_list_rollouts_shows_an_unreadable_rollout_with_its_reason() -> None:
    """The other rollouts are listed too."""

    async def walk() -> None:
        world, first, second = await rolled_back_then_retried()
        await world.restart()
        world.registry.checkpoints[first].state = b"\xff\xff\xff"
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        statuses = {
            status.rollout_id: status for status in (await commands.list_rollouts("churn"))[0]
        }
        assert statuses[second].stage == rollout_pb2.DONE
        broken = statuses[first]
        assert (broken.model, broken.stage) == ("churn", rollout_pb2.STAGE_UNSPECIFIED)
        assert "cannot be read" in broken.reason

    asyncio.run(walk())


def test_undo_preloads_the_old_version_and_gives_it_all_traffic() -> None:
    """There are two deployments. It is refused while a rollout is under way."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        await world.start_rollout("quick-direct")
        with pytest.raises(RolloutRefusedError, match="turnout rollout abort churn"):
            await commands.undo("churn", "1", "sam", "complaints")
        await world.run_until(has_ended)
        with pytest.raises(RolloutRefusedError, match="production already"):
            await commands.undo("churn", "2", "sam", "complaints")
        undoing = asyncio.ensure_future(commands.undo("churn", "1", "sam", "complaints"))
        await world.run_pending_tasks()
        assert (world.deployment.production, world.deployment.preload) == ("2", ("1",))
        world.loaded_versions = ("1", "2")
        await world.act_once()
        status = await undoing
        assert (status.version, status.stage) == ("1", rollout_pb2.DONE)
        return world

    world = asyncio.run(walk())
    assert (world.deployment.production, world.deployment.preload, world.deployment.rollout_id) == (
        "1",
        (),
        "",
    )
    assert world.deployment.why == "undo to 1 by sam: complaints"


def test_start_is_refused_in_a_freeze_window_and_for_an_exclusive_view() -> None:
    """Nothing is written in either case."""
    frozen = replace(POLICIES["quick"], name="frozen", freeze=("2020-01-01 - 2030-01-01",))
    alone = replace(POLICIES["quick"], name="alone", exclusive_views=("*",))

    async def walk() -> None:
        world = ScriptedWorld()
        world.controller.policies = PolicyBook({**POLICIES, "frozen": frozen, "alone": alone})
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        await world.start_rollout("quick-direct")
        world.registry.views.append(registry_pb2.VersionView(name="churn_profile", hash="ab" * 32))
        world.registry.write_deployment(
            replace(world.deployment, model="fraud", rollout_id="", preload=())
        )
        for policy, message in (("frozen", "starts nothing in"), ("alone", "reads churn_profile")):
            request = rollout_pb2.StartRolloutRequest(model="fraud", version="2", policy=policy)
            with pytest.raises(RolloutRefusedError, match=message):
                await commands.start(request, "sam")

    asyncio.run(walk())


@pytest.mark.parametrize("restarted", [False, True])
def test_start_works_after_a_person_took_a_rollout_over(restarted: bool) -> None:
    """The split that the person wrote still has the id of the ended rollout."""

    async def walk() -> ScriptedWorld:
        world = ScriptedWorld()
        rollout = await world.start_rollout("quick-direct")
        await world.run_until(is_in_canary)
        by_hand = replace(world.deployment, canary="", canary_bp=0, who="sam", why="no")
        world.controller.see_deployment(world.registry.write_deployment(by_hand))
        await world.act_once()
        assert world.rollout.ended
        assert world.deployment.rollout_id == rollout.spec.rollout_id
        if restarted:
            await world.restart()
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        with pytest.raises(RolloutRefusedError, match="production already"):
            await commands.undo("churn", "1", "sam", "complaints")
        await world.start_rollout("quick-direct")
        await world.run_until(has_ended)
        return world

    assert asyncio.run(walk()).deployment.production == "2"
