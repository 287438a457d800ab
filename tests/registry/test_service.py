"""The registry over real gRPC and SQLite: who may, what is written, who is told."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import registry_pb2 as pb
from registry import bundle
from registry.client import RegistryClient
from registry.rpc import SERVICE
from registry.status import ERROR_NAME
from registry.types import (
    BadRequestError,
    Deployment,
    DeploymentError,
    FencedError,
    GateError,
    NotAllowedError,
    NotFoundError,
    RegistryUnavailableError,
    RevisionConflictError,
    UnknownActorError,
    VersionRefusedError,
)
from tests.models import linear_weights, tiny_files
from tests.registry.running import POLICY, running
from tests.registry.test_access import identities

pytestmark = pytest.mark.walk


def walk(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it; nothing here may take longer than 20 s."""
    asyncio.run(asyncio.wait_for(coroutine, 20))


def test_a_version_from_registration_to_the_end_of_its_watch(tmp_path: Path) -> None:
    """Development, staging, canary, production with standby, alone; the history tells it all."""

    async def story() -> None:
        async with running(tmp_path) as house:
            one, held = await house.in_production()
            two = await house.register(2)
            assert two.status == pb.DEVELOPMENT
            held = await house.cleo.deploy(replace(held, preload=("2",), why="load it"))
            assert (await house.cleo.get_version("churn", "2")).status == pb.STAGING
            await house.ready(one, two)
            approval = await house.approved(two)
            canary = replace(
                held, preload=(), canary="2", canary_bp=500, approval_id=approval.id, why="try it"
            )
            held = await house.cleo.deploy(canary, policy_digest=POLICY)
            watch = replace(
                held, canary="", canary_bp=0, production="2", standby="1", standby_bp=300, why="up"
            )
            held = await house.cleo.deploy(watch, policy_digest=POLICY)
            first = await house.cleo.get_version("churn", one.digest)
            assert (first.status, first.standby) == (pb.PRODUCTION_STATUS, True)
            held = await house.cleo.deploy(replace(held, standby="", standby_bp=0, why="well"))
            assert (await house.cleo.get_version("churn", "1")).status == pb.ARCHIVED
            assert held.digests == (("2", two.digest),)

            head, broken = await house.bob.audit()
            assert broken is None
            entries = (await house.bob.history(object_prefix="model/churn/deployment")).entries
            assert [entry.reason for entry in entries] == [
                "the first one", "load it", "try it", "up", "well",
            ]  # fmt: skip
            assert {entry.actor for entry in entries} == {"cleo"}
            assert head.seq == 15  # 2 registered, 2 approved, 5 deployed, 6 statuses moved

    walk(story())


def test_of_eight_writers_exactly_one_wins_each_revision(tmp_path: Path) -> None:
    """Each revision has one winner; losers are told the newest; the chain verifies."""

    async def story() -> None:
        async with running(tmp_path) as house:
            _, held = await house.in_production()
            wins: list[int] = []
            losses = 0

            async def writer(number: int) -> None:
                nonlocal losses
                async with RegistryClient(house.address, f"writer-{number}") as client:
                    for _ in range(15):
                        mine = await client.deployment("churn")
                        try:
                            written = await client.deploy(
                                replace(mine, holdout_bp=number, why=f"writer {number}")
                            )
                        except RevisionConflictError:
                            losses += 1
                        else:
                            assert written.revision == mine.revision + 1
                            wins.append(written.revision)

            await asyncio.gather(*(writer(number) for number in range(8)))

            assert sorted(wins) == list(range(held.revision + 1, held.revision + 1 + len(wins)))
            assert len(wins) + losses == 120
            assert losses > 0
            assert (await house.cleo.deployment("churn")).revision == max(wins)
            assert (await house.cleo.audit())[1] is None

    walk(story())


