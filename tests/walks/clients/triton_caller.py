"""What a team with Triton clients would run against the gateway; prints one JSON value.

Run by test_triton.py in an environment of its own: `python triton_caller.py HOST:PORT`.
"""

# ruff: noqa: ANN401  tritonclient has no types

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def tensors(keys: list[list[str]], inputs: list[list[float]] | None) -> list[Any]:
    """`keys` and, where the model takes any, `inputs`; tritonclient sends both raw."""
    ids = np.array([[key.encode() for key in row] for row in keys], dtype=object)
    made = [triton.InferInput("keys", list(ids.shape), "BYTES")]
    made[0].set_data_from_numpy(ids)
    if inputs is not None:
        values = np.array(inputs, dtype=np.float32)
        made.append(triton.InferInput("inputs", list(values.shape), "FP32"))
        made[1].set_data_from_numpy(values)
    return made


def infer_answer(client: Any, model: str, **asked: Any) -> dict[str, Any]:
    """Infer; the scores and everything the reply says besides."""
    keys, inputs = asked.pop("keys"), asked.pop("inputs", None)
    result = client.infer(model, tensors(keys, inputs), client_timeout=5.0, **asked)
    reply = result.get_response(as_json=True)
    parameters = {name: next(iter(said.values())) for name, said in reply["parameters"].items()}
    return {
        "scores": result.as_numpy("scores").tolist(),
        "version": reply["model_version"],
        "id": reply.get("id", ""),
        **parameters,
    }


def infer_refusal(client: Any, model: str, made: list[Any], **asked: Any) -> list[str]:
    """Infer something bad; (status, words)."""
    try:
        client.infer(model, made, client_timeout=5.0, **asked)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["answered", ""]


def main() -> None:
    """Ask everything once."""
    client = triton.InferenceServerClient(sys.argv[1])
    good = {"keys": [["S1"], ["S2"]], "inputs": [[1, 2, 3], [4, 5, 6]]}
    one = tensors([["S1"]], [[1, 2, 3]])
    wrong = triton.InferInput("inputs", [1, 3], "FP64")
    wrong.set_data_from_numpy(np.ones((1, 3)))
    said = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("tiny"),
        "version_ready": client.is_model_ready("tiny", "1"),
        "stranger_ready": client.is_model_ready("fraud"),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata("tiny", as_json=True),
        "two_rows": infer_answer(client, "tiny", request_id="r-1", **good),
        "asked_output": infer_answer(
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
        "unknown_model": infer_refusal(client, "fraud", one),
        "unknown_version": infer_refusal(client, "tiny", one, model_version="99"),
        "missing_tensor": infer_refusal(client, "tiny", one[:1]),
        "wrong_type": infer_refusal(client, "tiny", [one[0], wrong]),
        "wrong_width": infer_refusal(client, "tiny", tensors([["S1"]], [[1, 2]])),
        "unknown_output": infer_refusal(
            client, "tiny", one, outputs=[triton.InferRequestedOutput("logits")]
        ),
        "classification": infer_refusal(
            client, "tiny", one, outputs=[triton.InferRequestedOutput("scores", class_count=3)]
        ),
        "priority": infer_refusal(client, "tiny", one, priority=3),
        "sequence": infer_refusal(client, "tiny", one, sequence_id=7),
    }
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
