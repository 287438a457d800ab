"""Measures the CPU time of the predict pipeline alone: columns in, columns out.

    python -m benchmarks.micro.pipeline_cpu                  # half a minute; prints a table
    python -m benchmarks.micro.pipeline_cpu --only by_key

It measures batches, not the pass over many models, which needs a server (gateway.predict.turns).
There is no ingress, store, disk or shadow process. The fastest of several turns counts, so that a
busy machine disturbs little. The rest of a call's cost is in the ingress (HTTP/2, gRPC, decoding),
the store's connection and the journal's thread.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.gateway_folder import read_deployments
from benchmarks.serving.bench_model import (
    FEATURES,
    USUAL_MODELS,
    VIEW,
    BenchModel,
    entity_id,
)
from benchmarks.serving.workloads import BY_KEY, IN_REQUEST, ON_DEMAND, ROLLING
from features.rows import ViewRows
from gateway.build import Surroundings, build_serving_parts
from gateway.columns import Calls, Replies
from gateway.internal_error_log import InternalErrorLog
from gateway.methods.idempotency_keys import IdempotencyKeys
from gateway.models.disk_cache import DiskCache
from gateway.models.executor import Scored
from gateway.models.loader import verify_and_open
from gateway.models.routes import LoadedVersion, build_routes
from gateway.predict.pipeline import BatchSlot
from gateway.settings import Settings
from gateway.shadow.protocol import encode_copy
from gateway.shadow.shadow_process import ShadowExecutor
from gateway.shadow.shadows import Shadows
from gateway.worker_identity import WorkerIdentity
from host.clock import SystemClock

ENTITIES = 20_000
TURNS = 6
CALLS_PER_TURN = 10_000
SHAPES = (
    (IN_REQUEST, 16, 1),
    (IN_REQUEST, 64, 1),
    (IN_REQUEST, 256, 1),
    (IN_REQUEST, 8, 64),
    (BY_KEY, 32, 1),
    (BY_KEY, 64, 1),
    (BY_KEY, 256, 1),
    (BY_KEY, 8, 64),
    (ON_DEMAND, 32, 1),
    (ON_DEMAND, 64, 1),
    (ON_DEMAND, 256, 1),
    (ROLLING, 32, 1),
    (ROLLING, 64, 1),
    (ROLLING, 256, 1),
)
"""(model, calls in a batch, rows in a call)."""


class NullParts:
    """Takes the place of the server and of both journals, and discards everything."""

    healthy = True

    def append(self, payload: bytes) -> None:
        """Discard a journal record."""

    def append_optional(self, payload: bytes) -> bool:
        """Discard a journal record."""
        return bool(payload)

    async def append_durably(self, payload: bytes) -> None:
        """Discard a journal record."""

    def send_replies(self, replies: Replies, *, more: bool = False) -> None:
        """Discard the replies."""

    def refuse_calls(self, handles: object, refusal: object) -> None:
        """Raise AssertionError: the pipeline must not refuse a call of this benchmark."""
        del handles
        raise AssertionError(refusal)


class InMemoryStore:
    """A feature store that answers at once, from a dictionary."""

    def __init__(self, values: np.ndarray) -> None:
        layout = ViewRows(VIEW)
        ids = [entity_id(number).encode() for number in range(ENTITIES)]
        now_ms = time.time_ns() // 1_000_000
        events = np.full(ENTITIES, now_ms, dtype=np.int64)
        present = np.ones((ENTITIES, FEATURES), dtype=np.bool_)
        rows = layout.pack(ids, events, values[:ENTITIES], present)
        self._rows = dict(zip(layout.store_keys(ids), rows, strict=True))

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """Return the stored row of each key, or None."""
        del timeout_s
        return [self._rows.get(key) for key in keys]


class InstantShadow(ShadowExecutor):
    """A shadow whose process has answered already."""

    async def score(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]
    ) -> Scored | None:
        """Encode the copy, as the pipeline's process does, and return scores of 0."""
        encode_copy(matrix, row_offsets)
        scores = np.zeros((len(matrix), 1), dtype=np.float32)
        return Scored(scores, np.zeros(len(row_offsets) - 1, dtype=np.uint8))


