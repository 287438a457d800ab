"""A small HTTP/2 client for tests and load runs, built on the h2 package.

    python -m benchmarks.load.http2_peer PORT SECONDS GROUPS [BEGIN_S]

`Http2Peer` is one connection that sends unary gRPC calls whose bytes are prepared. It obeys what
the server announces (MAX_CONCURRENT_STREAMS, GOAWAY, flow control), and it never retries by itself.
`run_open_loop` sends calls at a given rate, whatever the answers do, as customers do. A call costs
this process some 100 us of CPU, where grpcio's client takes 250 us.

The command runs an open loop in a process of its own, so that the process can be pinned to a core.
GROUPS is JSON: [{"name": ..., "connections": n, "rate": calls/s, ...}], the fields of
`CallerGroup`. It prints one JSON object (`GroupResult`) for each group. BEGIN_S, in seconds of the
monotonic clock, lets several processes begin together.
"""

import asyncio
import json
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame

from benchmarks.standalone_gateway import PREDICT, tiny_request

GRPC_OK, GRPC_CANCELLED, GRPC_DEADLINE_EXCEEDED = 0, 1, 4
CONNECTION_BROKEN = -1
"""Not a gRPC status: the stream or the connection ended without one."""
UNPROCESSED = -2
"""Not a gRPC status: the server has not looked at the call (REFUSED_STREAM, or GOAWAY with a lower
last stream). Every gRPC client sends such a call again."""

RECEIVE_WINDOW = 2**30
"""Bytes that the server may send before this client acknowledges them."""
MESSAGE_BYTES_MAX = 16_384
"""Prepared messages are at most one DATA frame."""
TICK_S = 0.001


def grpc_message(body: bytes) -> bytes:
    """Return *body* as an uncompressed gRPC message: a flag byte, four bytes of length, *body*."""
    return struct.pack(">BL", 0, len(body)) + body


class PreparedCall:
    """The headers and the message of one kind of call. Raises ValueError above 16 kB."""

    def __init__(self, path: str, body: bytes, timeout_ms: int) -> None:
        self.message = grpc_message(body)
        if len(self.message) > MESSAGE_BYTES_MAX:
            raise ValueError(
                f"the message has {len(self.message)} bytes; a call of this client has at most "
                f"{MESSAGE_BYTES_MAX}: use benchmarks/loadgen for larger ones"
            )
        self.headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"127.0.0.1"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-timeout", f"{timeout_ms}m".encode()),
        ]


class _ConnectionThatDrains(H2Connection):
    """An h2 connection that stays open for the calls in flight after the server's GOAWAY.

    h2 refuses every frame after a GOAWAY. RFC 9113, 6.8, lets the streams up to the last one end.
    """

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        event.error_code = frame.error_code
        return [], [event]


OnEnded = Callable[[int, int], None]
"""on_ended(token, status): a call is over. The status is a gRPC status or one of the two above."""


class Http2Peer(asyncio.Protocol):
    """One client connection. `on_room` is called when it may take further calls, or none ever."""

    def __init__(self, on_ended: OnEnded, on_room: Callable[["Http2Peer"], None]) -> None:
        self._on_ended = on_ended
        self._on_room = on_room
        self._transport: asyncio.Transport | None = None
        # The gateway is what is tested here: h2 need not check the headers of either side.
        self._h2 = _ConnectionThatDrains(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            },
        )
        self._unacknowledged_bytes = 0
        self._open_calls: dict[int, int] = {}
        """Stream -> token."""
        self.streams_max = 0
        """0 until the server's SETTINGS came."""
        self.goaway_received = False
        """The server takes no new calls here."""
        self.connection_is_lost = False

    @property
    def free_streams(self) -> int:
        """Calls that may be sent now: by the server's stream limit and by its flow control."""
        if self.goaway_received or self.connection_is_lost:
            return 0
        calls_by_window = self._h2.outbound_flow_control_window // MESSAGE_BYTES_MAX
        return min(self.streams_max - len(self._open_calls), calls_by_window)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the connection preface; answers are never held back by our flow control."""
        self._transport = cast("asyncio.Transport", transport)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(RECEIVE_WINDOW)
        self._flush()

    def send(self, call: PreparedCall, token: int) -> int:
        """Send *call* and return its stream, which `cancel` takes. Needs `free_streams` > 0."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, call.headers)
        self._h2.send_data(stream, call.message, end_stream=True)
        self._open_calls[stream] = token
        self._flush()
        return stream

    def cancel(self, stream: int) -> bool:
        """Cancel a call, as a client does at its deadline; False when the call is over already."""
        if self._open_calls.pop(stream, None) is None:
            return False
        self._h2.reset_stream(stream, ErrorCodes.CANCEL)
        self._flush()
        return True

    def close(self) -> None:
        """Abort the connection; calls that are open end as CONNECTION_BROKEN."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End every open call as CONNECTION_BROKEN."""
        del exc
        self.connection_is_lost = True
        self._transport = None
        for stream in list(self._open_calls):
            self._end(stream, CONNECTION_BROKEN)
        self._on_room(self)

    def data_received(self, data: bytes) -> None:
        """Read frames, end the calls that they end, and acknowledge."""
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self.close()
            return
        for event in events:
            self._on_event(event)
        if self._unacknowledged_bytes > RECEIVE_WINDOW // 4:
            self._h2.increment_flow_control_window(self._unacknowledged_bytes)
            self._unacknowledged_bytes = 0
        self._flush()
        if self.free_streams > 0 or self.goaway_received:
            self._on_room(self)

    def _on_event(self, event: Event) -> None:
        match event:
            case DataReceived():
                self._unacknowledged_bytes += event.flow_controlled_length or 0
            case ResponseReceived() | TrailersReceived():
                if event.stream_ended is not None:
                    status = dict(event.headers or ()).get(b"grpc-status", CONNECTION_BROKEN)
                    self._end(event.stream_id, int(status))
            case StreamReset():
                refused = event.error_code == ErrorCodes.REFUSED_STREAM
                self._end(event.stream_id, UNPROCESSED if refused else CONNECTION_BROKEN)
            case RemoteSettingsChanged():
                self.streams_max = self._h2.remote_settings.max_concurrent_streams
            case ConnectionTerminated():
                self.goaway_received = True
                last_stream = event.last_stream_id or 0
                for stream in [stream for stream in self._open_calls if stream > last_stream]:
                    self._end(stream, UNPROCESSED)

    def _end(self, stream: int | None, status: int) -> None:
        token = self._open_calls.pop(stream or 0, None)
        if token is not None:
            self._on_ended(token, status)

    def _flush(self) -> None:
        content = self._h2.data_to_send()
        if content and self._transport is not None:
            self._transport.write(content)


