"""The server with which the gateway is compared: grpc.aio on uvloop, onnxruntime, redis-py.

    python -m benchmarks.serving.handwritten_server --model by_key=FILE --redis redis://127.0.0.1:6379

It is what a careful developer writes by hand. It answers the same Predict over the same rows of
the same store as the gateway, and does nothing else: no batches, split, evidence, journal,
prediction ids or limits. It prints its port. It is as fast as this form allows: hiredis parses the
replies, onnxruntime has one thread and runs on the event loop, and everything that can be allocated
once is allocated at the start.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import redis.asyncio
import uvloop
from numpy.typing import NDArray

from benchmarks.serving.bench_model import BY_TEXTS, FEATURES, VIEW
from host.onnx_runtime import onnxruntime
from protos import predict_pb2, predict_pb2_grpc

HEADER_BYTES = 32
KEY_SUFFIX = f"}}:{VIEW.name}@{VIEW.view_hash[:16]}"
VIEW_HASH = bytes.fromhex(VIEW.view_hash)[:8]
CODES = {
    column.name: {text: float(code) for code, text in enumerate(column.dictionary)}
    for column in BY_TEXTS.inputs
}
"""Input -> text -> code; no texts for a number."""
_runtime: Any = onnxruntime


class HandwrittenPredictor(predict_pb2_grpc.PredictorServicer):
    """Reads features, stacks them into a matrix, scores it and replies."""

    def __init__(self, models: dict[str, Path], store: redis.asyncio.Redis) -> None:
        options = _runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._sessions = {
            model: _runtime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
            for model, path in models.items()
        }
        self._store = store

    async def Predict(  # noqa: N802  gRPC's name
        self,
        request: predict_pb2.PredictRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> predict_pb2.PredictReply:
        """Score the rows of one call."""
        session = self._sessions.get(request.model)
        if session is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        if request.rows[0].named:
            matrix = np.array([encoded_row(row) for row in request.rows], dtype=np.float32)
        elif request.rows[0].inputs:
            matrix = np.array([row.inputs for row in request.rows], dtype=np.float32)
        else:
            matrix = await self._features([row.keys[0] for row in request.rows])
        scores = session.run(["scores"], {"inputs": matrix})[0]
        return predict_pb2.PredictReply(
            request_id=request.request_id,
            model=request.model,
            version="1",
            role=predict_pb2.PRODUCTION,
            scores=scores.ravel().tolist(),
            outputs=scores.shape[1],
        )

    async def _features(self, entities: list[str]) -> NDArray[np.float32]:
        """Return (rows, FEATURES) stored features; a row of zeros for an unknown entity."""
        keys = ["{" + entity + KEY_SUFFIX for entity in entities]
        if len(keys) == 1:
            stored = [await self._store.get(keys[0])]
        else:
            stored = await self._store.mget(keys)
        matrix = np.zeros((len(keys), FEATURES), dtype=np.float32)
        for row, value in enumerate(stored):
            if value is not None and value.startswith(VIEW_HASH):
                matrix[row] = np.frombuffer(value, "<f4", offset=HEADER_BYTES)
        return matrix


def encoded_row(row: predict_pb2.Row) -> list[float]:
    """Return the model inputs of a row whose inputs are named."""
    return [
        codes.get(row.named_text[name], float(len(codes))) if codes else row.named[name]
        for name, codes in CODES.items()
    ]


async def serve_handwritten(models: dict[str, Path], redis_url: str) -> None:
    """Serve on a free port until SIGTERM."""
    store = redis.asyncio.Redis.from_url(redis_url)
    server = grpc.aio.server()
    predict_pb2_grpc.add_PredictorServicer_to_server(  # type: ignore[no-untyped-call]
        HandwrittenPredictor(models, store), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await server.stop(1.0)
    await store.aclose()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--redis", required=True, metavar="URL")
    arguments = parser.parse_args()
    models = {name: Path(path) for name, _, path in (m.partition("=") for m in arguments.model)}
    uvloop.run(serve_handwritten(models, arguments.redis))


if __name__ == "__main__":
    main()
