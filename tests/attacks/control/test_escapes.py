"""F17: nobody sends control characters to the terminal or the log of another person."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from protos import registry_pb2 as pb
from protos import registry_pb2_grpc, rollout_pb2, rollout_pb2_grpc
from tests.walks.identified_system import MODEL, IdentifiedSystem

pytestmark = pytest.mark.walk

FORGED = "\x1b[31mforged\x1b[0m\nline2"
ESCAPED = r"\x1b[31mforged\x1b[0m\x0aline2"

Attack = tuple[str, Callable[[registry_pb2_grpc.RegistryStub], Callable[..., object]], object]

ATTACKS: dict[str, Attack] = {
    "reason of a status": (
        "alice",
        lambda stub: stub.SetStatus,
        pb.SetStatusRequest(model=MODEL, version="1", status=pb.ARCHIVED, reason=FORGED),
    ),
    "reason of an approval": (
        "bob",
        lambda stub: stub.Approve,
        pb.ApproveRequest(model=MODEL, version="1", policy_name="initial", reason=FORGED),
    ),
    "reason of a deployment": (
        "olga",
        lambda stub: stub.Deploy,
        pb.DeployRequest(deployment=pb.Deployment(model=MODEL, why="\u202egnihton")),
    ),
    "model of a finding": (
        "olga",
        lambda stub: stub.WriteFinding,
        pb.Finding(model="\x1b[2J", kind="note", text="nothing"),
    ),
    "holder of a lease": (
        "ctl",
        lambda stub: stub.AcquireLease,
        pb.LeaseRequest(name="other", holder="\x9b2J", seconds=1),
    ),
}


@pytest.mark.attack("F17")
@pytest.mark.parametrize("name", ATTACKS)
def test_control_characters_of_people_are_refused(
    attacked_system: IdentifiedSystem, name: str
) -> None:
    """Somebody writes escapes into a name or a reason."""
    who, method, request = ATTACKS[name]
    with attacked_system.system.registry_channel() as channel:
        registry = registry_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError, match="has the control character U") as refused:
            method(registry)(request, metadata=attacked_system.metadata(who))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.attack("F17")
def test_control_characters_of_rollout_reasons_are_refused(
    attacked_system: IdentifiedSystem,
) -> None:
    """An operator aborts a rollout with escapes in the reason."""
    with attacked_system.system.registry_channel() as channel:
        rollouts = rollout_pb2_grpc.RolloutsStub(channel)  # type: ignore[no-untyped-call]
        request = rollout_pb2.RolloutCommand(model=MODEL, reason=FORGED)
        with pytest.raises(grpc.RpcError, match="has the control character U") as refused:
            rollouts.Abort(request, metadata=attacked_system.metadata("olga"))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.attack("F17")
def test_finding_of_a_program_is_escaped(attacked_system: IdentifiedSystem) -> None:
    """A finding has escapes in its text; history, log and terminal show what it has."""
    with attacked_system.system.registry_channel() as channel:
        registry = registry_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]
        written = registry.WriteFinding(
            pb.Finding(model=MODEL, kind="note", text=FORGED),
            metadata=attacked_system.metadata("olga"),
        )
    assert written.text == ESCAPED
    newest = attacked_system.turnout("bob", "audit", "list")[-1]
    assert (newest["action"], newest["reason"]) == ("finding", ESCAPED)
    logs = Path(attacked_system.system.folder) / "logs"
    assert not [path for path in logs.iterdir() if b"\x1b[31mforged" in path.read_bytes()]
