"""F2: who stands at the registry's address gets nothing, changes nothing, and leaves nothing."""

import asyncio
import json
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.peer_tls import ServerCertificate, add_port, make_certificate
from features.canonical import sha256_hex
from gateway.models.registry_trust import RegistryTrust
from gateway.models.registry_watch import RegistryWatch
from gateway.worker_identity import WorkerIdentity
from host.clock import SystemClock
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryServicer, add_RegistryServicer_to_server
from registry.bundle import seal_files, sign_manifest
from registry.chunks import file_chunks
from registry.signed import sign_deployment
from registry.types import Deployment
from tests.gateway.models.test_loader import GOOD, SIGNER, TRUSTED, LoaderFixture, digest_of
from tests.poll import wait_until
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.identified_system import MODEL, IdentifiedSystem, identified_system
from tests.walks.running_system import RunningSystem, poll_system_until, turnout_up

pytestmark = pytest.mark.walk

PEOPLE = {"alice": ["author"], "bob": ["approver"], "olga": ["operator"]}
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\x66" * 32)
STRANGERS_KEYS = pb.ServingKeys(
    prediction_id_key=bytes(32), version_public_key=STRANGER.public_key().public_bytes_raw()
)
FAR_REVISION = 10**9
KEY_CHANGED, DEPLOYMENT_REFUSED = pb.RegistryAlarm.KEY_CHANGED, pb.RegistryAlarm.DEPLOYMENT_REFUSED


def version_666() -> dict[str, bytes]:
    """Return the stranger's version, which scores the contrary, signed by the stranger."""
    files = tiny_files(MODEL, weights=-linear_weights(3))
    sealed = seal_files(files, model=MODEL, author="stranger", created_unix_ms=1)
    return {**sealed, "signature.json": sign_manifest(sealed["manifest.json"], STRANGER)}


def deployment_666(model: str = MODEL) -> Deployment:
    """Return the stranger's deployment, at a revision that no registry reaches."""
    digest = sha256_hex(version_666()["manifest.json"])
    return Deployment(
        model=model, revision=FAR_REVISION, production="666", digests=(("666", digest),), why="x"
    )


class FalseRegistry(RegistryServicer):
    """Keeps the metadata of every call, and hands out what the stranger wants."""

    def __init__(self, keys: pb.ServingKeys, *messages: pb.SignedDeployment) -> None:
        self.calls: list[dict[str, str]] = []
        self._event = pb.DeploymentEvent(keys=keys, deployments=messages, snapshot_end=True)
        self.reports: list[pb.GatewayState] = []

    def WatchDeployments(  # noqa: N802
        self, _request: pb.WatchDeploymentsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.DeploymentEvent]:
        """Send the stranger's keys and deployments."""
        self._note(context)
        yield self._event
        while context.is_active():
            time.sleep(0.05)

    def FetchVersion(  # noqa: N802
        self, _request: pb.VersionName, context: grpc.ServicerContext
    ) -> Iterator[pb.VersionChunk]:
        """Send the stranger's version."""
        self._note(context)
        yield from file_chunks(MODEL, version_666())

    def ReportState(  # noqa: N802
        self, request: pb.GatewayState, context: grpc.ServicerContext
    ) -> pb.Empty:
        """Keep what the worker reports."""
        self._note(context)
        self.reports.append(request)
        return pb.Empty()

    def _note(self, context: grpc.ServicerContext) -> None:
        self.calls.append({key: str(value) for key, value in context.invocation_metadata()})


@contextmanager
def false_registry(
    address: str,
    certificate: ServerCertificate | None,
    keys: pb.ServingKeys = STRANGERS_KEYS,
    message: pb.SignedDeployment | None = None,
) -> Iterator[tuple[FalseRegistry, int]]:
    """Serve a false registry; *address* may be in use until now. Yields it with its port."""
    servicer = FalseRegistry(keys, message or sign_deployment(deployment_666(), STRANGER).message)
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    add_RegistryServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

    def bound() -> int:
        with suppress(RuntimeError):
            return add_port(server, address, certificate)
        return 0

    port = poll_system_until(bound, 20.0, f"binding {address}")
    server.start()
    try:
        yield servicer, port
    finally:
        server.stop(None).wait()


def metrics_of_workers(system: RunningSystem, name: str, label: str) -> list[float]:
    """Return a metric of each worker, of the series with *label* in their labels."""
    token = Path(system.addresses.observe_token_file).read_text(encoding="ascii").strip()
    request = urllib.request.Request(
        system.addresses.metrics, headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request) as page:
        lines = page.read().decode().splitlines()
    return [
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(name + "{") and label in line
    ]


