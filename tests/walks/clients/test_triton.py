"""`tritonclient`, as its users have it, against the gateway: infers, reads metadata, is refused."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.walks.clients.triton_environment import triton_python
from tests.walks.running_system import RunningSystem

pytestmark = pytest.mark.walk

CALLER = Path(__file__).with_name("triton_caller.py")


@pytest.fixture(scope="module")
def triton_output(running_system: RunningSystem) -> Any:  # noqa: ANN401  what the caller printed
    """Everything asked once, by a process of its own."""
    line = [str(triton_python()), str(CALLER), running_system.addresses.gateway]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_triton_client_finds_server_and_model_live_and_ready(triton_output: dict[str, Any]) -> None:
    """Health, for server, model, version; a stranger is not ready."""
    assert [triton_output[name] for name in ("live", "ready", "model_ready", "version_ready")] == [
        True
    ] * 4
    assert triton_output["stranger_ready"] is False
    assert triton_output["server"]["name"] == "turnout"


def test_triton_client_reads_the_tensors_of_a_model(triton_output: dict[str, Any]) -> None:
    """Two tensors in, one out, with their widths."""
    model = triton_output["model"]
    assert (model["name"], model["versions"], model["platform"]) == ("tiny", ["1"], "turnout_onnx")
    assert model["inputs"] == [
        {"name": "keys", "datatype": "BYTES", "shape": ["-1", "1"]},
        {"name": "inputs", "datatype": "FP32", "shape": ["-1", "3"]},
    ]
    assert model["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": ["-1", "1"]}]


def test_triton_client_infers(triton_output: dict[str, Any]) -> None:
    """Scores by head (.1, .2, .3), in order; id echoed; role, holdout and a prediction_id."""
    two = triton_output["two_rows"]
    assert [round(row[0], 4) for row in two["scores"]] == [1.4, 3.2]
    assert (two["version"], two["id"], two["role"]) == ("1", "r-1", "production")
    assert len(base64.b64decode(two["prediction_id"])) == 64
    assert not two.get("holdout", False)
    assert (
        triton_output["asked_output"]["scores"]
        == triton_output["sticky"]["scores"]
        == two["scores"]
    )
    assert triton_output["pinned"]["role"] == "pinned"
    assert triton_output["large"] == 1_000


@pytest.mark.parametrize(
    ("case", "status", "words"),
    [
        ("unknown_model", "NOT_FOUND", "'fraud'"),
        ("unknown_version", "NOT_FOUND", "'99'"),
        ("missing_tensor", "INVALID_ARGUMENT", "'inputs' is not sent"),
        ("wrong_type", "INVALID_ARGUMENT", "'inputs' has datatype 'FP64'"),
        ("wrong_width", "INVALID_ARGUMENT", "'inputs'"),
        ("unknown_output", "INVALID_ARGUMENT", "'logits'"),
        ("classification", "INVALID_ARGUMENT", "'scores' has 1 parameters"),
        ("priority", "INVALID_ARGUMENT", "parameter 'priority'"),
        ("sequence", "INVALID_ARGUMENT", "parameter 'sequence_"),
    ],
)
def test_triton_client_gets_status_and_name_of_what_is_wrong(
    triton_output: dict[str, Any], case: str, status: str, words: str
) -> None:
    """The status, and the tensor by name."""
    assert triton_output[case][0] == f"StatusCode.{status}", triton_output[case]
    assert words in triton_output[case][1]
