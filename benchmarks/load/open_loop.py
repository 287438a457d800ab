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

from benchmarks.load.frames import CANCELLED, DEADLINE_EXCEEDED, OK, UNPROCESSED, Call, Connection
from benchmarks.standalone_gateway import PREDICT, request

TICK_S = 0.001


@dataclass(frozen=True)
class Group:
    """Callers of one kind."""

    name: str
    connections: int
    rate: float
    timeout_ms: int = 1_000
    criticality: int = 0
    queue_ms: int = 50
    cancel_every: int = 0
    """One call in so many is cancelled at once; 0: none."""
    spoil_every: int = 0
    """One call in so many has a message that is no PredictRequest; 0: none."""


@dataclass
class Told:
    """What became of one group's calls."""

    name: str
    asked: int
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


class Asking:
    """One group at work."""

    def __init__(self, group: Group, port: int) -> None:
        self.group = group
        self._port = port
        self._call = Call(PREDICT, request(criticality=group.criticality), group.timeout_ms)
        self._spoiled = Call(PREDICT, b"\xff" * 40, group.timeout_ms)
        self._timeout_s = group.timeout_ms / 1e3
        self._queue_s = group.queue_ms / 1e3
        self._connections: list[Connection] = []
        self._turn = 0
        self._began_s = 0.0
        self._due: deque[float] = deque()
        """When each call that has not been sent was due."""
        self._sent: dict[int, tuple[float, float]] = {}
        """Token -> (due, sent)."""
        self._open: deque[tuple[float, Connection, int, int]] = deque()
        """(give up at, connection, stream, token), soonest first."""
        self._asked = self._next = self._unsent = 0
        self._statuses: Counter[int] = Counter()
        self._answers: list[tuple[float, float]] = []
        """(due, took)."""
        self._refusals: list[float] = []

    async def connect(self) -> None:
        """Open the connections."""
        loop = asyncio.get_running_loop()
        for _ in range(self.group.connections):
            _, made = await loop.create_connection(
                lambda: Connection(self._ended, lambda _: self._send()), "127.0.0.1", self._port
            )
            self._connections.append(made)

    def begin(self, now_s: float) -> None:
        """The first call is due now."""
        self._began_s = now_s

    def tick(self, now_s: float, *, asking: bool) -> None:
        """Ask what is due, send what can be, give up what is overdue."""
        if asking:
            asked = int((now_s - self._began_s) * self.group.rate)
            first = self._began_s
            for number in range(self._asked, asked):
                self._due.append(first + number / self.group.rate)
            self._asked = max(asked, self._asked)
        self._send()
        while self._open and self._open[0][0] < now_s:
            _, connection, stream, token = self._open.popleft()
            if connection.cancel(stream):
                del self._sent[token]
                cancelled = _nth(token + 1, self.group.cancel_every)
                self._statuses[CANCELLED if cancelled else DEADLINE_EXCEEDED] += 1

    def _send(self) -> None:
        now_s = time.monotonic()
        while self._due and now_s - self._due[0] > self._queue_s:
            self._due.popleft()
            self._unsent += 1
        tried = 0
        while self._due and tried < len(self._connections):
            connection = self._connections[self._turn % len(self._connections)]
            self._turn += 1
            if connection.room <= 0:
                tried += 1
                continue
            tried = 0
            due_s = self._due.popleft()
            token, self._next = self._next, self._next + 1
            self._sent[token] = (due_s, now_s)
            spoiled = _nth(token, self.group.spoil_every)
            stream = connection.send(self._spoiled if spoiled else self._call, token)
            cancelled = _nth(token + 1, self.group.cancel_every)
            give_up_s = now_s + self._timeout_s * (not cancelled)
            (self._open.appendleft if cancelled else self._open.append)(
                (give_up_s, connection, stream, token)
            )

    def _ended(self, token: int, status: int) -> None:
        due_s, sent_s = self._sent.pop(token)
        now_s = time.monotonic()
        self._statuses[status] += 1
        if status == UNPROCESSED:
            self._due.appendleft(due_s)
            return
        if status == OK:
            self._answers.append((due_s, now_s - due_s))
        else:
            self._refusals.append(now_s - sent_s)

    def told(self, seconds: float) -> Told:
        """Sum up a run of *seconds*."""
        by_s = Counter(int(due_s + took - self._began_s) for due_s, took in self._answers)
        in_time = [took for _, took in self._answers if took <= self._timeout_s]
        return Told(
            self.group.name,
            self._asked,
            len(in_time),
            self._unsent,
            dict(self._statuses),
            quantiles_ms([took for _, took in self._answers]),
            quantiles_ms(self._refusals),
            [by_s[second] for second in range(int(seconds))],
        )


def _nth(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


def quantiles_ms(times_s: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds; empty for none."""
    ordered = sorted(times_s)
    if not ordered:
        return {}
    at = {"p50": 0.5, "p99": 0.99}
    return {n: round(ordered[int(q * (len(ordered) - 1))] * 1e3, 2) for n, q in at.items()}


async def ask(port: int, seconds: float, groups: list[Group]) -> list[Told]:
    """Ask for *seconds*, then wait for what is open."""
    asking = [Asking(group, port) for group in groups]
    for one in asking:
        await one.connect()
    await asyncio.sleep(0.2)
    began_s = time.monotonic()
    for one in asking:
        one.begin(began_s)
    last_s = max(group.timeout_ms for group in groups) / 1e3
    while (now_s := time.monotonic()) < began_s + seconds + last_s + 0.2:
        for one in asking:
            one.tick(now_s, asking=now_s < began_s + seconds)
        await asyncio.sleep(TICK_S)
    return [one.told(seconds) for one in asking]


def main(port: str, seconds: str, groups: str) -> None:
    """Run, and print."""
    asked: list[dict[str, Any]] = json.loads(groups)
    told = uvloop.run(ask(int(port), float(seconds), [Group(**one) for one in asked]))
    for one in told:
        print(json.dumps(asdict(one)))


if __name__ == "__main__":
    main(*sys.argv[1:])
