"""The native server: HTTP/2, gRPC and decoding in Rust, on a thread that never takes the GIL.

The thread wakes the event loop once for many calls. Calls come as columns, and replies go back as
columns. Methods that score nothing get raw bytes and use the same handlers as the grpcio server.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2_grpc
from numpy.typing import NDArray

from gateway.caller import ANONYMOUS, Caller
from gateway.callers.directory import UNKNOWN, CallerDirectory
from gateway.columns import Calls, ModelShape, Replies
from gateway.ingress_choice import IngressChoice
from gateway.internal_error_log import InternalErrorLog
from gateway.native_library import AnswerRecord, IngressLibrary, IngressThread, NativeTurn
from gateway.settings import Settings
from gateway.status import Code, Refusal, RefusedError, refuse_internal
from gateway.transport.native.batch_columns import calls_of_columns, single_call
from gateway.transport.native.context import Handler, RawCall, RawCallServer
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
from host.addresses import hosts_to_listen_at
from host.clock import Clock
from host.processes import fail_fast
from protos.predict_pb2 import PredictReply

SCORED_METHODS = {
    "/turnout.v1.Predictor/Predict": "predict",
    "/turnout.v1.Predictor/PredictStream": "predict_stream",
    "/inference.GRPCInferenceService/ModelInfer": "infer",
}
"""Methods whose messages are decoded in Rust, and how."""
POLL_INTERVAL_S = 0.02  # between two checks whether all connections are closed
ONE_ROW = np.array([0, 1], dtype=np.uint32)  # row offsets of one call with one row


class NativeServer:
    """`IngressServer` over the Rust crate in ingress/.

    extra_handlers  more handlers by method path, for tests.
    callers         who may call. None: everybody.
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
        callers: CallerDirectory | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._error_log = error_log
        self._on_refused = on_refused
        self._health = health.HealthServicer()
        # Methods that score nothing run as gRPC handlers.
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
        self._library = module
        # Start the thread, which decodes the other methods.
        self._thread: IngressThread = module.IngressThread(settings, SCORED_METHODS | kinds)
        self._callers = callers
        self._callers_task: asyncio.Task[None] | None = None
        if callers is not None:
            self._set_callers(callers)
        self._raw_calls = RawCallServer(
            self._thread, handlers, clock, self._refuse_error, self._caller_of
        )
        self._call_arrived = asyncio.Event()
        self._on_single_call: OnSingleCall | None = None
        """Set while the pipeline waits for calls."""
        self.on_records: Callable[[], None] | None = None
        """Called when records of calls that the I/O thread has answered are due."""
        self._open = False

    # Calls and replies

    def configure(self, shapes: Mapping[str, ModelShape]) -> None:
        """Replace what the server knows of models."""
        self._thread.configure(list(shapes.values()))

    async def wait_for_calls(self, on_single_call: OnSingleCall | None) -> None:
        """Return when the I/O thread has a batch ready. The thread decides on a batch delay."""
        self._on_single_call = on_single_call
        try:
            while not self._has_batch():
                self._call_arrived.clear()
                await self._call_arrived.wait()
        finally:
            self._on_single_call = None

    def _has_batch(self) -> bool:
        """Pass on a call that is alone. Return True if other calls make a batch now."""
        while self._thread.batch_ready():
            if self._on_single_call is None or self._thread.rows_inside() != 1:
                return True
            native_columns = self._thread.pop_calls(1, self._clock.now_ns())
            if native_columns is not None:
                self._on_single_call(single_call(calls_of_columns(native_columns)))
        return False

    def pop_calls(self, rows_max: int) -> Calls | None:
        """Return waiting calls of one model; None if no call waits."""
        native_columns = self._thread.pop_calls(rows_max, self._clock.now_ns())
        return None if native_columns is None else calls_of_columns(native_columns)

    def pop_turn(self, rows_max: int) -> NativeTurn | None:
        """Return the waiting calls of all models, up to *rows_max* rows. None: no call waits."""
        return self._library.pop_turn(self._thread, rows_max, self._clock.now_ns())

    @property
    def model_plan(self) -> Callable[..., object]:
        """IngressLibrary.ModelPlan."""
        return self._library.ModelPlan

    def calls_of(self, turn: NativeTurn, index: int) -> Calls:
        """Return the calls of a group of a turn."""
        return calls_of_columns(turn.columns(index))

    def answer_groups(
        self,
        turn: NativeTurn,
        members: Sequence[int],
        keys: tuple[bytes, bytes, bytes],
        first: int,
        times: tuple[int, int, int],
    ) -> list[object]:
        """Answer groups of a turn; the arguments are those of IngressLibrary.answer_groups."""
        return self._library.answer_groups(self._thread, turn, members, keys, first, times)

    # Calls that the I/O thread answers

    def set_id_keys(self, keys: tuple[bytes, bytes, bytes]) -> None:
        """Set the keys of the prediction ids that the I/O thread makes."""
        self._library.set_id_keys(self._thread, keys)

    def publish_plan(self, model: str, plan: tuple[int, object] | None) -> None:
        """Have the I/O thread answer usual calls of *model* by a numbered IngressLibrary.ModelPlan.

        The plan before answers no call from now on. None: the thread answers no call of the model.
        """
        self._library.publish_plan(self._thread, model, plan)

    def reserve_ids(self, calls: int) -> int:
        """Return the first of the next *calls* sequence numbers of ids, which wrap at 2^32."""
        return self._library.reserve_ids(self._thread, calls)

    def take_records(self) -> list[AnswerRecord]:
        """Return what the I/O thread has answered."""
        return [AnswerRecord(*record) for record in self._library.take_records(self._thread)]

    def use_store(self, fd: int) -> None:
        """Have the I/O thread read the store over *fd*, which the caller still has to close."""
        self._library.use_store(self._thread, fd)

    def leave_store(self) -> None:
        """Have the I/O thread read no store."""
        self._library.leave_store(self._thread)

    def store_state(self) -> tuple[bool, str]:
        """Return whether the I/O thread has a connection to the store, and why not."""
        return self._library.store_state(self._thread)

    def send_reply(self, handle: int, reply: PredictReply) -> None:
        """Send the reply to a single call."""
        self._thread.send_replies(
            reply.model,
            reply.version,
            reply.role,
            reply.outputs,
            np.array([handle], dtype=np.uint64),
            b"\x01" if reply.holdout else None,
            reply.prediction_id,
            ONE_ROW,
            np.array([reply.scores], dtype=np.float32),
            np.array(reply.row_flags or [0], dtype=np.uint32),
            False,
        )

    def send_replies(self, replies: Replies, *, more: bool = False) -> None:
        """Send each reply. With *more* the thread may wait for the other replies of the batch."""
        holdout = replies.holdout
        self._thread.send_replies(
            replies.model,
            replies.version,
            replies.role,
            replies.scores.shape[1],
            replies.handles,
            None if holdout is None else holdout.tobytes(),
            replies.prediction_ids,
            replies.row_offsets,
            replies.scores,
            replies.row_flags,
            more,
        )

    def refuse_calls(self, handles: NDArray[np.uint64], refusal: Refusal) -> None:
        """End these calls with one status."""
        self._thread.refuse_calls(handles, int(refusal.code), refusal.message, refusal.pushback_ms)

    # The server

    async def listen(
        self, host: str, port: int, unix: str = "", lent_fds: Sequence[int] = ()
    ) -> int:
        """Listen on *port* (0 for a free one) and on a Unix socket at *unix*. Return the port.

        The host `localhost` is both 127.0.0.1 and ::1.

        lent_fds  descriptors of bound sockets to listen on instead. Their lender keeps them.
        """
        loop, callers = asyncio.get_running_loop(), self._callers
        loop.add_reader(self._thread.fileno(), self._on_wakeup)
        self._open = True
        if callers is not None:
            self._callers_task = fail_fast(
                loop.create_task(callers.follow(lambda: self._set_callers(callers)))
            )
        for fd in lent_fds:
            port = self._thread.listen_fd(fd)
        for address in () if lent_fds else hosts_to_listen_at(host):
            port = self._thread.listen(address, port)
        if unix:
            self._thread.listen_unix(unix)
        return port

    async def show_health(self, ready: Mapping[str, bool]) -> None:
        """Set what grpc.health.v1 reports: each model's name, and "" for the server as a whole."""
        for name, serving in ready.items():
            await self._health.set(name, SERVING if serving else NOT_SERVING)

    async def close(self, grace_s: float) -> None:
        """Stop listening at once, let clients reconnect elsewhere and finish the calls in flight.

        Each connection gets two GOAWAY frames, as RFC 9113 section 6.8 describes, so a call that
        crosses the first one is served. Connections that wait in the listening socket are served.
        """
        await self._health.enter_graceful_shutdown()
        if self._callers_task is not None:
            self._callers_task.cancel()
        self._thread.stop_listening()
        last_s = min(grace_s, self._settings.drain_grace_s)
        await self._wait_for_disconnects(grace_s - last_s)
        self._thread.send_goaway()
        await self._wait_for_disconnects(last_s)
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._thread.fileno())
        self._thread.stop()
        self._on_wakeup()
        await self._raw_calls.cancel_all()

    async def _wait_for_disconnects(self, within_s: float) -> None:
        """Return when no client is connected, or after *within_s*."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while self._thread.connections() and loop.time() < end:  # noqa: ASYNC110  the thread has no event for this
            await asyncio.sleep(POLL_INTERVAL_S)

    def handshake_refusals(self) -> list[HandshakeRefusal]:
        """Return the TLS handshakes that the thread refused since the last call."""
        return [HandshakeRefusal(*refusal) for refusal in self._thread.handshake_refusals()]

    def statistics(self) -> ServerStatistics:
        """Return a snapshot of rows and connections of the I/O thread."""
        rows_inside, connections = self._thread.rows_inside(), self._thread.connections()
        return ServerStatistics(self.kind.value, rows_inside, None, connections)

    @property
    def rows_inside(self) -> int:
        """Number of rows that are admitted and not answered yet."""
        return self._thread.rows_inside()

    # Events of the I/O thread

    def _on_wakeup(self) -> None:
        self._thread.clear_wakeup()
        events = self._thread.events()
        if self._callers is not None:
            events = [event for event in events if not self._is_token_event(event, self._callers)]
            for number, code, calls in self._thread.caller_refusals():
                name = self._callers.caller_of(number).name if number else UNKNOWN
                self._callers.on_refused(name, Code(code).name, calls)
        self._raw_calls.handle_events(events)
        for model, code, message, pushback_ms, count in self._thread.refusals():
            self._on_refused(model, Refusal(Code(code), message, pushback_ms), count)
        # A call that is alone is answered here while the pipeline waits.
        if self._on_single_call is None or self._has_batch():
            self._call_arrived.set()
        if self.on_records is not None and self._library.records_due(self._thread):
            self.on_records()

    # Callers

    def _set_callers(self, callers: CallerDirectory) -> None:
        """Give the thread the callers file as it is now."""
        self._thread.set_callers(
            [
                (
                    caller.name,
                    None if caller.models is None else sorted(caller.models),
                    sorted(caller.pins),
                    [caller.calls_s, caller.rows_s, caller.bytes_s],
                    (caller.connections, caller.streams),
                )
                for caller in callers.callers
            ],
            [
                (bytes.fromhex(digest), entry.caller.number, callers.token_expiry_ns(entry))
                for entry in callers.entries
                for digest in entry.token_sha256
            ],
            [
                (name, entry.caller.number)
                for entry in callers.entries
                for name in entry.certificates
            ],
            callers.verifies_tokens,
        )

    def _caller_of(self, number: int) -> Caller:
        return self._callers.caller_of(number) if self._callers and number else ANONYMOUS

    def _is_token_event(self, event: tuple[Any, ...], callers: CallerDirectory) -> bool:
        """Answer the thread's question about a token. False: the event is another one."""
        if event[0] != "verify":
            return False
        header: bytes = event[2]
        caller, until_ns = callers.read_authorization(header.decode("latin-1"))
        self._thread.token_verified(header, 0 if caller is None else caller.number, until_ns)
        return True

    def _refuse_error(self, model: str, error: BaseException) -> Refusal:
        """Count a call that failed here. Return its status, which holds nothing internal."""
        if isinstance(error, RefusedError):
            refusal = error.refusal
        else:
            refusal = refuse_internal(self._error_log.log_error(repr(error), error))
        self._on_refused(model, refusal, 1)
        return refusal

    def _wrap_unary(self, method: UnaryMethod) -> Any:  # noqa: ANN401  grpc's own type for it is no simpler
        async def serve(message: bytes, call: RawCall) -> bytes:
            return await method(message, call.caller)

        return serve


class _HandlerCollector:
    """Collects the handlers that generated code registers with a grpc.aio.Server."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Ignore the generic form of the same handlers."""

    def add_registered_method_handlers(self, service: str, methods: Mapping[str, Handler]) -> None:
        """Keep the handlers by method path."""
        self.handlers |= {f"/{service}/{name}": handler for name, handler in methods.items()}


def _health_handlers(servicer: health.HealthServicer) -> dict[str, Handler]:
    collector = _HandlerCollector()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, collector)  # type: ignore[no-untyped-call]
    return collector.handlers


def _reflection_by_path() -> dict[str, Handler]:
    return {f"/{service}/{name}": handler for service, name, handler in reflection_methods()}
