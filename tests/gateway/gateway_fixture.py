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
from gateway.fault_log import FaultLog
from gateway.methods.describe_model import Services
from gateway.methods.idempotency_keys import OutcomeKeys
from gateway.methods.open_inference_metadata import OpenInferenceService
from gateway.methods.report_outcome import Outcomes
from gateway.models.executor import Lane
from gateway.models.loader import prove
from gateway.models.routes import Deployed, LoadedVersion, build_routes
from gateway.predict.batch import IdWriter, Worker
from gateway.predict.dispatch import Arms
from gateway.predict.feature_lookup import OnlineRows
from gateway.predict.pipeline import BatchCore
from gateway.predict.single_call import LoneCalls
from gateway.settings import Settings
from gateway.shadow.shadow_process import shadow_limits_of
from gateway.shadow.shadows import Shadows
from gateway.status import Refusal
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcome_windows import OutcomeWindows
from gateway.telemetry.recorder import Aside
from gateway.telemetry.windows import Windows
from gateway.transport.grpcio.server import Unary
from gateway.transport.server import Door, door_of
from protos import window_pb2
from protos.predict_pb2 import PredictReply, PredictRequest, Row
from registry.bundle import seal
from registry.types import Deployment

KEY = bytes(range(32))
SALT = bytes(range(16))
DOOR = "grpcio"
"""Which door houses have; conftest.py runs each test with both."""


@dataclass
class Remembered:
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
class House:
    """What a test may look at."""

    port: int
    channel: grpc.aio.Channel
    door: Door
    deployed: Deployed
    windows: Windows
    outcome_windows: OutcomeWindows
    aside: Aside
    metrics: Metrics
    served: Remembered
    outcomes: Remembered
    faults: list[str]
    refused: list[tuple[str, Refusal]]
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

    def closed(self) -> list[window_pb2.Window]:
        """Close all windows and return them."""
        self.aside.fold()
        return self.windows.close(0, everything=True)

    def window(self, arm: str) -> window_pb2.Window:
        """Close all windows and return the one of *arm*, summed being the caller's business."""
        closed = self.closed()
        return next(w for w in closed if window_pb2.Arm.Name(w.arm) == f"ARM_{arm}")


class FaultList(FaultLog):
    """Notes faults where a test can read them."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(logging.getLogger("quiet"))
        self._faults = faults

    def note(self, text: str, error: BaseException | None = None) -> str:
        """Keep the text; the id is its place."""
        del error
        self._faults.append(text)
        return f"{len(self._faults):08x}"


@asynccontextmanager
async def house(
    versions: Mapping[str, dict[str, bytes]],
    deployment: Deployment,
    *,
    settings: Settings | None = None,
    store: OnlineRows | OnlineReader | None = None,
    others: Sequence[tuple[Mapping[str, dict[str, bytes]], Deployment]] = (),
    lone: bool = True,
    unix: str = "",
) -> AsyncIterator[House]:
    """Serve *deployment* over *versions* (label to unsigned files) on a free port, and at *unix*.

    others  more models beside it, each with its own versions and deployment.
    lone    whether calls that are alone may be answered without columns.
    """
    settings = replace(settings or Settings(), ingress=DOOR)
    clock, faults, refused, guards = SystemClock(), list[str](), list[tuple[str, Refusal]](), []
    deployed, windows, metrics, fault_log = Deployed(), Windows(), Metrics(), FaultList(faults)
    waiting, bounds = settings.shadow_rows_waiting_max, shadow_limits_of(settings)
    shadows = Shadows(windows, clock, waiting, bounds, guards.append, metrics)
    served, outcomes, outcome_windows = Remembered(), Remembered(), OutcomeWindows()
    methods = _methods(deployed, outcomes, outcome_windows, metrics, settings)
    noted = lambda model, refusal, count: refused.extend([(model, refusal)] * count)  # noqa: E731
    door = door_of(settings, clock, fault_log, noted, methods)
    aside = Aside(windows, metrics, shadows, served, clock, guards.append)
    core = _core(door, deployed, store, aside, settings, fault_log, lone=lone)
    lanes: list[Lane] = []
    for files, plan in [(versions, deployment), *others]:
        loaded = await _loaded(files, plan.model)
        lanes += [version.lane for version in loaded.values()]
        deployed.swap(build_routes(plan, loaded, settings))
    door.configure({routes.model: routes.shape for routes in deployed.all()})
    port = await door.listen("127.0.0.1", 0, unix)
    await door.show_health({"": True, **dict.fromkeys((r.model for r in deployed.all()), True)})
    running = asyncio.create_task(core.run())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield House(
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
        await core.finish()
        running.cancel()
        await shadows.closed()
        for lane in lanes:
            lane.close()


async def _loaded(versions: Mapping[str, dict[str, bytes]], model: str) -> dict[str, LoadedVersion]:
    loaded = {}
    for label, files in versions.items():
        sealed = seal(files, model=model, author="dana", created_unix_ms=1)
        loaded[label] = await asyncio.to_thread(prove, label, sealed, None, None)
    return loaded


def _core(
    door: Door,
    deployed: Deployed,
    store: OnlineRows | None,
    aside: Aside,
    settings: Settings,
    faults: FaultLog,
    *,
    lone: bool,
) -> BatchCore:
    """What scores behind a door; with *lone*, also what answers single calls."""
    clock, ids = SystemClock(), IdWriter(Worker("test", 0, 7, KEY))
    if lone:
        door.lone = LoneCalls(deployed, store, ids, aside, clock, settings)
    arms = Arms(door, ids, aside, clock, faults)
    return BatchCore(door, deployed, store, arms, aside, clock, settings, faults)


def _methods(
    deployed: Deployed,
    tape: Remembered,
    windows: OutcomeWindows,
    metrics: Metrics,
    settings: Settings,
) -> dict[str, Unary]:
    reports = Outcomes(
        deployed,
        tape,
        OutcomeKeys(Path("nowhere"), 7, settings.outcome_keys_max),
        SystemClock(),
        lambda: KEY,
        metrics.count_outcome,
        settings.outcome_late_days,
        windows.tell,
    )
    every = (Services(deployed), reports, OpenInferenceService(deployed, lambda: True, "0.0"))
    return {path: method for one in every for path, method in one.methods().items()}


def ask(*inputs: float, key: str = "S1", rows: int = 1, **more: object) -> PredictRequest:
    """A call for model "churn" with *rows* equal rows."""
    one = Row(keys=[key], inputs=inputs)
    return PredictRequest(model="churn", rows=[one] * rows, **more)  # type: ignore[arg-type]
