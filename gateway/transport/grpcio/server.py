"""The grpcio server: the portable ingress on grpc.aio, and the reference for the native server.

grpcio neither parses a request nor words an error. Handlers take raw bytes, and every exception of
a handler becomes one of the statuses in gateway/status.py.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
import numpy as np
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2_grpc
from numpy.typing import NDArray

from access.client_connections import keep_room
from gateway.caller import ANONYMOUS, MODEL_FORBIDDEN, Caller
from gateway.callers.directory import CallerDirectory
from gateway.callers.quotas import CallerQuotas
from gateway.columns import Calls, ModelShape, Replies
from gateway.ingress_choice import IngressChoice
from gateway.internal_error_log import InternalErrorLog
from gateway.settings import Settings
from gateway.status import Code, Refusal, RefusedError, refuse_internal
from gateway.transport import open_inference
from gateway.transport.admission import PUSHBACK_MS, Admission
from gateway.transport.call_queue import CallQueue
from gateway.transport.decode import DecodedCall, DecodeLimits, decode_predict, parse_predict
from gateway.transport.grpcio import stream
from gateway.transport.grpcio.batch_delay import (
    DELAY_STEP_S,
    DELAY_STEPS_MAX,
    NEWCOMERS_MIN,
    BatchDelay,
)
from gateway.transport.grpcio.handshake_log import HANDSHAKE_LOG
from gateway.transport.open_inference import ReplyEncoder
from gateway.transport.read_deadline import ReadDeadline
from gateway.transport.reflection import reflection_methods
from gateway.transport.server import (
    NOT_SERVING,
    SERVING,
    HandshakeRefusal,
    OnRefused,
    OnSingleCall,
    ServerStatistics,
    UnaryMethod,
)
from gateway.transport.tls import TlsFiles
from host.addresses import hosts_to_listen_at, join_address
from host.clock import Clock
from host.processes import fail_fast
from host.sockets import stop_listening, wait_for_disconnects
from protos.predict_pb2 import PredictReply, PredictRequest

DeferredDecode = Callable[[Mapping[str, ModelShape]], tuple[DecodedCall, ReplyEncoder | None]]
Decoder = Callable[[bytes], tuple[str, DeferredDecode]]
"""Reads one protocol: message bytes to the model they name and a function that decodes the call."""

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handlers: TypeAlias = "dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]]"

STATUS = {code.value[0]: code for code in grpc.StatusCode}
PREDICTOR, OPEN_INFERENCE = "turnout.v1.Predictor", "inference.GRPCInferenceService"
UNCOMPRESSED = 1
"""A set of gRPC's compression algorithms that has identity alone."""
NO_MESSAGE = Refusal(Code.INVALID_ARGUMENT, "the call ended without a message; send one")


