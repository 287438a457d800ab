"""Receives the windows that gateways push.

A batch is acknowledged when it is in the checkpoint of every active rollout. Until then the gateway
keeps it and sends it again after a broken stream.

A gateway pushes windows of its own workers only. What is malformed is dropped and counted, and so
are the windows of a worker whose numbers or clock are wrong or that sends too many, so that others
go on.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from access.bounds import BoundError, check_request
from access.interceptor import caller_identity
from access.requests import check_fields, parse_request
from access.streams import OpenStreams, TooManyStreamsError
from protos import window_pb2
from rollout.api.sender_turns import TIME_SHARE_PCT, SenderTurns
from rollout.controller.controller import Controller
from rollout.errors import NotLeadingError, SenderRefusedError
from rollout.evidence.inbox import NS, source_name
from rollout.evidence.window_checks import drop_all_windows, drop_malformed, forget_clock

log = logging.getLogger(__name__)

SEQUENCE_JUMP_MAX = 1_000_000
"""Batches that one source may have lost. At one a second that is more than a week."""
OPENING_BYTES_MAX = 4_096
"""The first message of a stream, which names its source."""
TURN_WAIT_S_MAX = 0.25
"""A batch that waited longer for its turn would be late, and late windows hold rollouts. So its
windows are dropped."""
LOG_EVERY_NS = 10 * NS
"""Shortest time between two log lines about dropped windows."""


class DroppedLog:
    """Counts dropped windows by gateway, model and reason, and logs them at a bounded rate."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._logged_ns: int | None = None

    def add(self, gateway: str, dropped: Counter[tuple[str, str]], now_ns: int) -> None:
        """Add what was dropped of one batch, by (model, reason)."""
        for (model, reason), count in dropped.items():
            self._counts[gateway, model, reason] += count
        if self._logged_ns is not None and now_ns - self._logged_ns < LOG_EVERY_NS:
            return
        self._logged_ns = now_ns
        for (gateway_name, model, reason), count in self._counts.most_common(10):
            log.warning(
                "windows dropped: gateway=%r model=%r reason=%r count=%d",
                gateway_name,
                model,
                reason,
                count,
            )
        self._counts.clear()


Context = Any  # grpc.aio.ServicerContext, which is generic in the messages of each RPC
OnWindowBatch = Callable[[window_pb2.WindowBatch], None]
"""Takes a batch and returns at once; it never raises."""


