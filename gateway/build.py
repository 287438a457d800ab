"""The wiring of a gateway's serving parts. The worker, the tests and the benchmarks call it.

Recorder, Dispatcher, PredictPipeline and the ingress server are constructed here and nowhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as distribution_version
from pathlib import Path

from features.online.reader import OnlineReader
from gateway.callers.directory import CallerDirectory, OnCallerRefused
from gateway.ingress_choice import IngressChoice, check_built
from gateway.internal_error_log import InternalErrorLog
from gateway.methods.describe_model import DescribeModelService
from gateway.methods.idempotency_keys import IdempotencyKeys
from gateway.methods.open_inference_metadata import OpenInferenceService
from gateway.methods.outcome_budget import OutcomeBudget
from gateway.methods.report_outcome import DurableJournal, ReportOutcomeService
from gateway.models.routes import RouteTable
from gateway.native_library import load_native_library
from gateway.predict.dispatch import Dispatcher
from gateway.predict.feature_lookup import OnlineStore
from gateway.predict.io_thread_store import IoThreadStore
from gateway.predict.pipeline import PredictPipeline
from gateway.predict.prediction_ids import PredictionIdWriter
from gateway.predict.shadow_pins import ShadowPins
from gateway.predict.single_call import SingleCallPath
from gateway.predict.turns import TurnPath
from gateway.settings import Settings
from gateway.shadow.shadow_process import shadow_limits_of
from gateway.shadow.shadows import Shadows
from gateway.status import Refusal
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcome_windows import OutcomeWindows
from gateway.telemetry.recorder import JournalWriter, Recorder
from gateway.telemetry.view_ages import ViewAges
from gateway.telemetry.windows import Windows
from gateway.transport.grpcio.server import GrpcioServer
from gateway.transport.native.server import NativeServer
from gateway.transport.server import IngressServer, OnRefused, UnaryMethod
from gateway.worker_identity import WorkerIdentity
from host.clock import Clock
from protos import window_pb2

OnGuard = Callable[[window_pb2.HardGuard], None]
"""Called with each hard guard, which must be sent to the controller at once."""


@dataclass(slots=True)
class Surroundings:
    """What the serving parts of a worker need from outside."""

    settings: Settings
    identity: WorkerIdentity
    clock: Clock
    error_log: InternalErrorLog
    store: OnlineStore | None
    """None if the gateway has no online store."""
    served_journal: JournalWriter
    outcome_journal: DurableJournal
    idempotency_keys: IdempotencyKeys
    on_guard: OnGuard
    is_serving: Callable[[], bool]
    """Whether the worker accepts calls, for the Open Inference Protocol's ServerReady."""


@dataclass(slots=True)
class ServingParts:
    """The parts that answer calls, and those that count and keep what happened."""

    metrics: Metrics
    route_table: RouteTable
    windows: Windows
    outcome_windows: OutcomeWindows
    shadows: Shadows
    recorder: Recorder
    server: IngressServer
    pipeline: PredictPipeline
    view_ages: ViewAges | None
    """None if the gateway has no online store."""
    io_thread_store: IoThreadStore | None
    """None if no I/O thread reads an online store."""


def build_serving_parts(
    around: Surroundings,
    *,
    server: IngressServer | None = None,
    shadow_type: type[Shadows] = Shadows,
    single_calls: bool = True,
    fault_free_path: bool = True,
    io_thread_answers: bool = True,
) -> ServingParts:
    """Build the serving parts of one worker. Nothing listens or runs yet.

    server           a server to use instead of the one that settings.ingress names.
    shadow_type      a subclass of Shadows, for benchmarks without shadow processes.
    single_calls     False sends single calls through batches, too.
    fault_free_path  False sends batches without a fault through the reference path, too.
    io_thread_answers  False lets the I/O thread of the native server answer no call by itself.

    Raises SettingsError if settings.ingress is native and the library is not built.
    """
    # What all parts share.
    settings, clock, error_log = around.settings, around.clock, around.error_log
    metrics, route_table = Metrics(), RouteTable()
    windows, outcome_windows = Windows(), OutcomeWindows()
    # The parts after a reply: the shadows, and the recorder that feeds them.
    shadows = _build_shadows(shadow_type, around, windows, metrics, route_table)
    recorder = Recorder(windows, metrics, shadows, around.served_journal, clock, around.on_guard)

    def on_refused(model: str, refusal: Refusal, calls: int) -> None:
        routes = route_table.get(model) if model else None
        recorder.record_refusals(routes, model, refusal, calls, reason="ingress")

    # The server, which calls the pipeline.
    server = server or _build_server(around, on_refused, route_table, metrics, outcome_windows)
    # The pipeline answers a batch by the dispatcher, and a single call by its own short path.
    id_writer = PredictionIdWriter(around.identity, getattr(server, "reserve_ids", None))
    dispatcher = Dispatcher(
        server, id_writer, recorder, clock, error_log, fault_free_path=fault_free_path
    )
    shadow_pins = ShadowPins(server, dispatcher, shadows, recorder, clock)
    path = SingleCallPath(route_table, around.store, id_writer, recorder, clock, settings)
    turns = None
    if fault_free_path and isinstance(server, NativeServer):
        turns = _turn_path(around, server, route_table, id_writer, recorder, io_thread_answers)
    pipeline = PredictPipeline(
        server,
        route_table,
        around.store,
        dispatcher,
        shadow_pins,
        path if single_calls else None,
        turns,
        recorder,
        clock,
        settings,
        error_log,
    )
    ages = _view_ages(around, route_table, metrics)
    thread_store = _io_thread_store(server, around.store) if turns and io_thread_answers else None
    counts, answers = (windows, outcome_windows, shadows, recorder), (server, pipeline)
    return ServingParts(metrics, route_table, *counts, *answers, ages, thread_store)


