"""Who is told, and when; who may act, and who no longer: watches, leases, tokens, over gRPC."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import (
    Deployment,
    FencedError,
    NotAllowedError,
    NotFoundError,
    RegistryUnavailableError,
    RevisionConflictError,
    UnknownActorError,
)
from tests.registry.api.test_access import identities
from tests.registry.registry_fixture import registry_fixture, run_walk
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk


def test_watchers_get_a_snapshot_then_each_change_at_once(tmp_path: Path) -> None:
    """Only what is newer than held; keys in the first event; within 100 ms of the write."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            _, held = await house.put_in_production()
            fresh = house.bob.watch_deployments()
            event = await anext(fresh)
            assert event.snapshot_end
            assert [d.model for d in event.deployments] == ["churn"]
            assert len(event.keys.prediction_id_key) == len(event.keys.version_public_key) == 32

            holding = house.ann.watch_deployments("g", 1, 5, {"churn": held.revision})
            event = await anext(holding)
            assert (event.snapshot_end, list(event.deployments)) == (True, [])

            waiting: asyncio.Task[pb.DeploymentEvent] = asyncio.create_task(anext(holding))  # type: ignore[arg-type]
            loop = asyncio.get_running_loop()
            before = loop.time()
            written = await house.cleo.deploy(replace(held, holdout_bp=50, why="a control group"))
            told = await waiting
            assert loop.time() - before < 1.0
            assert [Deployment.from_proto(d) for d in told.deployments] == [written]
            for stream in (fresh, holding):
                await stream.aclose()  # type: ignore[attr-defined]

    run_walk(story())


def test_a_worker_is_gone_when_its_stream_ends(tmp_path: Path) -> None:
    """Watchers of states are told within a second; then it counts for no gate."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            stream = house.ann.watch_deployments("g", 3, 9)
            await anext(stream)
            await house.ann.report_state(pb.GatewayState(gateway="g", slot=3, boot_id=9))
            states = house.bob.watch_states()
            first = await anext(states)
            assert (first.slot, first.disconnected) == (3, False)
            await stream.aclose()  # type: ignore[attr-defined]
            last = await asyncio.wait_for(anext(states), 3)
            assert (last.slot, last.boot_id, last.disconnected) == (3, 9, True)
            await states.aclose()  # type: ignore[attr-defined]

    run_walk(story())


def test_a_paused_controller_is_fenced(tmp_path: Path) -> None:
    """The older token writes neither deployments nor checkpoints once another took over."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            _, held = await house.put_in_production()
            old = await house.ann.acquire_lease("rollout", "one", 1)
            with pytest.raises(FencedError, match="is 'one''s"):
                await house.bob.acquire_lease("rollout", "two", 5)
            renewed = await house.ann.acquire_lease("rollout", "one", 1, old.token)
            assert renewed.token == old.token
            new = None
            while new is None:  # until the first lease has run out
                with suppress(FencedError):
                    new = await house.bob.acquire_lease("rollout", "two", 30)
                await asyncio.sleep(0.02)
            assert new.token == old.token + 1
            wish = replace(held, holdout_bp=1, why="as I was saying")
            with pytest.raises(FencedError, match="fenced off"):
                await house.ann.deploy(wish, lease_token=old.token)
            with pytest.raises(FencedError):
                await house.ann.save_checkpoint(
                    pb.Checkpoint(rollout_id="r1", sequence=1, lease_token=old.token)
                )
            assert (await house.bob.deploy(wish, lease_token=new.token)).holdout_bp == 1

    run_walk(story())


def test_checkpoints_only_move_forward(tmp_path: Path) -> None:
    """The newest is kept, an older one refused, and it survives a restart."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            with pytest.raises(NotFoundError):
                await house.ann.load_checkpoint("r1")
            for sequence in (1, 5, 5):
                await house.ann.save_checkpoint(
                    pb.Checkpoint(rollout_id="r1", sequence=sequence, state=b"%d" % sequence)
                )
            with pytest.raises(RevisionConflictError, match="has checkpoint 5"):
                await house.ann.save_checkpoint(pb.Checkpoint(rollout_id="r1", sequence=4))
        async with registry_fixture(tmp_path) as house:
            assert (await house.ann.load_checkpoint("r1")).state == b"5"

    run_walk(story())


def test_no_finding_is_skipped(tmp_path: Path) -> None:
    """Old ones first, then each new one, numbered without gaps; or those there are, and an end."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            finding = pb.Finding(model="churn", kind="hold", text="the PSI of tenure is .4")
            for _ in range(3):
                await house.ann.write_finding(finding)
            stream = house.bob.watch_findings(after=1)
            seen = [(await anext(stream)).sequence for _ in range(2)]
            await asyncio.gather(*(house.ann.write_finding(finding) for _ in range(20)))
            seen += [(await anext(stream)).sequence for _ in range(20)]
            assert seen == list(range(2, 24))
            there_are = [one.sequence async for one in house.bob.findings(after=20)]
            assert there_are == [21, 22, 23]
            await stream.aclose()  # type: ignore[attr-defined]

    run_walk(story())


def test_tokens_decide_who_may_what(tmp_path: Path) -> None:
    """An approver does not deploy; a controller does not break the glass; keys are for gateways."""
    people = identities(
        tmp_path / "identities.json",
        ann=["author"],
        bob=["approver"],
        robot=["controller"],
        gate=["gateway"],
    )

    async def story() -> None:
        async with registry_fixture(tmp_path / "r", people) as house:
            with pytest.raises(UnknownActorError):
                await house.ann.list_models()  # a name, and no token
            clients = [RegistryClient(house.address, n, f"{n}-token") for n in ("ann", "bob")]
            async with (
                clients[0] as ann,
                clients[1] as bob,
                RegistryClient(house.address, "robot", "robot-token") as robot,
                RegistryClient(house.address, "gate", "gate-token") as gate,
            ):
                version = await ann.register("churn", tiny_files())
                assert version.author == "ann"
                held = replace(await bob.deployment("churn"), preload=("1",), why="load it")
                with pytest.raises(NotAllowedError, match="'bob' is approver"):
                    await bob.deploy(held)
                with pytest.raises(NotAllowedError, match="breaks the glass"):
                    await robot.deploy(held, break_glass=True)
                assert (await robot.deploy(held)).who == "robot"
                for client, bytes_shown in ((bob, 0), (gate, 32)):
                    stream = client.watch_deployments()
                    keys = (await anext(stream)).keys
                    assert len(keys.prediction_id_key) == bytes_shown
                    assert len(keys.version_public_key) == 32
                    await stream.aclose()  # type: ignore[attr-defined]

    run_walk(story())


def test_a_stopping_registry_sends_watchers_away_and_a_dead_one_is_unavailable(
    tmp_path: Path,
) -> None:
    """Nobody hangs: the watch ends in an error that says to connect again."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            await house.put_in_production()
            address, client = house.address, RegistryClient(house.address, "dan")
            await client.__aenter__()
            stream = client.watch_deployments()
            await anext(stream)
            waiting: asyncio.Task[pb.DeploymentEvent] = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        with pytest.raises(RegistryUnavailableError, match="stopping"):
            await waiting
        with pytest.raises(RegistryUnavailableError):
            await client.deployment("churn")
        await client.__aexit__(None, None, None)
        with pytest.raises(RegistryUnavailableError, match="not open"):
            await RegistryClient(address, "dan").deployment("churn")

    run_walk(story())
