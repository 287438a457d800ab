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
from benchmarks.serving.bench_model import (
    bench_view,
    entity_id,
    fit_trees,
    version_files,
    view_contract,
    write_bodies,
    write_feature_rows,
    write_versions,
)
from benchmarks.serving.servers import CARGO_MISSING, DEGRADED_ROWS, pin_to_core
from benchmarks.standalone_gateway import StandaloneGateway, standalone_gateway
from features.online.store_server import find_or_start
from gateway.ingress_choice import is_built
from gateway.models.disk_cache import DiskCache
from host.processes import cpu_seconds
from protos.predict_pb2 import PredictRequest, Row

ENTITIES = 20_000
STREAMS_MAX = 64
SERVER_CORE, GENERATOR_CORE = 0, 1


@dataclass(frozen=True)
class GatewaySize:
    """One gateway, and what it serves."""

    workers: int = 1
    models: int = 1
    features: int = 20

    @property
    def name(self) -> str:
        """For folders."""
        return f"{self.workers}-{self.models}-{self.features}"


@dataclass(frozen=True)
class ScalingCase:
    """One row of the table."""

    axis: str
    value: int
    size: GatewaySize
    rows: int = 1
    connections: int = 8
    streams: int = 16


USUAL_SIZE = GatewaySize()
CASES = (
    ScalingCase("workers", 1, USUAL_SIZE),
    ScalingCase("workers", 2, GatewaySize(workers=2)),
    ScalingCase("models", 10, GatewaySize(models=10)),
    ScalingCase("models", 30, GatewaySize(models=30)),
    ScalingCase("features", 100, GatewaySize(features=100)),
    ScalingCase("features", 500, GatewaySize(features=500)),
    ScalingCase("rows", 64, USUAL_SIZE, rows=64, connections=4, streams=8),
    ScalingCase("rows", 1_024, USUAL_SIZE, rows=1_024, connections=2, streams=2),
    ScalingCase("connections", 1, USUAL_SIZE, connections=1, streams=64),
    ScalingCase("connections", 100, USUAL_SIZE, connections=100, streams=1),
    ScalingCase("connections", 1_000, USUAL_SIZE, connections=1_000, streams=1),
)


class ScalingModels:
    """Models, stored rows and requests, each made once."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._versions: dict[int, dict[str, bytes]] = {}
        """Features -> the files of a version."""

    def gateway_folder(self, served: GatewaySize) -> Path:
        """Write a gateway's folder; returns it."""
        folder = self._folder / served.name
        if not folder.exists():
            disk = DiskCache(folder)
            for number in range(served.models):
                files = self._files(served.features)
                disk.save_deployment(write_versions(disk, model_name(served, number), files))
        return folder

    def write_requests(self, case: ScalingCase) -> Path:
        """Write a case's requests: keys in odd order, the k-th model 1/k as often as the first."""
        served = case.size
        path = self._folder / f"{served.name}-{case.rows}.bodies"
        if not path.exists():
            write_bodies(path, _requests(served, case.rows))
        return path

    def _files(self, features: int) -> dict[str, bytes]:
        if features not in self._versions:
            self._versions[features] = self._fit(features)
        return self._versions[features]

    def _fit(self, features: int) -> dict[str, bytes]:
        view = bench_view(f"wide{features}", features)
        rng = np.random.default_rng(features)
        values = rng.normal(size=(ENTITIES, features)).astype(np.float32)
        learner = fit_trees(values[:5_000], values[:5_000, 0] + values[:5_000, 1] > 0.5, seed=1)
        write_feature_rows(self._redis_url, view, values)
        return version_files("grown", view_contract(view), values[:16], learner)


def model_name(served: GatewaySize, number: int) -> str:
    """The name of one model."""
    return f"m{number}-{served.features}"


