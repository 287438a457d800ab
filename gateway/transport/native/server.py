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
from gateway.fault_log import FaultLog
from gateway.ingress_choice import IngressChoice
from gateway.native_library import Core, Module
from gateway.predict.single_call import LoneCalls
from gateway.settings import Settings
from gateway.status import Code, Refusal, RefusedError, refuse_internal
from gateway.transport.grpcio.server import NOT_SERVING, SERVING, Counter, Unary
from gateway.transport.native.context import Handler, RawCall, RawCalls
from gateway.transport.native.single_call import Alone
from gateway.transport.reflection import NAMES, reflection_handlers

SCORED = {
    "/turnout.v1.Predictor/Predict": "predict",
    "/turnout.v1.Predictor/PredictStream": "predict_stream",
    "/inference.GRPCInferenceService/ModelInfer": "infer",
}
"""Methods that are decoded in Rust."""
LOOK_S = 0.02
"""Between looks at whether all connections are closed."""


class NativeDoor:
    """`gateway.columns.Ingress` over the crate in ingress/.

    extra  further handlers by their path, beside ours, health and reflection.
    """

    kind = IngressChoice.NATIVE

    def __init__(
        self,
        module: Module,
        settings: Settings,
        clock: Clock,
        faults: FaultLog,
        on_refused: Counter,
        methods: Mapping[str, Unary],
        extra: Mapping[str, Handler] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._faults = faults
        self._on_refused = on_refused
        self._health = health.HealthServicer()
        handlers: dict[str, Handler] = {
            path: grpc.unary_unary_rpc_method_handler(self._wrap(method))
            for path, method in methods.items()
        }
        handlers |= _health_handlers(self._health) | _reflection() | dict(extra or {})
        kinds = {
            path: "stream" if handler.request_streaming else "unary"
            for path, handler in handlers.items()
        }
        self._core: Core = module.Door(settings, SCORED | kinds)
        self._raw = RawCalls(self._core, handlers, clock, self._refused)
        self._arrived = asyncio.Event()
        self.lone: LoneCalls | None = None
        self._alone = Alone(self.answer, self.refuse, self._give_back, self._refused)
        self._given_back: list[Calls] = []
        self._open = False

    # Ingress

    def configure(self, shapes: Mapping[str, ModelShape]) -> None:
        """Replace what the door knows of models."""
        self._core.configure(list(shapes.values()))

    async def arrived(self) -> None:
        """Return when calls wait for a batch: at once, whoever else may come."""
        while not self._given_back:
            if not self._core.waiting():
                self._arrived.clear()
                await self._arrived.wait()
            elif not self._answers_alone():
                return

    def take(self, rows_max: int) -> Calls | None:
        """Hand over what waits."""
        if self._given_back:
            return self._given_back.pop()
        taken = self._core.take(rows_max, self._clock.now_ns())
        return None if taken is None else _calls(taken)

    def _answers_alone(self) -> bool:
        """Have the only row inside answered without a batch; False: calls wait for one."""
        if self.lone is None or self._core.rows_inside() != 1:
            return False
        taken = self._core.take(1, self._clock.now_ns())
        if taken is None:
            return True
        calls = _calls(taken)
        if not self._alone.take(self.lone, calls):
            self._give_back(calls)
        return True

    def _give_back(self, calls: Calls) -> None:
        self._given_back.append(calls)
        self._arrived.set()

    def answer(self, replies: Replies, *, more: bool = False) -> None:
        """Send each reply to whoever still waits for it."""
        held_out = replies.holdout
        self._core.answer(
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

    def refuse(self, handles: NDArray[np.uint64], refusal: Refusal) -> None:
        """End these calls with one status."""
        self._core.refuse(handles, int(refusal.code), refusal.words, refusal.pushback_ms)

    # The server

    async def listen(self, host: str, port: int, unix: str = "", lent: int | None = None) -> int:
        """Open *port* (0: a free one) beside the other workers; returns the port.

        unix  the path of a socket to listen at as well.
        lent  a bound socket's descriptor: listened at instead, and kept by whoever lent it.
        """
        asyncio.get_running_loop().add_reader(self._core.fileno(), self._hear)
        self._open = True
        port = self._core.listen(host, port) if lent is None else self._core.listen_at(lent)
        if unix:
            self._core.listen_unix(unix)
        return port

    async def show_health(self, ready: Mapping[str, bool]) -> None:
        """Set what grpc.health.v1 says: each model's name, and "" for the server as a whole."""
        for name, serving in ready.items():
            await self._health.set(name, SERVING if serving else NOT_SERVING)

    async def close(self, grace_s: float) -> None:
        """Leave the port at once, let clients move over, finish what is in flight.

        As GrpcioDoor.close; here each connection is asked to leave twice, as HTTP/2 has it: a call
        that crosses the first GOAWAY is served. Who waits at the port when it is left is served.
        """
        await self._health.enter_graceful_shutdown()
        self._core.leave()
        last_s = min(grace_s, self._settings.drain_grace_s)
        await self._left(grace_s - last_s)
        self._core.drain()
        await self._left(last_s)
        await self._alone.finish()
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._core.fileno())
        self._core.stop()
        self._hear()
        await self._raw.finish()

    async def _left(self, within_s: float) -> None:
        """Return once nobody is connected, or after *within_s*."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while self._core.connections() and loop.time() < end:  # noqa: ASYNC110  the thread has no ear for this
            await asyncio.sleep(LOOK_S)

    @property
    def rows_inside(self) -> int:
        """Rows admitted and not yet answered."""
        return self._core.rows_inside()

    # What the thread tells

    def _hear(self) -> None:
        self._core.hush()
        self._raw.hear(self._core.events())
        for model, code, words, pushback_ms, count in self._core.refusals():
            self._on_refused(model, Refusal(Code(code), words, pushback_ms), count)
        self._arrived.set()

    def _refused(self, model: str, error: BaseException) -> Refusal:
        """Count a call that went wrong in a handler, and word it: nothing of ours goes out."""
        if isinstance(error, RefusedError):
            refusal = error.refusal
        else:
            refusal = refuse_internal(self._faults.note(repr(error), error))
        self._on_refused(model, refusal, 1)
        return refusal

    def _wrap(self, method: Unary) -> Any:  # noqa: ANN401  grpc's own type for it is no simpler
        async def handle(message: bytes, call: RawCall) -> bytes:
            del call
            return await method(message)

        return handle


def _calls(taken: tuple[Any, ...]) -> Calls:
    """Lay the thread's bytes out as columns; nothing is copied."""
    (model, width), handles, arrived, deadline, criticality, rows, *texts, pins, ids, inputs = taken
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


class _Collector:
    """Stands in for a grpc.aio.Server while generated code registers a service with it."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """The same handlers in another form."""

    def add_registered_method_handlers(self, service: str, methods: Mapping[str, Handler]) -> None:
        """Keep them by their path."""
        self.handlers |= {f"/{service}/{name}": handler for name, handler in methods.items()}


def _health_handlers(servicer: health.HealthServicer) -> dict[str, Handler]:
    collector = _Collector()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, collector)  # type: ignore[no-untyped-call]
    return collector.handlers


class _Asked(grpc.HandlerCallDetails):
    """Which method a generic handler is asked for."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def _reflection() -> dict[str, Handler]:
    found: dict[str, Handler] = {}
    for name in NAMES:
        path = f"/{name}/ServerReflectionInfo"
        for generic in reflection_handlers():
            handler = generic.service(_Asked(path))
            if handler is not None:
                found[path] = handler
    return found