def test_the_author_does_not_approve_and_a_rejection_revokes(tmp_path: Path) -> None:
    """Four eyes; the approval a deployment names must still stand."""

    async def story() -> None:
        async with running(tmp_path) as house:
            one, held = await house.in_production()
            two = await house.register(2)
            await house.ann.set_status("churn", "2", pb.STAGING, "it was tried")
            await house.ready(one, two)
            with pytest.raises(GateError, match="two people stand for every version"):
                await house.ann.approve("churn", "2", "careful", POLICY, "", "I am sure")
            approval = await house.approved(two)
            canary = replace(held, canary="2", canary_bp=100, approval_id=approval.id, why="try it")
            await house.bob.approve("churn", "2", "careful", POLICY, "", "no", reject=True)
            with pytest.raises(GateError, match="does not stand"):
                await house.cleo.deploy(canary, policy_digest=POLICY)

            assert [a.rejected for a in await house.bob.approvals("churn", "2")] == [False, True]

            written = await house.cleo.deploy(canary, break_glass=True)
            assert written.canary == "2"
            newest = (await house.bob.history()).entries
            assert "deploy BREAK GLASS" in [entry.action for entry in newest]

    walk(story())


def test_an_approver_accepts_the_shift_that_the_card_tells_of(tmp_path: Path) -> None:
    """Not an older one, and not none."""
    shift = "5f" * 32

    async def story() -> None:
        async with running(tmp_path) as house:
            files = tiny_files(card={"expected_shift": {"digest": shift}})
            await house.ann.register("churn", files)
            for accepted in ("", "60" * 32):
                with pytest.raises(GateError, match="expected to shift scores"):
                    await house.bob.approve("churn", "1", "careful", POLICY, accepted, "fine")
            approval = await house.bob.approve("churn", "1", "careful", POLICY, shift, "fine")
            assert approval.accepted_shift == shift

    walk(story())


def test_versions_never_change_and_labels_are_never_reused(tmp_path: Path) -> None:
    """The same manifest is the same version; eight at once get eight labels."""

    async def story() -> None:
        async with running(tmp_path) as house:
            sealed = bundle.seal(tiny_files(), model="churn", author="ann", created_unix_ms=5)
            first = await house.ann.register("churn", sealed)
            again = await house.ann.register("churn", sealed)
            assert first == again
            many = await asyncio.gather(*(house.register(number) for number in range(2, 10)))
            assert sorted(int(version.label) for version in many) == list(range(2, 10))
            await house.ann.set_status("churn", "9", pb.ARCHIVED, "a mistake")
            assert (await house.register(11)).label == "10"
            assert [v.label for v in await house.bob.list_versions("churn")] == [
                str(n) for n in range(1, 11)
            ]
            fetched = await house.bob.fetch("churn", first.digest)
            proved = bundle.verify(fetched, trusted_key=None, expected_digest=first.digest)
            assert proved.author == "ann"

    walk(story())


def test_a_bad_version_is_refused_at_the_door_and_leaves_nothing(tmp_path: Path) -> None:
    """Altered, off its golden rows, somebody else's, another model's."""

    async def story() -> None:
        async with running(tmp_path) as house:
            sealed = bundle.seal(tiny_files(), model="churn", author="ann", created_unix_ms=5)
            wrong_golden = {**tiny_files(golden_rows=8)}
            wrong_golden["golden.npz"] = tiny_files(weights=linear_weights(3) * 2)["golden.npz"]
            with pytest.raises(VersionRefusedError, match=r"card\.json was changed|card\.json has"):
                await house.ann.register("churn", {**sealed, "card.json": b"{}"})
            with pytest.raises(VersionRefusedError, match="golden row"):
                await house.ann.register("churn", wrong_golden)
            with pytest.raises(BadRequestError, match="registers his or her own"):
                await house.bob.register("churn", sealed)
            with pytest.raises(BadRequestError, match="was sent as 'fraud'"):
                await house.ann.register("fraud", sealed)
            with pytest.raises(BadRequestError, match="the registry's to write"):
                await house.ann.register("churn", {**sealed, "signature.json": b"{}"})
            assert await house.ann.list_models() == []
            assert (await house.ann.history()).head.seq == 0
            assert list((tmp_path / "versions").iterdir()) == []

    walk(story())