def _requests(served: GatewaySize, rows: int) -> Iterator[bytes]:
    rng = np.random.default_rng(rows)
    calls = max(400, ENTITIES // rows)
    wanted = 1.0 / np.arange(1, served.models + 1)
    models = rng.choice(served.models, size=calls, p=wanted / wanted.sum()).tolist()
    order = np.tile(rng.permutation(ENTITIES), 1 + calls * rows // ENTITIES)
    for call, number in enumerate(models):
        keys = order[call * rows : (call + 1) * rows].tolist()
        asked = [Row(keys=[entity_id(key)]) for key in keys]
        yield PredictRequest(model=model_name(served, number), rows=asked).SerializeToString()


@contextmanager
def running_gateway(
    folder: Path, served: GatewaySize, redis_url: str, ingress: str
) -> Iterator[StandaloneGateway]:
    """Run a gateway as it is always run, journal and all, its spare and supervisor elsewhere."""
    settings = {
        "workers": served.workers,
        "redis_url": redis_url,
        "ingress": ingress,
        "streams_max": STREAMS_MAX,
        "deadline_ms_default": 10_000,
    }
    cores = str(SERVER_CORE) if served.workers == 1 else f"{SERVER_CORE},{GENERATOR_CORE}"
    with standalone_gateway(folder, settings, cores) as gateway:
        if not gateway.wait_settled(served.workers, 240.0):
            raise RuntimeError(f"the gateway did not settle: {gateway.workers()}")
        busy = set(gateway.serving_pids().values())
        for pid in {gateway.program.pid, *(row["pid"] for row in gateway.workers())} - busy:
            os.sched_setaffinity(pid, {GENERATOR_CORE})
        yield gateway


def measure_case(
    gateway: StandaloneGateway, case: ScalingCase, bodies: Path, seconds: float, number: int
) -> dict[str, float]:
    """Ask one case for a moment."""
    pids = list(gateway.serving_pids().values())
    options = ["--seconds", seconds, "--warm", 0.5, "--first", 997 * number]
    options += ["--connections", case.connections, "--streams", case.streams]
    line = rust_generator.generator_command(f"127.0.0.1:{gateway.port}", bodies, options)
    before_s, degraded = sum(map(cpu_seconds, pids)), _degraded(gateway)
    said = subprocess.run(pin_to_core(line, GENERATOR_CORE), check=True, capture_output=True)
    told = rust_generator.parse_figures(said.stdout.decode())
    spent_s = sum(map(cpu_seconds, pids)) - before_s
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


def _degraded(gateway: StandaloneGateway) -> float:
    return sum(map(float, DEGRADED_ROWS.findall(gateway.fetch("/metrics"))))


def measure_scaling(
    rounds: int, seconds: float, ingress: str, cases: Sequence[ScalingCase]
) -> list[list[Any]]:
    """Return, for each case, what each round told."""
    told: list[list[Any]] = [[] for _ in cases]
    with tempfile.TemporaryDirectory(prefix="turnout-growth-") as folder:
        os.sched_setaffinity(0, {GENERATOR_CORE})
        store = find_or_start(None, Path(folder))
        ground = ScalingModels(Path(folder), store.url)
        try:
            for number in range(rounds):
                for served in dict.fromkeys(case.size for case in cases):
                    _print_progress(f"round {number + 1} of {rounds}: {served}")
                    with running_gateway(
                        ground.gateway_folder(served), served, store.url, ingress
                    ) as gateway:
                        for place, case in enumerate(cases):
                            if case.size == served:
                                bodies = ground.write_requests(case)
                                told[place].append(
                                    measure_case(gateway, case, bodies, seconds, number)
                                )
        finally:
            store.stop()
    return told


def scaling_table(
    cases: Sequence[ScalingCase], rounds_by_case: Sequence[Sequence[dict[str, float]]]
) -> str:
    """As Markdown."""
    lines = ["| what grows | calls/s | p50 ms | p99 ms | us/call | us/row | degraded |"]
    lines.append("|---|---|---|---|---|---|---|")
    for case, rounds in zip(cases, rounds_by_case, strict=True):
        cells = [_spread([r[name] for r in rounds], digits) for name, digits in FIGURES]
        cells.append(f"{max(r['degraded'] for r in rounds):.2%}")
        lines.append(f"| {case.value:,} {case.axis} | {' | '.join(cells)} |")
    failed = int(sum(r["failed"] for rounds in rounds_by_case for r in rounds))
    return "\n".join([*lines, "", f"{failed} calls failed"])


FIGURES = (("calls/s", 0), ("p50 ms", 2), ("p99 ms", 1), ("us/call", 1), ("us/row", 2))


def _spread(values: list[float], digits: int) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def _print_progress(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> int:
    """Measure and print; 1 when a call failed, 2 without the generator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default="", help="cases whose axis begins so")
    parser.add_argument("--ingress", choices=("native", "grpcio"))
    asked = parser.parse_args()
    if rust_generator.build_generator() is None:
        _print_progress(CARGO_MISSING)
        return 2
    ingress = asked.ingress or ("native" if is_built() else "grpcio")
    cases = [case for case in CASES if case.axis.startswith(asked.only)]
    told = measure_scaling(asked.rounds, asked.seconds, ingress, cases)
    print(f"{ingress} door, {asked.rounds} rounds of {asked.seconds:g} s\n")
    print(scaling_table(cases, told))
    return int(any(r["failed"] for rounds in told for r in rounds))


if __name__ == "__main__":
    sys.exit(main())
