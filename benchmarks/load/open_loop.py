"""Callers who send calls at a given rate, whatever the answers do, as customers do.

    python -m benchmarks.load.open_loop PORT SECONDS GROUPS [BEGIN_S]

The command runs the callers in a process of their own, which can be pinned to a core. GROUPS is
JSON: [{"name": ..., "connections": n, "rate": calls/s, ...}], the fields of `CallerGroup`. The
command prints one JSON object (`GroupResult`) for each group. BEGIN_S, in seconds of the monotonic
clock, lets several processes begin together.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.load.http2_peer import UNPROCESSED, Http2Peer, PreparedCall
from benchmarks.standalone_gateway import PREDICT, tiny_request

GRPC_OK, GRPC_CANCELLED, GRPC_DEADLINE_EXCEEDED = 0, 1, 4
TICK_S = 0.001


@dataclass(frozen=True)
class CallerGroup:
    """Callers of one kind, and the rate at which their calls are due."""

    name: str
    connections: int
    rate: float
    """Calls that are sent in a second."""
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
    """How often each status came, of the calls that were sent: gRPC's, and those of http2_peer."""
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


def start_open_loop(
    port: int,
    seconds: float,
    group: CallerGroup,
    begin_s: float = 0.0,
    command_prefix: Sequence[str] = (),
) -> "subprocess.Popen[bytes]":
    """Start a process, in a session of its own, that sends the calls of *group*.

    begin_s         monotonic seconds before which no call is due.
    command_prefix  words before the command, for example those of taskset.
    """
    line = [sys.executable, "-m", "benchmarks.load.open_loop", str(port), str(seconds)]
    return subprocess.Popen(
        [*command_prefix, *line, json.dumps([asdict(group)]), str(begin_s)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )


def read_group_result(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """Wait for a process of `start_open_loop`; return the fields of its `GroupResult` from JSON.

    The keys of `statuses` are strings there. Raises RuntimeError when the process failed.
    """
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the open loop ended with code {process.returncode}")
    result: dict[str, Any] = json.loads(output)
    return result


def main(port: str, seconds: str, groups: str, begin_s: str = "0") -> None:
    """Run an open loop and print each group's result as JSON."""
    rows: list[dict[str, Any]] = json.loads(groups)
    callers = [CallerGroup(**row) for row in rows]
    for result in uvloop.run(run_open_loop(int(port), float(seconds), callers, float(begin_s))):
        print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main(*sys.argv[1:])