def test_a_version_altered_on_the_registrys_disk_is_not_handed_out(tmp_path: Path) -> None:
    """Signed, stored, spoiled: refused by name."""

    async def story() -> None:
        async with running(tmp_path) as house:
            version = await house.register()
            path = tmp_path / "versions" / version.digest / "model.onnx"
            path.write_bytes(path.read_bytes()[:-1] + b"!")
            with pytest.raises(VersionRefusedError, match=r"model\.onnx was changed"):
                await house.bob.fetch("churn", "1")

    walk(story())


def test_what_contradicts_itself_or_does_not_exist_is_said_in_words(tmp_path: Path) -> None:
    """Shares beyond all, strangers, a holdout salt of one's own, no reason."""

    async def story() -> None:
        async with running(tmp_path) as house:
            _, held = await house.in_production()
            for change, kind, words in (
                ({"preload": ("99",), "why": "x"}, NotFoundError, "no version '99'"),
                ({"holdout_salt": b"x" * 16, "why": "x"}, BadRequestError, "permanent"),
                ({"why": " "}, BadRequestError, "needs a reason"),
                ({"production": "", "why": "x"}, BadRequestError, "not take it away"),
                ({"revision": 0, "why": "x"}, RevisionConflictError, "from revision 0"),
            ):
                with pytest.raises(kind, match=words):
                    await house.cleo.deploy(replace(held, **change))
            for model, version in (("nobody", "1"), ("churn", "2"), ("churn", "0" * 64)):
                with pytest.raises(NotFoundError):
                    await house.cleo.get_version(model, version)
            with pytest.raises(BadRequestError, match="neither a label"):
                await house.cleo.get_version("churn", "../1")
            with pytest.raises(NotFoundError, match="was ever registered"):
                await house.cleo.deployment("nobody")
            with pytest.raises(GateError, match="only a deployment moves it"):
                await house.cleo.set_status("churn", "1", pb.ARCHIVED, "away")
            assert (await house.cleo.deployment("churn")) == held

    walk(story())


