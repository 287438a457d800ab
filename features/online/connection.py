"""One connection to the store: commands out, replies back in the order asked.

The protocol gives replies no names: the n-th reply answers the n-th command. So whoever stops
waiting (late, cancelled) stays in line, and the reply that comes for them is dropped unread.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

import hiredis

from features.errors import OnlineStoreError

Reply = object
"""What hiredis makes of a reply: bytes, int, list, None, or a StoreReplyError."""

BUFFER_BYTES_SPARE = 512 * 1024
"""One read from the socket and the frame around a value; not counted against the value's bound."""

UNEXPECTED_REPLY = "the store sent a reply that nothing asked for"

WRITE_BYTES_MAX = 1024 * 1024
"""Unsent bytes above which no more is asked: some twenty batches of 512 keys."""


class StoreReplyError(Exception):
    """What the store answered with a leading '-'. A value among replies; never raised."""


class PendingCommand:
    """One command that waits for its reply.

    head  the first bytes its reply must have, unless it is an error's b"-".
    due   loop time.
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
        """Later than due where the loop, not the store, was late."""
        self.probe = probe


def fail_command(command: PendingCommand, error: OnlineStoreError) -> None:
    """Fail whoever still waits; nobody may, and then asyncio must not complain of it."""
    if not command.future.done():
        command.future.set_exception(error)
        command.future.exception()


class StoreConnection(asyncio.Protocol):
    """The store's end of one connection. Lives until `lost` is called, once."""

    def __init__(
        self,
        value_bytes_max: int,
        answered: Callable[[PendingCommand, Reply], None],
        lost: Callable[["StoreConnection"], None],
    ) -> None:
        self._buffer_bytes_max = value_bytes_max + BUFFER_BYTES_SPARE
        self._on_reply = answered
        self._on_lost = lost
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
        """True while the store takes no more bytes from us."""
        self.reason = "the store closed the connection"
        """Why it was lost."""

    def send(self, command: bytes, pending: PendingCommand) -> None:
        """Send *command*; *question* is told when its reply comes, or when the pipe is lost.

        It is on its way when this returns (tests/features/online/test_read_ahead.py).
        """
        if self._transport is None or self._transport.is_closing():
            raise OnlineStoreError("connection", f"not connected to the store: {self.reason}")
        self._pending.append(pending)
        self._transport.write(command)

    def unanswered(self) -> Iterator[PendingCommand]:
        """Those that still wait, in the order asked."""
        return (question for question in self._pending if not question.future.done())

    def oldest_due(self) -> float:
        """Loop time at which the oldest unanswered command was due; infinity: none waits."""
        return self._pending[0].due_at if self._pending else float("inf")

    @property
    def outstanding(self) -> int:
        """Commands sent whose replies have not come, those nobody waits for included."""
        return len(self._pending)

    @property
    def open(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def drop(self, reason: str) -> None:
        """Close at once; replies still under way are lost with it."""
        if self._transport is not None and self.open:
            self.reason = reason
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        # uvloop's transports are no asyncio.Transport, so no isinstance here.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)

    def data_received(self, data: bytes) -> None:
        """Hand each whole reply to the command it answers."""
        reader, waiting = self._reader, self._pending
        if self._at_reply_start:
            data = self._partial_prefix + data
            if not self._check_reply_prefix(data):
                return
        try:
            reader.feed(data)
            reply = reader.gets()
            while reply is not self._incomplete:
                if not waiting:
                    self.drop(UNEXPECTED_REPLY)
                    return
                self._on_reply(waiting.popleft(), reply)
                if not reader.has_data():
                    self._at_reply_start = True
                    return
                reply = reader.gets()
        except (hiredis.HiredisError, MemoryError, RecursionError) as error:
            self.drop(f"the store sent what is no reply: {type(error).__name__}")
            return
        if reader.len() > self._buffer_bytes_max:
            self.drop(f"the store sent a value above {self._buffer_bytes_max} bytes")

    def _check_reply_prefix(self, data: bytes) -> bool:
        """Look at a reply's first bytes before hiredis does.

        It makes room for as many elements as the store announces: "*2147483647" alone took 16 GB
        of address space, and seconds of the next garbage collection. A reply that comes in one
        piece with the one before it is not looked at: our own store is no attacker.
        """
        head = self._pending[0].expected_prefix if self._pending else b""
        if not head:
            self.drop(UNEXPECTED_REPLY)
            return False
        if len(data) < len(head) and head.startswith(data):
            self._partial_prefix = data
            return False
        self._partial_prefix = b""
        self._at_reply_start = False
        if data.startswith((head, b"-")):
            return True
        self.drop("the store sent another kind of reply than was asked for")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End every wait, then tell the reader."""
        if exc is not None:
            self.reason = f"the connection broke: {type(exc).__name__}"
        self._transport = None
        words = f"the store's connection was lost: {self.reason}"
        while self._pending:
            question = self._pending.popleft()
            fail_command(question, OnlineStoreError("connection", words))
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Note that the store does not take what we send."""
        self.writes_paused = True

    def resume_writing(self) -> None:
        """Note that it does again."""
        self.writes_paused = False
