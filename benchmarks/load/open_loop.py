"""An open-loop caller: asks at a given rate whatever the answers do, as customers do.

    python -m benchmarks.load.open_loop PORT SECONDS GROUPS

GROUPS is JSON: [{"name": ..., "connections": n, "rate": calls/s, "timeout_ms": ...,
"criticality": 0..3, ...}]. Prints one JSON object a group. A call that finds all
streams of its connections taken waits here for queue_ms, then its caller is told no: as clients
must that want to outlive an overload, because one that queues asks only what nobody waits for any
more. Runs in a process of its own, so that it can be given a core of its own.
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop

from benchmarks.load.frames import (
    GRPC_CANCELLED,
    GRPC_DEADLINE_EXCEEDED,
    GRPC_OK,
    UNPROCESSED,
    FrameConnection,
    PreparedCall,
)
from benchmarks.standalone_gateway import PREDICT, tiny_request

TICK_S = 0.001


@dataclass(frozen=True)
class CallerGroup:
    """Callers of one kind."""

    name: str
    connections: int
    rate: float
    timeout_ms: int = 1_000
    criticality: int = 0
    queue_ms: int = 50
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
    """Of those that were sent: grpc-status, and benchmarks.load.frames' own."""
    answer_ms: dict[str, float]
    """From due to answered: p50, p99."""
    refusal_ms: dict[str, float]
    """From sent to refused."""
    answered_by_s: list[int] = field(default_factory=list)
    """Answered in each second of the run."""


class GroupLoad:
    """One group at work."""

    def __init__(self, group: CallerGroup, port: int) -> None:
        self.group = group
        self._port = port
        self._call = PreparedCall(
            PREDICT, tiny_request(criticality=group.criticality), group.timeout_ms
        )
        self._corrupt_call = PreparedCall(PREDICT, b"\xff" * 40, group.timeout_ms)
        self._timeout_s = group.timeout_ms / 1e3
        self._queue_s = group.queue_ms / 1e3
        self._connections: list[FrameConnection] = []
        self._next_connection = 0
        self._began_s = 0.0
        self._due_times: deque[float] = deque()
        """When each call that has not been sent was due."""
        self._sent_times: dict[int, tuple[float, float]] = {}
        """Token -> (due, sent)."""
        self._open_calls: deque[tuple[float, FrameConnection, int, int]] = deque()
        """(give up at, connection, stream, token), soonest first."""
        self._calls_due = self._next_token = self._unsent_calls = 0
        self._statuses: Counter[int] = Counter()
        self._answers: list[tuple[float, float]] = []
        """(due, took)."""
        self._refusals: list[float] = []

    async def connect(self) -> None:
        """Open the connections."""
        loop = asyncio.get_running_loop()
        for _ in range(self.group.connections):
            _, made = await loop.create_connection(
                lambda: FrameConnection(self._on_ended, lambda _: self._send()),
                "127.0.0.1",
                self._port,
            )
            self._connections.append(made)

    def begin(self, now_s: float) -> None:
        """The first call is due now."""
        self._began_s = now_s

    def tick(self, now_s: float, *, sending: bool) -> None:
        """Ask what is due, send what can be, give up what is overdue."""
        if sending:
            asked = int((now_s - self._began_s) * self.group.rate)
            first = self._began_s
            for number in range(self._calls_due, asked):
                self._due_times.append(first + number / self.group.rate)
            self._calls_due = max(asked, self._calls_due)
        self._send()
        while self._open_calls and self._open_calls[0][0] < now_s:
            _, connection, stream, token = self._open_calls.popleft()
            if connection.cancel(stream):
                del self._sent_times[token]
                cancelled = _is_nth(token + 1, self.group.cancel_every)
                self._statuses[GRPC_CANCELLED if cancelled else GRPC_DEADLINE_EXCEEDED] += 1

    def _send(self) -> None:
        now_s = time.monotonic()
        while self._due_times and now_s - self._due_times[0] > self._queue_s:
            self._due_times.popleft()
            self._unsent_calls += 1
        tried = 0
        while self._due_times and tried < len(self._connections):
            connection = self._connections[self._next_connection % len(self._connections)]
            self._next_connection += 1
            if connection.free_streams <= 0:
                tried += 1
                continue
            tried = 0
            due_s = self._due_times.popleft()
            token, self._next_token = self._next_token, self._next_token + 1
            self._sent_times[token] = (due_s, now_s)
            spoiled = _is_nth(token, self.group.corrupt_every)
            stream = connection.send(self._corrupt_call if spoiled else self._call, token)
            cancelled = _is_nth(token + 1, self.group.cancel_every)
            give_up_s = now_s + self._timeout_s * (not cancelled)
            (self._open_calls.appendleft if cancelled else self._open_calls.append)(
                (give_up_s, connection, stream, token)
            )

    def _on_ended(self, token: int, status: int) -> None:
        due_s, sent_s = self._sent_times.pop(token)
        now_s = time.monotonic()
        self._statuses[status] += 1
        if status == UNPROCESSED:
            self._due_times.appendleft(due_s)
            return
        if status == GRPC_OK:
            self._answers.append((due_s, now_s - due_s))
        else:
            self._refusals.append(now_s - sent_s)

    def result(self, seconds: float) -> GroupResult:
        """Sum up a run of *seconds*."""
        by_s = Counter(int(due_s + took - self._began_s) for due_s, took in self._answers)
        in_time = [took for _, took in self._answers if took <= self._timeout_s]
        return GroupResult(
            self.group.name,
            self._calls_due,
            len(in_time),
            self._unsent_calls,
            dict(self._statuses),
            quantiles_ms([took for _, took in self._answers]),
            quantiles_ms(self._refusals),
            [by_s[second] for second in range(int(seconds))],
        )


def _is_nth(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


def quantiles_ms(times_s: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds; empty for none."""
    ordered = sorted(times_s)
    if not ordered:
        return {}
    at = {"p50": 0.5, "p99": 0.99}
    return {n: round(ordered[int(q * (len(ordered) - 1))] * 1e3, 2) for n, q in at.items()}


async def run_open_loop(port: int, seconds: float, groups: list[CallerGroup]) -> list[GroupResult]:
    """Ask for *seconds*, then wait for what is open."""
    asking = [GroupLoad(group, port) for group in groups]
    for one in asking:
        await one.connect()
    await asyncio.sleep(0.2)
    began_s = time.monotonic()
    for one in asking:
        one.begin(began_s)
    last_s = max(group.timeout_ms for group in groups) / 1e3
    while (now_s := time.monotonic()) < began_s + seconds + last_s + 0.2:
        for one in asking:
            one.tick(now_s, sending=now_s < began_s + seconds)
        await asyncio.sleep(TICK_S)
    return [one.result(seconds) for one in asking]


def main(port: str, seconds: str, groups: str) -> None:
    """Run, and print."""
    asked: list[dict[str, Any]] = json.loads(groups)
    told = uvloop.run(
        run_open_loop(int(port), float(seconds), [CallerGroup(**one) for one in asked])
    )
    for one in told:
        print(json.dumps(asdict(one)))


if __name__ == "__main__":
    main(*sys.argv[1:])
