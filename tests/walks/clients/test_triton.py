"""The gateway serves `tritonclient`: inference, metadata and errors."""

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
def triton_output(running_system: RunningSystem) -> Any:  # noqa: ANN401  any JSON
    """The JSON value that triton_caller.py prints, from one run."""
    line = [str(triton_python()), str(CALLER), running_system.addresses.gateway]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_triton_client_finds_server_and_model_live_and_ready(triton_output: dict[str, Any]) -> None:
    """Server, model and version are live and ready, and an unknown model is not ready."""
    assert [triton_output[name] for name in ("live", "ready", "model_ready", "version_ready")] == [
        True
    ] * 4
    assert triton_output["unknown_ready"] is False
    assert triton_output["server"]["name"] == "turnout"


def test_triton_client_reads_the_tensors_of_a_model(triton_output: dict[str, Any]) -> None:
    """Two input tensors and one output tensor, with their shapes."""
    model = triton_output["model"]
    assert (model["name"], model["versions"], model["platform"]) == ("tiny", ["1"], "turnout_onnx")
    assert model["inputs"] == [
        {"name": "keys", "datatype": "BYTES", "shape": ["-1", "1"]},
        {"name": "inputs", "datatype": "FP32", "shape": ["-1", "3"]},
    ]
    assert model["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": ["-1", "1"]}]


def test_triton_client_infers(triton_output: dict[str, Any]) -> None:
    """The weights .1, .2 and .3 give the scores. The reply has id, role, holdout, prediction_id."""
    two_rows = triton_output["two_rows"]
    assert [round(row[0], 4) for row in two_rows["scores"]] == [1.4, 3.2]
    assert (two_rows["version"], two_rows["id"], two_rows["role"]) == ("1", "r-1", "production")
    assert len(base64.b64decode(two_rows["prediction_id"])) == 64
    assert not two_rows.get("holdout", False)
    assert (
        triton_output["requested_output"]["scores"]
        == triton_output["sticky"]["scores"]
        == two_rows["scores"]
    )
    assert triton_output["pinned"]["role"] == "pinned"
    assert triton_output["large"] == 1_000


@pytest.mark.parametrize(
    ("case", "status", "text"),
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
    triton_output: dict[str, Any], case: str, status: str, text: str
) -> None:
    """The message names the tensor or parameter."""
    assert triton_output[case][0] == f"StatusCode.{status}", triton_output[case]
    assert text in triton_output[case][1]
