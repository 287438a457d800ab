"""Reads stored rows while a call waits, over one pipelined connection to the online store.

The reader never retries a read. Each read ends within its timeout, with values or with one error,
because redis-py's client costs twice the CPU and its retries cost a caller seconds when the store
is gone. Lost connections are made anew in the background, and a circuit breaker refuses reads
while the store does not answer. A gateway worker has one reader, used by its event loop's thread.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from features.errors import OnlineStoreError
from features.online.breaker import BreakerState, StoreBreaker
from features.online.connection import (
    PendingCommand,
    Reply,
    StoreConnection,
    StoreReplyError,
    fail_command,
    give_reply,
)
from features.online.sentinel import MasterFinder
from features.online.store_url import encode_command, parse_store_url
from host.retry import Backoff
from host.unix_sockets import connect_unix_socket

log = logging.getLogger(__name__)

PING = encode_command((b"PING",))
LOOP_LAG_S = 0.002
"""A timer that runs later than this shows that the event loop was busy."""

_LENGTHS = tuple(b"$%d" % length for length in range(1024))


@dataclass(frozen=True, kw_only=True)
class OnlineSettings:
    """Timeouts, pauses and limits of the reader. Each name carries its unit."""

    connect_timeout_ms: int = 250
    """Time for a connection with its handshake: AUTH, ROLE, SELECT and the first PING."""

    backoff_ms_min: int = 20
    """Pause after the first failed connection. It doubles up to backoff_ms_max."""

    backoff_ms_max: int = 500
    """Longest pause. With connect_timeout_ms it bounds how long a store that is back is missed."""

    stall_ms_max: int = 250
    """If the oldest reply is overdue by more than this, the connection is dropped and remade."""

    failures_to_open: int = 5
    """Timeouts or broken connections in a row after which the breaker refuses reads at once."""

    counted_timeout_ms_min: int = 10
    """A read with a shorter timeout does not count as a failure when it times out."""

    probe_ms: int = 100
    """Pause between the PINGs that test whether the store is back."""

    probe_timeout_ms: int = 30
    """A PING slower than this is a failure, because callers would not wait longer either."""

    master_poll_ms: int = 1_000
    """How often Sentinel is queried for the master's address."""

    value_bytes_max: int = 1024 * 1024
    """A larger value drops the connection. A stored row has at most some 17 kB."""


@dataclass(slots=True)
class OnlineCounts:
    """Counters since the reader was made. The first five count reads by their end."""

    answered: int = 0
    timeout: int = 0
    connection: int = 0
    breaker: int = 0
    reply: int = 0
    connected: int = 0
    """Connections made."""
    dropped_late: int = 0
    """Replies that came after their caller had stopped waiting."""


