"""Reading rows while a call waits: a thin, bounded, self-healing pipe to the online store.

Redis-py's client costs twice the CPU and, by its own retries, seconds of a caller's time when
the store is gone. This reader never retries: each call has one answer or one error, in its time.
"""

import asyncio
import contextlib
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
)
from features.online.sentinel import MasterFinder
from features.online.store_url import encode_command, parse_store_url
from features.online.timeouts import DeadlineTimer
from host.retry import Backoff

PING = encode_command((b"PING",))
LOOP_LAG_S = 0.002
"""A timer later than this: the loop itself was held up."""

_LENGTHS = tuple(b"$%d" % length for length in range(1024))


@dataclass(frozen=True, kw_only=True)
class OnlineSettings:
    """Every number an operator may set: its unit in the name, its reason beside it."""

    connect_timeout_ms: int = 250
    """For a connection with its AUTH, SELECT and first PING."""

    backoff_ms_min: int = 20
    """Pause after the first failed connection; doubles up to backoff_ms_max."""

    backoff_ms_max: int = 500
    """With connect_timeout_ms, bounds how long after its return the store is found again."""

    stall_ms_max: int = 250
    """The oldest reply overdue by more than this: the connection is given up and made anew."""

    failures_to_open: int = 5
    """Timeouts or broken connections in a row before callers are refused at once."""

    counted_timeout_ms_min: int = 10
    """A timeout shorter than this says the caller was in a hurry, nothing about the store."""

    probe_ms: int = 100
    """Pause between the PINGs that look whether the store is back."""

    probe_timeout_ms: int = 30
    """A store that answers PING slower than this is not back: callers give it no more either."""

    master_ask_ms: int = 1_000
    """How often Sentinel is asked whether the master is still the one read from."""

    value_bytes_max: int = 1024 * 1024
    """A stored row is at most some 17 kB; a larger value drops the connection."""


@dataclass(slots=True)
class OnlineCounts:
    """What happened since the start; only grows."""

    answered: int = 0
    timeout: int = 0
    connection: int = 0
    breaker: int = 0
    reply: int = 0
    connected: int = 0
    dropped_late: int = 0
    """Replies that came after their caller had stopped waiting."""


