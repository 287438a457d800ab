"""A gateway in the process of the test, with a real server, pipeline, ONNX Runtime and gRPC.

Only the journals are in memory. gateway.build connects the parts as in a worker.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc

from features.online.reader import OnlineReader
from gateway.build import ServingParts, Surroundings, build_serving_parts
from gateway.internal_error_log import InternalErrorLog
from gateway.methods.idempotency_keys import IdempotencyKeys
from gateway.models.executor import ModelExecutor
from gateway.models.loader import verify_and_open
from gateway.models.routes import LoadedVersion, RouteTable, build_routes
from gateway.predict.feature_lookup import OnlineStore
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcome_windows import OutcomeWindows
from gateway.telemetry.recorder import JournalWriter, Recorder
from gateway.telemetry.windows import Windows
from gateway.transport.server import IngressServer
from gateway.worker_identity import WorkerIdentity
from host.clock import SystemClock
from protos import window_pb2
from protos.predict_pb2 import PredictReply, PredictRequest, Row
from registry.bundle import seal_files
from registry.types import Deployment

KEY = bytes(range(32))
SALT = bytes(range(16))
DEFAULT_INGRESS = "grpcio"
"""The ingress of gateway fixtures. conftest.py runs each test with both."""


@dataclass
class MemoryJournal:
    """A journal in memory, with the methods of journal.writer.JournalAppender."""

    records: list[bytes] = field(default_factory=list)
    healthy: bool = True

    def append(self, payload: bytes) -> None:
        """Append a record."""
        self.records.append(payload)

    def append_optional(self, payload: bytes) -> bool:
        """Append a record while the journal is healthy, which says that it has room to spare."""
        if self.healthy:
            self.records.append(payload)
        return self.healthy

    async def append_durably(self, payload: bytes) -> None:
        """Append a record; memory needs no sync."""
        self.records.append(payload)


@dataclass
class GatewayFixture:
    """A gateway that serves, with the parts that tests read."""

    port: int
    channel: grpc.aio.Channel
    parts: ServingParts
    served: MemoryJournal
    outcomes: MemoryJournal
    faults: list[str]
    """Texts of the internal errors that were logged."""
    guards: list[window_pb2.HardGuard]
    settings: Settings

    @property
    def ingress_server(self) -> IngressServer:
        """The server that callers connect to."""
        return self.parts.server

    @property
    def routes(self) -> RouteTable:
        """The route table with the routes of each model."""
        return self.parts.route_table

    @property
    def windows(self) -> Windows:
        """The windows of calls."""
        return self.parts.windows

    @property
    def outcome_windows(self) -> OutcomeWindows:
        """The windows of outcome reports."""
        return self.parts.outcome_windows

    @property
    def recorder(self) -> Recorder:
        """The recorder that counts replies."""
        return self.parts.recorder

    @property
    def metrics(self) -> Metrics:
        """The counters and gauges of the worker."""
        return self.parts.metrics

    def refusals(self) -> dict[tuple[str, str], int]:
        """Return (model, code) -> calls that the server refused, not the pipeline."""
        refusals = self.metrics.snapshot().get("turnout_refusals", [])
        return {
            (model, code): calls for (model, code, reason), calls in refusals if reason == "ingress"
        }

    async def predict(
        self, request: PredictRequest | bytes, within_s: float | None = 5.0
    ) -> PredictReply:
        """Call Predict with a message or with any bytes."""
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        call = self.channel.unary_unary("/turnout.v1.Predictor/Predict")
        return PredictReply.FromString(await call(raw, timeout=within_s))

    async def refusal(
        self, request: PredictRequest | bytes, within_s: float | None = 5.0
    ) -> grpc.aio.AioRpcError:
        """Call Predict and return its error; fail if the call is answered."""
        try:
            await self.predict(request, within_s)
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the call was answered")

    def close_windows(self) -> list[window_pb2.Window]:
        """Close all windows and return them."""
        self.recorder.fold()
        return self.windows.close_windows(0, everything=True)

    def window(self, arm: str) -> window_pb2.Window:
        """Close all windows, one a second and arm, and return the first one of *arm*."""
        windows = self.close_windows()
        return next(w for w in windows if window_pb2.Arm.Name(w.arm) == f"ARM_{arm}")


class RecordedFaults(InternalErrorLog):
    """An error log that appends the texts to a list."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(logging.getLogger("quiet"))
        self._faults = faults

    def log_error(self, text: str, error: BaseException | None = None) -> str:
        """Append the text; the error id is its number, from 1."""
        del error
        self._faults.append(text)
        return f"{len(self._faults):08x}"


