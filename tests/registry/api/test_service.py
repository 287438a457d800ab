"""Tests of the registry through real gRPC and SQLite: versions, approvals and deployments."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from features.canonical import canonical_json, sha256_hex
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


def test_registry_moves_a_version_from_registration_to_the_end_of_its_watch(tmp_path: Path) -> None:
    """The history has an entry for each change."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            # Register version 2, and preload it.
            first_version, deployment = await registry.put_in_production()
            second_version = await registry.register(2)
            assert second_version.status == pb.DEVELOPMENT
            deployment = await registry.cleo.deploy(
                replace(deployment, preload=("2",), why="load it")
            )
            assert (await registry.cleo.get_version("churn", "2")).status == pb.STAGING
            # Approve it, and make it the canary.
            await registry.report_ready(first_version, second_version)
            approval = await registry.approve(second_version, direct=True)
            canary = replace(
                deployment,
                preload=(),
                canary="2",
                canary_bp=500,
                approval_id=approval.id,
                why="try it",
            )
            deployment = await registry.cleo.deploy(canary, policy_digest=POLICY)
            # Promote it, with version 1 as the standby of the watch.
            watch = replace(
                deployment,
                canary="",
                canary_bp=0,
                production="2",
                standby="1",
                standby_bp=300,
                why="up",
            )
            deployment = await registry.cleo.deploy(watch, policy_digest=POLICY)
            first = await registry.cleo.get_version("churn", first_version.digest)
            assert (first.status, first.standby) == (pb.PRODUCTION_STATUS, True)
            # End the watch.
            deployment = await registry.cleo.deploy(
                replace(deployment, standby="", standby_bp=0, why="well")
            )
            assert (await registry.cleo.get_version("churn", "1")).status == pb.ARCHIVED
            assert deployment.digests == (("2", second_version.digest),)

            # The history has each step, and its hash chain is unbroken.
            report = await registry.bob.audit()
            assert report.intact, report
            entries = (await registry.bob.history(object_prefix="model/churn/deployment")).entries
            assert [entry.reason for entry in entries] == [
                "the first one", "load it", "try it", "up", "well",
            ]  # fmt: skip
            assert {entry.actor for entry in entries} == {"cleo"}
            assert report.head.seq == 15  # 2 registered, 2 approved, 5 deployed, 6 statuses moved

    run_walk(scenario())


def test_deploy_lets_exactly_one_of_eight_writers_win_a_revision(tmp_path: Path) -> None:
    """Losers get RevisionConflictError, and the history stays valid."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            _, deployment = await registry.put_in_production()
            wins: list[int] = []
            losses = 0

            # Each writer reads the deployment and writes it back changed, 15 times.
            async def writer(number: int) -> None:
                nonlocal losses
                async with RegistryClient(registry.address, f"writer-{number}") as client:
                    for _ in range(15):
                        current = await client.deployment("churn")
                        try:
                            written = await client.deploy(
                                replace(current, standby_bp=0, why=f"writer {number}")
                            )
                        except RevisionConflictError:
                            losses += 1
                        else:
                            assert written.revision == current.revision + 1
                            wins.append(written.revision)

            await asyncio.gather(*(writer(number) for number in range(8)))

            # Each revision was written once, and every attempt either won or lost.
            assert sorted(wins) == list(
                range(deployment.revision + 1, deployment.revision + 1 + len(wins))
            )
            assert len(wins) + losses == 120
            assert losses > 0
            assert (await registry.cleo.deployment("churn")).revision == max(wins)
            assert (await registry.cleo.audit()).intact

    run_walk(scenario())


def test_approve_refuses_the_author_and_a_rejection_revokes(tmp_path: Path) -> None:
    """Breaking the glass deploys without a valid approval, and is in the history."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            first_version, deployment = await registry.put_in_production()
            second_version = await registry.register(2)
            await registry.ann.set_status("churn", "2", pb.STAGING, "it was tried")
            await registry.report_ready(first_version, second_version)
            with pytest.raises(GateError, match="two people stand for every version"):
                await registry.ann.approve("churn", "2", "careful", POLICY, "", "I am sure")
            approval = await registry.approve(second_version)
            canary = replace(
                deployment, canary="2", canary_bp=100, approval_id=approval.id, why="try it"
            )
            rejection = await registry.bob.reject("churn", "2", "no", "careful", POLICY)
            assert (list(rejection.ended), rejection.stopped_revision) == ([approval.id], 0)
            with pytest.raises(GateError, match="is no longer valid"):
                await registry.cleo.deploy(canary, policy_digest=POLICY)

            assert [a.rejected for a in await registry.bob.approvals("churn", "2")] == [False, True]

            written = await registry.cleo.deploy(canary, break_glass=True)
            assert written.canary == "2"
            newest = (await registry.bob.history()).entries
            assert "deploy BREAK GLASS" in [entry.action for entry in newest]

    run_walk(scenario())


