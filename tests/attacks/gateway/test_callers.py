"""F9, F4: a gateway with a callers file serves whom the file names, and no more than it says."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos.predict_pb2 import PredictRequest, Row
from tests.walks.identified_system import MODEL
from tests.walks.running_system import RunningSystem, turnout_up

pytestmark = pytest.mark.walk

CALLERS = """
[[callers]]
name = "crm"
token_sha256 = ["{crm}"]
models = ["{model}"]
rows_s = 5

[[callers]]
name = "old"
token_sha256 = ["{old}"]
expires = 2020-01-01T00:00:00Z
"""


@pytest.fixture(scope="module", params=["grpcio", "native"])
def guarded_system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningSystem]:
    """A running system whose gateway has a callers file, with either server."""
    folder: Path = tmp_path_factory.mktemp("callers")
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("crm", "old")}
    (folder / "callers.toml").write_text(CALLERS.format(model=MODEL, **digests))
    options = ("--callers", str(folder / "callers.toml"), "--ingress", str(request.param))
    with turnout_up(folder / "state", *options) as system:
        label = system.register(MODEL, folder / "files")
        system.approve(MODEL, label, "initial")
        system.deploy(MODEL, label)
        yield system


def predict(
    system: RunningSystem, token: str | None, model: str = MODEL, rows: int = 1
) -> tuple[grpc.StatusCode, str]:
    """Return code and message of one Predict."""
    message = PredictRequest(model=model, rows=[Row(keys=["S1"], inputs=[1, 2, 3])] * rows)
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(system.addresses.gateway) as channel:
        method = channel.unary_unary("/turnout.v1.Predictor/Predict")
        try:
            method(message.SerializeToString(), metadata=metadata, timeout=5.0)
        except grpc.RpcError as error:
            return error.code(), error.details()
    return grpc.StatusCode.OK, ""


@pytest.mark.attack("F9")
def test_stranger_is_not_served(guarded_system: RunningSystem) -> None:
    """A stranger calls without a token, with a wrong one, and with one that has expired."""
    answers = {predict(guarded_system, token) for token in (None, "wrong", "old")}
    assert len(answers) == 1
    assert answers.pop()[0] == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.attack("F9")
def test_caller_learns_nothing_of_other_models(guarded_system: RunningSystem) -> None:
    """A caller asks for models that are not its own."""
    answers = {predict(guarded_system, "crm", model) for model in ("ghost", "other")}
    assert len(answers) == 1
    assert answers.pop()[0] == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.attack("F16")
def test_caller_above_its_quota_waits(guarded_system: RunningSystem) -> None:
    """A caller sends twenty times the rows of its quota."""
    codes = [predict(guarded_system, "crm", rows=25)[0] for _ in range(8)]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