def answering_version(system: RunningSystem) -> str:
    """Return the version that answers a customer."""
    inputs = [word for name in ("f0", "f1", "f2") for word in ("--input", f"{name}=1")]
    reply = system.turnout("predict", MODEL, "S1", *inputs)
    version: str = reply["version"]
    return version


def wait_for_revision(system: RunningSystem, revision: int) -> None:
    """Return once every worker serves *revision*."""
    poll_system_until(
        lambda: (
            min(metrics_of_workers(system, "turnout_deployment_revision", MODEL), default=0)
            >= revision
        ),
        30.0,
        f"revision {revision}",
    )


def stand_at_the_port(
    system: RunningSystem, certificate: ServerCertificate | None
) -> FalseRegistry:
    """Kill control and serve a false registry there until every worker has tried to connect."""
    refusals = ("turnout_registry_refusals_total", "PEER_NOT_PROVEN")
    before = sum(metrics_of_workers(system, *refusals))
    control = json.loads((system.folder / "system.json").read_text())["children"]["control"]
    os.kill(control[0], signal.SIGKILL)
    with false_registry(system.addresses.registry, certificate) as (stranger, _):
        poll_system_until(
            lambda: sum(metrics_of_workers(system, *refusals)) >= before + 4,
            30.0,
            "handshakes refused",
        )
        assert answering_version(system) == "1"
    return stranger


def set_holdout(people: IdentifiedSystem, percent: str) -> int:
    """Deploy a small change that bob approved, once control answers; return its revision."""
    deployed: list[Any] = []

    def done() -> bool:
        with suppress(AssertionError):
            approval = ("splits", "approve", MODEL, "--holdout", percent, "--reason", "agreed")
            people.turnout("bob", *approval)
            line = ("splits", "set", MODEL, "--holdout", percent)
            deployed.append(people.turnout("olga", *line))
        return bool(deployed)

    poll_system_until(done, 40.0, "the registry is back")
    return int(deployed[0]["revision"])


@pytest.mark.attack("F2")
def test_stranger_at_the_port_of_a_killed_registry_gets_and_changes_nothing(
    tmp_path: Path,
) -> None:
    """A stranger binds the port of a killed registry, in plain text and with TLS of his own."""
    own = make_certificate(tmp_path / "stranger")
    with identified_system(
        tmp_path, PEOPLE, author="alice", approver="bob", operator="olga"
    ) as people:
        system = people.system
        assert answering_version(system) == "1"
        for percent, certificate in (("1", None), ("2", own)):
            stranger = stand_at_the_port(system, certificate)
            # He saw nothing, and the real registry goes on where it was.
            assert stranger.calls == []
            wait_for_revision(system, set_holdout(people, percent))
            poll_system_until(
                lambda: not any(metrics_of_workers(system, "turnout_registry_alarms", "kind=")),
                20.0,
                "no alarm",
            )
            assert answering_version(system) == "1"
    # He also wrote to the gateway's disk, in both formats. A full restart works.
    deployments = tmp_path / "state" / "gateway" / "deployments"
    message = sign_deployment(deployment_666(), STRANGER).message
    (deployments / f"{MODEL}.signed").write_bytes(message.SerializeToString())
    (deployments / f"{MODEL}.pb").write_bytes(deployment_666().to_proto().SerializeToString())
    with turnout_up(tmp_path / "state", "--identities", str(tmp_path / "people.json")) as system:
        assert answering_version(system) == "1"
        people = IdentifiedSystem(system, tmp_path / "tokens")
        wait_for_revision(system, set_holdout(people, "3"))
        assert answering_version(system) == "1"


