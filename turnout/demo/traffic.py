"""`python -m turnout.demo.traffic`: calls from customers at a steady rate, counted exactly.

The calls are an open loop: they are due at a fixed rate, whatever became of earlier ones. This is
a separate process, so that the work of the demo does not slow down the clock that measures the
calls. It prints a line of JSON every 200 ms (`CallCounts.summary_line`). After SIGTERM it prints
the last one, which has "final": true.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.latency import BINS, latency_bins, quantile_ns
from turnout_client import PredictClient, PredictError

LINE_S = 0.2
"""Seconds between two lines of output."""
RECENT_LINES = 10
"""Lines whose calls a live rate or quantile covers: the last two seconds."""
TIMEOUT_S = 5.0
"""A call's deadline. It is long, so that a busy machine shows as latency and not as failures."""
OUTCOME_EVERY = 50
"""The outcome of one answered call in fifty is reported."""


@dataclass(slots=True)
class CallCounts:
    """Counts of the calls so far."""

    began: float
    """Start of the counts, by the event loop's clock, in seconds."""
    sent: int = 0
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Calls that got no score, by gRPC status code."""
    by_version: Counter[str] = field(default_factory=Counter)
    by_role: Counter[str] = field(default_factory=Counter)
    outcomes: int = 0
    outcomes_failed: Counter[str] = field(default_factory=Counter)
    """Reports of outcomes that were not acknowledged, by gRPC status code."""
    latency: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    """(BINS,) calls in each bin of stats.latency. Latency counts from the moment a call was due."""
    recent: deque[NDArray[np.int64]] = field(
        default_factory=lambda: deque([np.zeros(BINS, dtype=np.int64)], maxlen=RECENT_LINES)
    )
    """Like latency, for each of the last lines; the newest is last."""
    recent_versions: deque[Counter[str]] = field(
        default_factory=lambda: deque([Counter()], maxlen=RECENT_LINES)
    )

    def count_answered(self, version: str, role: str, took_ns: int) -> None:
        """Count one answered call; *took_ns* since it was due."""
        self.answered += 1
        self.by_version[version] += 1
        self.recent_versions[-1][version] += 1
        self.by_role[role] += 1
        latency_bin = latency_bins(np.array([took_ns], dtype=np.int64))[0]
        self.latency[latency_bin] += 1
        self.recent[-1][latency_bin] += 1

    def summary_line(self, now: float, final: bool) -> dict[str, Any]:
        """Return the totals, and rate and quantiles of the last two seconds; *final*: of all calls.

        now  monotonic, s. Each call of this method begins a new line.
        """
        recent_s = now - self.began if final else min(now - self.began, LINE_S * RECENT_LINES)
        counts = self.latency if final else np.sum(np.array(self.recent), axis=0)
        recent_versions: Counter[str] = sum(self.recent_versions, Counter())
        self.recent.append(np.zeros(BINS, dtype=np.int64))
        self.recent_versions.append(Counter())
        return {
            "sent": self.sent,
            "answered": self.answered,
            "failed": sum(self.failed.values()),
            "codes": dict(self.failed),
            "versions": dict(self.by_version),
            "recent_versions": dict(recent_versions),
            "roles": dict(self.by_role),
            "outcomes": self.outcomes,
            "outcomes_failed": dict(self.outcomes_failed),
            "rate": float(counts.sum()) / max(recent_s, LINE_S),
            "p50_ms": quantile_ms(counts, 0.5),
            "p99_ms": quantile_ms(counts, 0.99),
            "final": final,
        }


def quantile_ms(counts: NDArray[np.int64], q: float) -> float | None:
    """Return the q-quantile in ms; None when nothing was counted."""
    return round(quantile_ns(counts, q) / 1e6, 3) if counts.any() else None


class TrafficGenerator:
    """Sends calls at Poisson instants, each for a customer drawn at random with equal chances."""

    def __init__(
        self, client: PredictClient, model: str, subscribers: int, timeout_s: float, seed: int
    ) -> None:
        self._client = client
        self._model = model
        self._subscribers = subscribers
        self._timeout_s = timeout_s
        self._random = random.Random(seed)  # noqa: S311  a load, not a secret
        self._in_flight: set[asyncio.Task[None]] = set()
        self.counts = CallCounts(began=asyncio.get_running_loop().time())

    async def send(self, rate: float) -> None:
        """Send *rate* calls a second on average until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += self._random.expovariate(rate)
            # Also a generator that is late lets its calls run, or it would never be cancelled.
            await asyncio.sleep(max(0.0, due - loop.time()))
            task = asyncio.create_task(self._call(due))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def finish(self) -> None:
        """Return when every call in flight has ended."""
        await asyncio.gather(*self._in_flight)

    async def _call(self, due: float) -> None:
        key = f"S{self._random.randrange(1, self._subscribers + 1):07d}"
        self.counts.sent += 1
        try:
            prediction = await self._client.predict(
                self._model, keys=key, timeout_s=self._timeout_s
            )
        except PredictError as error:
            self.counts.failed[error.code.name] += 1
            return
        took_ns = int((asyncio.get_running_loop().time() - due) * 1e9)
        self.counts.count_answered(prediction.version, prediction.role, took_ns)
        if self.counts.answered % OUTCOME_EVERY == 0:
            await self._report(prediction.prediction_id)

    async def _report(self, prediction_id: bytes) -> None:
        try:
            await self._client.report_outcome(
                prediction_id,
                "churned",
                float(self._random.random() < 0.265),
                timeout_s=self._timeout_s,
            )
        except PredictError as error:
            self.counts.outcomes_failed[error.code.name] += 1
        else:
            self.counts.outcomes += 1


async def send_traffic(options: argparse.Namespace) -> None:
    """Send until SIGTERM, then wait for the calls in flight and print the final line."""
    stop_requested, loop = asyncio.Event(), asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop_requested.set)
    async with PredictClient(options.gateway) as client:
        traffic = TrafficGenerator(
            client, options.model, options.subscribers, options.timeout, options.seed
        )
        sending = asyncio.create_task(traffic.send(options.rate))
        while not stop_requested.is_set():
            try:
                async with asyncio.timeout(LINE_S):
                    await stop_requested.wait()
            except TimeoutError:
                print_line(traffic.counts.summary_line(loop.time(), final=False))
        sending.cancel()
        await traffic.finish()
        print_line(traffic.counts.summary_line(loop.time(), final=True))


def print_line(line: dict[str, Any]) -> None:
    """Print *line* as JSON, at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Parse the command line and send traffic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", required=True, help="host:port")
    parser.add_argument("--model", default="churn")
    parser.add_argument("--rate", type=float, default=300.0, help="calls a second")
    parser.add_argument("--subscribers", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="deadline, s")
    asyncio.run(send_traffic(parser.parse_args()))


if __name__ == "__main__":
    main()
