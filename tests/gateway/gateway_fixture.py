"""A gateway in this process: the real door, core, ONNX and gRPC; only the journal is remembered."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc

from features.online.reader import OnlineReader
from gateway.clock import SystemClock
from gateway.internal_error_log import InternalErrorLog
from gateway.methods.describe_model import DescribeModelService
from gateway.methods.idempotency_keys import IdempotencyKeys
from gateway.methods.open_inference_metadata import OpenInferenceService
from gateway.methods.report_outcome import ReportOutcomeService
from gateway.models.executor import ModelExecutor
from gateway.models.loader import verify_and_open
from gateway.models.routes import LoadedVersion, RouteTable, build_routes
from gateway.predict.batch import PredictionIdWriter, WorkerIdentity
from gateway.predict.dispatch import Dispatcher
from gateway.predict.feature_lookup import OnlineStore
from gateway.predict.pipeline import PredictPipeline
from gateway.predict.single_call import SingleCallPath
from gateway.settings import Settings
from gateway.shadow.shadow_process import shadow_limits_of
from gateway.shadow.shadows import Shadows
from gateway.status import Refusal
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcome_windows import OutcomeWindows
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.windows import Windows
from gateway.transport.grpcio.server import UnaryMethod
from gateway.transport.server import IngressServer, create_server
from protos import window_pb2
from protos.predict_pb2 import PredictReply, PredictRequest, Row
from registry.bundle import seal_files
from registry.types import Deployment

KEY = bytes(range(32))
SALT = bytes(range(16))
DEFAULT_INGRESS = "grpcio"
"""Which door houses have; conftest.py runs each test with both."""


@dataclass
class MemoryJournal:
    """A journal that remembers; same calls as journal.writer.Writer."""

    records: list[bytes] = field(default_factory=list)
    healthy: bool = True

    def append(self, payload: bytes) -> None:
        """Keep it."""
        self.records.append(payload)

    async def append_durably(self, payload: bytes) -> None:
        """Keep it."""
        self.records.append(payload)


@dataclass
class GatewayFixture:
    """What a test may look at."""

    port: int
    channel: grpc.aio.Channel
    ingress_server: IngressServer
    routes: RouteTable
    windows: Windows
    outcome_windows: OutcomeWindows
    recorder: Recorder
    metrics: Metrics
    served: MemoryJournal
    outcomes: MemoryJournal
    faults: list[str]
    refusals: list[tuple[str, Refusal]]
    guards: list[window_pb2.HardGuard]
    settings: Settings

    async def predict(
        self, request: PredictRequest | bytes, within_s: float | None = 5.0
    ) -> PredictReply:
        """Call Predict with a message, or with whatever bytes."""
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        call = self.channel.unary_unary("/turnout.v1.Predictor/Predict")
        return PredictReply.FromString(await call(raw, timeout=within_s))

    async def refusal(
        self, request: PredictRequest | bytes, within_s: float | None = 5.0
    ) -> grpc.aio.AioRpcError:
        """Call Predict and return the error it ends with."""
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
        """Close all windows and return the one of *arm*, summed being the caller's business."""
        closed = self.close_windows()
        return next(w for w in closed if window_pb2.Arm.Name(w.arm) == f"ARM_{arm}")


