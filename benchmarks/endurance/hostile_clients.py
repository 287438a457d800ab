"""Measures what other callers notice of a client that sends gzip bombs or opens 4,300 connections.

    python -m benchmarks.endurance.hostile_clients --favoured

Each attack meets a fresh gateway of one worker. The worker has core 0. The callers and the attack
share core 1 where there are two, and the attack has the lowest priority there, as if it came from
another machine. A table says of each attack how much the worker's memory grew, how long a
customer's calls took before it and during it, and what became of the attack. A bar that is not met
is named at the end, with exit code 1.

- Bombs: a customer with an address of its own has a call due each 4 ms, on one connection, whether
  or not the earlier ones are answered. Every second call is compressed, where the server takes
  that.
- Connections: ten customers have ten addresses. Each 50 ms the next of them opens a connection and
  makes one call there.

Times count from when a call was due until its answer. Of --rounds rounds the table has the one
whose p99 is the median.

--favoured (root, Linux) asks the kernel to run this session before others; use it on a machine that
others use too, as in `setsid -w python -m benchmarks.endurance.hostile_clients --favoured`.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchmarks.endurance.bystanders import Customer, NewCustomers, Times, WorkerMemory
from benchmarks.endurance.overload import pin_command, raise_priority
from benchmarks.standalone_gateway import (
    PREDICT,
    StandaloneGateway,
    standalone_gateway,
    write_gateway_folder,
)
from tests.attacks.connection_crowd import CrowdProcess

SETTINGS = {"workers": 1, "connection_age_s_max": 600.0, "connections_max": 4_096}
GROWTH_MB, P99_MS, ANSWER_MS = 64.0, 20.0, 50.0
"""The bars: growth of memory, a customer's p99 during bombs, and a new client's longest wait."""
ATTACKING = 4_300
BOMB_PACE_S = 0.004
WARM_S, QUIET_S = 0.5, 2.0
DESCRIBE = "/turnout.v1.Predictor/DescribeModel"
OUTCOME = "/turnout.v1.Predictor/ReportOutcome"
STREAM = "/turnout.v1.Predictor/PredictStream"
INFER = "/inference.GRPCInferenceService/ModelInfer"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

BOMBS = (
    *(("zeros", path) for path in (OUTCOME, DESCRIBE, PREDICT, STREAM, INFER, HEALTH, REFLECTION)),
    *(("near ratio", path) for path in (DESCRIBE, PREDICT, STREAM)),
    *(("members", path) for path in (PREDICT, DESCRIBE)),
    *((kind, PREDICT) for kind in ("empty blocks", "many tables", "long name", "torn")),
    *((kind, PREDICT) for kind in ("zeros, reset", "zeros, 400 connections")),
    *((kind, DESCRIBE) for kind in ("near ratio, 24 addresses", "near ratio, 400 connections")),
)
"""Kind of bomb (tests/attacks/gzip_bombs.py) and the method that it is sent to."""
CROWDS = {
    "4,300 connections of one address": ["127.0.1.1"],
    "4,300 connections of three addresses": ["127.0.1.1", "127.0.1.2", "127.0.1.3"],
}
"""Name of an attack and the addresses from which the connections come."""


@dataclass(frozen=True)
class AttackFigures:
    """What one attack did to the others."""

    before: Times
    during: Times
    calls: int
    """Calls of customers during the attack."""
    statuses: set[int | None]
    """gRPC statuses of these calls; None: the connection was closed."""
    grown_mb: float
    """The worker's highest resident memory during the attack, less that before it."""
    same_worker: bool
    outcome: dict[str, Any]
    """What the attack's program said at its end."""

    def broken_bars(self, p99_ms: float, max_ms: float) -> list[str]:
        """Return which bars are not met, given the bounds on customers' times."""
        broken = []
        if self.during.p99 > p99_ms:
            broken.append(f"p99 {self.during.p99:.1f} ms of {p99_ms:g}")
        if self.during.max > max_ms:
            broken.append(f"max {self.during.max:.1f} ms of {max_ms:g}")
        if self.grown_mb >= GROWTH_MB:
            broken.append(f"memory + {self.grown_mb:.1f} MB of {GROWTH_MB:g}")
        if self.statuses != {0}:
            broken.append(f"customers' statuses {self.statuses}")
        if not self.same_worker:
            broken.append("the worker was replaced")
        if self.outcome.get("unanswered"):
            broken.append(f"{self.outcome['unanswered']} calls of the attack without an end")
        return broken


@dataclass(frozen=True)
class Placement:
    """Where the parts of a measurement run.

    pinned    the worker has core 0, callers and attack have core 1.
    favoured  the worker runs before all other processes.
    """

    pinned: bool = False
    favoured: bool = False


SHARED = Placement()


@contextmanager
def fresh_gateway(folder: Path, ingress: str, placement: Placement) -> Iterator[StandaloneGateway]:
    """Run a fresh gateway of one worker, whose connections do not end by their age."""
    write_gateway_folder(folder)
    cores = "0" if placement.pinned and pin_command(0) else ""
    with standalone_gateway(folder, SETTINGS | {"ingress": ingress}, cores) as gateway:
        assert gateway.wait_settled(1), gateway.workers()
        if placement.favoured:
            raise_priority(gateway.serving_pids()[0])
        yield gateway


def until_over(seconds: float) -> Callable[[], bool]:
    """Return a function that returns True for so many seconds from now."""
    until_s = time.monotonic() + seconds
    return lambda: time.monotonic() < until_s