def test_shares_beyond_all_are_refused_by_the_server_too(tmp_path: Path) -> None:
    """Whoever writes their own client gets INVALID_ARGUMENT and the error's name."""

    async def story() -> None:
        async with running(tmp_path) as house:
            await house.in_production()
            wish = pb.DeployRequest(deployment=pb.Deployment(model="churn", revision=1))
            wish.deployment.canary.version = "1"
            wish.deployment.canary.share_bp = 10_001
            metadata = (("x-turnout-actor", "eve"),)
            async with grpc.aio.insecure_channel(house.address) as channel:
                call: Any = channel.unary_unary(f"/{SERVICE.full_name}/Deploy")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(wish.SerializeToString(), metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            trailing = dict(tuple(caught.value.trailing_metadata() or ()))
            assert trailing[ERROR_NAME] == DeploymentError.__name__

    walk(story())


async def send_rubbish(channel: Any, method: Any, path: str, metadata: Any) -> None:  # noqa: ANN401
    """Two bytes that are no protobuf, whatever the kind of RPC."""
    rubbish = b"\xff\xff"
    if method.client_streaming:
        await channel.stream_unary(path)(iter([rubbish]), metadata=metadata)
    elif method.server_streaming:
        await channel.unary_stream(path)(rubbish, metadata=metadata).read()
    else:
        await channel.unary_unary(path)(rubbish, metadata=metadata)


def test_bad_bytes_are_invalid_argument_and_no_name_is_unauthenticated(tmp_path: Path) -> None:
    """For every RPC of the service, streams included; nothing of ours leaks."""

    async def story() -> None:
        async with running(tmp_path) as house, grpc.aio.insecure_channel(house.address) as channel:
            for method in SERVICE.methods:
                path = f"/{SERVICE.full_name}/{method.name}"
                for metadata, codes in (
                    ((("x-turnout-actor", "eve"),), {"INVALID_ARGUMENT"}),
                    ((), {"INVALID_ARGUMENT", "UNAUTHENTICATED"}),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await send_rubbish(channel, method, path, metadata)
                    assert caught.value.code().name in codes, method.name
                    assert "Traceback" not in (caught.value.details() or "")

    walk(story())


def test_watchers_get_a_snapshot_then_each_change_at_once(tmp_path: Path) -> None:
    """Only what is newer than held; keys in the first event; within 100 ms of the write."""

    async def story() -> None:
        async with running(tmp_path) as house:
            _, held = await house.in_production()
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

    walk(story())


def test_a_worker_is_gone_when_its_stream_ends(tmp_path: Path) -> None:
    """Watchers of states are told within a second; then it counts for no gate."""

    async def story() -> None:
        async with running(tmp_path) as house:
            stream = house.ann.watch_deployments("g", 3, 9)
            await anext(stream)
            await house.ann.report_state(pb.GatewayState(gateway="g", slot=3, boot_id=9))
            states = house.bob.watch_states()
            first = await anext(states)
            assert (first.slot, first.gone) == (3, False)
            await stream.aclose()  # type: ignore[attr-defined]
            last = await asyncio.wait_for(anext(states), 3)
            assert (last.slot, last.boot_id, last.gone) == (3, 9, True)
            await states.aclose()  # type: ignore[attr-defined]

    walk(story())


def test_a_paused_controller_is_fenced(tmp_path: Path) -> None:
    """The older token writes neither deployments nor checkpoints once another took over."""

    async def story() -> None:
        async with running(tmp_path) as house:
            _, held = await house.in_production()
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

    walk(story())


def test_checkpoints_only_move_forward(tmp_path: Path) -> None:
    """The newest is kept, an older one refused, and it survives a restart."""

    async def story() -> None:
        async with running(tmp_path) as house:
            with pytest.raises(NotFoundError):
                await house.ann.load_checkpoint("r1")
            for sequence in (1, 5, 5):
                await house.ann.save_checkpoint(
                    pb.Checkpoint(rollout_id="r1", sequence=sequence, state=b"%d" % sequence)
                )
            with pytest.raises(RevisionConflictError, match="has checkpoint 5"):
                await house.ann.save_checkpoint(pb.Checkpoint(rollout_id="r1", sequence=4))
        async with running(tmp_path) as house:
            assert (await house.ann.load_checkpoint("r1")).state == b"5"

    walk(story())


def test_no_finding_is_skipped(tmp_path: Path) -> None:
    """Old ones first, then each new one, numbered without gaps."""

    async def story() -> None:
        async with running(tmp_path) as house:
            finding = pb.Finding(model="churn", kind="hold", text="the PSI of tenure is .4")
            for _ in range(3):
                await house.ann.write_finding(finding)
            stream = house.bob.watch_findings(after=1)
            seen = [(await anext(stream)).sequence for _ in range(2)]
            await asyncio.gather(*(house.ann.write_finding(finding) for _ in range(20)))
            seen += [(await anext(stream)).sequence for _ in range(20)]
            assert seen == list(range(2, 24))
            await stream.aclose()  # type: ignore[attr-defined]

    walk(story())


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
        async with running(tmp_path / "r", people) as house:
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

    walk(story())


def test_a_stopping_registry_sends_watchers_away_and_a_dead_one_is_unavailable(
    tmp_path: Path,
) -> None:
    """Nobody hangs: the watch ends in an error that says to connect again."""

    async def story() -> None:
        async with running(tmp_path) as house:
            await house.in_production()
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

    walk(story())
