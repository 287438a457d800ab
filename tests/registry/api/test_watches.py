"""Tests of watch streams, leases, checkpoints, findings and tokens through gRPC."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.signed import open_deployment, read_deployment
from registry.types import (
    FencedError,
    NotAllowedError,
    NotFoundError,
    RegistryUnavailableError,
    RevisionConflictError,
    UnknownActorError,
)
from tests.access.identity_files import write_identities
from tests.registry.registry_fixture import registry_fixture, run_walk
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk


def test_watch_deployments_sends_a_snapshot_and_then_changes(tmp_path: Path) -> None:
    """The snapshot has the keys and all deployments. A signed change comes within a second."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            _, deployment = await registry.put_in_production()
            fresh = registry.bob.watch_deployments()
            event = await anext(fresh)
            assert event.snapshot_end
            assert [read_deployment(d).model for d in event.deployments] == ["churn"]
            assert len(event.keys.prediction_id_key) == len(event.keys.version_public_key) == 32

            public_key = event.keys.version_public_key

            waiting: asyncio.Task[pb.DeploymentEvent] = asyncio.create_task(anext(fresh))  # type: ignore[arg-type]
            loop = asyncio.get_running_loop()
            before = loop.time()
            written = await registry.cleo.deploy(
                replace(deployment, preload=("1",), why="keep it loaded")
            )
            event = await waiting
            assert loop.time() - before < 1.0
            (message,) = event.deployments
            assert open_deployment(message, public_key).deployment == written
            await fresh.aclose()  # type: ignore[attr-defined]

    run_walk(scenario())


def test_watch_states_reports_a_worker_whose_stream_ended(tmp_path: Path) -> None:
    """The last state is `disconnected`, and comes within 3 s."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            stream = registry.ann.watch_deployments("g", 3, 9)
            await anext(stream)
            await registry.ann.report_state(pb.GatewayState(gateway="g", slot=3, boot_id=9))
            states = registry.bob.watch_states()
            first = await anext(states)
            assert (first.slot, first.disconnected) == (3, False)
            await stream.aclose()  # type: ignore[attr-defined]
            last = await asyncio.wait_for(anext(states), 3)
            assert (last.slot, last.boot_id, last.disconnected) == (3, 9, True)
            await states.aclose()  # type: ignore[attr-defined]

    run_walk(scenario())


def test_lease_fences_a_controller_whose_lease_expired(tmp_path: Path) -> None:
    """Its old token can write neither deployments nor checkpoints."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            _, deployment = await registry.put_in_production()
            old_lease = await registry.ann.acquire_lease("rollout", "one", 1)
            with pytest.raises(FencedError, match="is 'one''s"):
                await registry.bob.acquire_lease("rollout", "two", 5)
            renewed = await registry.ann.acquire_lease("rollout", "one", 1, old_lease.token)
            assert renewed.token == old_lease.token
            new_lease = None
            while new_lease is None:  # until the first lease has run out
                with suppress(FencedError):
                    new_lease = await registry.bob.acquire_lease("rollout", "two", 30)
                await asyncio.sleep(0.02)
            assert new_lease.token > old_lease.token
            change = replace(deployment, preload=("1",), why="as I was saying")
            with pytest.raises(FencedError, match="fenced off"):
                await registry.ann.deploy(change, lease_token=old_lease.token)
            with pytest.raises(FencedError):
                await registry.ann.save_checkpoint(
                    pb.Checkpoint(rollout_id="r1", sequence=1, lease_token=old_lease.token)
                )
            written = await registry.bob.deploy(change, lease_token=new_lease.token)
            assert written.preload == ("1",)

    run_walk(scenario())