async def watch_false_registry(
    folder: Path, keys: pb.ServingKeys, message: pb.SignedDeployment
) -> tuple[LoaderFixture, FalseRegistry, list[int]]:
    """Let a worker without TLS watch a false registry until it has reported its alarms.

    Returns its loader, the false registry, and the kinds of the alarms.
    """
    # The worker serves revision 1 of the true registry, whose key is pinned.
    gateway = LoaderFixture(folder, {digest_of(GOOD): GOOD})
    first = Deployment(model="churn", revision=1, production="1", digests=(("1", digest_of(GOOD)),))
    await gateway.deploy(first)
    trust = RegistryTrust(TRUSTED, gateway.disk, lambda _: None)
    accepted: list[pb.ServingKeys] = []
    with false_registry("127.0.0.1:0", None, keys, message) as (stranger, port):
        watch = RegistryWatch(
            f"127.0.0.1:{port}",
            None,
            None,
            WorkerIdentity("g", 0, 7, bytes(32)),
            trust,
            SystemClock(),
            accepted.append,
        )
        running = asyncio.create_task(watch.run(gateway.loader))
        await wait_until(lambda: any(state.alarms for state in stranger.reports), 20.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await gateway.loader.wait_settled()
    assert all(key.version_public_key == TRUSTED for key in accepted)
    return gateway, stranger, [alarm.kind for alarm in trust.alarms]


@pytest.mark.attack("F2")
@pytest.mark.parametrize("own_keys", [True, False], ids=["own keys", "the true public key"])
def test_false_registry_in_plain_text_deploys_nothing(own_keys: bool, tmp_path: Path) -> None:
    """A stranger is taken for the registry by a gateway without TLS, and deploys his version."""
    keys = pb.ServingKeys(prediction_id_key=bytes(32), version_public_key=TRUSTED)
    message = sign_deployment(deployment_666("churn"), STRANGER).message
    gateway, stranger, kinds = asyncio.run(
        watch_false_registry(tmp_path, STRANGERS_KEYS if own_keys else keys, message)
    )
    # Without a token: the true registry's answers are the only thing to steal.
    assert stranger.calls
    assert all("authorization" not in call for call in stranger.calls)
    expected = {KEY_CHANGED} if own_keys else {DEPLOYMENT_REFUSED}
    assert expected <= set(kinds)
    assert gateway.serves() == ("1", "")
    assert gateway.loader.targets["churn"].revision == 1


@pytest.mark.attack("F2")
def test_false_registry_cannot_move_a_signed_deployment_to_another_revision(
    tmp_path: Path,
) -> None:
    """A stranger replays what the registry has signed, with one byte changed."""
    keys = pb.ServingKeys(prediction_id_key=bytes(32), version_public_key=TRUSTED)
    second = Deployment(
        model="churn", revision=2, production="1", digests=(("1", digest_of(GOOD)),)
    )
    message = sign_deployment(second, SIGNER).message
    altered = message.content.replace(b"\x10\x02", b"\x10\x09")
    assert altered != message.content
    message = pb.SignedDeployment(content=altered, signature=message.signature)
    gateway, _, kinds = asyncio.run(watch_false_registry(tmp_path, keys, message))
    assert DEPLOYMENT_REFUSED in kinds
    assert gateway.loader.targets["churn"].revision == 1


@pytest.mark.attack("F2")
def test_registry_restored_from_an_older_copy_is_reported_and_has_a_way_out(
    tmp_path: Path,
) -> None:
    """An older copy of the registry is put in place: an alarm, and `splits republish` ends it."""
    folder, identities = tmp_path / "state", str(tmp_path / "people.json")
    with identified_system(tmp_path, PEOPLE, author="alice", approver="bob", operator="olga"):
        pass
    shutil.copytree(folder / "registry", tmp_path / "copy")
    # Three changes after the copy.
    with turnout_up(folder, "--identities", identities) as system:
        people = IdentifiedSystem(system, tmp_path / "tokens")
        newest = [set_holdout(people, percent) for percent in ("1", "2", "3")][-1]
        wait_for_revision(system, newest)
    shutil.rmtree(folder / "registry")
    shutil.copytree(tmp_path / "copy", folder / "registry")
    with turnout_up(folder, "--identities", identities) as system:
        people = IdentifiedSystem(system, tmp_path / "tokens")
        # It serves on what it has, and says so where an operator looks.
        alarms = poll_system_until(
            lambda: people.turnout("olga", "splits", "show", MODEL)["alarms"], 20.0, "an alarm"
        )
        assert f"revision {newest} " in alarms[0]
        assert f"turnout splits republish {MODEL}" in alarms[0]
        assert answering_version(system) == "1"
        # The way out.
        written = people.turnout("olga", "splits", "republish", MODEL, "--reason", "restored")
        assert written["revision"] == newest + 1
        wait_for_revision(system, newest + 1)
        poll_system_until(
            lambda: not people.turnout("olga", "splits", "show", MODEL)["alarms"],
            20.0,
            "no alarm",
        )
        assert answering_version(system) == "1"
