"""The control connection between supervisor and worker: JSON in frames over a socket pair.

A frame is a little-endian u32 length and that many bytes of JSON, over AF_UNIX SOCK_STREAM.
Datagrams would need no length, but the socket buffer would then bound the size of a metrics
snapshot. Neither end ever waits for the other: while the other end does not read, messages that
are repeated anyway (heartbeats, snapshots) are not sent.

Messages to the worker: serve, drain, quarantine. From the worker: hello, ready, serving, draining,
heartbeat, metrics.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, cast

from host.processes import die_with_parent

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""A snapshot of 30 models with 4 roles each is about 110 kB; a larger frame is a mistake."""

UNREAD_BYTES_MAX = 256 * 1024
"""Bytes that wait for the other end to read; past that, no heartbeats and snapshots are sent."""

REGISTRY_CONNECTED = "registry_connected"
"""The number of a heartbeat that is 1 while the worker receives deployments."""

_LENGTH = struct.Struct("<I")

Message = dict[str, Any]
"""One JSON object; its `type` says which message it is."""


class FrameError(ValueError):
    """The bytes received are not a frame; the connection cannot be used any more."""


def encode_frame(message: Message) -> bytes:
    """Return *message* as one frame; FrameError when it is longer than FRAME_BYTES_MAX."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > FRAME_BYTES_MAX:
        raise FrameError(f"a {message.get('type')} of {len(body)} bytes; {FRAME_BYTES_MAX} at most")
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Cuts a stream of bytes into messages. No I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[Message]:
        """Return the messages that *chunk* completes, in order.

        Raises FrameError for a length beyond FRAME_BYTES_MAX or bytes that are no JSON object.
        """
        self._buffer += chunk
        messages = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > FRAME_BYTES_MAX:
                raise FrameError(f"a frame of {length} bytes; {FRAME_BYTES_MAX} at most")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(self._parse(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return messages

    @staticmethod
    def _parse(body: bytes) -> Message:
        try:
            message = json.loads(body)
        except ValueError as error:
            raise FrameError(f"a frame of {len(body)} bytes is not JSON: {error}") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise FrameError(f"a frame of {len(body)} bytes holds no object with a type")
        return message


class ControlConnection(asyncio.Protocol):
    """One end of the socket pair, on an event loop.

    on_message  called with each message, in order.
    on_lost     called once, when the connection ends for whatever reason.
    """

    def __init__(self, on_message: Callable[[Message], None], on_lost: Callable[[], None]) -> None:
        self._frames = FrameDecoder()
        self._on_message = on_message
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None

    @staticmethod
    async def attach(
        endpoint: socket.socket, on_message: Callable[[Message], None], on_lost: Callable[[], None]
    ) -> "ControlConnection":
        """Return a connection over *endpoint*, which it owns from now on."""
        endpoint.setblocking(False)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(
            lambda: ControlConnection(on_message, on_lost), sock=endpoint
        )
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for sending (asyncio.Protocol)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass each whole message on; a broken frame ends the connection (asyncio.Protocol)."""
        try:
            for message in self._frames.feed(data):
                self._on_message(message)
        except FrameError:
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Call on_lost: the other end closed, or died (asyncio.Protocol)."""
        del exc
        self._transport = None
        self._on_lost()

    def send(self, message: Message) -> bool:
        """Queue *message* without blocking; False when the connection is lost."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(encode_frame(message))
        return True

    def send_if_read(self, message: Callable[[], Message]) -> bool:
        """Queue what *message* returns; False when the other end has stopped reading."""
        if self._transport is None or self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            return False
        return self.send(message())

    def close(self) -> None:
        """Close the connection once the queued messages are sent."""
        if self._transport is not None:
            self._transport.close()


REASON_CHARACTERS_MAX = 1_000
"""The longest reason that a worker gives for its failure."""

OnServe = Callable[[int, int], Awaitable[None]]
"""on_serve(slot, port): start listening. When it returns, `serving` is sent to the supervisor."""

OnDrain = Callable[[float], Awaitable[None]]
"""on_drain(grace_s): stop listening and finish the calls in flight; then the worker ends.

A worker whose successor already serves gets more than Settings.drain_grace_s. In the additional
time its clients reconnect by themselves (max_connection_age), before their connections close.
"""