class WindowSinkService:
    """The service turnout.v1.WindowSink of one controller.

    It parses messages itself, in the turn of their gateway.

    on_batch  gets each batch without its malformed windows, also those that are not judged.
    """

    def __init__(self, controller: Controller, on_batch: OnWindowBatch | None = None) -> None:
        self._controller = controller
        self._on_batch = on_batch
        self._dropped_log = DroppedLog()
        self._streams = OpenStreams()
        self._turns = SenderTurns()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on *server*, which must not have started yet."""
        push: Any = grpc.stream_stream_rpc_method_handler(
            self.push, response_serializer=window_pb2.WindowAck.SerializeToString
        )
        service = window_pb2.DESCRIPTOR.services_by_name["WindowSink"].full_name
        handler = grpc.method_handlers_generic_handler(service, {"Push": push})
        server.add_generic_rpc_handlers((handler,))

    async def push(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """Acknowledge what is saved of the source, then receive batches and acknowledge them.

        messages  serialized turnout.v1.WindowBatch.
        """
        try:
            with self._streams.opened(context):
                await self._push(messages, context)
        except TooManyStreamsError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except (BoundError, DecodeError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _push(self, messages: AsyncIterator[bytes], context: Context) -> None:
        # The opening message names the source, which must be a worker of the caller.
        first = await anext(aiter(messages), None)
        if first is None:
            return
        if len(first) > OPENING_BYTES_MAX:
            raise BoundError(
                f"the first message has {len(first)} bytes; it names its source, in at most "
                f"{OPENING_BYTES_MAX}"
            )
        opening = parse_request(window_pb2.WindowBatch, first)
        if not opening.source.gateway or opening.windows or opening.guards or opening.sequence:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the first message names its source and carries nothing else",
            )
        try:
            self._check_source(opening.source)
        except NotLeadingError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        # Tell the gateway where to go on, and read its batches in a task.
        source = source_name(opening.source)
        acknowledged = self._controller.acknowledged_sequence(source)
        await context.write(window_pb2.WindowAck(sequence=acknowledged))
        reading: asyncio.Future[Any] = asyncio.ensure_future(
            self._receive_batches(messages, opening.source)
        )
        # Acknowledge whenever more was saved or the worker is refused, until the stream ends.
        refusal = ""
        try:
            while not reading.done():
                await self._wait_for_change(reading)
                saved = self._controller.acknowledged_sequence(source)
                before, refusal = refusal, self._controller.refusal_of(source)
                if saved > acknowledged or refusal != before:
                    acknowledged = max(acknowledged, saved)
                    await context.write(
                        window_pb2.WindowAck(sequence=acknowledged, refusal=refusal)
                    )
            reading.result()
        except NotLeadingError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except SenderRefusedError as error:
            self._controller.refuse_sender(opening.source, str(error))
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        finally:
            reading.cancel()

    def _check_source(self, source: window_pb2.Source) -> None:
        """Check that the caller may push windows of *source*.

        Raises ForbiddenError for another's gateway, and NotLeadingError when this controller does
        not act, or has not heard of the worker from the registry, which takes a moment.
        """
        identity = caller_identity()
        identity.check_speaks_for(source.gateway)
        if not self._controller.leading:
            raise NotLeadingError("this controller does not act now; try again")
        worker = (source.gateway, source.slot, source.boot_id)
        if identity.proven and not self._controller.fleet.knows(worker):
            raise NotLeadingError(
                f"the registry has no live worker {source_name(source)}; try again when the worker "
                "has reported its state there"
            )

    async def _receive_batches(
        self, messages: AsyncIterator[bytes], source: window_pb2.Source
    ) -> None:
        """Receive batches until the stream ends.

        Windows of a worker whose clock is wrong, or whose gateway has used up its time, are not
        counted. Raises SenderRefusedError for another source, and for a jump of the sequence.
        """
        newest = self._controller.received_sequence(source_name(source))
        async for message in messages:
            # A worker that waits for its turn is not silent.
            self._controller.note_heartbeat(source)
            async with self._turns.turn(source.gateway, len(message)) as waited_s:
                check_fields(window_pb2.WindowBatch, message)
                batch = window_pb2.WindowBatch.FromString(message)
                _check_sender(batch, source, newest)
                newest = max(newest or 0, batch.sequence)
                self._receive(batch, waited_s)

    def _receive(self, batch: window_pb2.WindowBatch, waited_s: float) -> None:
        """Receive one batch, which has waited *waited_s* seconds for the turn of its gateway."""
        controller, source = self._controller, batch.source
        # By which clock does it come, and does it come in time?
        clock = controller.check_clock(batch)
        why = clock.why
        if waited_s > TURN_WAIT_S_MAX and not why:
            why = (
                f"gateway {source.gateway!r} uses more than {TIME_SHARE_PCT} % of the "
                "controller's time with its windows; send fewer (evidence_sampled_of_65536)"
            )
        # What is malformed or refused is dropped and counted.
        dropped = drop_malformed(batch, controller.deployed)
        if self._on_batch is not None:
            self._on_batch(batch)
        if why:
            controller.refuse_sender(source, why)
            dropped += drop_all_windows(batch, controller.deployed)
        elif clock.trusted:
            controller.accept_sender(source_name(source))
        if why or not clock.trusted:
            forget_clock(batch)
        if dropped:
            now_ns = controller.count_dropped(dropped)
            self._dropped_log.add(source.gateway, dropped, now_ns)
        check_request(batch)
        controller.receive(batch)

    async def _wait_for_change(self, reading: "asyncio.Future[Any]") -> None:
        """Return when something was saved or the stream ended.

        Raises NotLeadingError if another controller leads.
        """
        changed: asyncio.Future[Any] = asyncio.ensure_future(self._controller.status_changed.wait())
        try:
            await asyncio.wait({changed, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await changed
        if not self._controller.leading:
            raise NotLeadingError("another controller acts now; send the rest to it")


def _check_sender(
    batch: window_pb2.WindowBatch, source: window_pb2.Source, newest: int | None
) -> None:
    """Put *source* into *batch*. Raises SenderRefusedError for another, and for a jump.

    newest  number of the newest batch that came before; None: none came.
    """
    if batch.HasField("source") and batch.source != source:
        raise SenderRefusedError(
            f"a message names {source_name(batch.source)}; this stream was opened for "
            f"{source_name(source)}, so open another stream for the other source"
        )
    batch.source.CopyFrom(source)
    if newest is not None and batch.sequence > newest + SEQUENCE_JUMP_MAX:
        raise SenderRefusedError(
            f"batch {batch.sequence} came after batch {newest}; at most {SEQUENCE_JUMP_MAX} may be "
            "lost, so restart the worker"
        )
