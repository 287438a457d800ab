"""The registry over real gRPC and SQLite: who may, what is written, who is told."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import registry_pb2 as pb
from registry import bundle
from registry.api.rpc import SERVICE
from registry.client import RegistryClient
from registry.status import ERROR_METADATA_KEY
from registry.types import (
    BadRequestError,
    DeploymentError,
    GateError,
    NotFoundError,
    RevisionConflictError,
    VersionRefusedError,
)
from tests.registry.registry_fixture import POLICY, registry_fixture, run_walk
from tests.tiny_models import linear_weights, tiny_files

pytestmark = pytest.mark.walk


def test_a_version_from_registration_to_the_end_of_its_watch(tmp_path: Path) -> None:
    """Development, staging, canary, production with standby, alone; the history tells it all."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            one, held = await house.put_in_production()
            two = await house.register(2)
            assert two.status == pb.DEVELOPMENT
            held = await house.cleo.deploy(replace(held, preload=("2",), why="load it"))
            assert (await house.cleo.get_version("churn", "2")).status == pb.STAGING
            await house.report_ready(one, two)
            approval = await house.approve(two)
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

    run_walk(story())


def test_of_eight_writers_exactly_one_wins_each_revision(tmp_path: Path) -> None:
    """Each revision has one winner; losers are told the newest; the chain verifies."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            _, held = await house.put_in_production()
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

    run_walk(story())


def test_the_author_does_not_approve_and_a_rejection_revokes(tmp_path: Path) -> None:
    """Four eyes; the approval a deployment names must still stand."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            one, held = await house.put_in_production()
            two = await house.register(2)
            await house.ann.set_status("churn", "2", pb.STAGING, "it was tried")
            await house.report_ready(one, two)
            with pytest.raises(GateError, match="two people stand for every version"):
                await house.ann.approve("churn", "2", "careful", POLICY, "", "I am sure")
            approval = await house.approve(two)
            canary = replace(held, canary="2", canary_bp=100, approval_id=approval.id, why="try it")
            await house.bob.approve("churn", "2", "careful", POLICY, "", "no", reject=True)
            with pytest.raises(GateError, match="does not stand"):
                await house.cleo.deploy(canary, policy_digest=POLICY)

            assert [a.rejected for a in await house.bob.approvals("churn", "2")] == [False, True]

            written = await house.cleo.deploy(canary, break_glass=True)
            assert written.canary == "2"
            newest = (await house.bob.history()).entries
            assert "deploy BREAK GLASS" in [entry.action for entry in newest]

    run_walk(story())


def test_an_approver_accepts_the_shift_that_the_card_tells_of(tmp_path: Path) -> None:
    """Not an older one, and not none."""
    shift = "5f" * 32

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            files = tiny_files(card={"expected_shift": {"digest": shift}})
            await house.ann.register("churn", files)
            for accepted in ("", "60" * 32):
                with pytest.raises(GateError, match="expected to shift scores"):
                    await house.bob.approve("churn", "1", "careful", POLICY, accepted, "fine")
            approval = await house.bob.approve("churn", "1", "careful", POLICY, shift, "fine")
            assert approval.accepted_shift == shift

    run_walk(story())


def test_versions_never_change_and_labels_are_never_reused(tmp_path: Path) -> None:
    """The same manifest is the same version; eight at once get eight labels."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            sealed = bundle.seal_files(tiny_files(), model="churn", author="ann", created_unix_ms=5)
            first = await house.ann.register("churn", sealed)
            again = await house.ann.register("churn", sealed)
            assert first == again
            others = bundle.seal_files(tiny_files(), model="churn", author="ann", created_unix_ms=6)
            same = await asyncio.gather(*(house.ann.register("churn", others) for _ in range(6)))
            assert {version.label for version in same} == {"2"}
            many = await asyncio.gather(*(house.register(number) for number in range(2, 10)))
            assert sorted(int(version.label) for version in many) == list(range(3, 11))
            await house.ann.set_status("churn", "10", pb.ARCHIVED, "a mistake")
            assert (await house.register(11)).label == "11"
            assert [v.label for v in await house.bob.list_versions("churn")] == [
                str(n) for n in range(1, 12)
            ]
            fetched = await house.bob.fetch("churn", first.digest)
            proved = bundle.verify_bundle(fetched, trusted_key=None, expected_digest=first.digest)
            assert proved.author == "ann"

    run_walk(story())


def test_a_bad_version_is_refused_at_the_door_and_leaves_nothing(tmp_path: Path) -> None:
    """Altered, off its golden rows, somebody else's, another model's."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            sealed = bundle.seal_files(tiny_files(), model="churn", author="ann", created_unix_ms=5)
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

    run_walk(story())


def test_a_version_altered_on_the_registrys_disk_is_not_handed_out(tmp_path: Path) -> None:
    """Signed, stored, spoiled: refused by name."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            version = await house.register()
            path = tmp_path / "versions" / version.digest / "model.onnx"
            path.write_bytes(path.read_bytes()[:-1] + b"!")
            with pytest.raises(VersionRefusedError, match=r"model\.onnx was changed"):
                await house.bob.fetch("churn", "1")

    run_walk(story())


def test_what_contradicts_itself_or_does_not_exist_is_said_in_words(tmp_path: Path) -> None:
    """Shares beyond all, strangers, a holdout salt of one's own, no reason."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            _, held = await house.put_in_production()
            for change, kind, words in (
                ({"preload": ("99",), "why": "x"}, NotFoundError, "no version '99'"),
                ({"holdout_salt": b"x" * 16, "why": "x"}, BadRequestError, "permanent"),
                (
                    {"preload": tuple("1" * n for n in range(1, 18)), "why": "x"},
                    BadRequestError,
                    "17 preloaded",
                ),
                (
                    {"policy": pb.ServingPolicy(default_score=float("nan")), "why": "x"},
                    BadRequestError,
                    r"policy\.default_score is nan",
                ),
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

    run_walk(story())


def test_shares_beyond_all_are_refused_by_the_server_too(tmp_path: Path) -> None:
    """Whoever writes their own client gets INVALID_ARGUMENT and the error's name."""

    async def story() -> None:
        async with registry_fixture(tmp_path) as house:
            await house.put_in_production()
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
            assert trailing[ERROR_METADATA_KEY] == DeploymentError.__name__

    run_walk(story())


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
        async with (
            registry_fixture(tmp_path) as house,
            grpc.aio.insecure_channel(house.address) as channel,
        ):
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

    run_walk(story())
