"""The native front door: HTTP/2, gRPC and decoding in Rust, on a thread that never takes the GIL.

The thread rings once for many calls; what they hold comes as columns, and goes back as columns.
Everything that scores nothing is passed as raw bytes to the handlers that grpcio calls too.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2_grpc
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.columns import Calls, ModelShape, Replies
from gateway.ingress_choice import IngressChoice
from gateway.internal_error_log import InternalErrorLog
from gateway.native_library import IngressLibrary, IngressThread
from gateway.predict.single_call import SingleCallPath
from gateway.settings import Settings
from gateway.status import Code, Refusal, RefusedError, refuse_internal
from gateway.transport.grpcio.server import NOT_SERVING, SERVING, OnRefused, UnaryMethod
from gateway.transport.native.context import Handler, RawCall, RawCallServer
from gateway.transport.native.single_call import NativeSingleCalls
from gateway.transport.reflection import REFLECTION_SERVICES, reflection_handlers

SCORED_METHODS = {
    "/turnout.v1.Predictor/Predict": "predict",
    "/turnout.v1.Predictor/PredictStream": "predict_stream",
    "/inference.GRPCInferenceService/ModelInfer": "infer",
}
"""Methods that are decoded in Rust."""
POLL_INTERVAL_S = 0.02
"""Between looks at whether all connections are closed."""


class NativeServer:
    """`gateway.columns.Ingress` over the crate in ingress/.

    extra  further handlers by their path, beside ours, health and reflection.
    """

    kind = IngressChoice.NATIVE

    def __init__(
        self,
        module: IngressLibrary,
        settings: Settings,
        clock: Clock,
        error_log: InternalErrorLog,
        on_refused: OnRefused,
        methods: Mapping[str, UnaryMethod],
        extra_handlers: Mapping[str, Handler] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._error_log = error_log
        self._on_refused = on_refused
        self._health = health.HealthServicer()
        handlers: dict[str, Handler] = {
            path: grpc.unary_unary_rpc_method_handler(self._wrap_unary(method))
            for path, method in methods.items()
        }
        handlers |= (
            _health_handlers(self._health) | _reflection_by_path() | dict(extra_handlers or {})
        )
        kinds = {
            path: "stream" if handler.request_streaming else "unary"
            for path, handler in handlers.items()
        }
        self._thread: IngressThread = module.Door(settings, SCORED_METHODS | kinds)
        self._raw_calls = RawCallServer(self._thread, handlers, clock, self._refuse_error)
        self._call_arrived = asyncio.Event()
        self.single_call: SingleCallPath | None = None
        self._single_calls = NativeSingleCalls(
            self.send_replies, self.refuse_calls, self._return_to_batch, self._refuse_error
        )
        self._returned_calls: list[Calls] = []
        self._open = False

    # Ingress

    def configure(self, shapes: Mapping[str, ModelShape]) -> None:
        """Replace what the door knows of models."""
        self._thread.configure(list(shapes.values()))

    async def wait_for_calls(self) -> None:
        """Return when calls wait for a batch: at once, whoever else may come."""
        while not self._returned_calls:
            if not self._thread.waiting():
                self._call_arrived.clear()
                await self._call_arrived.wait()
            elif not self._try_single_call():
                return

    def pop_calls(self, rows_max: int) -> Calls | None:
        """Hand over what waits."""
        if self._returned_calls:
            return self._returned_calls.pop()
        taken = self._thread.take(rows_max, self._clock.now_ns())
        return None if taken is None else _columns_from_native(taken)

    def _try_single_call(self) -> bool:
        """Have the only row inside answered without a batch; False: calls wait for one."""
        if self.single_call is None or self._thread.rows_inside() != 1:
            return False
        taken = self._thread.take(1, self._clock.now_ns())
        if taken is None:
            return True
        calls = _columns_from_native(taken)
        if not self._single_calls.try_start(self.single_call, calls):
            self._return_to_batch(calls)
        return True

    def _return_to_batch(self, calls: Calls) -> None:
        self._returned_calls.append(calls)
        self._call_arrived.set()

    def send_replies(self, replies: Replies, *, more: bool = False) -> None:
        """Send each reply to whoever still waits for it."""
        held_out = replies.holdout
        self._thread.answer(
            replies.model,
            replies.version,
            replies.role,
            replies.scores.shape[1],
            replies.handles,
            None if held_out is None else held_out.tobytes(),
            replies.prediction_ids,
            replies.row_offsets,
            replies.scores,
            replies.row_flags,
            more,
        )

    def refuse_calls(self, handles: NDArray[np.uint64], refusal: Refusal) -> None:
        """End these calls with one status."""
        self._thread.refuse(handles, int(refusal.code), refusal.message, refusal.pushback_ms)

    # The server

    async def listen(self, host: str, port: int, unix: str = "", lent_fd: int | None = None) -> int:
        """Open *port* (0: a free one) beside the other workers; returns the port.

        unix  the path of a socket to listen at as well.
        lent  a bound socket's descriptor: listened at instead, and kept by whoever lent it.
        """
        asyncio.get_running_loop().add_reader(self._thread.fileno(), self._on_wakeup)
        self._open = True
        port = (
            self._thread.listen(host, port) if lent_fd is None else self._thread.listen_at(lent_fd)
        )
        if unix:
            self._thread.listen_unix(unix)
        return port

    async def show_health(self, ready: Mapping[str, bool]) -> None:
        """Set what grpc.health.v1 says: each model's name, and "" for the server as a whole."""
        for name, serving in ready.items():
            await self._health.set(name, SERVING if serving else NOT_SERVING)

    async def close(self, grace_s: float) -> None:
        """Leave the port at once, let clients move over, finish what is in flight.

        As GrpcioServer.close; here each connection is asked to leave twice, as HTTP/2 has it: a
        call that crosses the first GOAWAY is served. Who waits at the port when it is left is
        served.
        """
        await self._health.enter_graceful_shutdown()
        self._thread.leave()
        last_s = min(grace_s, self._settings.drain_grace_s)
        await self._wait_for_disconnects(grace_s - last_s)
        self._thread.drain()
        await self._wait_for_disconnects(last_s)
        await self._single_calls.wait_finished()
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._thread.fileno())
        self._thread.stop()
        self._on_wakeup()
        await self._raw_calls.cancel_all()

    async def _wait_for_disconnects(self, within_s: float) -> None:
        """Return once nobody is connected, or after *within_s*."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while self._thread.connections() and loop.time() < end:  # noqa: ASYNC110  the thread has no ear for this
            await asyncio.sleep(POLL_INTERVAL_S)

    @property
    def rows_inside(self) -> int:
        """Rows admitted and not yet answered."""
        return self._thread.rows_inside()

    # What the thread tells

    def _on_wakeup(self) -> None:
        self._thread.hush()
        self._raw_calls.handle_events(self._thread.events())
        for model, code, words, pushback_ms, count in self._thread.refusals():
            self._on_refused(model, Refusal(Code(code), words, pushback_ms), count)
        self._call_arrived.set()

    def _refuse_error(self, model: str, error: BaseException) -> Refusal:
        """Count a call that went wrong in a handler, and word it: nothing of ours goes out."""
        if isinstance(error, RefusedError):
            refusal = error.refusal
        else:
            refusal = refuse_internal(self._error_log.log_error(repr(error), error))
        self._on_refused(model, refusal, 1)
        return refusal

    def _wrap_unary(self, method: UnaryMethod) -> Any:  # noqa: ANN401  grpc's own type for it is no simpler
        async def handle(message: bytes, call: RawCall) -> bytes:
            del call
            return await method(message)

        return handle


def _columns_from_native(native_columns: tuple[Any, ...]) -> Calls:
    """Lay the thread's bytes out as columns; nothing is copied."""
    (model, width), handles, arrived, deadline, criticality, rows, *texts, pins, ids, inputs = (
        native_columns
    )
    (sticky, sticky_offsets), (request_ids, request_id_offsets) = texts
    return Calls(
        model=model,
        handles=np.frombuffer(handles, np.uint64),
        arrived_ns=np.frombuffer(arrived, np.int64),
        deadline_ns=np.frombuffer(deadline, np.int64),
        criticality=np.frombuffer(criticality, np.uint8),
        row_offsets=np.frombuffer(rows, np.uint32),
        sticky=sticky,
        sticky_offsets=np.frombuffer(sticky_offsets, np.uint32),
        request_ids=request_ids,
        request_id_offsets=np.frombuffer(request_id_offsets, np.uint32),
        pins=tuple(pins),
        entity_ids=ids[0],
        entity_offsets=np.frombuffer(ids[1], np.uint32),
        inputs=np.frombuffer(inputs, np.float32).reshape(-1, width)
        if width
        else np.empty((len(rows) // 4 and int(np.frombuffer(rows, np.uint32)[-1]), 0), np.float32),
    )


class _HandlerCollector:
    """Stands in for a grpc.aio.Server while generated code registers a service with it."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """The same handlers in another form."""

    def add_registered_method_handlers(self, service: str, methods: Mapping[str, Handler]) -> None:
        """Keep them by their path."""
        self.handlers |= {f"/{service}/{name}": handler for name, handler in methods.items()}


def _health_handlers(servicer: health.HealthServicer) -> dict[str, Handler]:
    collector = _HandlerCollector()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, collector)  # type: ignore[no-untyped-call]
    return collector.handlers


class _CallDetails(grpc.HandlerCallDetails):
    """Which method a generic handler is asked for."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def _reflection_by_path() -> dict[str, Handler]:
    found: dict[str, Handler] = {}
    for name in REFLECTION_SERVICES:
        path = f"/{name}/ServerReflectionInfo"
        for generic in reflection_handlers():
            handler = generic.service(_CallDetails(path))
            if handler is not None:
                found[path] = handler
    return found
