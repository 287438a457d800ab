"""Writes a version as the folder that another server reads: plain ONNX, MLflow or Triton.

The ONNX file is the version's own, so the scores are the same bits. Each folder has `inputs.json`,
which says what each column of the matrix is, and `golden.npz` with rows and their scores.
"""

import json
import platform
from importlib.metadata import version
from typing import Any, Literal

from features.contract import ModelContract
from registry.bundle import Bundle

Form = Literal["onnx", "mlflow", "triton"]
TRITON_BATCH_MAX = 4_096
"""Most rows of one call to Triton."""


def serving_folder(form: Form, bundle: Bundle, golden: bytes) -> dict[str, bytes]:
    """Return the files of the folder by their paths in it.

    golden  the version's golden.npz.
    """
    described = json.dumps(describe_inputs(bundle), indent=2, ensure_ascii=False).encode() + b"\n"
    beside = {"inputs.json": described, "golden.npz": golden}
    if form == "onnx":
        return {"model.onnx": bundle.onnx, **beside}
    if form == "mlflow":
        return {"model.onnx": bundle.onnx, **beside, **_mlflow_files(bundle)}
    # Triton serves the folders below a repository, and each version is a folder with its number.
    folder = bundle.model
    return {
        f"{folder}/config.pbtxt": _triton_config(bundle),
        f"{folder}/1/model.onnx": bundle.onnx,
        **{f"{folder}/{name}": content for name, content in beside.items()},
    }


def describe_inputs(bundle: Bundle) -> dict[str, Any]:
    """Return tensor names, and name, kind and default of each column, as JSON values."""
    contract = bundle.contract
    return {
        "model": bundle.model,
        "version": bundle.digest,
        "input": {"name": "inputs", "type": "float32", "shape": ["rows", contract.width]},
        "output": {"name": "scores", "type": "float32", "columns": list(contract.outputs)},
        "columns": _columns(contract),
        "decision_threshold": bundle.reference.decision_threshold,
    }


def _columns(contract: ModelContract) -> list[dict[str, Any]]:
    """Return a description of each column. A category is its position in the dictionary."""
    described: dict[str, dict[str, Any]] = {}
    for use in contract.views:
        for index in use.columns:
            feature = use.view.features[index]
            name = f"{use.view.name}:{feature.name}"
            described[name] = {"dictionary": list(feature.dictionary), "default": feature.default}
    for item in contract.inputs:
        described[item.name] = {"dictionary": list(item.dictionary), "default": item.default}
    time: dict[str, Any] = {"dictionary": [], "default": None}
    return [
        {"column": column, "name": name, **described.get(name, time)}
        for column, name in enumerate(contract.names)
    ]


def _mlflow_files(bundle: Bundle) -> dict[str, bytes]:
    """Return MLmodel and its environment, as the flavour mlflow.onnx writes them."""
    # The signature: two tensors, as JSON in a string of YAML.
    tensors = {
        "inputs": ("inputs", bundle.contract.width),
        "outputs": ("scores", len(bundle.contract.outputs)),
    }
    signature = {
        key: json.dumps(
            [
                {
                    "name": name,
                    "type": "tensor",
                    "tensor-spec": {"dtype": "float32", "shape": [-1, width]},
                }
            ]
        )
        for key, (name, width) in tensors.items()
    }
    # The flavours: onnx, and python_function, which loads it.
    python = platform.python_version()
    lines = [
        "flavors:",
        "  onnx:",
        "    code: null",
        "    data: model.onnx",
        "    onnx_session_options: null",
        f"    onnx_version: {version('onnx')}",
        "    providers:",
        "    - CPUExecutionProvider",
        "  python_function:",
        "    data: model.onnx",
        "    env:",
        "      virtualenv: python_env.yaml",
        "    loader_module: mlflow.onnx",
        f"    python_version: {python}",
        f"model_uuid: {bundle.digest[:32]}",
        "signature:",
        f"  inputs: {json.dumps(signature['inputs'])}",
        f"  outputs: {json.dumps(signature['outputs'])}",
    ]
    # The environment has the packages that certified the version.
    requirements = [f"{name}=={version(name)}" for name in ("numpy", "onnx", "onnxruntime")]
    environment = [f"python: {python}", "dependencies:", "- -r requirements.txt"]
    return {
        "MLmodel": _text(lines),
        "requirements.txt": _text(["mlflow", *requirements]),
        "python_env.yaml": _text(environment),
    }


def _triton_config(bundle: Bundle) -> bytes:
    width, outputs = bundle.contract.width, len(bundle.contract.outputs)
    return _text(
        [
            f"name: {json.dumps(bundle.model)}",
            'backend: "onnxruntime"',
            f"max_batch_size: {TRITON_BATCH_MAX}",
            f'input [ {{ name: "inputs" data_type: TYPE_FP32 dims: [ {width} ] }} ]',
            f'output [ {{ name: "scores" data_type: TYPE_FP32 dims: [ {outputs} ] }} ]',
            "instance_group [ { kind: KIND_CPU } ]",
        ]
    )


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