class InstantShadows(Shadows):
    """Shadows that start no processes."""

    def _executor(self, version: LoadedVersion) -> ShadowExecutor:
        return InstantShadow(version, self._limits, self._clock)


def bench_batch(model: str, calls: int, rows: int, first: int, values: np.ndarray) -> Calls:
    """Return a batch of *calls* calls of *rows* rows each, laid out as an ingress does."""
    count = calls * rows
    numbers = (first + np.arange(count)) % ENTITIES
    ids = [entity_id(number).encode() for number in numbers.tolist()]
    now_ns, nothing = time.monotonic_ns(), np.zeros(calls + 1, dtype=np.uint32)
    width = FEATURES if model == IN_REQUEST else 0
    return Calls(
        model=model,
        handles=np.arange(calls, dtype=np.uint64),
        arrived_ns=np.full(calls, now_ns),
        deadline_ns=np.full(calls, now_ns + 60_000_000_000),
        criticality=np.zeros(calls, dtype=np.uint8),
        row_offsets=(np.arange(calls + 1) * rows).astype(np.uint32),
        sticky=b"",
        sticky_offsets=nothing,
        request_ids=b"",
        request_id_offsets=nothing,
        pins=(),
        entity_ids=b"".join(ids),
        entity_offsets=np.cumsum([0, *map(len, ids)]).astype(np.uint32),
        inputs=np.ascontiguousarray(values[numbers, :width]),
    )


async def measure_pipeline_cpu(bench_model: BenchModel, only: str) -> None:
    """Time every shape of batch, and print a line for each."""
    # Wire the parts as the worker does, with a null server and null journals.
    settings, memory = Settings(), NullParts()
    around = Surroundings(
        settings=settings,
        identity=WorkerIdentity("bench", 0, 1, bytes(32)),
        clock=SystemClock(),
        error_log=InternalErrorLog(logging.getLogger("gateway")),
        store=InMemoryStore(bench_model.values),
        served_journal=memory,
        outcome_journal=memory,
        idempotency_keys=IdempotencyKeys(bench_model.folder / "nowhere", 1, 1),
        on_guard=lambda _: None,
        is_serving=lambda: True,
    )
    server: Any = memory
    parts = build_serving_parts(around, server=server, shadow_type=InstantShadows)
    # Load the versions, as the loader does.
    disk = DiskCache(bench_model.gateway_folder)
    for deployment in read_deployments(bench_model.gateway_folder):
        files = {label: disk.read_version(digest) for label, digest in deployment.digests}
        loaded = {
            label: verify_and_open(label, files[label] or {}, None, digest)
            for label, digest in deployment.digests
        }
        parts.route_table.swap(build_routes(deployment, loaded, settings))
    slots = asyncio.Semaphore(1)
    print("model        calls x rows   us a batch (median)   us a call   us a row")
    for model, calls, rows in SHAPES:
        if only not in model:
            continue
        turns_us: list[float] = []
        for _ in range(TURNS):
            # The batches are made before the clock starts.
            count = max(CALLS_PER_TURN // (calls * rows), 8)
            batches = [
                bench_batch(model, calls, rows, number * calls * rows, bench_model.values)
                for number in range(count)
            ]
            began_ns = time.process_time_ns()
            for batch in batches:
                await slots.acquire()
                await parts.pipeline.run_batch(batch, BatchSlot(slots))
                await asyncio.sleep(0)
            parts.recorder.fold()
            await asyncio.sleep(0)  # lets the last copies be compared
            turns_us.append((time.process_time_ns() - began_ns) / 1e3 / count)
            parts.windows.close_windows(0, everything=True)
        best, median = min(turns_us), sorted(turns_us)[TURNS // 2]
        per_call = best / calls
        print(
            f"{model:11s} {calls:6d} x {rows:<4d} {best:12.1f} ({median:.1f})"
            f" {per_call:15.2f} {per_call / rows:10.3f}",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Fit the models, measure every shape, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only models whose name contains this")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="turnout-core-") as folder:
        bench_model = BenchModel.prepare(Path(folder), ENTITIES, (*USUAL_MODELS, ON_DEMAND))
        uvloop.run(measure_pipeline_cpu(bench_model, arguments.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
