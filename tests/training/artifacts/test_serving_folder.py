"""Tests of folders for other servers: each is read back and gives the golden scores."""

import io
import json

import numpy as np
import pytest

from host.onnx_runtime import onnxruntime
from registry import bundle
from tests.tiny_models import tiny_contract, tiny_files
from training.artifacts.serving_folder import Form, serving_folder


@pytest.mark.parametrize(
    ("form", "model"),
    [("onnx", "model.onnx"), ("mlflow", "model.onnx"), ("triton", "churn/1/model.onnx")],
)
def test_serving_folder_gives_the_golden_scores(form: Form, model: str) -> None:
    """The graph in it scores golden.npz as certified, by the names that the folder gives."""
    files = tiny_files(contract=tiny_contract(3, ("a", "b")))
    sealed = bundle.seal_files(files, model="churn", author="ann", created_unix_ms=1)
    verified = bundle.verify_bundle(sealed, trusted_key=None)
    folder = serving_folder(form, verified, files["golden.npz"])

    named = {name.rpartition("/")[2]: content for name, content in folder.items()}
    described = json.loads(named["inputs.json"])
    session = onnxruntime.InferenceSession(folder[model], providers=["CPUExecutionProvider"])
    golden = np.load(io.BytesIO(named["golden.npz"]))
    scores = session.run(
        [described["output"]["name"]], {described["input"]["name"]: golden["inputs"]}
    )[0]
    np.testing.assert_allclose(scores, golden["outputs"], atol=1e-6)
    assert [column["name"] for column in described["columns"]] == ["f0", "f1", "f2"]
    assert described["output"]["columns"] == ["a", "b"]
    assert described["version"] == verified.digest


def test_serving_folder_of_mlflow_and_triton_state_shapes() -> None:
    """MLmodel is YAML of the flavour onnx; config.pbtxt has the dimensions without the batch."""
    files = tiny_files(contract=tiny_contract(3, ("a", "b")))
    sealed = bundle.seal_files(files, model="churn", author="ann", created_unix_ms=1)
    verified = bundle.verify_bundle(sealed, trusted_key=None)
    mlmodel = serving_folder("mlflow", verified, files["golden.npz"])["MLmodel"].decode()
    config = serving_folder("triton", verified, files["golden.npz"])["churn/config.pbtxt"].decode()

    assert "  onnx:\n    code: null\n    data: model.onnx\n" in mlmodel
    signature = mlmodel.split("  inputs: ")[1].splitlines()[0]
    assert json.loads(json.loads(signature))[0]["tensor-spec"] == {
        "dtype": "float32",
        "shape": [-1, 3],
    }
    assert 'name: "inputs" data_type: TYPE_FP32 dims: [ 3 ]' in config
    assert 'name: "scores" data_type: TYPE_FP32 dims: [ 2 ]' in config