def _build_server(
    around: Surroundings,
    on_refused: OnRefused,
    route_table: RouteTable,
    metrics: Metrics,
    outcome_windows: OutcomeWindows,
) -> IngressServer:
    return create_server(
        around.settings,
        around.clock,
        around.error_log,
        on_refused,
        _unary_methods(around, route_table, metrics, outcome_windows),
        metrics.count_caller_refusals,
    )


def _turn_path(
    around: Surroundings,
    server: NativeServer,
    route_table: RouteTable,
    id_writer: PredictionIdWriter,
    recorder: Recorder,
    io_thread: bool,
) -> TurnPath:
    """Return what answers many models in one pass, and publishes plans to the I/O thread."""
    store, clock, settings = around.store, around.clock, around.settings
    return TurnPath(
        server, route_table, store, id_writer, recorder, clock, settings, io_thread=io_thread
    )


def _view_ages(around: Surroundings, route_table: RouteTable, metrics: Metrics) -> ViewAges | None:
    if around.store is None:
        return None
    namespace = around.settings.store_namespace
    return ViewAges(around.store, namespace, route_table, metrics, around.clock)


def _io_thread_store(server: IngressServer, store: OnlineStore | None) -> IoThreadStore | None:
    """Return what connects the I/O thread to the store; None if a test's fake is the store."""
    if isinstance(server, NativeServer) and isinstance(store, OnlineReader):
        return IoThreadStore(server, store)
    return None


def create_server(
    settings: Settings,
    clock: Clock,
    error_log: InternalErrorLog,
    on_refused: OnRefused,
    methods: Mapping[str, UnaryMethod],
    on_caller_refused: OnCallerRefused,
) -> IngressServer:
    """Create the server that settings.ingress names.

    methods  method path to handler, of every method that scores nothing.

    Raises SettingsError if the server is not built, or the callers file is not valid.
    """
    callers = None
    if settings.callers_file:
        callers = CallerDirectory(Path(settings.callers_file), clock, on_caller_refused)
    library = None if settings.ingress == IngressChoice.GRPCIO else load_native_library()
    check_built(settings.ingress, available=library is not None)
    if library is not None:
        return NativeServer(
            library, settings, clock, error_log, on_refused, methods, callers=callers
        )
    return GrpcioServer(settings, clock, error_log, on_refused, methods, callers)


def _build_shadows(
    shadow_type: type[Shadows],
    around: Surroundings,
    windows: Windows,
    metrics: Metrics,
    route_table: RouteTable,
) -> Shadows:
    settings = around.settings
    return shadow_type(
        windows,
        around.clock,
        settings.shadow_rows_waiting_max,
        shadow_limits_of(settings),
        around.on_guard,
        metrics,
        route_table.quarantined,
        around.served_journal,
    )


def _unary_methods(
    around: Surroundings,
    route_table: RouteTable,
    metrics: Metrics,
    outcome_windows: OutcomeWindows,
) -> dict[str, UnaryMethod]:
    """Return every method that scores nothing, by its path."""
    report_outcome = ReportOutcomeService(
        route_table,
        around.outcome_journal,
        around.idempotency_keys,
        OutcomeBudget(
            around.idempotency_keys.folder,
            around.clock,
            around.settings.outcome_caller_bytes_s,
            around.settings.outcome_journal_mb_max << 20,
        ),
        around.clock,
        lambda: around.identity.prediction_id_key,
        metrics.count_outcome,
        around.settings.outcome_late_days,
        around.settings.rows_call_max,
        outcome_windows.record_outcome,
    )
    open_inference = OpenInferenceService(
        route_table, around.is_serving, distribution_version("turnout")
    )
    services = (DescribeModelService(route_table), report_outcome, open_inference)
    return {path: method for service in services for path, method in service.methods().items()}
