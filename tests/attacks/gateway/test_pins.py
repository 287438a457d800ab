"""F4: a pin reaches no version that nobody approved, and none that ends workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from protos import open_inference_pb2, open_inference_pb2_grpc, predict_pb2, predict_pb2_grpc
from tests.attacks.conftest import PEOPLE
from tests.fatal_models import crashing_files
from tests.front_doors import INGRESSES
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.identified_system import MODEL, IdentifiedSystem, identified_system
from tests.walks.models.test_isolation import on_x86
from tests.walks.running_system import poll_system_until

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module", params=INGRESSES)
def pinned_system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IdentifiedSystem]:
    """A system with each server."""
    folder, options = tmp_path_factory.mktemp("pinned"), ("--ingress", request.param)
    roles = {"author": "alice", "approver": "bob", "operator": "olga"}
    with identified_system(folder, PEOPLE, **roles, options=options) as system:
        yield system


def predict(address: str, version: str, first: float = 1.0) -> str:
    """Pin *version* as a stranger; return the role of the reply, or the status and its message."""
    row = predict_pb2.Row(keys=["S1"], inputs=[first, 0, 0])
    request = predict_pb2.PredictRequest(model=MODEL, version=version, rows=[row])
    with grpc.insecure_channel(address) as channel:
        try:
            stub = predict_pb2_grpc.PredictorStub(channel)  # type: ignore[no-untyped-call]
            return predict_pb2.Role.Name(stub.Predict(request, timeout=10).role)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"


def infer(address: str, version: str) -> str:
    """Pin *version* over the Open Inference Protocol."""
    request = open_inference_pb2.ModelInferRequest(model_name=MODEL, model_version=version)
    keys = request.inputs.add(name="keys", datatype="BYTES", shape=[1, 1])
    keys.contents.bytes_contents.append(b"S1")
    inputs = request.inputs.add(name="inputs", datatype="FP32", shape=[1, 3])
    inputs.contents.fp32_contents.extend([1, 0, 0])
    with grpc.insecure_channel(address) as channel:
        try:
            stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
            reply = stub.ModelInfer(request, timeout=10)
            return str(reply.parameters["role"].string_param)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"


@contextmanager
def shadowed(system: IdentifiedSystem, label: str) -> Iterator[None]:
    """Shadow 1 basis point of the production calls, which needs no approval."""

    def applied() -> bool:
        try:
            line = ("splits", "set", MODEL, "--shadow", f"{label}=0.01", "--reason", "a look")
            system.turnout("olga", *line)
        except AssertionError:
            return False
        return True

    system.turnout("olga", "splits", "preload", MODEL, label, "--reason", "a look")
    poll_system_until(applied, 30, f"version {label} is a shadow")
    try:
        yield
    finally:
        system.turnout("olga", "splits", "set", MODEL, "--shadow", "none", "--reason", "enough")


def refusal_of(version: str) -> str:
    """Return what every pin without an answer is told."""
    return (
        f"NOT_FOUND: version '{version}' of model '{MODEL}' answers no pinned call; production, "
        "standby and canary do, and DescribeModel lists them"
    )


@pytest.mark.attack("F4")
def test_shadow_answers_no_pin(pinned_system: IdentifiedSystem, tmp_path: Path) -> None:
    """A stranger pins a shadow, which nobody has approved."""
    files = tiny_files(MODEL, weights=-linear_weights(3))
    label = pinned_system.register("alice", tmp_path / "files", files)
    address = pinned_system.system.addresses.gateway
    with shadowed(pinned_system, label):
        # It is refused as a version that does not exist, by label and by role.
        for version in (label, "shadow", "99"):
            assert predict(address, version) == refusal_of(version)
            assert infer(address, version) == refusal_of(version)
        assert predict(address, "1") == "PINNED"
        assert infer(address, "1") == "pinned"


@on_x86
@pytest.mark.attack("F4")
def test_pinned_shadow_ends_no_worker(pinned_system: IdentifiedSystem, tmp_path: Path) -> None:
    """A stranger pins a shadow that ends the process that scores it."""
    label = pinned_system.register("alice", tmp_path / "files", crashing_files(when=5.0))
    system = pinned_system.system
    before = {row["pid"] for row in system.workers()}
    with shadowed(pinned_system, label):
        for _ in range(5):
            assert predict(system.addresses.gateway, label, first=9.0) == refusal_of(label)
        assert {row["pid"] for row in system.workers()} == before
        assert predict(system.addresses.gateway, "", first=9.0) == "PRODUCTION"