@dataclass(frozen=True)
class CallerGroup:
    """Callers of one kind, and the rate at which their calls are due."""

    name: str
    connections: int
    rate: float
    """Calls/s."""
    timeout_ms: int = 1_000
    criticality: int = 0
    queue_ms: int = 50
    """A call that finds every stream taken waits so long here, and is then given up: clients that
    want to outlive an overload must do so, because calls that queue are answered too late."""
    cancel_every: int = 0
    """One call in so many is cancelled at once; 0: none."""
    corrupt_every: int = 0
    """One call in so many has a message that is no PredictRequest; 0: none."""


@dataclass
class GroupResult:
    """What became of one group's calls."""

    name: str
    calls_due: int
    answered: int
    """Within their timeout, counted from when they were due."""
    given_up_unsent: int
    """They waited queue_ms for a stream, in the client."""
    statuses: dict[int, int]
    """How often each status came, of the calls that were sent: gRPC's, and the two of this file."""
    answer_ms: dict[str, float]
    """From due to answered: p50, p99."""
    refusal_ms: dict[str, float]
    """From sent to refused: p50, p99."""
    answered_by_s: list[int] = field(default_factory=list)
    """Calls answered in each second of the run."""


class GroupLoad:
    """Sends one group's calls, and counts what became of them."""

    def __init__(self, group: CallerGroup, port: int) -> None:
        self.group = group
        self._port = port
        self._call = PreparedCall(
            PREDICT, tiny_request(criticality=group.criticality), group.timeout_ms
        )
        self._corrupt_call = PreparedCall(PREDICT, b"\xff" * 40, group.timeout_ms)
        self._timeout_s = group.timeout_ms / 1e3
        self._queue_s = group.queue_ms / 1e3
        self._connections: list[Http2Peer] = []
        self._next_connection = 0
        self._began_s = 0.0
        self._due_times: deque[float] = deque()
        """When each call that has not been sent was due."""
        self._sent_times: dict[int, tuple[float, float]] = {}
        """Token -> (due, sent)."""
        self._open_calls: deque[tuple[float, Http2Peer, int, int]] = deque()
        """(give up at, connection, stream, token), soonest first."""
        self._calls_due = self._next_token = self._given_up_unsent = 0
        self._statuses: Counter[int] = Counter()
        self._answers: list[tuple[float, float]] = []
        """(due, seconds until answered)."""
        self._refusals: list[float] = []
        """Seconds from sent to refused."""

    async def connect(self) -> None:
        """Open the connections."""
        loop = asyncio.get_running_loop()
        for _ in range(self.group.connections):
            _, connection = await loop.create_connection(
                lambda: Http2Peer(self._on_ended, lambda _: self._send_due()),
                "127.0.0.1",
                self._port,
            )
            self._connections.append(connection)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def begin(self, now_s: float) -> None:
        """Let the first call be due at *now_s* (monotonic seconds)."""
        self._began_s = now_s

    def tick(self, now_s: float, *, sending: bool) -> None:
        """Add the calls that are due, send those that can be sent, cancel those that are late."""
        if sending:
            calls_due = int((now_s - self._began_s) * self.group.rate)
            for number in range(self._calls_due, calls_due):
                self._due_times.append(self._began_s + number / self.group.rate)
            self._calls_due = max(calls_due, self._calls_due)
        self._send_due()
        while self._open_calls and self._open_calls[0][0] < now_s:
            _, connection, stream, token = self._open_calls.popleft()
            self._cancel(connection, stream, token, GRPC_DEADLINE_EXCEEDED)

    def _cancel(self, connection: Http2Peer, stream: int, token: int, status: int) -> None:
        if connection.cancel(stream):
            del self._sent_times[token]
            self._statuses[status] += 1

    def _send_due(self) -> None:
        now_s = time.monotonic()
        # Calls that waited too long for a stream are given up.
        while self._due_times and now_s - self._due_times[0] > self._queue_s:
            self._due_times.popleft()
            self._given_up_unsent += 1
        # The others go over the connections in turn, until none has a free stream.
        full_connections = 0
        while self._due_times and full_connections < len(self._connections):
            connection = self._connections[self._next_connection % len(self._connections)]
            self._next_connection += 1
            if connection.free_streams <= 0:
                full_connections += 1
                continue
            full_connections = 0
            self._send_one(connection, self._due_times.popleft(), now_s)

    def _send_one(self, connection: Http2Peer, due_s: float, now_s: float) -> None:
        token, self._next_token = self._next_token, self._next_token + 1
        self._sent_times[token] = (due_s, now_s)
        corrupt = _is_nth(token, self.group.corrupt_every)
        stream = connection.send(self._corrupt_call if corrupt else self._call, token)
        if _is_nth(token + 1, self.group.cancel_every):
            # In the loop's next turn, so that the server has most likely begun with the call.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._cancel, connection, stream, token, GRPC_CANCELLED)
        else:
            self._open_calls.append((now_s + self._timeout_s, connection, stream, token))

    def _on_ended(self, token: int, status: int) -> None:
        due_s, sent_s = self._sent_times.pop(token)
        now_s = time.monotonic()
        self._statuses[status] += 1
        if status == UNPROCESSED:
            self._due_times.appendleft(due_s)
        elif status == GRPC_OK:
            self._answers.append((due_s, now_s - due_s))
        else:
            self._refusals.append(now_s - sent_s)

    def result(self, seconds: float) -> GroupResult:
        """Sum up a run in which calls were due for *seconds*."""
        by_s = Counter(int(due_s + took_s - self._began_s) for due_s, took_s in self._answers)
        answer_times_s = [took_s for _, took_s in self._answers]
        return GroupResult(
            name=self.group.name,
            calls_due=self._calls_due,
            answered=sum(took_s <= self._timeout_s for took_s in answer_times_s),
            given_up_unsent=self._given_up_unsent,
            statuses=dict(self._statuses),
            answer_ms=quantiles_ms(answer_times_s),
            refusal_ms=quantiles_ms(self._refusals),
            answered_by_s=[by_s[second] for second in range(int(seconds))],
        )