def test_approve_requires_the_shift_of_the_card(tmp_path: Path) -> None:
    """Another digest, or none, is refused."""
    shift = "5f" * 32

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            files = tiny_files(card={"expected_shift": {"digest": shift}})
            await registry.ann.register("churn", files)
            for accepted in ("", "60" * 32):
                with pytest.raises(GateError, match="expected to shift scores"):
                    await registry.bob.approve("churn", "1", "careful", POLICY, accepted, "fine")
            approval = await registry.bob.approve("churn", "1", "careful", POLICY, shift, "fine")
            assert approval.accepted_shift == shift

    run_walk(scenario())


def test_approve_requires_the_sections_that_the_digest_was_made_of(tmp_path: Path) -> None:
    """A card whose fairness report was changed afterwards is refused."""
    shift = "5f" * 32
    fairness = {"p:senior": {"verdict": "outside band"}}
    sections = {"fairness": sha256_hex(canonical_json(fairness))}

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            expected = {"digest": shift, "sections": sections}
            for shown in (fairness, {"p:senior": {"verdict": "within band"}}):
                card = {"expected_shift": expected, "fairness": shown}
                await registry.ann.register("churn", tiny_files(card=card))
            await registry.bob.approve("churn", "1", "careful", POLICY, shift, "fine")
            with pytest.raises(GateError, match="'fairness' in the card of version 2 is not what"):
                await registry.bob.approve("churn", "2", "careful", POLICY, shift, "fine")

    run_walk(scenario())


def test_register_never_reuses_a_label(tmp_path: Path) -> None:
    """Equal manifests are one version. Eight registrations at once get eight labels."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            sealed = bundle.seal_files(tiny_files(), model="churn", author="ann", created_unix_ms=5)
            first = await registry.ann.register("churn", sealed)
            again = await registry.ann.register("churn", sealed)
            assert first == again
            other_files = bundle.seal_files(
                tiny_files(), model="churn", author="ann", created_unix_ms=6
            )
            repeated = await asyncio.gather(
                *(registry.ann.register("churn", other_files) for _ in range(6))
            )
            assert {version.label for version in repeated} == {"2"}
            labelled = await asyncio.gather(*(registry.register(number) for number in range(2, 10)))
            assert sorted(int(version.label) for version in labelled) == list(range(3, 11))
            await registry.ann.set_status("churn", "10", pb.ARCHIVED, "a mistake")
            assert (await registry.register(11)).label == "11"
            assert [v.label for v in await registry.bob.list_versions("churn")] == [
                str(n) for n in range(1, 12)
            ]
            fetched = await registry.bob.fetch("churn", first.digest)
            proved = bundle.verify_bundle(fetched, trusted_key=None, expected_digest=first.digest)
            assert proved.author == "ann"

    run_walk(scenario())


def test_register_refuses_a_bad_version_and_leaves_nothing(tmp_path: Path) -> None:
    """Altered files, wrong golden rows, another author and another model are refused."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            sealed = bundle.seal_files(tiny_files(), model="churn", author="ann", created_unix_ms=5)
            wrong_golden = {**tiny_files(golden_rows=8)}
            wrong_golden["golden.npz"] = tiny_files(weights=linear_weights(3) * 2)["golden.npz"]
            with pytest.raises(VersionRefusedError, match=r"card\.json was changed|card\.json has"):
                await registry.ann.register("churn", {**sealed, "card.json": b"{}"})
            with pytest.raises(VersionRefusedError, match="golden row"):
                await registry.ann.register("churn", wrong_golden)
            with pytest.raises(BadRequestError, match="must register their own"):
                await registry.bob.register("churn", sealed)
            with pytest.raises(BadRequestError, match="was sent as 'fraud'"):
                await registry.ann.register("fraud", sealed)
            with pytest.raises(BadRequestError, match="only the registry writes"):
                await registry.ann.register("churn", {**sealed, "signature.json": b"{}"})
            assert await registry.ann.list_models() == []
            assert (await registry.ann.history()).head.seq == 0
            assert list((tmp_path / "versions").iterdir()) == []

    run_walk(scenario())