class OnlineReader:
    """One connection, many commands in flight; used by one event loop's thread only.

    url  redis://[user:password@]host[:port][/database], unix:///path, or
         redis+sentinel://[user:password@]host[:port],.../service[/database]; StoreUrlError
         otherwise.
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
        self._pipe: StoreConnection | None = None
        self._connect_task: asyncio.Task[None] | None = None
        self._disconnected = asyncio.Event()
        self._probe_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._expiry = DeadlineTimer(self._expire)
        self._closed = False
        self._last_error = "not started"
        self._refused_by_store = False
        self.last_answer_ns = 0
        """On clock_ns; 0: the store has not answered yet."""
        self.counts = OnlineCounts()

    @property
    def state(self) -> BreakerState:
        """The breaker's: "closed" is normal, "open" refuses, "half_open" has a probe under way."""
        return self._breaker.state

    @property
    def connected(self) -> bool:
        """Whether a connection stands that answered its first PING."""
        return self._pipe is not None

    @property
    def outstanding(self) -> int:
        """Commands sent whose replies have not come, abandoned ones included."""
        return 0 if self._pipe is None else self._pipe.outstanding

    async def start(self) -> None:
        """Begin to keep a connection; return after the first attempt, whatever came of it."""
        first_tried = asyncio.Event()
        self._connect_task = asyncio.create_task(
            self._keep_connected(first_tried), name="online store"
        )
        await first_tried.wait()

    async def close(self) -> None:
        """Stop for good; callers still waiting get OnlineStoreError("connection")."""
        self._closed = True
        self._expiry.cancel()
        for timer in (self._probe_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        if self._connect_task is not None:
            self._connect_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connect_task
        if self._pipe is not None:
            self._pipe.drop("this reader was closed")
            await self._disconnected.wait()
        if self._finder is not None:
            await self._finder.close()

    def mget(
        self, keys: Sequence[bytes], timeout_s: float
    ) -> Coroutine[Any, Any, list[bytes | None]]:
        """Ask for the stored value of each key now; await the answer when it is needed.

        Its values are in the order of *keys*; None: no such key, or no string.

        timeout_s  after this the call ends, whatever the store does.

        Raises OnlineStoreError, here or when awaited; its reason is "timeout", "connection"
        (lost, refused, or the store takes no more bytes), "breaker" (open: refused at once,
        nothing sent) or "reply" (the store answered, with an error: -LOADING, -NOAUTH, ...; the
        connection is kept). May be cancelled at any moment: nobody ever gets another caller's
        reply.
        """
        if not keys:
            return _no_values()
        loop = asyncio.get_running_loop()
        now, count = loop.time(), len(keys)
        pipe = self._require_connection(now)
        question = PendingCommand(loop.create_future(), b"*%d\r\n" % count, now, now + timeout_s)
        try:
            pipe.send(_encode_mget(keys), question)
        except OnlineStoreError:
            self._count_lost()
            raise
        self._expiry.run_by(question.due_at)
        return self._values(pipe, question, count)

    async def _values(
        self, pipe: StoreConnection, question: PendingCommand, count: int
    ) -> list[bytes | None]:
        try:
            reply = await question.future
        except OnlineStoreError as error:
            if error.reason == "connection":
                self._count_lost()
            raise
        if type(reply) is not list or len(reply) != count:
            raise self._unexpected_reply_error(pipe, reply, count)
        self.counts.answered += 1
        return [value if type(value) is bytes else None for value in reply]

    def _count_lost(self) -> None:
        self.counts.connection += 1
        self._count_failure()

    def _require_connection(self, now: float) -> StoreConnection:
        if self._breaker.state != "closed":
            self.counts.breaker += 1
            raise OnlineStoreError(
                "breaker",
                f"the store at {self._address.display_name} is not asked: {self._last_error}",
            )
        pipe = self._pipe
        if pipe is not None and not pipe.writes_paused and not self._drop_if_stalled(pipe, now):
            return pipe
        self._count_failure()
        if pipe is None and self._refused_by_store:
            self.counts.reply += 1
            raise OnlineStoreError("reply", f"{self._address.display_name}: {self._last_error}")
        self.counts.connection += 1
        why = (
            "it takes no more bytes"
            if pipe is not None and pipe.writes_paused
            else self._last_error
        )
        raise OnlineStoreError("connection", f"no way to {self._address.display_name}: {why}")

    def _drop_if_stalled(self, pipe: StoreConnection, now: float) -> bool:
        """Drop a pipe whose oldest reply is hopelessly late."""
        overdue_ms = (now - pipe.oldest_due()) * 1e3
        if overdue_ms <= self._settings.stall_ms_max:
            return False
        self._last_error = f"its oldest reply is {overdue_ms:.0f} ms overdue"
        pipe.drop(self._last_error)
        return True

    def _unexpected_reply_error(
        self, pipe: StoreConnection, reply: Reply, key_count: int
    ) -> OnlineStoreError:
        self.counts.reply += 1
        if isinstance(reply, StoreReplyError):
            return OnlineStoreError(
                "reply", f"{self._address.display_name} answered: {str(reply)[:200]}"
            )
        # Not an answer to MGET: the order of replies can no longer be trusted.
        pipe.drop("the store answered an MGET with something else")
        return OnlineStoreError(
            "reply",
            f"{self._address.display_name} answered {key_count} keys with a {type(reply).__name__}",
        )

    def _on_reply(self, question: PendingCommand, reply: Reply) -> None:
        """Take a reply off the pipe, wanted or not. Runs inside data_received."""
        self.last_answer_ns = self._clock_ns()
        if question.future.done():
            self.counts.dropped_late += 1
            return
        question.future.set_result(reply)
        if question.probe or self._breaker.state == "closed":
            self._breaker.succeeded()

    def _expire(self, now: float) -> float:
        """End the waits whose time is up; return when the next one's is."""
        soonest, pipe = inf, self._pipe
        if pipe is None:
            return inf
        for question in pipe.unanswered():
            if question.expires_at <= now and not self._extend_if_loop_late(question, now):
                self._fail_timed_out(pipe, question)
            else:
                soonest = min(soonest, question.expires_at)
        return soonest

    def _extend_if_loop_late(self, question: PendingCommand, now: float) -> bool:
        """Whether a wait goes on: this loop was busy, not the store.

        Then what has come is read before judging. (uvloop runs timers before it looks at sockets.)
        """
        if question.expires_at > question.due_at or now - question.due_at <= LOOP_LAG_S:
            return False
        question.expires_at = now + LOOP_LAG_S
        return True

    def _fail_timed_out(self, pipe: StoreConnection, question: PendingCommand) -> None:
        patience_ms = (question.due_at - question.sent_at) * 1e3
        self._last_error = f"no answer in {patience_ms:.1f} ms"
        fail_command(
            question,
            OnlineStoreError("timeout", f"{self._address.display_name}: {self._last_error}"),
        )
        if not question.probe:
            self.counts.timeout += 1
        if patience_ms >= self._settings.counted_timeout_ms_min:
            self._count_failure()
        if self._stall_timer is None:
            self._recheck_overdue(pipe)

    def _recheck_overdue(self, pipe: StoreConnection) -> None:
        """Look at a pipe with overdue replies again, until they came or it is given up."""
        loop = asyncio.get_running_loop()
        self._stall_timer = None
        if (
            self._drop_if_stalled(pipe, loop.time())
            or pipe.oldest_due() > loop.time()
            or self._closed
        ):
            return
        pause_s = self._settings.stall_ms_max / 1e3 + LOOP_LAG_S
        self._stall_timer = loop.call_later(pause_s, self._recheck_overdue, pipe)

    def _count_failure(self) -> None:
        self._breaker.failed()
        if self._breaker.state != "closed" and self._probe_timer is None and not self._closed:
            pause_s = self._settings.probe_ms / 1e3
            self._probe_timer = asyncio.get_running_loop().call_later(pause_s, self._probe)

    def _probe(self) -> None:
        """Send a PING nobody waits for; its reply, if in time, closes the breaker."""
        self._probe_timer = None
        if self._breaker.state == "closed" or self._closed:
            return
        loop = asyncio.get_running_loop()
        pipe, timeout_s = self._pipe, self._settings.probe_timeout_ms / 1e3
        if pipe is not None and not pipe.writes_paused:
            now = loop.time()
            question = PendingCommand(loop.create_future(), b"+", now, now + timeout_s, probe=True)
            with contextlib.suppress(OnlineStoreError):
                pipe.send(PING, question)
                self._breaker.probing()
                self._expiry.run_by(question.due_at)
        self._probe_timer = loop.call_later(self._settings.probe_ms / 1e3, self._probe)

    async def _keep_connected(self, first_tried: asyncio.Event) -> None:
        """Connect, wait until the connection is lost, connect again; for ever."""
        settings = self._settings
        backoff = Backoff(settings.backoff_ms_min / 1e3, settings.backoff_ms_max / 1e3)
        while True:
            connected = await self._connect()
            first_tried.set()
            if connected:
                backoff.reset()
                if self._finder is not None:
                    await self._watch_master(self._finder)
                await self._disconnected.wait()
            await asyncio.sleep(backoff.next_s())

    async def _watch_master(self, finder: MasterFinder) -> None:
        """Return once the connection is lost; leave it when Sentinel names another master.

        An old master that hangs, or is cut off with us, would be read from for ever.
        """
        while not self._disconnected.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.master_ask_ms / 1e3):
                    await self._disconnected.wait()
            # Sentinels that do not answer are no reason to leave a store that does.
            with contextlib.suppress(OnlineStoreError):
                named = await finder.find_master()
                if named != self._master and self._pipe is not None:
                    self._pipe.drop(f"Sentinel names {named[0]}:{named[1]} as the master now")

    async def _connect(self) -> bool:
        pipe = StoreConnection(
            self._settings.value_bytes_max, self._on_reply, self._on_connection_lost
        )
        self._disconnected.clear()
        try:
            if self._finder is not None:
                self._master = await self._finder.find_master()
            async with asyncio.timeout(self._settings.connect_timeout_ms / 1e3):
                await self._open_connection(pipe)
                await self._handshake(pipe)
        except (OSError, TimeoutError, OnlineStoreError, ValueError) as error:
            self._refused_by_store = isinstance(error, OnlineStoreError) and error.reason == "reply"
            self._last_error = str(error) or type(error).__name__
            pipe.drop(self._last_error)
            return False
        except asyncio.CancelledError:
            pipe.drop("this reader was closed")
            raise
        if not pipe.open:  # lost again before this task had its turn
            self._last_error = pipe.reason
            return False
        self._pipe, self._refused_by_store = pipe, False
        self.counts.connected += 1
        self._breaker.succeeded()
        return True

    async def _open_connection(self, pipe: StoreConnection) -> None:
        loop, address = asyncio.get_running_loop(), self._address
        if address.path:
            await loop.create_unix_connection(lambda: pipe, address.path)
            return
        host, port = self._master if self._finder else (address.host, address.port)
        await loop.create_connection(lambda: pipe, host, port)

    async def _handshake(self, pipe: StoreConnection) -> None:
        """Send AUTH, ROLE, SELECT, PING; raise OnlineStoreError unless each is welcome."""
        loop = asyncio.get_running_loop()
        for command in self._address.handshake_commands():
            head = b"*" if command == (b"ROLE",) else b"+"
            question = PendingCommand(loop.create_future(), head, loop.time(), inf)
            pipe.send(encode_command(command), question)
            reply = await question.future
            if isinstance(reply, StoreReplyError):
                said = f"{command[0].decode()} was answered: {str(reply)[:200]}"
                raise OnlineStoreError("reply", said)
            if type(reply) is list and reply[:1] != [b"master"]:
                raise OnlineStoreError("reply", "Sentinel named a server that is no master yet")

    def _on_connection_lost(self, pipe: StoreConnection) -> None:
        if pipe is self._pipe:
            self._pipe = None
            self._last_error = pipe.reason
            self._disconnected.set()


async def _no_values() -> list[bytes | None]:
    return []


def _encode_mget(keys: Sequence[bytes]) -> bytes:
    """Return one MGET as bytes. All but the interleaving runs in C: 64 keys take about 6 us."""
    parts: list[bytes] = [b""] * (2 * len(keys))
    sizes = map(len, keys)
    parts[::2] = [_LENGTHS[size] if size < 1024 else b"$%d" % size for size in sizes]
    parts[1::2] = keys
    return b"*%d\r\n$4\r\nMGET\r\n%b\r\n" % (len(keys) + 1, b"\r\n".join(parts))