class GrpcioServer:
    """`IngressServer` over grpc.aio."""

    kind = IngressChoice.GRPCIO

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        error_log: InternalErrorLog,
        on_refused: OnRefused,
        methods: Mapping[str, UnaryMethod],
        callers: CallerDirectory | None = None,
    ) -> None:
        """Create the server. Without *callers* everybody may call."""
        # The parts that it was given.
        self._callers = callers
        self._callers_task: asyncio.Task[None] | None = None
        self._quotas = CallerQuotas(clock)
        self._settings = settings
        self._clock = clock
        self._error_log = error_log
        self._on_refused = on_refused
        self._methods = methods
        # What decides whether a call is admitted.
        self._limits = DecodeLimits(settings.name_bytes_max, settings.request_id_bytes_max)
        self._shapes: Mapping[str, ModelShape] = {}
        self._shapes_by_caller: dict[Caller, Mapping[str, ModelShape]] = {}
        """The shapes of the models that a caller may call."""
        self._admission = Admission(
            settings.rows_inside_max, settings.default_rows_pct, settings.sheddable_rows_pct
        )
        self._queue = CallQueue(self._admission)
        self._reply_futures: dict[int, asyncio.Future[bytes]] = {}
        self._request_ids: dict[int, str] = {}
        self._encoders: dict[int, ReplyEncoder] = {}
        """Handle -> encoder, of calls whose reply is not a plain PredictReply."""
        # Events, the batch delay and health.
        self._draining = asyncio.Event()
        self._call_arrived = asyncio.Event()
        self._on_single_call: OnSingleCall | None = None
        """Set while the pipeline waits for calls."""
        self._batch_delay = BatchDelay()
        self._delay_due = False
        """True if the delay of the call that waits is decided already."""
        self._read_deadline = ReadDeadline(settings.message_ms_max / 1e3)
        self._health = health.HealthServicer()
        self._raw_bytes = 0
        """Bytes of messages of methods that score nothing, which their handlers have."""
        self._keeping_room: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._port = 0

    # Calls and replies

    def configure(self, shapes: Mapping[str, ModelShape]) -> None:
        """Replace what the server knows of models."""
        self._shapes = dict(shapes)
        self._shapes_by_caller = {}

    async def wait_for_calls(self, on_single_call: OnSingleCall | None) -> None:
        """Return when a call waits, after a batch delay if more calls are likely to come."""
        while True:
            # While nothing waits, `_admit` passes on a call that is alone.
            self._on_single_call = on_single_call
            try:
                while not self._queue.rows_waiting:
                    self._call_arrived.clear()
                    await self._call_arrived.wait()
            finally:
                self._on_single_call = None
            await self._delay_batch()
            # A call may still be alone after the delay.
            queued = None if on_single_call is None else self._queue.pop_single_call()
            if on_single_call is None or queued is None:
                return
            on_single_call(queued)

    async def _delay_batch(self) -> None:
        """Wait while more calls come, if that is likely."""
        at_first = inside = len(self._reply_futures)
        delay_due, self._delay_due = self._delay_due, False
        if not delay_due and not self._batch_delay.should_wait(at_first):
            return
        for _ in range(DELAY_STEPS_MAX):
            await asyncio.sleep(DELAY_STEP_S)
            before, inside = inside, len(self._reply_futures)
            if inside - before < NEWCOMERS_MIN:
                break
        self._batch_delay.record_newcomers(inside - at_first)

    def _pass_on_single_call(self) -> bool:
        """Pass on the call that waits if it is alone and no delay is due. False: it waits."""
        if self._on_single_call is None or self._queue.rows_inside != 1:
            return False
        self._delay_due = self._batch_delay.should_wait(1)
        queued = None if self._delay_due else self._queue.pop_single_call()
        if queued is None:
            return False
        self._on_single_call(queued)
        return True

    def pop_calls(self, rows_max: int) -> Calls | None:
        """Return waiting calls of one model; None if no call waits."""
        return self._queue.pop_calls(rows_max, self._clock.now_ns())

    def send_reply(self, handle: int, reply: PredictReply) -> None:
        """Send the reply to a single call."""
        future = self._reply_futures.get(handle)
        if future is not None and not future.done():
            encode = self._encoders.get(handle)
            future.set_result(reply.SerializeToString() if encode is None else encode(reply))

    def send_replies(self, replies: Replies, *, more: bool = False) -> None:
        """Send each reply by itself."""
        del more
        offsets = replies.row_offsets.tolist()
        outputs = replies.scores.shape[1]
        scores = replies.scores.ravel().tolist()
        flags = replies.row_flags.tolist() if replies.row_flags.any() else None
        holdout = None if replies.holdout is None else replies.holdout.tolist()
        encoders = self._encoders
        for call, handle in enumerate(replies.handles.tolist()):
            future = self._reply_futures.get(handle)
            if future is None or future.done():
                continue
            first, last = offsets[call], offsets[call + 1]
            reply = PredictReply(
                request_id=self._request_ids.get(handle, ""),
                model=replies.model,
                version=replies.version,
                role=replies.role,  # type: ignore[arg-type]
                prediction_id=replies.prediction_ids[64 * call : 64 * call + 64],
                holdout=holdout is not None and holdout[call],
                scores=scores[first * outputs : last * outputs],
                outputs=outputs,
                row_flags=flags[first:last] if flags and any(flags[first:last]) else None,
            )
            encode = encoders.get(handle) if encoders else None
            future.set_result(reply.SerializeToString() if encode is None else encode(reply))
        self._admission.rate.record_answered(offsets[-1], self._clock.now_ns())

    def refuse_calls(self, handles: NDArray[np.uint64], refusal: Refusal) -> None:
        """End these calls with one status."""
        for handle in handles.tolist():
            future = self._reply_futures.get(handle)
            if future is not None and not future.done():
                future.set_exception(RefusedError(refusal))

    # The server

    async def listen(
        self, host: str, port: int, unix: str = "", lent_fds: Sequence[int] = ()
    ) -> int:
        """Listen on *port* (0 for a free one) and on a Unix socket at *unix*. Return the port.

        The host `localhost` is both 127.0.0.1 and ::1.

        lent_fds  ignored, because grpc.aio takes no sockets.
        """
        del lent_fds
        # The services: every method of ours, reflection and health.
        self._server = grpc.aio.server(options=server_options(self._settings))
        self._server.add_generic_rpc_handlers(
            (
                *(
                    grpc.method_handlers_generic_handler(service, handlers)
                    for service, handlers in self._handlers().items()
                ),
                *(
                    grpc.method_handlers_generic_handler(
                        service, {name: self._guard_stream(handler)}
                    )
                    for service, name, handler in reflection_methods()
                ),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(  # type: ignore[no-untyped-call]
            self._health, self._server
        )
        # The port, at each address of the host. If it is 0, the first address picks it.
        self._port = port
        for name in hosts_to_listen_at(host):
            address = join_address(name, self._port)
            if self._settings.tls_certificate:
                # Each notices by itself that the files have changed.
                credentials = TlsFiles(self._settings).credentials()
                self._port = self._server.add_secure_port(address, credentials)
            else:
                self._port = self._server.add_insecure_port(address)
        if unix:
            self._server.add_insecure_port(f"unix:{unix}")
        await self._server.start()
        # A client's share of the connections, which grpcio does not keep.
        settings, loop = self._settings, asyncio.get_running_loop()
        keeping_room = keep_room(
            self._port, settings.connections_max, settings.client_connections_max
        )
        self._keeping_room = fail_fast(loop.create_task(keeping_room))
        if self._callers is not None:
            following = self._callers.follow(self._shapes_by_caller.clear)
            self._callers_task = fail_fast(loop.create_task(following))
        return self._port

    async def show_health(self, ready: Mapping[str, bool]) -> None:
        """Set what grpc.health.v1 reports: each model's name, and "" for the server as a whole."""
        for name, serving in ready.items():
            await self._health.set(name, SERVING if serving else NOT_SERVING)

    async def close(self, grace_s: float) -> None:
        """Stop listening at once, let clients reconnect elsewhere and finish the calls in flight.

        The part of *grace_s* beyond drain_grace_s lets connections reach their maximum age, so that
        clients leave by themselves. Only then are the other connections closed: closing one cancels
        the calls that are on their way, and so does a connection that the kernel hands over after
        GOAWAY (grpc#41785).
        """
        await self._health.enter_graceful_shutdown()
        if self._callers_task is not None:
            self._callers_task.cancel()
        await stop_listening(self._port)
        if self._server is not None:
            last_s = min(grace_s, self._settings.drain_grace_s)
            if grace_s > last_s:
                await wait_for_disconnects(self._port, grace_s - last_s)
            stopped = asyncio.get_running_loop().create_task(self._server.stop(last_s))
            # GOAWAY goes first, so that a stream that opens again does not use this connection.
            await asyncio.sleep(0)
            self._draining.set()
            await stopped
        if self._keeping_room is not None:
            self._keeping_room.cancel()
            await asyncio.wait({self._keeping_room})

    def handshake_refusals(self) -> list[HandshakeRefusal]:
        """Return the TLS handshakes that gRPC's log has named since the last call."""
        return HANDSHAKE_LOG.take()

    def statistics(self) -> ServerStatistics:
        """Return a snapshot of the call queue. grpcio does not tell the number of connections."""
        queue = self._queue
        return ServerStatistics(self.kind.value, queue.rows_inside, queue.rows_waiting, None)

    @property
    def rows_inside(self) -> int:
        """Number of rows that are admitted and not answered yet."""
        return self._queue.rows_inside

    # Handlers

    def _handlers(self) -> Handlers:
        """Return every method by service and name."""
        services: Handlers = {
            PREDICTOR: {
                "Predict": self._scored_method(self._read_predict),
                "PredictStream": grpc.stream_stream_rpc_method_handler(self._predict_stream),
            },
            OPEN_INFERENCE: {"ModelInfer": self._scored_method(self._read_infer)},
        }
        for path, method in self._methods.items():
            service, name = path.strip("/").split("/")
            services[service][name] = grpc.unary_unary_rpc_method_handler(self._wrap_unary(method))
        return services

    def _scored_method(self, read: Decoder) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Return the handler of a unary method that scores.

        It is a stream-unary handler because that lets a read deadline end half-open calls.
        """

        async def serve(messages: object, context: Context) -> bytes:
            del messages
            model = ""
            try:
                # The caller is identified before its message is read.
                arrived_ns = self._clock.now_ns()
                caller = self._enter(context)
                try:
                    self._take(caller, "calls", 1)
                    message = await self._read_message(context)
                    self._take(caller, "bytes", len(message))
                    # Decode and admit it, and wait for its batch.
                    model, decode = read(message)
                    call, encode = self._decode(caller, model, decode)
                    deadline_ns = self._deadline_ns(model, context.time_remaining(), arrived_ns)
                    handle, future = self._admit(call, encode, arrived_ns, deadline_ns)
                    return await self._wait_for_reply(handle, future, context)
                finally:
                    self._leave(caller, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  nothing internal may reach a caller
                refusal = self.refuse_error(model, error)
            await abort_call(context, refusal)
            raise AssertionError("abort returned")

        return grpc.stream_unary_rpc_method_handler(serve)

    # Callers

    def _enter(self, context: Context) -> Caller:
        """Identify the caller of a call and count the call; `_leave` follows. RefusedError."""
        callers = self._callers
        if callers is None:
            return ANONYMOUS
        headers = [
            value if isinstance(value, str) else value.decode("latin-1")
            for name, value in context.invocation_metadata() or ()
            if name == "authorization"
        ]
        names = context.auth_context().get("x509_subject_alternative_name", ())
        caller = callers.identify(headers, [name.decode("latin-1") for name in names])
        with self._counting_refusals(caller):
            self._quotas.enter(caller, context.peer())
        return caller

    def _leave(self, caller: Caller, context: Context) -> None:
        if caller is not ANONYMOUS:
            self._quotas.leave(caller, context.peer())

    @contextmanager
    def _counting_refusals(self, caller: Caller) -> Iterator[None]:
        """Count a RefusedError of the block among the caller's refusals."""
        try:
            yield
        except RefusedError as error:
            if self._callers is not None:
                self._callers.on_refused(caller.name, error.refusal.code.name, 1)
            raise

    def _take(self, caller: Caller, what: str, amount: int) -> None:
        """Take from a caller's quota of calls, rows or bytes; RefusedError above it."""
        if caller is not ANONYMOUS:
            with self._counting_refusals(caller):
                self._quotas.take(caller, what, amount)

    def _decode(
        self, caller: Caller, model: str, decode: DeferredDecode
    ) -> tuple[DecodedCall, ReplyEncoder | None]:
        """Decode a call of *caller*, for whom its other models do not exist. RefusedError."""
        if caller.models is None:
            call, encode = decode(self._shapes)
        else:
            shapes = self._shapes_by_caller.get(caller)
            if shapes is None:
                shapes = {
                    name: shape for name, shape in self._shapes.items() if caller.may_call(name)
                }
                self._shapes_by_caller[caller] = shapes
            try:
                call, encode = decode(shapes)
            except RefusedError as error:
                if error.refusal.code != Code.NOT_FOUND or caller.may_call(model):
                    raise
                with self._counting_refusals(caller):
                    raise RefusedError(MODEL_FORBIDDEN) from None
        call.any_version = bool(call.pin) and caller.may_pin(call.model)
        self._take(caller, "rows", call.rows)
        return call, encode

    def _guard_stream(self, handler: Handler) -> Handler:
        """Return a streaming handler that identifies its caller first."""
        stream_stream: Any = handler.stream_stream

        async def serve(requests: object, context: Context) -> AsyncIterator[object]:
            try:
                caller = self._enter(context)
            except RefusedError as error:
                await abort_call(context, self.refuse_error("", error))
                raise AssertionError("abort returned") from None
            try:
                async for reply in stream_stream(requests, context):
                    yield reply
            finally:
                self._leave(caller, context)

        return grpc.stream_stream_rpc_method_handler(
            serve, handler.request_deserializer, handler.response_serializer
        )

    def _read_predict(self, message: bytes) -> tuple[str, DeferredDecode]:
        request = parse_predict(message)
        return request.model, lambda shapes: (
            decode_predict(request, shapes, self._limits),
            None,
        )

    def _read_infer(self, message: bytes) -> tuple[str, DeferredDecode]:
        """Read a ModelInfer message, which becomes the same kind of call as Predict."""
        request = open_inference.parse_infer(message, self._settings.typed_contents_bytes_max)

        def decoded(shapes: Mapping[str, ModelShape]) -> tuple[DecodedCall, ReplyEncoder]:
            infer = open_inference.decode_infer(request, shapes, self._limits)
            return infer.call, infer.encode

        return request.model_name, decoded

    async def _predict_stream(self, messages: object, context: Context) -> None:
        del messages
        try:
            caller = self._enter(context)
            try:
                calls_max = self._settings.stream_calls_max
                call = stream.PredictStream(self, context, calls_max, caller)
                refusal = await call.run(self._draining)
            finally:
                self._leave(caller, context)
        except Exception as error:  # noqa: BLE001  nothing internal may reach a caller
            refusal = self.refuse_error("", error)
        if refusal is not None:
            await abort_call(context, refusal)

    async def _read_message(self, context: Context) -> bytes:
        """Read the message of a unary call within message_ms_max."""
        message = await self._read_deadline.read_message(context)
        if not isinstance(message, bytes):
            raise RefusedError(NO_MESSAGE)
        return message

    def _deadline_ns(self, model: str, left_s: float | None, arrived_ns: int) -> int:
        if left_s is None:
            return arrived_ns + self._shapes[model].deadline_ns_default
        return arrived_ns + int(min(left_s * 1e9, self._settings.deadline_ms_max * 1e6))

    def _admit(
        self, call: DecodedCall, encode: ReplyEncoder | None, arrived_ns: int, deadline_ns: int
    ) -> "tuple[int, asyncio.Future[bytes]]":
        """Admit a call. Return its handle and a future of the reply's bytes or RefusedError."""
        handle = self._queue.admit(call, arrived_ns=arrived_ns, deadline_ns=deadline_ns)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._reply_futures[handle] = future
        if call.request_id:
            self._request_ids[handle] = call.request_id.decode()
        if encode is not None:
            self._encoders[handle] = encode
        if not self._pass_on_single_call():
            self._call_arrived.set()
        return handle, future

    async def _wait_for_reply(
        self, handle: int, future: "asyncio.Future[bytes]", context: Context
    ) -> bytes:
        """Wait for the reply and return its bytes. The pipeline has counted a refusal already."""
        try:
            return await future
        except RefusedError as error:
            refusal = error.refusal
        finally:
            self.finish_call(handle)
        await abort_call(context, refusal)
        raise AssertionError("abort returned")

    # The interface that a stream uses (gateway.transport.grpcio.stream.StreamCalls)

    def parse_request(self, message: bytes) -> PredictRequest:
        """Parse the bytes of one message. Raises RefusedError."""
        return parse_predict(message)

    def admit(
        self, request: PredictRequest, left_s: float | None, caller: Caller
    ) -> stream.AdmittedCall:
        """Admit one message of a stream. Its deadline is the model's default or the stream's."""
        arrived_ns = self._clock.now_ns()
        call, _ = self._decode(
            caller,
            request.model,
            lambda shapes: (decode_predict(request, shapes, self._limits), None),
        )
        self._take(caller, "calls", 1)
        self._take(caller, "bytes", request.ByteSize() if caller.bytes_s else 0)
        deadline_ns = min(
            self._deadline_ns(call.model, None, arrived_ns),
            self._deadline_ns(call.model, left_s, arrived_ns),
        )
        return stream.AdmittedCall(
            *self._admit(call, stream.encode_stream_reply, arrived_ns, deadline_ns)
        )

    def finish_call(self, handle: int) -> None:
        """Free a call's rows, answered or not."""
        self._queue.finish_call(handle)
        del self._reply_futures[handle]
        self._request_ids.pop(handle, None)
        self._encoders.pop(handle, None)

    def refuse_error(self, model: str, error: BaseException) -> Refusal:
        """Count a call that failed here. Return its status, which holds nothing internal."""
        if isinstance(error, RefusedError):
            refusal = error.refusal
        else:
            refusal = refuse_internal(self._error_log.log_error(repr(error), error))
        self._on_refused(model if model in self._shapes else "", refusal, 1)
        return refusal

    def _wrap_unary(self, method: UnaryMethod) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def handle(message: bytes, context: Context) -> bytes:
            self._raw_bytes += len(message)
            try:
                caller = self._enter(context)
                try:
                    self._take(caller, "calls", 1)
                    self._take(caller, "bytes", len(message))
                    self._check_raw_bytes(len(message))
                    return await method(message, caller)
                finally:
                    self._leave(caller, context)
            except Exception as error:  # noqa: BLE001  nothing internal may reach a caller
                refusal = self.refuse_error("", error)
            finally:
                self._raw_bytes -= len(message)
            await abort_call(context, refusal)
            raise AssertionError("abort returned")

        return handle

    def _check_raw_bytes(self, more: int) -> None:
        """Refuse a message that is too long, or with which the handlers would have too many bytes.

        Raises RefusedError.
        """
        message_max = self._settings.unscored_message_bytes_max
        if more > message_max:
            text = (
                f"the message is {more} bytes long; at most {message_max} are taken "
                "(unscored_message_bytes_max)"
            )
            raise RefusedError(Refusal(Code.RESOURCE_EXHAUSTED, text))
        bytes_max = self._settings.message_bytes_inside_max
        if self._raw_bytes > bytes_max:
            text = (
                f"all callers have {self._raw_bytes - more} bytes of unfinished messages inside "
                f"and {more} more came; at most {bytes_max} are taken (message_bytes_inside_max); "
                "retry after a pause, or send smaller messages"
            )
            raise RefusedError(Refusal(Code.UNAVAILABLE, text, PUSHBACK_MS))


async def abort_call(context: Context, refusal: Refusal) -> None:
    """End the call with the code, message and pushback of *refusal*."""
    trailing: tuple[tuple[str, str | bytes], ...] = ()
    if refusal.pushback_ms is not None:
        trailing = (("grpc-retry-pushback-ms", str(refusal.pushback_ms)),)
    await context.abort(STATUS[int(refusal.code)], refusal.message, trailing)


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Return grpcio's channel arguments for the settings; docs/limits.md lists them.

    max_pending_requests: by default gRPC cancels calls at random once 1,000 wait to be fetched. At
    10 x load over 32 connections .2 % of the goodput was left. Here half a second's work may wait.

    max_deallocating_streams: gRPC refuses streams while ended calls are not deallocated, which
    Python does late. Of 7,730 calls of a client with 90 open calls on one connection (100 are
    allowed), 1,097 failed at an idle worker. With 8 x streams_max none fails. Without a bound, a
    client that resets 20,000 calls at once cost 75 MB, and delayed other calls by .5 s.

    compression_enabled_algorithms_bitset: gRPC inflates a message before anything here can count
    it. 24 connections with 3 MB of gzip stopped all others for 18 s, and took 260 MB. A compressed
    call ends UNIMPLEMENTED, and gRPC's clients can send it uncompressed.

    lookahead_bytes, bdp_probe: what a client may send before Python reads its call. Calls that gRPC
    refused wait for Python with their bytes. With gRPC's own windows, which grow, such calls of one
    client cost 237 MB and delayed others by 290 ms; with this one 17 MB and 12 ms. A message that
    is longer than 16 KiB takes one or two round trips more.
    """
    return [
        # Messages, connections and calls.
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.message_bytes_max),
        ("grpc.compression_enabled_algorithms_bitset", UNCOMPRESSED),
        ("grpc.max_allowed_incoming_connections", settings.connections_max),
        ("grpc.max_concurrent_streams", settings.streams_max),
        ("grpc.http2.max_deallocating_streams", 8 * settings.streams_max),
        ("grpc.server.max_pending_requests", settings.calls_waiting_max),
        ("grpc.server.max_pending_requests_hard_limit", settings.calls_waiting_max),
        # Metadata, and the times of a connection.
        ("grpc.max_metadata_size", settings.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", 2 * settings.metadata_bytes_max),
        ("grpc.max_connection_age_ms", int(settings.connection_age_s_max * 1_000)),
        ("grpc.max_connection_age_grace_ms", int(settings.drain_grace_s * 1_000)),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.server_handshake_timeout_ms", 2_000),
        # Flow-control windows.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 16 * 1_024),
    ]
