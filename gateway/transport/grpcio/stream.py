"""PredictStream: messages in, replies out as they come, a bounded number between.

No task a message: a reply is queued by the future that brings it. A message holds its place from
being read until its reply is written, so a caller who does not read stops being read (HTTP/2
holds it back), and nothing piles up here.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.status import Code, Refusal, RefusedError
from protos.predict_pb2 import PredictReply, PredictRequest, Status, StreamReply

WORKER_DRAINING = Refusal(
    Code.UNAVAILABLE,
    "this worker leaves; what it had taken is answered; open the stream again and send the rest",
    pushback_ms=0,
)
ECHOED_ID_CHARS_MAX = 128
"""Characters of a refused message's request_id that go back with its status."""


@dataclass(frozen=True, slots=True)
class AdmittedCall:
    """A message that was admitted."""

    handle: int
    reply: "asyncio.Future[bytes]"


class StreamCalls(Protocol):
    """What a stream asks of the door it stands in."""

    def parse_request(self, message: bytes) -> PredictRequest:
        """Bytes to a request; RefusedError."""
        ...

    def admit(self, request: PredictRequest, left_s: float | None) -> AdmittedCall:
        """Admit one request of a stream that has *left_s* to live; RefusedError."""
        ...

    def finish_call(self, handle: int) -> None:
        """Give its rows back, answered or not."""
        ...

    def refuse_error(self, model: str, error: BaseException) -> Refusal:
        """Count what went wrong with one message, and word it."""
        ...


class StreamContext(Protocol):
    """grpc.aio's context, as far as a stream uses it."""

    async def read(self) -> object:
        """The next message, or something that is no bytes at the caller's end."""
        ...

    async def write(self, message: bytes) -> None:
        """Send one; waits while the caller's window is full."""
        ...

    def time_remaining(self) -> float | None:
        """Seconds of the stream's own deadline."""
        ...


class PredictStream:
    """One caller's stream, from its first message to its end."""

    def __init__(self, handler: StreamCalls, context: StreamContext, calls_max: int) -> None:
        self._handler = handler
        self._context = context
        self._calls_max = calls_max
        self._free_calls = asyncio.Semaphore(calls_max)
        self._inside: set[int] = set()
        self._replies: asyncio.Queue[bytes] = asyncio.Queue()

    async def run(self, draining: asyncio.Event) -> Refusal | None:
        """Serve until the caller is done (None), or this worker leaves (why).

        Cancelled when the caller goes: everything inside is given back at once.
        """
        loop = asyncio.get_running_loop()
        hearing = loop.create_task(self._read_messages())
        speaking = loop.create_task(self._write_replies())
        parting = loop.create_task(draining.wait())
        finishing: asyncio.Task[None] | None = None
        try:
            await asyncio.wait({hearing, speaking, parting}, return_when=asyncio.FIRST_COMPLETED)
            cut = not hearing.done()
            if cut:
                hearing.cancel()
                await asyncio.wait({hearing})
            else:
                hearing.result()
            finishing = loop.create_task(self._wait_until_written())
            await asyncio.wait({finishing, speaking}, return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                speaking.result()  # only a failure ends it
            return WORKER_DRAINING if cut else None
        finally:
            tasks = [task for task in (hearing, speaking, parting, finishing) if task is not None]
            for task in tasks:
                task.cancel()
            for handle in self._inside:
                self._handler.finish_call(handle)
            self._inside.clear()
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
        """Return when every reply is written: all places are free."""
        for _ in range(self._calls_max):
            await self._free_calls.acquire()

    async def _write_replies(self) -> None:
        while True:
            reply = await self._replies.get()
            await self._context.write(reply)
            self._free_calls.release()

    def _admit_message(self, message: bytes) -> None:
        """Admit one message, or queue the status it ends with."""
        model = request_id = ""
        try:
            request = self._handler.parse_request(message)
            model, request_id = request.model, request.request_id
            entered = self._handler.admit(request, self._context.time_remaining())
        except Exception as error:  # noqa: BLE001  the wall: one bad message ends no stream
            self._refuse(request_id, self._handler.refuse_error(model, error))
            return
        self._inside.add(entered.handle)
        entered.reply.add_done_callback(partial(self._on_reply, entered.handle, request_id))

    def _on_reply(self, handle: int, request_id: str, reply: "asyncio.Future[bytes]") -> None:
        """Queue what came of one message, and give its rows back."""
        if handle not in self._inside:
            return
        self._inside.discard(handle)
        self._handler.finish_call(handle)
        error = reply.exception()
        if error is None:
            self._replies.put_nowait(reply.result())
        elif isinstance(error, RefusedError):
            self._refuse(request_id, error.refusal)
        else:
            self._refuse(request_id, self._handler.refuse_error("", error))

    def _refuse(self, request_id: str, refusal: Refusal) -> None:
        status = Status(code=int(refusal.code), message=refusal.message)
        # An id too long to take is too long to send back.
        self._replies.put_nowait(
            StreamReply(
                request_id=request_id[:ECHOED_ID_CHARS_MAX], status=status
            ).SerializeToString()
        )


def encode_stream_reply(reply: PredictReply) -> bytes:
    """Write *reply* as a message of the stream."""
    return StreamReply(request_id=reply.request_id, reply=reply).SerializeToString()
