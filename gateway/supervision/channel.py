"""The line between supervisor and worker: one inherited socket pair, JSON in frames.

A frame is a little-endian u32 length and that many bytes of JSON, over AF_UNIX SOCK_STREAM. A
datagram would keep boundaries by itself, but bounds a metrics snapshot by the socket buffer; the
length keeps them at any size. Nobody ever waits for the other end: what repeats anyway (heartbeats,
snapshots) is left out while the other end does not read.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, cast

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""A snapshot of 30 models with 4 roles each is about 110 kB; past this, something is wrong."""

UNREAD_BYTES_MAX = 256 * 1024
"""Waiting for the other end to read; past that, heartbeats and snapshots are left out."""

_LENGTH = struct.Struct("<I")
_PR_SET_PDEATHSIG = 1

Message = dict[str, Any]
"""One JSON object; `type` names it."""


class FrameError(ValueError):
    """What arrived is no frame of ours; the line cannot be trusted any more."""


def encode_frame(message: Message) -> bytes:
    """Return *message* as one frame."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > FRAME_BYTES_MAX:
        raise FrameError(f"a {message.get('type')} of {len(body)} bytes; {FRAME_BYTES_MAX} at most")
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Bytes in, whole messages out. No I/O."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, chunk: bytes) -> list[Message]:
        """Return the messages that *chunk* completes, in order.

        Raises FrameError for a length beyond FRAME_BYTES_MAX or bytes that are no JSON object.
        """
        self._waiting += chunk
        messages = []
        start = 0
        while len(self._waiting) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._waiting, start)
            if length > FRAME_BYTES_MAX:
                raise FrameError(f"a frame of {length} bytes; {FRAME_BYTES_MAX} at most")
            end = start + _LENGTH.size + length
            if len(self._waiting) < end:
                break
            messages.append(self._message(bytes(self._waiting[start + _LENGTH.size : end])))
            start = end
        del self._waiting[:start]
        return messages

    @staticmethod
    def _message(body: bytes) -> Message:
        try:
            message = json.loads(body)
        except ValueError as error:
            raise FrameError(f"a frame of {len(body)} bytes is not JSON: {error}") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise FrameError(f"a frame of {len(body)} bytes holds no object with a type")
        return message


class ControlConnection(asyncio.Protocol):
    """One end of the pair on an event loop. Calls back per message, and once when it is lost."""

    def __init__(self, on_message: Callable[[Message], None], on_lost: Callable[[], None]) -> None:
        self._frames = FrameDecoder()
        self._on_message = on_message
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None

    @staticmethod
    async def attach(
        endpoint: socket.socket, on_message: Callable[[Message], None], on_lost: Callable[[], None]
    ) -> "ControlConnection":
        """Return a line over *end*, which it owns from now on."""
        endpoint.setblocking(False)
        loop = asyncio.get_running_loop()
        _, line = await loop.create_unix_connection(
            lambda: ControlConnection(on_message, on_lost), sock=endpoint
        )
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand on each whole message; a broken frame ends the line."""
        try:
            for message in self._frames.feed(data):
                self._on_message(message)
        except FrameError:
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end closed, or died."""
        del exc
        self._transport = None
        self._on_lost()

    def send(self, message: Message) -> bool:
        """Queue *message*; False when the line is lost. Never blocks."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(encode_frame(message))
        return True

    def send_if_read(self, message: Callable[[], Message]) -> bool:
        """Queue what *message* returns, unless the other end has stopped reading."""
        if self._transport is None or self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            return False
        return self.send(message())

    def close(self) -> None:
        """Send what is queued, then close."""
        if self._transport is not None:
            self._transport.close()


OnServe = Callable[[int, int], Awaitable[None]]
"""on_serve(slot, port): listen; when it returns, the supervisor is told `serving`."""

OnDrain = Callable[[float], Awaitable[None]]
"""on_drain(grace_s): leave the port, finish what is in flight; when it returns, the worker ends.

A worker whose successor already serves is given more than Settings.drain_grace_s: the surplus is
for its clients to reconnect by themselves (max_connection_age) before their connections close.
"""

OnQuarantine = Callable[[str, str, int], None]
"""on_quarantine(version id, why, first time in Unix ns): workers of this host died running it."""


