"""What a call costs as the work grows: workers, models, features, rows, connections.

    python -m benchmarks.serving.scaling --rounds 3 --seconds 2

By key, closed loop, over the native door where it is built. One worker has core 0; generator and
store the other. Each round starts every gateway anew, one at a time, and asks it all of its
cases, so that what else the machine does meets all of them. Prints a table: medians, and
(lowest-highest) of the rounds. Two workers share both cores with generator and store: the row
says what a second one costs, not what it brings.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import rust_generator
from benchmarks.load.generator import write_bodies
from benchmarks.serving.bench_model import (
    boosted,
    contract_of,
    entity,
    fill,
    kept,
    version_files,
    view_of,
)
from benchmarks.serving.servers import DEGRADED_ROWS, cpu_s, on_cores
from benchmarks.standalone_gateway import Alone, alone
from features.online.store_server import find_or_start
from gateway.ingress_choice import is_built
from gateway.models.disk_cache import Disk
from protos.predict_pb2 import PredictRequest, Row

ENTITIES = 20_000
STREAMS_MAX = 64
SERVER_CORE, GENERATOR_CORE = 0, 1


@dataclass(frozen=True)
class Served:
    """One gateway, and what it serves."""

    workers: int = 1
    models: int = 1
    features: int = 20

    @property
    def name(self) -> str:
        """For folders."""
        return f"{self.workers}-{self.models}-{self.features}"


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    grows: str
    to: int
    served: Served
    rows: int = 1
    connections: int = 8
    streams: int = 16


USUAL = Served()
CASES = (
    Case("workers", 1, USUAL),
    Case("workers", 2, Served(workers=2)),
    Case("models", 10, Served(models=10)),
    Case("models", 30, Served(models=30)),
    Case("features", 100, Served(features=100)),
    Case("features", 500, Served(features=500)),
    Case("rows", 64, USUAL, rows=64, connections=4, streams=8),
    Case("rows", 1_024, USUAL, rows=1_024, connections=2, streams=2),
    Case("connections", 1, USUAL, connections=1, streams=64),
    Case("connections", 100, USUAL, connections=100, streams=1),
    Case("connections", 1_000, USUAL, connections=1_000, streams=1),
)


class Ground:
    """Models, stored rows and requests, each made once."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._versions: dict[int, dict[str, bytes]] = {}
        """Features -> the files of a version."""

    def lay(self, served: Served) -> Path:
        """Write a gateway's folder; returns it."""
        folder = self._folder / served.name
        if not folder.exists():
            disk = Disk(folder)
            for number in range(served.models):
                files = self._files(served.features)
                disk.keep_deployment(kept(disk, model(served, number), files))
        return folder

    def bodies(self, case: Case) -> Path:
        """Write a case's requests: keys in odd order, the k-th model 1/k as often as the first."""
        served = case.served
        path = self._folder / f"{served.name}-{case.rows}.bodies"
        if not path.exists():
            write_bodies(path, _requests(served, case.rows))
        return path

    def _files(self, features: int) -> dict[str, bytes]:
        if features not in self._versions:
            self._versions[features] = self._fit(features)
        return self._versions[features]

    def _fit(self, features: int) -> dict[str, bytes]:
        view = view_of(f"wide{features}", features)
        rng = np.random.default_rng(features)
        values = rng.normal(size=(ENTITIES, features)).astype(np.float32)
        learner = boosted(values[:5_000], values[:5_000, 0] + values[:5_000, 1] > 0.5, seed=1)
        fill(self._redis_url, view, values)
        return version_files("grown", contract_of(view), values[:16], learner)


def model(served: Served, number: int) -> str:
    """The name of one model."""
    return f"m{number}-{served.features}"


