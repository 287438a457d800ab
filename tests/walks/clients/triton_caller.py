"""Calls the gateway with tritonclient and prints the results as one JSON value.

`python triton_caller.py HOST:PORT`; test_triton.py runs it in the environment with tritonclient.
"""

# ruff: noqa: ANN401  tritonclient has no types

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def tensors(keys: list[list[str]], inputs: list[list[float]] | None) -> list[Any]:
    """Return the tensors `keys` and, unless *inputs* is None, `inputs`; both are sent raw."""
    ids = np.array([[key.encode() for key in row] for row in keys], dtype=object)
    tensors_to_send = [triton.InferInput("keys", list(ids.shape), "BYTES")]
    tensors_to_send[0].set_data_from_numpy(ids)
    if inputs is not None:
        values = np.array(inputs, dtype=np.float32)
        tensors_to_send.append(triton.InferInput("inputs", list(values.shape), "FP32"))
        tensors_to_send[1].set_data_from_numpy(values)
    return tensors_to_send


def infer_answer(client: Any, model: str, **options: Any) -> dict[str, Any]:
    """Infer; return the scores, version, id and parameters of the reply."""
    keys, inputs = options.pop("keys"), options.pop("inputs", None)
    result = client.infer(model, tensors(keys, inputs), client_timeout=5.0, **options)
    reply = result.get_response(as_json=True)
    parameters = {name: next(iter(value.values())) for name, value in reply["parameters"].items()}
    return {
        "scores": result.as_numpy("scores").tolist(),
        "version": reply["model_version"],
        "id": reply.get("id", ""),
        **parameters,
    }


def infer_refusal(client: Any, model: str, tensors_to_send: list[Any], **options: Any) -> list[str]:
    """Send a bad request; return its status and message."""
    try:
        client.infer(model, tensors_to_send, client_timeout=5.0, **options)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["answered", ""]


def main() -> None:
    """Make each call once and print the results."""
    client = triton.InferenceServerClient(sys.argv[1])
    good = {"keys": [["S1"], ["S2"]], "inputs": [[1, 2, 3], [4, 5, 6]]}
    one_row = tensors([["S1"]], [[1, 2, 3]])
    wrong_type = triton.InferInput("inputs", [1, 3], "FP64")
    wrong_type.set_data_from_numpy(np.ones((1, 3)))
    results = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("tiny"),
        "version_ready": client.is_model_ready("tiny", "1"),
        "unknown_ready": client.is_model_ready("fraud"),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata("tiny", as_json=True),
        "two_rows": infer_answer(client, "tiny", request_id="r-1", **good),
        "requested_output": infer_answer(
            client, "tiny", outputs=[triton.InferRequestedOutput("scores")], **good
        ),
        "pinned": infer_answer(client, "tiny", model_version="1", **good),
        "sticky": infer_answer(client, "tiny", parameters={"sticky_key": "household 9"}, **good),
        "large": len(
            infer_answer(
                client,
                "tiny",
                keys=[[f"S{n:07d}" + "x" * 100] for n in range(1_000)],
                inputs=[[1, 2, 3]] * 1_000,
            )["scores"]
        ),
        "unknown_model": infer_refusal(client, "fraud", one_row),
        "unknown_version": infer_refusal(client, "tiny", one_row, model_version="99"),
        "missing_tensor": infer_refusal(client, "tiny", one_row[:1]),
        "wrong_type": infer_refusal(client, "tiny", [one_row[0], wrong_type]),
        "wrong_width": infer_refusal(client, "tiny", tensors([["S1"]], [[1, 2]])),
        "unknown_output": infer_refusal(
            client, "tiny", one_row, outputs=[triton.InferRequestedOutput("logits")]
        ),
        "classification": infer_refusal(
            client, "tiny", one_row, outputs=[triton.InferRequestedOutput("scores", class_count=3)]
        ),
        "priority": infer_refusal(client, "tiny", one_row, priority=3),
        "sequence": infer_refusal(client, "tiny", one_row, sequence_id=7),
    }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