class WorkerChannel:
    """The worker's end: says how it is, hears what to do. One a worker.

        channel = WorkerChannel(fd)
        await channel.start(on_serve=worker.serve, on_drain=worker.drain)
        ...load everything...
        channel.ready()
        await channel.finished()

    A drain comes from the supervisor, from SIGTERM, or from the supervisor's death; on_drain is
    called once, whatever comes. SIGINT is left to the supervisor: Ctrl-C reaches both.
    """

    def __init__(
        self,
        fd: int,
        *,
        heartbeat_ms: int = 100,
        metrics_ms: int = 1_000,
        orphan_grace_s: float = 10.0,
    ) -> None:
        """fd: the inherited end. orphan_grace_s: for drains that nobody gave a grace for."""
        self._fd = fd
        self._heartbeat_s = heartbeat_ms / 1e3
        self._metrics_ns = metrics_ms * 1_000_000
        self._orphan_grace_s = orphan_grace_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._disconnected = asyncio.Event()

    async def start(
        self,
        *,
        on_serve: OnServe,
        on_drain: OnDrain,
        on_quarantine: OnQuarantine = lambda *_: None,
        gauges: Callable[[], Mapping[str, float]] = dict,
        snapshot: Callable[[], Message] | None = None,
    ) -> None:
        """Say hello, begin to heartbeat, listen for commands.

        gauges    asked at each heartbeat: small numbers such as rows_inside.
        snapshot  asked each metrics_ms: Metrics.snapshot.
        """
        die_with_supervisor()
        os.set_inheritable(self._fd, False)
        self._on_serve, self._on_drain, self._on_quarantine = on_serve, on_drain, on_quarantine
        self._gauges, self._snapshot = gauges, snapshot
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._connection = await ControlConnection.attach(
            socket.socket(fileno=self._fd), self._handle_command, self._on_supervisor_lost
        )
        self._loop.add_signal_handler(signal.SIGTERM, self._drain, self._orphan_grace_s)
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._connection.send({"type": "hello", "pid": os.getpid()})
        self._next_metrics_ns = time.monotonic_ns()
        self._send_heartbeat(self._loop.time())

    def announce_ready(self) -> None:
        """Everything deployed is loaded, verified and warm; a slot may be given."""
        self._connection.send({"type": "ready"})

    async def wait_finished(self) -> None:
        """Return when on_drain has returned and the last words are sent.

        Raises what on_serve or on_drain raised, so that the worker exits loudly.
        """
        try:
            await self._finished
        finally:
            self._timer.cancel()
            if self._snapshot is not None:
                self._connection.send({"type": "metrics", "snapshot": self._snapshot()})
            self._connection.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._disconnected.wait()

    def _send_heartbeat(self, due_s: float) -> None:
        """Say that the loop turns, and how late it turned: seconds past *due_s* on its clock."""
        now_s = self._loop.time()
        lag_ms = max(0.0, (now_s - due_s) * 1e3)
        self._connection.send_if_read(
            lambda: {"type": "heartbeat", "loop_lag_ms": round(lag_ms, 3), **self._gauges()}
        )
        if self._snapshot is not None and time.monotonic_ns() >= self._next_metrics_ns:
            self._next_metrics_ns = time.monotonic_ns() + self._metrics_ns
            taken = self._snapshot
            self._connection.send_if_read(lambda: {"type": "metrics", "snapshot": taken()})
        next_s = now_s + self._heartbeat_s
        self._timer = self._loop.call_at(next_s, self._send_heartbeat, next_s)

    def _handle_command(self, message: Message) -> None:
        if message["type"] == "serve":
            self._start_task(self._serve(int(message["slot"]), int(message["port"])))
        elif message["type"] == "drain":
            self._drain(float(message["grace_s"]))
        elif message["type"] == "quarantine":
            first_unix_ns = int(message["first_unix_ns"])
            self._on_quarantine(str(message["version"]), str(message["reason"]), first_unix_ns)

    def _on_supervisor_lost(self) -> None:
        self._disconnected.set()
        self._drain(self._orphan_grace_s)

    async def _serve(self, slot: int, port: int) -> None:
        await self._on_serve(slot, port)
        self._connection.send({"type": "serving"})

    def _drain(self, grace_s: float) -> None:
        if not self._draining and not self._finished.done():
            self._draining = True
            self._connection.send({"type": "draining"})
            self._start_task(self._finish_drain(grace_s))

    async def _finish_drain(self, grace_s: float) -> None:
        await self._on_drain(grace_s)
        if not self._finished.done():
            self._finished.set_result(None)

    def _start_task(self, step: Coroutine[Any, Any, None]) -> None:
        """Run *step*; what it raises comes out of `finished`."""
        task = self._loop.create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._finished.done():
            self._finished.set_exception(error)


def die_with_supervisor() -> None:
    """Ask the kernel for a SIGTERM when the parent dies (Linux); the line's end says so elsewhere.

    Belt and braces: a worker stuck outside its loop does not read the line.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