def measure_attack(
    gateway: StandaloneGateway,
    customer: Customer | NewCustomers,
    attack: Callable[[], "RunningAttack"],
) -> AttackFigures:
    """Let *customer* call before and during an attack on a fresh gateway."""
    # How the customer fares before, once its first calls are made.
    customer.calls_while(until_over(WARM_S))
    quiet_s, _ = customer.calls_while(until_over(QUIET_S))
    pids = gateway.serving_pids()
    memory = WorkerMemory(pids[0])
    before_mb = memory.resident_mb()
    # During the attack.
    running = attack()
    took_s, statuses = customer.calls_while(lambda: not running.is_over())
    outcome = running.outcome()
    customer.close()
    grown_mb = memory.peak_mb() - before_mb
    return AttackFigures(
        before=Times.of(quiet_s),
        during=Times.of(took_s),
        calls=len(took_s),
        statuses=statuses,
        grown_mb=grown_mb,
        same_worker=gateway.serving_pids() == pids,
        outcome=outcome,
    )


class RunningAttack(Protocol):
    """A program that attacks."""

    def is_over(self) -> bool:
        """Return True when the attack has ended by itself."""
        ...

    def outcome(self) -> dict[str, Any]:
        """End the program, and return what it said."""
        ...


class Bombs(RunningAttack):
    """Sends compressed messages until all are answered."""

    def __init__(self, kind: str, path: str, port: int, prefix: Sequence[str]) -> None:
        line = [*prefix, sys.executable, "-m", "tests.attacks.gzip_bombs", kind, path, str(port)]
        self._program = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def is_over(self) -> bool:
        """Return True when every message has its end."""
        return self._program.poll() is not None

    def outcome(self) -> dict[str, Any]:
        """Return how the messages ended."""
        out, err = self._program.communicate()
        assert self._program.returncode == 0, err.decode()
        outcome: dict[str, Any] = json.loads(out)
        return outcome


class Crowds(RunningAttack):
    """Keeps many connections of some addresses open for some seconds."""

    def __init__(
        self, count: int, sources: Sequence[str], port: int, seconds: float, prefix: Sequence[str]
    ) -> None:
        self._crowds = [CrowdProcess(count, source, port, prefix) for source in sources]
        self._until_s = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Return True when the time is over."""
        return time.monotonic() > self._until_s

    def outcome(self) -> dict[str, Any]:
        """Return how many connections are open at the end, and how many were closed."""
        counts = [crowd.counts() for crowd in self._crowds]
        for crowd in self._crowds:
            crowd.end()
        return {name: sum(one[name] for one in counts) for name in ("open", "closed")}


def attack_prefix(placement: Placement) -> list[str]:
    """Return the start of an attack's command: core 1 at the lowest priority."""
    return [*(pin_command(1) if placement.pinned else []), "nice", "-n", "19"]


def measure_bombs(
    kind: str,
    path: str,
    folder: Path,
    ingress: str,
    placement: Placement = SHARED,
    pace_s: float = BOMB_PACE_S,
    clock_of: Callable[[int], Callable[[], float]] = lambda _: time.perf_counter,
) -> AttackFigures:
    """Send compressed messages of one kind to a fresh gateway, beside a customer of *pace_s*.

    clock_of  returns the customer's clock for the process id of the worker.
    """
    prefix = attack_prefix(placement)
    with fresh_gateway(folder, ingress, placement) as gateway:
        clock = clock_of(gateway.serving_pids()[0])
        compresses = ingress == "native"
        customer = Customer(gateway.port, pace_s=pace_s, compresses=compresses, clock=clock)
        return measure_attack(gateway, customer, lambda: Bombs(kind, path, gateway.port, prefix))


def measure_connections(
    sources: Sequence[str],
    seconds: float,
    folder: Path,
    ingress: str,
    placement: Placement = SHARED,
) -> AttackFigures:
    """Open ATTACKING connections from *sources* in all, beside ten new clients."""
    prefix, count = attack_prefix(placement), ATTACKING // len(sources)
    with fresh_gateway(folder, ingress, placement) as gateway:
        return measure_attack(
            gateway,
            NewCustomers(gateway.port),
            lambda: Crowds(count, sources, gateway.port, seconds, prefix),
        )


def main() -> None:
    """Measure every attack, and print the table."""
    # The command line, and where this process runs.
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ingress", default="native", choices=["native", "grpcio"])
    parser.add_argument("--only", default="", help="attacks whose name has this text")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the attack by connections")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each attack")
    parser.add_argument("--favoured", action="store_true", help="run before all other processes")
    arguments = parser.parse_args()
    if arguments.favoured:
        raise_priority(os.getpid())
    placement = Placement(pinned=True, favoured=arguments.favoured)
    if pin_command(1):
        os.sched_setaffinity(0, {1})
    # Each attack, some rounds of it.
    attacks = [
        (f"{kind}, {path.rpartition('/')[2]}", P99_MS, math.inf, partial(measure_bombs, kind, path))
        for kind, path in BOMBS
    ]
    for name, sources in CROWDS.items():
        measure = partial(measure_connections, sources, arguments.seconds)
        attacks.append((name, ANSWER_MS, ANSWER_MS, measure))
    print("| attack | memory | customers before: p50 / p99 / max ms | during | calls | attack |")
    print("|---|---|---|---|---|---|")
    missed: list[str] = []
    for name, p99_ms, max_ms, measure in attacks:
        if arguments.only not in name:
            continue
        rounds = []
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory(prefix="turnout-hostile-") as folder:
                rounds.append(measure(Path(folder), arguments.ingress, placement))
        figures = sorted(rounds, key=lambda one: one.during.p99)[len(rounds) // 2]
        missed += [f"{name}: {words}" for words in figures.broken_bars(p99_ms, max_ms)]
        print(
            f"| {name} | + {figures.grown_mb:.1f} MB | {figures.before} | {figures.during} | "
            f"{figures.calls} | {figures.outcome} |",
            flush=True,
        )
    # The bars.
    for words in missed:
        print(f"not met: {words}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