def test_checkpoint_refuses_an_older_sequence(tmp_path: Path) -> None:
    """The newest checkpoint survives a restart."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            with pytest.raises(NotFoundError):
                await registry.ann.load_checkpoint("r1")
            lease = await registry.ann.acquire_lease("rollout", "one", 30)

            async def save(sequence: int) -> None:
                await registry.ann.save_checkpoint(
                    pb.Checkpoint(
                        rollout_id="r1",
                        sequence=sequence,
                        state=b"%d" % sequence,
                        lease_token=lease.token,
                    )
                )

            for sequence in (1, 5, 5):
                await save(sequence)
            with pytest.raises(RevisionConflictError, match="has checkpoint 5"):
                await save(4)
        async with registry_fixture(tmp_path) as registry:
            assert (await registry.ann.load_checkpoint("r1")).state == b"5"

    run_walk(scenario())


def test_lease_is_proved_by_its_token_and_not_by_a_name(tmp_path: Path) -> None:
    """Neither history, checkpoints nor errors show the token, and the next one is no guess away."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            await registry.put_in_production()
            lease = await registry.ann.acquire_lease("rollout", "one", 30)
            # The holder's name gives nobody its lease, and a guessed token neither.
            with pytest.raises(FencedError, match="renew it with its token"):
                await registry.bob.acquire_lease("rollout", "one", 30)
            for guess in (1, 2, lease.token - 1, lease.token + 1):
                with pytest.raises(FencedError) as refused:
                    await registry.bob.acquire_lease("rollout", "one", 30, guess)
                assert str(lease.token) not in str(refused.value)
            # The true holder goes on.
            await registry.ann.save_checkpoint(
                pb.Checkpoint(rollout_id="r1", sequence=1, lease_token=lease.token)
            )
            assert (await registry.bob.load_checkpoint("r1")).lease_token == 0
            finding = pb.Finding(model="churn", kind="hold", text="PSI .4", lease_token=lease.token)
            assert (await registry.ann.write_finding(finding)).lease_token == 0
            # An auditor sees who took the lease, when, and which one it is.
            entry = (await registry.bob.history(object_prefix="lease/")).entries[0]
            assert (entry.actor, entry.after) == ("ann", '{"number":1}')
            entries = (await registry.bob.history()).entries
            assert not [e for e in entries if str(lease.token) in e.before + e.after + e.reason]

    run_walk(scenario())


def test_watch_findings_skips_no_finding(tmp_path: Path) -> None:
    """Old findings come first, then each new one. `findings` ends after the existing ones."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            finding = pb.Finding(model="churn", kind="hold", text="the PSI of tenure is .4")
            for _ in range(3):
                await registry.ann.write_finding(finding)
            stream = registry.bob.watch_findings(after=1)
            sequences = [(await anext(stream)).sequence for _ in range(2)]
            await asyncio.gather(*(registry.ann.write_finding(finding) for _ in range(20)))
            sequences += [(await anext(stream)).sequence for _ in range(20)]
            assert sequences == list(range(2, 24))
            existing = [finding.sequence async for finding in registry.bob.findings(after=20)]
            assert existing == [21, 22, 23]
            await stream.aclose()  # type: ignore[attr-defined]

    run_walk(scenario())


def test_registry_checks_the_roles_of_tokens(tmp_path: Path) -> None:
    """Approvers do not deploy, controllers do not break the glass, only gateways get the key."""
    identities = write_identities(
        tmp_path / "identities.json",
        ann=["author"],
        bob=["approver"],
        robot=["controller"],
        gate=["gateway"],
    )

    async def scenario() -> None:
        async with registry_fixture(tmp_path / "r", [identities]) as registry:
            with pytest.raises(UnknownActorError):
                await registry.ann.list_models()  # a name, and no token
            clients = [registry.client(n, f"{n}-token") for n in ("ann", "bob")]
            async with (
                clients[0] as ann,
                clients[1] as bob,
                registry.client("robot", "robot-token") as robot,
                registry.client("gate", "gate-token") as gate,
            ):
                # An author registers, an approver may not deploy, a controller may.
                version = await ann.register("churn", tiny_files())
                assert version.author == "ann"
                deployment = replace(await bob.deployment("churn"), preload=("1",), why="load it")
                with pytest.raises(NotAllowedError, match="'bob' is approver"):
                    await bob.deploy(deployment)
                with pytest.raises(NotAllowedError, match="breaks the glass"):
                    await robot.deploy(deployment, break_glass=True)
                # It may with its lease only, as with checkpoints and findings.
                with pytest.raises(FencedError, match="sent no lease token"):
                    await robot.deploy(deployment)
                finding = pb.Finding(model="churn", kind="hold", text="PSI .4")
                with pytest.raises(FencedError, match="sent no lease token"):
                    await robot.write_finding(finding)
                with pytest.raises(FencedError, match="is free"):
                    await robot.save_checkpoint(pb.Checkpoint(rollout_id="r1"))
                lease = await robot.acquire_lease("rollout", "robot-1", 30)
                written = await robot.deploy(deployment, lease_token=lease.token)
                assert written.who == "robot"
                finding.lease_token = lease.token
                assert (await robot.write_finding(finding)).who == "robot"
                # Only the gateway's token gets the key of prediction ids.
                for client, bytes_shown in ((bob, 0), (gate, 32)):
                    stream = client.watch_deployments()
                    keys = (await anext(stream)).keys
                    assert len(keys.prediction_id_key) == bytes_shown
                    assert len(keys.version_public_key) == 32
                    await stream.aclose()  # type: ignore[attr-defined]

    run_walk(scenario())


def test_registry_ends_watches_when_it_stops_and_is_unavailable_after(
    tmp_path: Path,
) -> None:
    """The watch ends with an error that says to connect again."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            await registry.put_in_production()
            address, client = registry.address, RegistryClient(registry.address, "dan")
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

    run_walk(scenario())