def test_fetch_refuses_a_version_altered_on_disk(tmp_path: Path) -> None:
    """The message names the altered file."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            version = await registry.register()
            path = tmp_path / "versions" / version.digest / "model.onnx"
            path.write_bytes(path.read_bytes()[:-1] + b"!")
            with pytest.raises(VersionRefusedError, match=r"model\.onnx was changed"):
                await registry.bob.fetch("churn", "1")

    run_walk(scenario())


def test_registry_names_the_problem_of_a_wrong_request(tmp_path: Path) -> None:
    """Unknown versions, another holdout salt, too many preloads and no reason are refused."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            _, deployment = await registry.put_in_production()
            # Deployments that are refused.
            for change, kind, message in (
                ({"preload": ("99",), "why": "x"}, NotFoundError, "no version '99'"),
                ({"holdout_salt": b"x" * 16, "why": "x"}, BadRequestError, "permanent"),
                (
                    {"preload": tuple("1" * n for n in range(1, 18)), "why": "x"},
                    BadRequestError,
                    "preload has 17 items",
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
                with pytest.raises(kind, match=message):
                    await registry.cleo.deploy(replace(deployment, **change))
            # Models and versions that do not exist, and a status that only a deployment sets.
            for model, version in (("unregistered", "1"), ("churn", "2"), ("churn", "0" * 64)):
                with pytest.raises(NotFoundError):
                    await registry.cleo.get_version(model, version)
            with pytest.raises(BadRequestError, match="neither a label"):
                await registry.cleo.get_version("churn", "../1")
            with pytest.raises(NotFoundError, match="was ever registered"):
                await registry.cleo.deployment("unregistered")
            with pytest.raises(GateError, match="only a deployment moves it"):
                await registry.cleo.set_status("churn", "1", pb.ARCHIVED, "away")
            assert (await registry.cleo.deployment("churn")) == deployment

    run_walk(scenario())


def test_deploy_refuses_shares_above_all_traffic_on_the_server(tmp_path: Path) -> None:
    """Clients that do not check get INVALID_ARGUMENT and the name of the error."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            await registry.put_in_production()
            deployment = pb.Deployment(model="churn", revision=1, why="more than all")
            request = pb.DeployRequest(deployment=deployment)
            request.deployment.canary.version = "1"
            request.deployment.canary.share_bp = 10_001
            metadata = (("x-turnout-actor", "eve"),)
            async with grpc.aio.insecure_channel(registry.address) as channel:
                call: Any = channel.unary_unary(f"/{SERVICE.full_name}/Deploy")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(request.SerializeToString(), metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            trailing = dict(tuple(caught.value.trailing_metadata() or ()))
            assert trailing[ERROR_METADATA_KEY] == DeploymentError.__name__

    run_walk(scenario())


async def send_rubbish(channel: Any, method: Any, path: str, metadata: Any) -> None:  # noqa: ANN401
    """Send two bytes that are no protobuf to an RPC of any kind."""
    rubbish = b"\xff\xff"
    if method.client_streaming:
        await channel.stream_unary(path)(iter([rubbish]), metadata=metadata)
    elif method.server_streaming:
        await channel.unary_stream(path)(rubbish, metadata=metadata).read()
    else:
        await channel.unary_unary(path)(rubbish, metadata=metadata)


def test_registry_answers_invalid_argument_to_bytes_that_do_not_parse(tmp_path: Path) -> None:
    """Every RPC is tried, with and without a name. No reply has a traceback."""

    async def scenario() -> None:
        async with (
            registry_fixture(tmp_path) as registry,
            grpc.aio.insecure_channel(registry.address) as channel,
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

    run_walk(scenario())


def test_deploy_writes_a_revision_above_those_of_the_workers(tmp_path: Path) -> None:
    """A registry behind its gateways passes them; a claim that cannot be true changes nothing."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            _, deployment = await registry.put_in_production()
            state = pb.GatewayState(gateway="g", slot=0, boot_id=7)
            # One worker serves revision 11, another one has 12 and could not load it.
            state.applied["churn"] = 11
            await registry.cleo.report_state(state)
            alarm = pb.RegistryAlarm(kind="REVISION_BEHIND", model="churn", revision=12)
            other = pb.GatewayState(gateway="g", slot=1, boot_id=8, alarms=[alarm])
            await registry.cleo.report_state(other)
            states = [state async for state in registry.cleo.states()]
            assert [list(state.alarms) for state in states] == [[], [alarm]]
            written = await registry.cleo.deploy(replace(deployment, why="published again"))
            assert written == replace(
                deployment, revision=13, why="published again", at_unix_ns=written.at_unix_ns
            )
            # A false gateway would use up the numbers.
            other.alarms[0].revision = 2**63
            await registry.cleo.report_state(other)
            later = await registry.cleo.deploy(replace(written, why="once more"))
            assert later.revision == 14

    run_walk(scenario())
