"""F7, F14: nobody fills the history, a list, or the memory of control with one text."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from access.bounds import MESSAGE_BYTES_MAX
from host.processes import rss_bytes
from protos import registry_pb2 as pb
from protos import registry_pb2_grpc, rollout_pb2, rollout_pb2_grpc
from registry.bundle import seal_files
from registry.chunks import file_chunks
from tests.tiny_models import tiny_files
from tests.walks.identified_system import MODEL, IdentifiedSystem

pytestmark = pytest.mark.walk

MIB = 2**20


def control_pid(system: IdentifiedSystem) -> int:
    """Return the process id of registry and rollout controller."""
    return system.system.addresses.children["control"][0]


@contextlib.contextmanager
def registry_of(system: IdentifiedSystem) -> Iterator[Any]:
    """Yield a stub of the registry."""
    with system.system.registry_channel() as channel:
        yield registry_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Return the status and the words with which *call* is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value.code(), refused.value.details()


def assert_still_readable(system: IdentifiedSystem) -> None:
    """Everybody reads the history and the list of versions, and the audit passes."""
    assert system.turnout("bob", "audit", "verify")["intact"]
    assert system.turnout("bob", "audit", "list")
    assert system.turnout("bob", "versions", "list", MODEL)


@pytest.mark.attack("F7")
@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_reason_of_35_mib_is_refused(
    attacked_system: IdentifiedSystem, compression: grpc.Compression | None
) -> None:
    """An author gives reasons of 35 MiB, so that the history cannot be read any more."""
    before = rss_bytes(control_pid(attacked_system))
    with registry_of(attacked_system) as registry:
        # gRPC counts the message, also while it inflates it.
        for _ in range(2):
            request = pb.SetStatusRequest(
                model=MODEL, version="1", status=pb.ARCHIVED, reason="A" * (35 * MIB)
            )
            code, words = refusal(
                lambda: registry.SetStatus(
                    request,  # noqa: B023  called at once
                    metadata=attacked_system.metadata("alice"),
                    compression=compression,
                )
            )
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in words
        # What fits into a message is counted by the field.
        request.reason = "A" * MIB
        assert refusal(
            lambda: registry.SetStatus(request, metadata=attacked_system.metadata("alice"))
        ) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "SetStatusRequest.reason has 1048576 bytes; the most is 4096",
        )
        # No reason is refused as well.
        request.reason = " "
        _, words = refusal(
            lambda: registry.SetStatus(request, metadata=attacked_system.metadata("alice"))
        )
        assert words.startswith("SetStatusRequest.reason is empty")
    assert rss_bytes(control_pid(attacked_system)) - before < 64 * MIB
    assert_still_readable(attacked_system)


@pytest.mark.attack("F7")
def test_rollout_id_of_15_mib_is_refused(attacked_system: IdentifiedSystem) -> None:
    """An operator deploys with a rollout id of 15 MiB, for every watcher and twice an entry."""
    with registry_of(attacked_system) as registry:
        operator = {"metadata": attacked_system.metadata("olga")}
        deployment = registry.GetDeployment(pb.ModelName(model=MODEL), **operator)
        deployment.why = "because"
        deployment.rollout_id = "A" * (15 * MIB)
        request = pb.DeployRequest(deployment=deployment)
        code, _ = refusal(lambda: registry.Deploy(request, **operator))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        request.deployment.rollout_id = "A" * MIB
        assert refusal(lambda: registry.Deploy(request, **operator)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "Deployment.rollout_id has 1048576 bytes; the most is 128",
        )
    assert_still_readable(attacked_system)


@pytest.mark.attack("F7")
@pytest.mark.parametrize("megabytes", [30, 60])
def test_card_of_30_and_60_mb_is_refused(attacked_system: IdentifiedSystem, megabytes: int) -> None:
    """An author registers cards of 30 and 60 MB, so that versions cannot be listed."""
    card = b'{"note": "%s"}' % (b"A" * (megabytes * 10**6))
    files = seal_files(
        tiny_files(MODEL) | {"card.json": card}, model=MODEL, author="alice", created_unix_ms=1
    )
    with registry_of(attacked_system) as registry:
        code, words = refusal(
            lambda: registry.RegisterVersion(
                file_chunks(MODEL, files), metadata=attacked_system.metadata("alice")
            )
        )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert words.startswith("card.json has")
    assert_still_readable(attacked_system)


@pytest.mark.attack("F7")
def test_state_of_39_mib_is_refused(attacked_system: IdentifiedSystem) -> None:
    """A gateway reports a load state of 39 MiB, for every watcher."""
    state = pb.GatewayState(gateway="gw2", boot_id=1)
    state.loads.add(model=MODEL, version="9", digest="9" * 64, reason="A" * (39 * MIB))
    with registry_of(attacked_system) as registry:
        gateway = {"metadata": attacked_system.metadata("gw2")}
        code, _ = refusal(lambda: registry.ReportState(state, **gateway))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.attack("F7")
def test_checkpoint_of_40_mib_is_refused(attacked_system: IdentifiedSystem) -> None:
    """A controller stores a checkpoint of 40 MiB, whole and in chunks."""
    with registry_of(attacked_system) as registry:
        controller = {"metadata": attacked_system.metadata("ctl")}
        chunk = pb.MessageChunk(content=bytes(40 * MIB))
        code, _ = refusal(lambda: registry.SaveCheckpoint(iter([chunk]), **controller))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        chunk = pb.MessageChunk(content=bytes(MIB))
        code, words = refusal(lambda: registry.SaveCheckpoint(iter([chunk] * 40), **controller))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "33554432 bytes" in words


@pytest.mark.attack("F14")
def test_bodies_of_strangers_cost_no_memory(attacked_system: IdentifiedSystem) -> None:
    """Twenty strangers send 39 MiB each at once."""
    pid = control_pid(attacked_system)
    before = rss_bytes(pid)
    request = pb.SetStatusRequest(model=MODEL, version="1", reason="A" * (39 * MIB))
    with registry_of(attacked_system) as registry:
        calls = [registry.SetStatus.future(request) for _ in range(20)]
        codes = {call.exception().code() for call in calls}
    assert codes <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED}
    # One message of the old size would be more than this.
    assert rss_bytes(pid) - before < 8 * MESSAGE_BYTES_MAX
    assert_still_readable(attacked_system)


@pytest.mark.attack("F7")
def test_reason_of_a_rollout_command_is_bounded(attacked_system: IdentifiedSystem) -> None:
    """An operator gives a command with a reason of 1 MiB."""
    with attacked_system.system.registry_channel() as channel:
        rollouts = rollout_pb2_grpc.RolloutsStub(channel)  # type: ignore[no-untyped-call]
        request = rollout_pb2.RolloutCommand(model=MODEL, reason="A" * MIB)
        assert refusal(
            lambda: rollouts.Abort(request, metadata=attacked_system.metadata("olga"))
        ) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "RolloutCommand.reason has 1048576 bytes; the most is 1024",
        )