@asynccontextmanager
async def gateway_fixture(
    versions: Mapping[str, dict[str, bytes]],
    deployment: Deployment,
    *,
    settings: Settings | None = None,
    store: OnlineStore | OnlineReader | None = None,
    others: Sequence[tuple[Mapping[str, dict[str, bytes]], Deployment]] = (),
    unix: str = "",
    served_journal: JournalWriter | None = None,
    **paths: bool,
) -> AsyncIterator[GatewayFixture]:
    """Serve *deployment* over *versions* (label to unsigned files) on a free port.

    others        versions and deployment of each further model.
    unix          path of a Unix socket, on which the server listens as well.
    served_journal  takes the served calls in place of a journal in memory.
    paths         single_calls, fault_free_path or io_thread_answers of build_serving_parts.
    """
    # The surroundings of the parts, with journals in memory.
    settings = replace(settings or Settings(), ingress=DEFAULT_INGRESS)
    faults, guards = list[str](), list[window_pb2.HardGuard]()
    served, outcomes = MemoryJournal(), MemoryJournal()
    surroundings = Surroundings(
        settings=settings,
        identity=WorkerIdentity("test", 0, 7, KEY),
        clock=SystemClock(),
        error_log=RecordedFaults(faults),
        store=store,
        served_journal=served if served_journal is None else served_journal,
        outcome_journal=outcomes,
        idempotency_keys=IdempotencyKeys(Path("nowhere"), 7, settings.outcome_keys_max),
        on_guard=guards.append,
        is_serving=lambda: True,
    )
    parts = build_serving_parts(surroundings, **paths)
    executors = await _route_to([(versions, deployment), *others], parts.route_table, settings)
    # Listen, and serve until the test ends.
    models = {routes.model: routes.shape for routes in parts.route_table.all()}
    parts.server.configure(models)
    parts.metrics.set_deployed(dict.fromkeys(models, ()))
    port = await parts.server.listen(settings.host, 0, unix)
    await parts.server.show_health({"": True, **dict.fromkeys(models, True)})
    running = [asyncio.create_task(parts.pipeline.run())]
    if parts.io_thread_store is not None:
        running.append(asyncio.create_task(parts.io_thread_store.keep()))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield GatewayFixture(port, channel, parts, served, outcomes, faults, guards, settings)
    finally:
        # Close in the order of a drain.
        await parts.server.close(1.0)
        await parts.pipeline.wait_finished()
        for task in running:
            task.cancel()
        await parts.shadows.wait_closed()
        for executor in executors:
            executor.close()


async def _route_to(
    deployed: Sequence[tuple[Mapping[str, dict[str, bytes]], Deployment]],
    table: RouteTable,
    settings: Settings,
) -> list[ModelExecutor]:
    """Open the versions of each deployment, route to them, and return what runs them."""
    executors: list[ModelExecutor] = []
    for files, plan in deployed:
        loaded = await _load_versions(files, plan.model)
        executors += [version.executor for version in loaded.values()]
        table.swap(build_routes(plan, loaded, settings, table.quarantined))
    return executors


async def _load_versions(
    versions: Mapping[str, dict[str, bytes]], model: str
) -> dict[str, LoadedVersion]:
    loaded = {}
    for label, files in versions.items():
        sealed = seal_files(files, model=model, author="dana", created_unix_ms=1)
        loaded[label] = await asyncio.to_thread(verify_and_open, label, sealed, None, None)
    return loaded


def predict_request(
    *inputs: float, key: str = "S1", rows: int = 1, **more: object
) -> PredictRequest:
    """Return a call for model "churn" with *rows* equal rows."""
    row = Row(keys=[key], inputs=inputs)
    return PredictRequest(model="churn", rows=[row] * rows, **more)  # type: ignore[arg-type]