class RecordedFaults(InternalErrorLog):
    """Notes faults where a test can read them."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(logging.getLogger("quiet"))
        self._faults = faults

    def log_error(self, text: str, error: BaseException | None = None) -> str:
        """Keep the text; the id is its place."""
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
    single_calls: bool = True,
    unix: str = "",
) -> AsyncIterator[GatewayFixture]:
    """Serve *deployment* over *versions* (label to unsigned files) on a free port, and at *unix*.

    others  more models beside it, each with its own versions and deployment.
    lone    whether calls that are alone may be answered without columns.
    """
    settings = replace(settings or Settings(), ingress=DEFAULT_INGRESS)
    clock, faults, refused, guards = SystemClock(), list[str](), list[tuple[str, Refusal]](), []
    deployed, windows, metrics, fault_log = (
        RouteTable(),
        Windows(),
        Metrics(),
        RecordedFaults(faults),
    )
    waiting, bounds = settings.shadow_rows_waiting_max, shadow_limits_of(settings)
    shadows = Shadows(windows, clock, waiting, bounds, guards.append, metrics)
    served, outcomes, outcome_windows = MemoryJournal(), MemoryJournal(), OutcomeWindows()
    methods = _methods(deployed, outcomes, outcome_windows, metrics, settings)
    noted = lambda model, refusal, count: refused.extend([(model, refusal)] * count)  # noqa: E731
    door = create_server(settings, clock, fault_log, noted, methods)
    aside = Recorder(windows, metrics, shadows, served, clock, guards.append)
    core = _build_pipeline(
        door, deployed, store, aside, settings, fault_log, single_calls=single_calls
    )
    lanes: list[ModelExecutor] = []
    for files, plan in [(versions, deployment), *others]:
        loaded = await _load_versions(files, plan.model)
        lanes += [version.executor for version in loaded.values()]
        deployed.swap(build_routes(plan, loaded, settings))
    door.configure({routes.model: routes.shape for routes in deployed.all()})
    port = await door.listen("127.0.0.1", 0, unix)
    await door.show_health({"": True, **dict.fromkeys((r.model for r in deployed.all()), True)})
    running = asyncio.create_task(core.run())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield GatewayFixture(
                port,
                channel,
                door,
                deployed,
                windows,
                outcome_windows,
                aside,
                metrics,
                served,
                outcomes,
                faults,
                refused,
                guards,
                settings,
            )
    finally:
        await door.close(1.0)
        await core.wait_finished()
        running.cancel()
        await shadows.wait_closed()
        for lane in lanes:
            lane.close()


async def _load_versions(
    versions: Mapping[str, dict[str, bytes]], model: str
) -> dict[str, LoadedVersion]:
    loaded = {}
    for label, files in versions.items():
        sealed = seal_files(files, model=model, author="dana", created_unix_ms=1)
        loaded[label] = await asyncio.to_thread(verify_and_open, label, sealed, None, None)
    return loaded


def _build_pipeline(
    door: IngressServer,
    deployed: RouteTable,
    store: OnlineStore | None,
    recorder: Recorder,
    settings: Settings,
    faults: InternalErrorLog,
    *,
    single_calls: bool,
) -> PredictPipeline:
    """What scores behind a door; with *lone*, also what answers single calls."""
    clock, ids = SystemClock(), PredictionIdWriter(WorkerIdentity("test", 0, 7, KEY))
    if single_calls:
        door.single_call = SingleCallPath(deployed, store, ids, recorder, clock, settings)
    arms = Dispatcher(door, ids, recorder, clock, faults)
    return PredictPipeline(door, deployed, store, arms, recorder, clock, settings, faults)


def _methods(
    deployed: RouteTable,
    tape: MemoryJournal,
    windows: OutcomeWindows,
    metrics: Metrics,
    settings: Settings,
) -> dict[str, UnaryMethod]:
    reports = ReportOutcomeService(
        deployed,
        tape,
        IdempotencyKeys(Path("nowhere"), 7, settings.outcome_keys_max),
        SystemClock(),
        lambda: KEY,
        metrics.count_outcome,
        settings.outcome_late_days,
        windows.record_outcome,
    )
    every = (
        DescribeModelService(deployed),
        reports,
        OpenInferenceService(deployed, lambda: True, "0.0"),
    )
    return {path: method for one in every for path, method in one.methods().items()}


def predict_request(
    *inputs: float, key: str = "S1", rows: int = 1, **more: object
) -> PredictRequest:
    """A call for model "churn" with *rows* equal rows."""
    one = Row(keys=[key], inputs=inputs)
    return PredictRequest(model="churn", rows=[one] * rows, **more)  # type: ignore[arg-type]