def _is_nth(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


def quantiles_ms(times_s: list[float]) -> dict[str, float]:
    """Return p50 and p99 of *times_s* in milliseconds; an empty dict when there are no times."""
    ordered = sorted(times_s)
    if not ordered:
        return {}
    quantiles = {"p50": 0.5, "p99": 0.99}
    last = len(ordered) - 1
    return {name: round(ordered[int(q * last)] * 1e3, 2) for name, q in quantiles.items()}


async def run_open_loop(
    port: int, seconds: float, groups: list[CallerGroup], begin_s: float = 0.0
) -> list[GroupResult]:
    """Send the groups' calls for *seconds*, wait until the last can have ended, and sum up.

    begin_s  monotonic seconds before which no call is due.
    """
    loads = [GroupLoad(group, port) for group in groups]
    for load in loads:
        await load.connect()
    # Until the server's SETTINGS came, and until the other processes are ready too.
    await asyncio.sleep(max(0.2, begin_s - time.monotonic()))
    began_s = time.monotonic()
    for load in loads:
        load.begin(began_s)
    drained_s = began_s + seconds + max(group.timeout_ms for group in groups) / 1e3 + 0.2
    while (now_s := time.monotonic()) < drained_s:
        for load in loads:
            load.tick(now_s, sending=now_s < began_s + seconds)
        await asyncio.sleep(TICK_S)
    results = [load.result(seconds) for load in loads]
    for load in loads:
        load.close()
    return results


def main(port: str, seconds: str, groups: str, begin_s: str = "0") -> None:
    """Run an open loop and print each group's result as JSON."""
    rows: list[dict[str, Any]] = json.loads(groups)
    callers = [CallerGroup(**row) for row in rows]
    for result in uvloop.run(run_open_loop(int(port), float(seconds), callers, float(begin_s))):
        print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main(*sys.argv[1:])