class DeadlineTimer:
    """One event loop timer for many deadlines; it runs at the soonest of them.

    A timer for each read, made and cancelled, would add a tenth to the time that a single read
    waits for the store.

    expire  fails what is overdue at the given loop time; returns the next deadline, or infinity.
    """

    def __init__(self, expire: Callable[[float], float]) -> None:
        self._expire = expire
        self._when = inf
        self._timer: asyncio.TimerHandle | None = None

    def run_by(self, when: float) -> None:
        """Make the timer run at loop time *when*, unless it runs earlier already."""
        if when < self._when:
            self.cancel()
            self._when = when
            self._timer = asyncio.get_running_loop().call_at(when, self._run)

    def cancel(self) -> None:
        """Forget every deadline."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._when = None, inf

    def _run(self) -> None:
        self._timer, self._when = None, inf
        self.run_by(self._expire(asyncio.get_running_loop().time()))


class OnlineReader:
    """Reads rows by key, many reads at once over one connection. Used by one event loop's thread.

    url       redis://[user:password@]host[:port][/database], unix:///path, or
              redis+sentinel://[user:password@]host[:port],.../service[/database].
    clock_ns  monotonic clock for `last_answer_ns`.

    Raises StoreUrlError for another URL.
    """

    def __init__(
        self,
        url: str,
        *,
        settings: OnlineSettings | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._address = parse_store_url(url)
        self._finder = MasterFinder(self._address) if self._address.sentinels else None
        self._master: tuple[str, int] = ("", 0)
        self._settings = settings or OnlineSettings()
        self._clock_ns = clock_ns
        self._breaker = StoreBreaker(self._settings.failures_to_open)
        self._connection: StoreConnection | None = None
        self._connect_task: asyncio.Task[None] | None = None
        self._disconnected = asyncio.Event()
        self._probe_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._deadline_timer = DeadlineTimer(self._fail_overdue)
        self._closed = False
        self._last_error = "not started"
        self._refused_by_store = False
        self.last_answer_ns = 0
        """When the last reply came, by clock_ns; 0 if none came yet."""
        self.counts = OnlineCounts()

    @property
    def state(self) -> BreakerState:
        """State of the breaker: reads are sent only while it is "closed"."""
        return self._breaker.state

    @property
    def connected(self) -> bool:
        """True while there is a connection that has finished its handshake."""
        return self._connection is not None

    @property
    def outstanding(self) -> int:
        """Number of commands without a reply, including those whose callers no longer wait."""
        return 0 if self._connection is None else self._connection.outstanding

    async def start(self) -> None:
        """Begin to keep a connection. Return after the first attempt, successful or not."""
        first_attempt_done = asyncio.Event()
        self._connect_task = asyncio.create_task(
            self._keep_connected(first_attempt_done), name="online store"
        )
        await first_attempt_done.wait()

    async def close(self) -> None:
        """Close the connection for good. Waiting reads fail with reason "connection"."""
        self._closed = True
        # No timer and no task may act after this.
        self._deadline_timer.cancel()
        for timer in (self._probe_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        if self._connect_task is not None:
            self._connect_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connect_task
        # The connections end last: to the store, then to the sentinels.
        if self._connection is not None:
            self._connection.drop("this reader was closed")
            await self._disconnected.wait()
        if self._finder is not None:
            await self._finder.close()

    async def open_socket(self) -> int:
        """Return a further connection to the same store, after its handshake, as a descriptor.

        It is the caller's, who must close it. Raises OnlineStoreError, OSError or TimeoutError.
        """
        connection = StoreConnection(self._settings.value_bytes_max, self._on_reply, lambda _: None)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_ms / 1e3):
                await self._open_connection(connection)
                await self._handshake(connection)
            return connection.duplicate()
        finally:
            connection.drop("its socket has another owner")

    def mget(
        self, keys: Sequence[bytes], timeout_s: float
    ) -> Coroutine[Any, Any, list[bytes | None]]:
        """Send one MGET now; await the returned coroutine for the values.

        The values are in the order of *keys*. A key that is absent, or that holds no string,
        gives None. The coroutine may be cancelled, or never awaited: another read's values are
        not affected.

        timeout_s  time from this call after which the read fails.

        Raises OnlineStoreError, here or from the coroutine. Its reason is
            "timeout"     the store did not answer in time;
            "connection"  there is no connection, it was lost, or the store takes no more bytes;
            "breaker"     the breaker is open; nothing was sent;
            "reply"       the store answered with an error (-LOADING, -NOAUTH, ...), or with
                          something that is no answer to MGET. Only the latter drops the connection.
        """
        if not keys:
            return _no_values()
        # Send the command. No values are awaited before all of its bytes are on their way.
        loop = asyncio.get_running_loop()
        now, count = loop.time(), len(keys)
        connection = self._require_connection(now)
        command = PendingCommand(loop.create_future(), b"*%d\r\n" % count, now, now + timeout_s)
        try:
            connection.send(encode_mget(keys), command)
        except OnlineStoreError:
            self._count_lost()
            raise
        # One timer ends the commands that are due; then the caller awaits the values.
        self._deadline_timer.run_by(command.due_at)
        return self._values(connection, command, count)

    async def _values(
        self, connection: StoreConnection, command: PendingCommand, count: int
    ) -> list[bytes | None]:
        try:
            reply = await command.future
        except OnlineStoreError as error:
            if error.reason == "connection":
                self._count_lost()
            raise
        if type(reply) is not list or len(reply) != count:
            raise self._unexpected_reply_error(connection, reply, count)
        self.counts.answered += 1
        return [value if type(value) is bytes else None for value in reply]

    def _count_lost(self) -> None:
        self.counts.connection += 1
        self._count_failure()

    def _require_connection(self, now: float) -> StoreConnection:
        """Return the connection if a command may be sent on it; else raise OnlineStoreError."""
        if self._breaker.state != "closed":
            self.counts.breaker += 1
            raise OnlineStoreError(
                "breaker",
                f"the breaker for {self._address.display_name} is open: {self._last_error}",
            )
        connection = self._connection
        if (
            connection is not None
            and not connection.writes_paused
            and not self._drop_if_stalled(connection, now)
        ):
            return connection
        self._count_failure()
        # A store that refuses the handshake (a wrong password) did reply.
        if connection is None and self._refused_by_store:
            self.counts.reply += 1
            raise OnlineStoreError("reply", f"{self._address.display_name}: {self._last_error}")
        self.counts.connection += 1
        cause = (
            "it takes no more bytes"
            if connection is not None and connection.writes_paused
            else self._last_error
        )
        raise OnlineStoreError(
            "connection", f"no connection to {self._address.display_name}: {cause}"
        )

    def _drop_if_stalled(self, connection: StoreConnection, now: float) -> bool:
        """Drop *connection* if its oldest reply is overdue by more than stall_ms_max."""
        overdue_ms = (now - connection.oldest_due()) * 1e3
        if overdue_ms <= self._settings.stall_ms_max:
            return False
        self._last_error = f"its oldest reply is {overdue_ms:.0f} ms overdue"
        connection.drop(self._last_error)
        return True

    def _unexpected_reply_error(
        self, connection: StoreConnection, reply: Reply, key_count: int
    ) -> OnlineStoreError:
        self.counts.reply += 1
        if isinstance(reply, StoreReplyError):
            return OnlineStoreError(
                "reply", f"{self._address.display_name} answered: {str(reply)[:200]}"
            )
        # The reply is no answer to MGET, so replies may no longer match commands.
        connection.drop("the store answered an MGET with something else")
        return OnlineStoreError(
            "reply",
            f"{self._address.display_name} answered {key_count} keys with a {type(reply).__name__}",
        )

    def _on_reply(self, command: PendingCommand, reply: Reply) -> None:
        """Give *reply* to the caller of *command* if it still waits. Runs in data_received."""
        self.last_answer_ns = self._clock_ns()
        if not give_reply(command, reply):
            self.counts.dropped_late += 1
            return
        # With the breaker open, only a probe's answer closes it.
        if command.probe or self._breaker.state == "closed":
            self._breaker.succeeded()

    def _fail_overdue(self, now: float) -> float:
        """Fail the commands that are overdue at *now*; return the next deadline, or infinity."""
        soonest, connection = inf, self._connection
        if connection is None:
            return inf
        for command in connection.unanswered():
            if command.expires_at <= now and not self._extend_if_loop_late(command, now):
                self._fail_timed_out(connection, command)
            else:
                soonest = min(soonest, command.expires_at)
        return soonest

    def _extend_if_loop_late(self, command: PendingCommand, now: float) -> bool:
        """Give an overdue command LOOP_LAG_S more, once, if this event loop was busy meanwhile.

        Its reply may have come already: uvloop runs timers before it reads from sockets.
        """
        if command.expires_at > command.due_at or now - command.due_at <= LOOP_LAG_S:
            return False
        command.expires_at = now + LOOP_LAG_S
        return True

    def _fail_timed_out(self, connection: StoreConnection, command: PendingCommand) -> None:
        timeout_ms = (command.due_at - command.sent_at) * 1e3
        self._last_error = f"no answer in {timeout_ms:.1f} ms"
        fail_command(
            command,
            OnlineStoreError("timeout", f"{self._address.display_name}: {self._last_error}"),
        )
        if not command.probe:
            self.counts.timeout += 1
        if timeout_ms >= self._settings.counted_timeout_ms_min:
            self._count_failure()
        if self._stall_timer is None:
            self._recheck_overdue(connection)

    def _recheck_overdue(self, connection: StoreConnection) -> None:
        """Check *connection* again and again until no reply is overdue, or it is dropped."""
        loop = asyncio.get_running_loop()
        self._stall_timer = None
        if (
            self._drop_if_stalled(connection, loop.time())
            or connection.oldest_due() > loop.time()
            or self._closed
        ):
            return
        pause_s = self._settings.stall_ms_max / 1e3 + LOOP_LAG_S
        self._stall_timer = loop.call_later(pause_s, self._recheck_overdue, connection)

    def _count_failure(self) -> None:
        self._breaker.failed()
        if self._breaker.state != "closed" and self._probe_timer is None and not self._closed:
            pause_s = self._settings.probe_ms / 1e3
            self._probe_timer = asyncio.get_running_loop().call_later(pause_s, self._probe)

    def _probe(self) -> None:
        """Send a PING and plan the next. A reply in time closes the breaker."""
        self._probe_timer = None
        if self._breaker.state == "closed" or self._closed:
            return
        loop = asyncio.get_running_loop()
        connection, timeout_s = self._connection, self._settings.probe_timeout_ms / 1e3
        if connection is not None and not connection.writes_paused:
            now = loop.time()
            command = PendingCommand(loop.create_future(), b"+", now, now + timeout_s, probe=True)
            with contextlib.suppress(OnlineStoreError):
                connection.send(PING, command)
                self._breaker.probing()
                self._deadline_timer.run_by(command.due_at)
        self._probe_timer = loop.call_later(self._settings.probe_ms / 1e3, self._probe)

    async def _keep_connected(self, first_attempt_done: asyncio.Event) -> None:
        """Connect, wait until the connection is lost, and connect again, until cancelled."""
        settings = self._settings
        backoff = Backoff(settings.backoff_ms_min / 1e3, settings.backoff_ms_max / 1e3)
        while True:
            try:
                connected = await self._connect()
            except Exception as error:  # a reader that stopped trying would never read again
                log.exception("online store: connecting failed; it is tried again")
                self._last_error = repr(error)
                connected = False
            first_attempt_done.set()
            if connected:
                backoff.reset()
                if self._finder is not None:
                    await self._watch_master(self._finder)
                await self._disconnected.wait()
            await asyncio.sleep(backoff.next_s())

    async def _watch_master(self, finder: MasterFinder) -> None:
        """Drop the connection when Sentinel names another master. Return once it is lost.

        Without this, a former master that hangs or is cut off would be read from for ever.
        """
        while not self._disconnected.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.master_poll_ms / 1e3):
                    await self._disconnected.wait()
            # While no sentinel answers, the connection to the store stays open.
            with contextlib.suppress(OnlineStoreError):
                master = await finder.find_master()
                if master != self._master and self._connection is not None:
                    self._connection.drop(f"Sentinel names {master[0]}:{master[1]} as the master")

    async def _connect(self) -> bool:
        """Make one attempt to connect and shake hands; return True if it succeeded."""
        connection = StoreConnection(
            self._settings.value_bytes_max, self._on_reply, self._on_connection_lost
        )
        self._disconnected.clear()
        try:
            if self._finder is not None:
                self._master = await self._finder.find_master()
            async with asyncio.timeout(self._settings.connect_timeout_ms / 1e3):
                await self._open_connection(connection)
                await self._handshake(connection)
        except (OSError, TimeoutError, OnlineStoreError, ValueError) as error:
            self._refused_by_store = isinstance(error, OnlineStoreError) and error.reason == "reply"
            self._last_error = str(error) or type(error).__name__
            connection.drop(self._last_error)
            return False
        except asyncio.CancelledError:
            connection.drop("this reader was closed")
            raise
        # The connection may have been lost before this task ran again.
        if not connection.is_open:
            self._last_error = connection.reason
            return False
        self._connection, self._refused_by_store = connection, False
        self.counts.connected += 1
        self._breaker.succeeded()
        return True

    async def _open_connection(self, connection: StoreConnection) -> None:
        loop, address = asyncio.get_running_loop(), self._address
        if address.path:
            # The password goes only to a user who may serve the socket.
            served = connect_unix_socket(address.path, 0.0)
            await loop.create_unix_connection(lambda: connection, sock=served)
            return
        host, port = self._master if self._finder else (address.host, address.port)
        await loop.create_connection(lambda: connection, host, port)

    async def _handshake(self, connection: StoreConnection) -> None:
        """Send AUTH, ROLE, SELECT, PING as needed; raise OnlineStoreError if one is refused."""
        loop = asyncio.get_running_loop()
        for parts in self._address.handshake_commands():
            prefix = b"*" if parts == (b"ROLE",) else b"+"
            command = PendingCommand(loop.create_future(), prefix, loop.time(), inf)
            connection.send(encode_command(parts), command)
            reply = await command.future
            if isinstance(reply, StoreReplyError):
                message = f"{parts[0].decode()} was answered: {str(reply)[:200]}"
                raise OnlineStoreError("reply", message)
            if type(reply) is list and reply[:1] != [b"master"]:
                raise OnlineStoreError("reply", "Sentinel named a server that is no master yet")

    def _on_connection_lost(self, connection: StoreConnection) -> None:
        if connection is self._connection:
            self._connection = None
            self._last_error = connection.reason
            self._disconnected.set()


async def _no_values() -> list[bytes | None]:
    return []


def encode_mget(keys: Sequence[bytes]) -> bytes:
    """Return one MGET command as bytes. 64 keys take about 6 us: only two list steps are Python.

    *keys* may know the command, as turnout_ingress.StoreKeys does in its method `mget`.
    """
    if not isinstance(keys, list):
        encode: Callable[[], bytes] | None = getattr(keys, "mget", None)
        if encode is not None:
            return encode()
    parts: list[bytes] = [b""] * (2 * len(keys))
    sizes = map(len, keys)
    parts[::2] = [_LENGTHS[size] if size < 1024 else b"$%d" % size for size in sizes]
    parts[1::2] = keys
    return b"*%d\r\n$4\r\nMGET\r\n%b\r\n" % (len(keys) + 1, b"\r\n".join(parts))
