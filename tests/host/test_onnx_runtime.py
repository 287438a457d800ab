"""ONNX Runtime tells its vendor nothing, and writes nothing into the user's home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.walk

SESSION = """
import onnx
from onnx import TensorProto, helper
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1])
graph = helper.make_graph(
    [helper.make_node("Identity", ["x"], ["y"])], "g", [value("x")], [value("y")]
)
model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
onnxruntime.InferenceSession(model.SerializeToString())
"""


def files_after(program: str, home: Path) -> list[str]:
    """Run a program with an empty home; return the files that it has then."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    subprocess.run([sys.executable, "-c", program + SESSION], env=environment, check=True)
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


def test_onnxruntime_makes_no_identity_of_the_machine(tmp_path: Path) -> None:
    """Its telemetry begins with a file in the home. The vendor's own import makes one."""
    ours, vendors = tmp_path / "ours", tmp_path / "vendors"
    ours.mkdir()
    vendors.mkdir()
    assert files_after("from host.onnx_runtime import onnxruntime\n", ours) == []
    assert files_after("import onnxruntime\n", vendors) != [], (
        "this release writes nothing by itself, so the test above shows nothing; "
        "find out what it does instead"
    )
