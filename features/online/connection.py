"""One pipelined connection from a worker to the online store.

Redis numbers neither commands nor replies: the n-th reply answers the n-th command. So a command
whose caller no longer waits, because the caller timed out or was cancelled, stays in the queue,
and its reply is dropped when it arrives.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

import hiredis

from features.errors import OnlineStoreError

Reply = object
"""A reply as hiredis parses it: bytes, int, list, None, or a StoreReplyError."""

BUFFER_BYTES_SPARE = 512 * 1024
"""Bytes that the parser may hold beyond the largest value: one socket read and the framing."""

UNEXPECTED_REPLY = "the store sent a reply to no command"

WRITE_BYTES_MAX = 1024 * 1024
"""Unsent bytes above which no more commands are sent: some twenty batches of 512 keys."""


class StoreReplyError(Exception):
    """An error reply of the store (it begins with '-'). hiredis returns it; it is never raised."""


class PendingCommand:
    """A command that was sent and whose reply has not come. All times are loop times, seconds.

    expected_prefix  the first bytes of a valid reply; an error reply begins with b"-" instead.
    due_at           when its caller's timeout ends.
    expires_at       when it fails. Equal to due_at, or later if the event loop ran late.
    probe            True for the PING that tests whether the store is back.
    """

    __slots__ = ("due_at", "expected_prefix", "expires_at", "future", "probe", "sent_at")

    def __init__(
        self,
        future: asyncio.Future[Reply],
        expected_prefix: bytes,
        sent_at: float,
        due_at: float,
        *,
        probe: bool = False,
    ) -> None:
        self.future = future
        self.expected_prefix = expected_prefix
        self.sent_at = sent_at
        self.due_at = due_at
        self.expires_at = due_at
        self.probe = probe


def fail_command(command: PendingCommand, error: OnlineStoreError) -> None:
    """End *command* with *error*, unless it has ended already."""
    if not command.future.done():
        command.future.set_exception(error)
        # Reading the exception stops asyncio's warning when no caller awaits the future.
        command.future.exception()


def give_reply(command: PendingCommand, reply: Reply) -> bool:
    """Give *command* its reply. False: its caller does not wait any more."""
    if command.future.done():
        return False
    command.future.set_result(reply)
    return True


class StoreConnection(asyncio.Protocol):
    """The worker's end of one connection. It is used once: after `on_lost` it stays closed.

    value_bytes_max  a larger value in a reply drops the connection.
    on_reply         called with each command and its reply, in the order of sending.
    on_lost          called once, when the connection has ended and every command has failed.
    """

    def __init__(
        self,
        value_bytes_max: int,
        on_reply: Callable[[PendingCommand, Reply], object],
        on_lost: Callable[["StoreConnection"], None],
    ) -> None:
        self._buffer_bytes_max = value_bytes_max + BUFFER_BYTES_SPARE
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._pending: deque[PendingCommand] = deque()
        self._incomplete = object()
        self._reader = hiredis.Reader(
            protocolError=hiredis.ProtocolError,
            replyError=StoreReplyError,
            notEnoughData=self._incomplete,
        )
        self._transport: asyncio.WriteTransport | None = None
        self._at_reply_start = True
        self._partial_prefix = b""
        self.writes_paused = False
        """True while more than WRITE_BYTES_MAX wait to be sent."""
        self.reason = "the store closed the connection"
        """Why the connection ended. It has no meaning before."""

    def send(self, command: bytes, pending: PendingCommand) -> None:
        """Send *command*; the future of *pending* gets its reply, or an OnlineStoreError.

        The bytes are with the kernel when this returns (tests/features/online/test_read_ahead.py),
        unless earlier bytes still wait to be sent. Raises OnlineStoreError "connection" when the
        connection is not open.
        """
        if self._transport is None or self._transport.is_closing():
            raise OnlineStoreError("connection", f"not connected to the store: {self.reason}")
        self._pending.append(pending)
        self._transport.write(command)

    def unanswered(self) -> Iterator[PendingCommand]:
        """Return the commands whose callers still wait, in the order of sending."""
        return (command for command in self._pending if not command.future.done())

    def oldest_due(self) -> float:
        """Return the due time of the oldest command without a reply; infinity if there is none."""
        return self._pending[0].due_at if self._pending else float("inf")

    @property
    def outstanding(self) -> int:
        """Number of commands without a reply, including those whose callers no longer wait."""
        return len(self._pending)

    @property
    def is_open(self) -> bool:
        """True while commands can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def duplicate(self) -> int:
        """Return a duplicate of the socket's descriptor, which outlives this connection.

        Raises OnlineStoreError "connection" when the connection is not open.
        """
        if self._transport is None or not self.is_open:
            raise OnlineStoreError("connection", f"not connected to the store: {self.reason}")
        return os.dup(self._transport.get_extra_info("socket").fileno())

    def drop(self, reason: str) -> None:
        """Close the connection at once because of *reason*; pending commands fail."""
        if self._transport is not None and self.is_open:
            self.reason = reason
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport. Called by asyncio."""
        # uvloop's transports do not derive from asyncio.Transport, so isinstance would fail here.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)

    def data_received(self, data: bytes) -> None:
        """Parse replies and pass each to the command that it answers. Called by asyncio."""
        reader, pending = self._reader, self._pending
        # The first bytes of a reply are checked before hiredis sees them.
        if self._at_reply_start:
            data = self._partial_prefix + data
            if not self._check_reply_prefix(data):
                return
        # One read from the socket can complete several replies.
        try:
            reader.feed(data)
            reply = reader.gets()
            while reply is not self._incomplete:
                if not pending:
                    self.drop(UNEXPECTED_REPLY)
                    return
                self._on_reply(pending.popleft(), reply)
                if not reader.has_data():
                    self._at_reply_start = True
                    return
                reply = reader.gets()
        except (hiredis.HiredisError, MemoryError, RecursionError) as error:
            self.drop(f"the store sent bytes that are not a reply: {type(error).__name__}")
            return
        # The last reply is incomplete. It must not grow without bound.
        if reader.len() > self._buffer_bytes_max:
            self.drop(f"the store sent a value above {self._buffer_bytes_max} bytes")

    def _check_reply_prefix(self, data: bytes) -> bool:
        """Return True if *data* begins as the oldest command's reply should.

        hiredis allocates as many elements as an array reply announces. "*2147483647" alone took
        16 GB of address space and slowed the next garbage collection by seconds. Only the first
        reply of a read is checked: this guards against a broken store, not against an attacker.
        """
        prefix = self._pending[0].expected_prefix if self._pending else b""
        if not prefix:
            self.drop(UNEXPECTED_REPLY)
            return False
        if len(data) < len(prefix) and prefix.startswith(data):
            self._partial_prefix = data
            return False
        self._partial_prefix = b""
        self._at_reply_start = False
        if data.startswith((prefix, b"-")):
            return True
        self.drop("the store sent a reply of another kind than the command's")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail every pending command, then call `on_lost`. Called by asyncio."""
        if exc is not None:
            self.reason = f"the connection broke: {type(exc).__name__}"
        self._transport = None
        message = f"the store's connection was lost: {self.reason}"
        while self._pending:
            fail_command(self._pending.popleft(), OnlineStoreError("connection", message))
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Note that the store reads more slowly than the worker sends. Called by asyncio."""
        self.writes_paused = True

    def resume_writing(self) -> None:
        """Note that the unsent bytes have drained. Called by asyncio."""
        self.writes_paused = False