OnQuarantine = Callable[[str, str, int], None]
"""on_quarantine(version id, reason, Unix ns of the first death): workers died running a version."""


class WorkerChannel:
    """The worker's end of the control connection: sends its state, executes commands.

        channel = WorkerChannel(fd)
        await channel.start(on_serve=worker.serve, on_drain=worker.drain)
        await worker.load()
        channel.announce_ready()
        await channel.wait_finished()

    The supervisor's command, a SIGTERM and the supervisor's death each start a drain; on_drain is
    called once, for the first of them. SIGINT is ignored: Ctrl-C reaches the supervisor, too.
    """

    def __init__(
        self,
        fd: int,
        *,
        heartbeat_ms: int = 100,
        metrics_ms: int = 1_000,
        orphan_grace_s: float = 10.0,
    ) -> None:
        """Prepare the channel; `start` opens it.

        fd              the inherited end of the socket pair.
        heartbeat_ms    period of heartbeats.
        metrics_ms      period of metrics snapshots.
        orphan_grace_s  grace of a drain that the supervisor did not command.
        """
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
        on_leaving: Callable[[], None] = lambda: None,
        gauges: Callable[[], Mapping[str, float]] = dict,
        snapshot: Callable[[], Message] | None = None,
    ) -> None:
        """Send hello, begin to send heartbeats, and execute commands from now on.

        on_leaving  called when the host stops soon: health says so, and calls are answered.
        gauges      called for each heartbeat; returns numbers such as rows_inside.
        snapshot    called every metrics_ms; Metrics.snapshot.
        """
        # What the loop and the commands of the supervisor call.
        self._loop = asyncio.get_running_loop()
        self._on_serve, self._on_drain, self._on_quarantine = on_serve, on_drain, on_quarantine
        self._on_leaving, self._gauges, self._snapshot = on_leaving, gauges, snapshot
        # The end of the connection says the same, but a worker whose loop hangs does not read it.
        die_with_parent(signal.SIGTERM)
        os.set_inheritable(self._fd, False)
        # Connect, and say hello.
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
        """Send `ready`: all deployed versions are loaded and warm, so a slot may be assigned."""
        self._connection.send({"type": "ready"})

    async def wait_finished(self) -> None:
        """Return when on_drain has returned and the last snapshot is sent.

        Raises what on_serve or on_drain raised, so that the worker exits with a traceback.
        """
        try:
            await self._finished
        except Exception as error:
            await self.end(error)
            raise
        await self.end()

    async def end(self, error: Exception | None = None) -> None:
        """Tell the supervisor why this worker fails, if it does, and close the connection."""
        self._timer.cancel()
        if self._snapshot is not None:
            self._connection.send({"type": "metrics", "snapshot": self._snapshot()})
        if error is not None:
            reason = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX]
            self._connection.send({"type": "failed", "reason": reason})
        self._connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._disconnected.wait()

    def _send_heartbeat(self, due_s: float) -> None:
        """Send a heartbeat with the loop lag: how long ago *due_s* was on the loop's clock."""
        now_s = self._loop.time()
        lag_ms = max(0.0, (now_s - due_s) * 1e3)
        self._connection.send_if_read(
            lambda: {"type": "heartbeat", "loop_lag_ms": round(lag_ms, 3), **self._gauges()}
        )
        if self._snapshot is not None and time.monotonic_ns() >= self._next_metrics_ns:
            self._next_metrics_ns = time.monotonic_ns() + self._metrics_ns
            snapshot = self._snapshot
            self._connection.send_if_read(lambda: {"type": "metrics", "snapshot": snapshot()})
        next_s = now_s + self._heartbeat_s
        self._timer = self._loop.call_at(next_s, self._send_heartbeat, next_s)

    def _handle_command(self, message: Message) -> None:
        if message["type"] == "serve":
            self._start_task(self._serve(int(message["slot"]), int(message["port"])))
        elif message["type"] == "drain":
            self._drain(float(message["grace_s"]))
        elif message["type"] == "leaving":
            self._on_leaving()
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
        """Run *step* as a task; `wait_finished` raises what it raises."""
        task = self._loop.create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._finished.done():
            self._finished.set_exception(error)
