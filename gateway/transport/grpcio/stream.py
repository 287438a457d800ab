"""PredictStream on the grpcio server: messages in, replies out in the order of their completion.

A bounded number of messages is read and not answered. A message counts from its read until its
reply is written. So a caller that does not read replies is not read from either, HTTP/2 flow
control stops it, and nothing accumulates here. A message needs no task: the future of its reply
queues the reply.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.caller import Caller
from gateway.status import Code, Refusal, RefusedError
from protos.predict_pb2 import PredictReply, PredictRequest, StreamReply, StreamStatus

WORKER_DRAINING = Refusal(
    Code.UNAVAILABLE,
    "this worker leaves; what it had taken is answered; open the stream again and send the rest",
    pushback_ms=0,
)
ECHOED_ID_CHARS_MAX = 128
"""Characters of a refused message's request_id that are sent back with its status."""


@dataclass(frozen=True, slots=True)
class AdmittedCall:
    """A message that was admitted: its handle in the server, and the future of its reply."""

    handle: int
    reply: "asyncio.Future[bytes]"


class StreamCalls(Protocol):
    """The stream call handler: what a stream needs from its server."""

    def parse_request(self, message: bytes) -> PredictRequest:
        """Parse a message; RefusedError when it is not a PredictRequest."""
        ...

    def admit(self, request: PredictRequest, left_s: float | None, caller: Caller) -> AdmittedCall:
        """Admit one request; the stream's deadline is in *left_s* seconds. RefusedError."""
        ...

    def finish_call(self, handle: int) -> None:
        """Release the call's rows, whether it was answered or not."""
        ...

    def refuse_error(self, model: str, error: BaseException) -> Refusal:
        """Count the error of one message and return the status to send for it."""
        ...


class StreamContext(Protocol):
    """The part of grpc.aio's ServicerContext that a stream uses."""

    async def read(self) -> object:
        """Return the next message, or an object that is not bytes when the caller is done."""
        ...

    async def write(self, message: bytes) -> None:
        """Send one message; wait while the caller's flow-control window is full."""
        ...

    def time_remaining(self) -> float | None:
        """Return the seconds to the stream's deadline; None without one."""
        ...


class PredictStream:
    """One caller's stream, from its first message to its end.

    calls_max  messages that are read and not answered, at most.
    """

    def __init__(
        self, handler: StreamCalls, context: StreamContext, calls_max: int, caller: Caller
    ) -> None:
        self._handler = handler
        self._caller = caller
        self._context = context
        self._calls_max = calls_max
        self._free_calls = asyncio.Semaphore(calls_max)
        self._handles: set[int] = set()
        """Handles of admitted calls without a reply."""
        self._replies: asyncio.Queue[bytes] = asyncio.Queue()

    async def run(self, draining: asyncio.Event) -> Refusal | None:
        """Serve the stream; return None when the caller is done, or WORKER_DRAINING.

        It is cancelled when the caller goes away; all its calls are then released at once.
        """
        loop = asyncio.get_running_loop()
        reading = loop.create_task(self._read_messages())
        writing = loop.create_task(self._write_replies())
        waiting_for_drain = loop.create_task(draining.wait())
        finishing: asyncio.Task[None] | None = None
        try:
            # Until the caller has sent all, the worker drains, or a write fails.
            await asyncio.wait(
                {reading, writing, waiting_for_drain}, return_when=asyncio.FIRST_COMPLETED
            )
            cut_off = not reading.done()
            if cut_off:
                reading.cancel()
                await asyncio.wait({reading})
            else:
                reading.result()
            # Then until every message that was read is answered. Only a failure ends `writing`.
            finishing = loop.create_task(self._wait_until_written())
            await asyncio.wait({finishing, writing}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
            return WORKER_DRAINING if cut_off else None
        finally:
            started = (reading, writing, waiting_for_drain, finishing)
            tasks = [task for task in started if task is not None]
            for task in tasks:
                task.cancel()
            for handle in self._handles:
                self._handler.finish_call(handle)
            self._handles.clear()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_messages(self) -> None:
        while True:
            await self._free_calls.acquire()
            try:
                message = await self._context.read()
            except asyncio.CancelledError:
                self._free_calls.release()
                raise
            if not isinstance(message, bytes):
                self._free_calls.release()
                return
            self._admit_message(message)

    async def _wait_until_written(self) -> None:
        """Return when every reply is written, so that no message is counted any more."""
        for _ in range(self._calls_max):
            await self._free_calls.acquire()

    async def _write_replies(self) -> None:
        while True:
            reply = await self._replies.get()
            await self._context.write(reply)
            self._free_calls.release()

    def _admit_message(self, message: bytes) -> None:
        """Admit one message, or queue the status that it ends with."""
        model = request_id = ""
        try:
            request = self._handler.parse_request(message)
            model, request_id = request.model, request.request_id
            call = self._handler.admit(request, self._context.time_remaining(), self._caller)
        except Exception as error:  # noqa: BLE001  one bad message must not end the stream
            self._refuse(request_id, self._handler.refuse_error(model, error))
            return
        self._handles.add(call.handle)
        call.reply.add_done_callback(partial(self._on_reply, call.handle, request_id))

    def _on_reply(self, handle: int, request_id: str, reply: "asyncio.Future[bytes]") -> None:
        """Queue the reply or the status of one message, and release its rows."""
        if handle not in self._handles:
            return
        self._handles.discard(handle)
        self._handler.finish_call(handle)
        error = reply.exception()
        if error is None:
            self._replies.put_nowait(reply.result())
        elif isinstance(error, RefusedError):
            self._refuse(request_id, error.refusal)
        else:
            self._refuse(request_id, self._handler.refuse_error("", error))

    def _refuse(self, request_id: str, refusal: Refusal) -> None:
        status = StreamStatus(code=int(refusal.code), message=refusal.message)
        # The request_id of a refused message may be longer than the limit.
        self._replies.put_nowait(
            StreamReply(
                request_id=request_id[:ECHOED_ID_CHARS_MAX], status=status
            ).SerializeToString()
        )


def encode_stream_reply(reply: PredictReply) -> bytes:
    """Encode *reply* as a message of the stream."""
    return StreamReply(request_id=reply.request_id, reply=reply).SerializeToString()
