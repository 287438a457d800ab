"""The portable front door: grpc.aio. The reference that the native one is held against.

It never lets grpcio parse a request or word an error: handlers take raw bytes, and whatever a
handler raises becomes one of our statuses.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import grpc
import numpy as np
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.columns import Calls, ModelShape, Replies
from gateway.fault_log import FaultLog
from gateway.ingress_choice import IngressChoice
from gateway.predict.single_call import LoneCalls
from gateway.settings import Settings
from gateway.status import Code, Refusal, RefusedError, refuse_internal
from gateway.transport import open_inference
from gateway.transport.admission import Admission
from gateway.transport.call_queue import Intake
from gateway.transport.decode import DecodedCall, DoorLimits, decode, parse
from gateway.transport.grpcio import stream
from gateway.transport.grpcio.batch_delay import COMPANY_MIN, QUANTA_MAX, QUANTUM_S, Patience
from gateway.transport.grpcio.options import server_options
from gateway.transport.grpcio.sockets import clients_left, leave_port
from gateway.transport.open_inference import ReplyEncoder
from gateway.transport.read_deadline import Reads
from gateway.transport.reflection import reflection_handlers
from gateway.transport.tls import TlsFiles
from protos.predict_pb2 import PredictReply, PredictRequest

Unary = Callable[[bytes], Awaitable[bytes]]
"""A method that scores nothing: raw bytes in and out; raises RefusedError."""

Counter = Callable[[str, Refusal, int], None]
"""Told of calls the door refused: (model or "", refusal, how many)."""

Decoded = Callable[[], tuple[DecodedCall, ReplyEncoder | None]]
Decoder = Callable[[bytes], tuple[str, Decoded]]
"""A dialect: bytes to the model they name, and what they ask of it, read and checked."""

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handlers: TypeAlias = "dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]]"

STATUS = {code.value[0]: code for code in grpc.StatusCode}
PREDICTOR, OPEN_INFERENCE = "turnout.v1.Predictor", "inference.GRPCInferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

NO_MESSAGE = Refusal(Code.INVALID_ARGUMENT, "the call ended without a message; send one")


class GrpcioDoor:
    """`gateway.columns.Ingress` over grpc.aio."""

    kind = IngressChoice.GRPCIO

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        faults: FaultLog,
        on_refused: Counter,
        methods: Mapping[str, Unary],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._faults = faults
        self._on_refused = on_refused
        self._methods = methods
        self._limits = DoorLimits(settings.name_bytes_max, settings.request_id_bytes_max)
        self._shapes: Mapping[str, ModelShape] = {}
        self._admission = Admission(
            settings.rows_inside_max, settings.default_rows_pct, settings.sheddable_rows_pct
        )
        self._intake = Intake(self._admission)
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._request_ids: dict[int, str] = {}
        self._encoders: dict[int, ReplyEncoder] = {}
        """Of the calls that are not answered with a plain PredictReply."""
        self.lone: LoneCalls | None = None
        """Answers a call that is alone without making columns of it; the core's, set once."""
        self._leaving = asyncio.Event()
        self._arrived = asyncio.Event()
        self._patience = Patience()
        self._reads = Reads(settings.body_ms_max / 1e3)
        self._health = health.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._port = 0

    # Ingress

    def configure(self, shapes: Mapping[str, ModelShape]) -> None:
        """Replace what the door knows of models."""
        self._shapes = dict(shapes)

    async def arrived(self) -> None:
        """Return when a call waits, and has waited for company where that is worth it."""
        while not self._intake.rows_waiting:
            self._arrived.clear()
            await self._arrived.wait()
        first = before = len(self._answers)
        if not self._patience.worth(first):
            return
        for _ in range(QUANTA_MAX):
            await asyncio.sleep(QUANTUM_S)
            before, now = len(self._answers), before
            if before - now < COMPANY_MIN:
                break
        self._patience.learn(before - first)

    def take(self, rows_max: int) -> Calls | None:
        """Hand over what waits."""
        return self._intake.take(rows_max, self._clock.now_ns())

    def answer(self, replies: Replies, *, more: bool = False) -> None:
        """Send each reply to whoever still waits for it; each goes out by itself."""
        del more
        offsets = replies.row_offsets.tolist()
        outputs = replies.scores.shape[1]
        scores = replies.scores.ravel().tolist()
        flags = replies.row_flags.tolist() if replies.row_flags.any() else None
        holdout = None if replies.holdout is None else replies.holdout.tolist()
        encoders = self._encoders
        for place, handle in enumerate(replies.handles.tolist()):
            future = self._answers.get(handle)
            if future is None or future.done():
                continue
            first, last = offsets[place], offsets[place + 1]
            reply = PredictReply(
                request_id=self._request_ids.get(handle, ""),
                model=replies.model,
                version=replies.version,
                role=replies.role,  # type: ignore[arg-type]
                prediction_id=replies.prediction_ids[64 * place : 64 * place + 64],
                holdout=holdout is not None and holdout[place],
                scores=scores[first * outputs : last * outputs],
                outputs=outputs,
                row_flags=flags[first:last] if flags and any(flags[first:last]) else None,
            )
            encode = encoders.get(handle) if encoders else None
            future.set_result(reply.SerializeToString() if encode is None else encode(reply))
        self._admission.rate.answered(offsets[-1], self._clock.now_ns())

    def refuse(self, handles: NDArray[np.uint64], refusal: Refusal) -> None:
        """End these calls with one status."""
        for handle in handles.tolist():
            future = self._answers.get(handle)
            if future is not None and not future.done():
                future.set_exception(RefusedError(refusal))

    # The server

    async def listen(self, host: str, port: int, unix: str = "", lent: int | None = None) -> int:
        """Open *port* (0: a free one) beside the other workers; returns the port.

        unix  the path of a socket to listen at as well.
        lent  left alone: grpc.aio takes no sockets.
        """
        del lent
        self._server = grpc.aio.server(options=server_options(self._settings))
        self._server.add_generic_rpc_handlers(
            (
                *(
                    grpc.method_handlers_generic_handler(service, handlers)
                    for service, handlers in self._handlers().items()
                ),
                *reflection_handlers(),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(  # type: ignore[no-untyped-call]
            self._health, self._server
        )
        if self._settings.tls_certificate:
            credentials = TlsFiles(self._settings).credentials()
            self._port = self._server.add_secure_port(f"{host}:{port}", credentials)
        else:
            self._port = self._server.add_insecure_port(f"{host}:{port}")
        if unix:
            self._server.add_insecure_port(f"unix:{unix}")
        await self._server.start()
        return self._port

    async def show_health(self, ready: Mapping[str, bool]) -> None:
        """Set what grpc.health.v1 says: each model's name, and "" for the server as a whole."""
        for name, serving in ready.items():
            await self._health.set(name, SERVING if serving else NOT_SERVING)

    async def close(self, grace_s: float) -> None:
        """Leave the port at once, let clients move over, finish what is in flight.

        Of *grace_s*, what goes beyond drain_grace_s is for clients to leave by themselves, as each
        connection comes of age; only then are the rest closed, because closing a connection cancels
        the calls that cross it, as does one that the kernel hands us after GOAWAY (grpc#41785).
        """
        await self._health.enter_graceful_shutdown()
        await leave_port(self._port)
        if self._server is not None:
            last_s = min(grace_s, self._settings.drain_grace_s)
            if grace_s > last_s:
                await clients_left(self._port, grace_s - last_s)
            stopped = asyncio.get_running_loop().create_task(self._server.stop(last_s))
            # GOAWAY first: a stream that is told to open again must not do so on this connection.
            await asyncio.sleep(0)
            self._leaving.set()
            await stopped

    @property
    def rows_inside(self) -> int:
        """Rows admitted and not yet answered."""
        return self._intake.rows_inside

    # Handlers

    def _handlers(self) -> Handlers:
        """Every method by its service and name."""
        services: Handlers = {
            PREDICTOR: {
                "Predict": self._scored(self._read_predict),
                "PredictStream": grpc.stream_stream_rpc_method_handler(self._predict_stream),
            },
            OPEN_INFERENCE: {"ModelInfer": self._scored(self._read_infer)},
        }
        for path, method in self._methods.items():
            service, name = path.strip("/").split("/")
            services[service][name] = grpc.unary_unary_rpc_method_handler(self._wrap(method))
        return services

    def _scored(self, read: Decoder) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """A method of one call, read by hand: half open, it holds nothing for long."""

        async def handle(messages: object, context: Context) -> bytes:
            del messages
            model = ""
            try:
                arrived_ns = self._clock.now_ns()
                model, decoded = read(await self._read(context))
                call, encode = decoded()
                deadline_ns = self._deadline_ns(model, context.time_remaining(), arrived_ns)
                reply = await self._alone(call, arrived_ns, deadline_ns)
                if isinstance(reply, PredictReply):
                    return reply.SerializeToString() if encode is None else encode(reply)
                entered = reply or self._enter(call, encode, arrived_ns, deadline_ns)
            except Exception as error:  # noqa: BLE001  the wall: nothing internal reaches a caller
                entered = self.refused(model, error)
            if not isinstance(entered, Refusal):
                return await self._answered(*entered, context)
            await abort(context, entered)
            raise AssertionError("abort returned")

        return grpc.stream_unary_rpc_method_handler(handle)

    def _read_predict(self, message: bytes) -> tuple[str, Decoded]:
        request = parse(message)
        return request.model, lambda: (decode(request, self._shapes, self._limits), None)

    def _read_infer(self, message: bytes) -> tuple[str, Decoded]:
        """ModelInfer: the same call in another dialect."""
        request = open_inference.parse(message, self._settings.typed_bytes_max)

        def decoded() -> tuple[DecodedCall, ReplyEncoder]:
            asked = open_inference.decode(request, self._shapes, self._limits)
            return asked.call, asked.encode

        return request.model_name, decoded

    async def _predict_stream(self, messages: object, context: Context) -> None:
        del messages
        call = stream.PredictStream(self, context, self._settings.stream_calls_max)
        try:
            refusal = await call.run(self._leaving)
        except Exception as error:  # noqa: BLE001  the wall
            refusal = self.refused("", error)
        if refusal is not None:
            await abort(context, refusal)

    async def _read(self, context: Context) -> bytes:
        """Read the call's one message, within body_ms_max."""
        message = await self._reads.read(context)
        if not isinstance(message, bytes):
            raise RefusedError(NO_MESSAGE)
        return message

    def _deadline_ns(self, model: str, left_s: float | None, arrived_ns: int) -> int:
        if left_s is None:
            return arrived_ns + self._shapes[model].deadline_ns_default
        return arrived_ns + int(min(left_s * 1e9, self._settings.deadline_ms_max * 1e6))

    async def _alone(
        self, call: DecodedCall, arrived_ns: int, deadline_ns: int
    ) -> PredictReply | Refusal | None:
        """Answer a call that found nobody inside, and that nobody will follow; None: it waits.

        A refusal is the core's, which counted it: not one of this door's.
        """
        lone = self.lone
        if lone is None or self._intake.rows_inside or self._patience.worth(1):
            return None
        routes = lone.routes_for(call)
        if routes is None:
            return None
        self._intake.hold(call.rows)
        try:
            return await lone.answer(routes, call, arrived_ns, deadline_ns)
        except RefusedError as error:
            return error.refusal
        finally:
            self._intake.release(call.rows)

    def _enter(
        self, call: DecodedCall, encode: ReplyEncoder | None, arrived_ns: int, deadline_ns: int
    ) -> "tuple[int, asyncio.Future[bytes]]":
        """Admit a call; its future brings the reply's bytes, or RefusedError."""
        handle = self._intake.enter(call, arrived_ns=arrived_ns, deadline_ns=deadline_ns)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[handle] = future
        if call.request_id:
            self._request_ids[handle] = call.request_id.decode()
        if encode is not None:
            self._encoders[handle] = encode
        self._arrived.set()
        return handle, future

    async def _answered(
        self, handle: int, future: "asyncio.Future[bytes]", context: Context
    ) -> bytes:
        """Wait for the reply. Refusals from here on are the core's, which counts its own."""
        try:
            return await future
        except RefusedError as error:
            refusal = error.refusal
        finally:
            self.leave(handle)
        await abort(context, refusal)
        raise AssertionError("abort returned")

    # What a stream asks (gateway.transport.grpcio.stream.Desk)

    def parse(self, message: bytes) -> PredictRequest:
        """Bytes to a request; RefusedError."""
        return parse(message)

    def enter(self, request: PredictRequest, left_s: float | None) -> stream.Entered:
        """Admit one message of a stream: it has a call's default time, or what the stream has."""
        arrived_ns = self._clock.now_ns()
        call = decode(request, self._shapes, self._limits)
        deadline_ns = min(
            self._deadline_ns(call.model, None, arrived_ns),
            self._deadline_ns(call.model, left_s, arrived_ns),
        )
        return stream.Entered(*self._enter(call, stream.encode, arrived_ns, deadline_ns))

    def leave(self, handle: int) -> None:
        """Give a call's rows back, answered or not."""
        self._intake.leave(handle)
        del self._answers[handle]
        self._request_ids.pop(handle, None)
        self._encoders.pop(handle, None)

    def refused(self, model: str, error: BaseException) -> Refusal:
        """Count a call that went wrong at the door, and word it: nothing of ours goes out."""
        if isinstance(error, RefusedError):
            refusal = error.refusal
        else:
            refusal = refuse_internal(self._faults.note(repr(error), error))
        self._on_refused(model if model in self._shapes else "", refusal, 1)
        return refusal

    def _wrap(self, method: Unary) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def handle(message: bytes, context: Context) -> bytes:
            try:
                return await method(message)
            except Exception as error:  # noqa: BLE001  the wall
                refusal = self.refused("", error)
            await abort(context, refusal)
            raise AssertionError("abort returned")

        return handle


async def abort(context: Context, refusal: Refusal) -> None:
    """End the call with *refusal*: its code, its words, and its pushback where it has one."""
    trailing: tuple[tuple[str, str | bytes], ...] = ()
    if refusal.pushback_ms is not None:
        trailing = (("grpc-retry-pushback-ms", str(refusal.pushback_ms)),)
    await context.abort(STATUS[int(refusal.code)], refusal.words, trailing)