def _requests(served: Served, rows: int) -> Iterator[bytes]:
    rng = np.random.default_rng(rows)
    calls = max(400, ENTITIES // rows)
    wanted = 1.0 / np.arange(1, served.models + 1)
    models = rng.choice(served.models, size=calls, p=wanted / wanted.sum()).tolist()
    order = np.tile(rng.permutation(ENTITIES), 1 + calls * rows // ENTITIES)
    for call, number in enumerate(models):
        keys = order[call * rows : (call + 1) * rows].tolist()
        asked = [Row(keys=[entity(key)]) for key in keys]
        yield PredictRequest(model=model(served, number), rows=asked).SerializeToString()


@contextmanager
def running(folder: Path, served: Served, redis_url: str, ingress: str) -> Iterator[Alone]:
    """Run a gateway as it is always run, journal and all, its spare and supervisor elsewhere."""
    settings = {
        "workers": served.workers,
        "redis_url": redis_url,
        "ingress": ingress,
        "streams_max": STREAMS_MAX,
        "deadline_ms_default": 10_000,
    }
    cores = str(SERVER_CORE) if served.workers == 1 else f"{SERVER_CORE},{GENERATOR_CORE}"
    with alone(folder, settings, cores) as gateway:
        if not gateway.settled(served.workers, 240.0):
            raise RuntimeError(f"the gateway did not settle: {gateway.workers()}")
        busy = set(gateway.serving().values())
        for pid in {gateway.program.pid, *(row["pid"] for row in gateway.workers())} - busy:
            os.sched_setaffinity(pid, {GENERATOR_CORE})
        yield gateway


def one(gateway: Alone, case: Case, bodies: Path, seconds: float, number: int) -> dict[str, float]:
    """Ask one case for a moment."""
    pids = list(gateway.serving().values())
    options = ["--seconds", seconds, "--warm", 0.5, "--first", 997 * number]
    options += ["--connections", case.connections, "--streams", case.streams]
    line = rust_generator.line(f"127.0.0.1:{gateway.port}", bodies, options)
    before_s, degraded = sum(map(cpu_s, pids)), _degraded(gateway)
    said = subprocess.run(on_cores(line, GENERATOR_CORE), check=True, capture_output=True)
    told = rust_generator.measured(said.stdout.decode())
    spent_s = sum(map(cpu_s, pids)) - before_s
    answered = told["calls"] / told["seconds"] * (told["seconds"] + 0.5)
    return {
        "calls/s": told["calls_per_s"],
        "p50 ms": told["p50_ms"],
        "p99 ms": told["p99_ms"],
        "us/call": spent_s / answered * 1e6,
        "us/row": spent_s / answered / case.rows * 1e6,
        "failed": float(told["failed"]),
        "degraded": (_degraded(gateway) - degraded) / answered / case.rows,
    }


def _degraded(gateway: Alone) -> float:
    return sum(map(float, DEGRADED_ROWS.findall(gateway.page("/metrics"))))


def measure(rounds: int, seconds: float, ingress: str, cases: Sequence[Case]) -> list[list[Any]]:
    """Return, for each case, what each round told."""
    told: list[list[Any]] = [[] for _ in cases]
    with tempfile.TemporaryDirectory(prefix="turnout-growth-") as folder:
        os.sched_setaffinity(0, {GENERATOR_CORE})
        store = find_or_start(None, Path(folder))
        ground = Ground(Path(folder), store.url)
        try:
            for number in range(rounds):
                for served in dict.fromkeys(case.served for case in cases):
                    _say(f"round {number + 1} of {rounds}: {served}")
                    with running(ground.lay(served), served, store.url, ingress) as gateway:
                        for place, case in enumerate(cases):
                            if case.served == served:
                                bodies = ground.bodies(case)
                                told[place].append(one(gateway, case, bodies, seconds, number))
        finally:
            store.stop()
    return told


def table(cases: Sequence[Case], told: Sequence[Sequence[dict[str, float]]]) -> str:
    """As Markdown."""
    lines = ["| what grows | calls/s | p50 ms | p99 ms | us/call | us/row | degraded |"]
    lines.append("|---|---|---|---|---|---|---|")
    for case, rounds in zip(cases, told, strict=True):
        cells = [_spread([r[name] for r in rounds], digits) for name, digits in FIGURES]
        cells.append(f"{max(r['degraded'] for r in rounds):.2%}")
        lines.append(f"| {case.to:,} {case.grows} | {' | '.join(cells)} |")
    failed = int(sum(r["failed"] for rounds in told for r in rounds))
    return "\n".join([*lines, "", f"{failed} calls failed"])


FIGURES = (("calls/s", 0), ("p50 ms", 2), ("p99 ms", 1), ("us/call", 1), ("us/row", 2))


def _spread(values: list[float], digits: int) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


def main() -> int:
    """Measure and print; 1 when a call failed, 2 without the generator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default="", help="cases whose axis begins so")
    parser.add_argument("--ingress", choices=("native", "grpcio"))
    asked = parser.parse_args()
    if rust_generator.built() is None:
        _say("cargo is not there; rustup.rs installs it")
        return 2
    ingress = asked.ingress or ("native" if is_built() else "grpcio")
    cases = [case for case in CASES if case.grows.startswith(asked.only)]
    told = measure(asked.rounds, asked.seconds, ingress, cases)
    print(f"{ingress} door, {asked.rounds} rounds of {asked.seconds:g} s\n")
    print(table(cases, told))
    return int(any(r["failed"] for rounds in told for r in rounds))


if __name__ == "__main__":
    sys.exit(main())
