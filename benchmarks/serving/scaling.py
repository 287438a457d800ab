"""Measures what a call costs as workers, models, features, rows or connections grow.

    python -m benchmarks.serving.scaling --rounds 3 --seconds 2

Calls are by key, in a closed loop, over the native ingress where it is built. One worker has core
0; generator and store have the other. Each round starts every gateway anew, one at a time, and
times all of its cases, so that a change of the machine's pace meets all of them. The command prints
a table of medians and (lowest-highest) of the rounds. Two workers share both cores with generator
and store, so their row says what a second worker costs, not what it brings. Needs cargo.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gateway_folder import write_signed_deployment
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
from benchmarks.serving.report import spread_text
from benchmarks.serving.servers import CARGO_MISSING, DEGRADED_ROWS, pin_to_core
from benchmarks.standalone_gateway import StandaloneGateway, standalone_gateway
from features.online.store_server import find_or_start
from gateway.ingress_choice import is_built
from host.processes import cpu_seconds
from protos.predict_pb2 import PredictRequest, Row

ENTITIES = 20_000
STREAMS_MAX = 64
SERVER_CORE, GENERATOR_CORE = 0, 1
WARM_S = 0.5


@dataclass(frozen=True)
class GatewaySize:
    """The size of one gateway: its workers, and how many models of how many features it serves."""

    workers: int = 1
    models: int = 1
    features: int = 20

    @property
    def name(self) -> str:
        """The name of the gateway's folder."""
        return f"{self.workers}-{self.models}-{self.features}"


@dataclass(frozen=True)
class ScalingCase:
    """One row of the table: the axis that grows, its value, and the calls that are sent."""

    axis: str
    value: int
    size: GatewaySize
    rows: int = 1
    connections: int = 8
    streams: int = 16
    even: bool = False
    """Whether all models get as many calls. Else the k-th model has 1/k of the first's."""


USUAL_SIZE = GatewaySize()
CASES = (
    ScalingCase("workers", 1, USUAL_SIZE),
    ScalingCase("models", 1, USUAL_SIZE),
    ScalingCase("workers", 2, GatewaySize(workers=2)),
    ScalingCase("models", 10, GatewaySize(models=10)),
    ScalingCase("models", 30, GatewaySize(models=30)),
    ScalingCase("models, asked evenly", 30, GatewaySize(models=30), even=True),
    ScalingCase("models, 512 open", 30, GatewaySize(models=30), streams=64),
    ScalingCase("features", 100, GatewaySize(features=100)),
    ScalingCase("features", 500, GatewaySize(features=500)),
    ScalingCase("rows", 64, USUAL_SIZE, rows=64, connections=4, streams=8),
    ScalingCase("rows", 1_024, USUAL_SIZE, rows=1_024, connections=2, streams=2),
    ScalingCase("connections", 1, USUAL_SIZE, connections=1, streams=64),
    ScalingCase("connections", 100, USUAL_SIZE, connections=100, streams=1),
    ScalingCase("connections", 1_000, USUAL_SIZE, connections=1_000, streams=1),
)


class ScalingModels:
    """Makes models, stored rows and requests of each size once."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._versions: dict[int, dict[str, bytes]] = {}
        """Features -> the files of a version."""

    def gateway_folder(self, size: GatewaySize) -> Path:
        """Write the folder of a gateway of this size, if it is not there, and return it."""
        folder = self._folder / size.name
        if not folder.exists():
            for number in range(size.models):
                files = self._files(size.features)
                write_signed_deployment(
                    folder, write_versions(folder, model_name(size, number), files)
                )
        return folder

    def write_requests(self, case: ScalingCase) -> Path:
        """Write a case's requests, with the keys shuffled."""
        share = "even" if case.even else "skewed"
        path = self._folder / f"{case.size.name}-{case.rows}-{share}.bodies"
        if not path.exists():
            write_bodies(path, _requests(case))
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
        return version_files("grown", view_contract(view), values[:32], learner)


def model_name(size: GatewaySize, number: int) -> str:
    """Return the name of a gateway's model *number*."""
    return f"m{number}-{size.features}"


def _requests(case: ScalingCase) -> Iterator[bytes]:
    size, rows = case.size, case.rows
    rng = np.random.default_rng(rows)
    calls = max(400, ENTITIES // rows)
    wanted = np.arange(1, size.models + 1) ** (0.0 if case.even else -1.0)
    models = rng.choice(size.models, size=calls, p=wanted / wanted.sum()).tolist()
    order = np.tile(rng.permutation(ENTITIES), 1 + calls * rows // ENTITIES)
    for call, number in enumerate(models):
        keys = order[call * rows : (call + 1) * rows].tolist()
        request_rows = [Row(keys=[entity_id(key)]) for key in keys]
        model = model_name(size, number)
        yield PredictRequest(model=model, rows=request_rows).SerializeToString()


@contextmanager
def running_gateway(
    folder: Path, size: GatewaySize, redis_url: str, ingress: str
) -> Iterator[StandaloneGateway]:
    """Run a gateway in its usual form; its spare and its supervisor have the generator's core."""
    settings = {
        "workers": size.workers,
        "redis_url": redis_url,
        "ingress": ingress,
        "streams_max": STREAMS_MAX,
        "deadline_ms_default": 10_000,
    }
    cores = str(SERVER_CORE) if size.workers == 1 else f"{SERVER_CORE},{GENERATOR_CORE}"
    with standalone_gateway(folder, settings, cores) as gateway:
        if not gateway.wait_settled(size.workers, 240.0):
            raise RuntimeError(f"the gateway did not settle: {gateway.workers()}")
        busy = set(gateway.serving_pids().values())
        for pid in {gateway.program.pid, *(row["pid"] for row in gateway.workers())} - busy:
            os.sched_setaffinity(pid, {GENERATOR_CORE})
        yield gateway


def measure_case(
    gateway: StandaloneGateway, case: ScalingCase, bodies: Path, seconds: float, number: int
) -> dict[str, float]:
    """Time one case for *seconds*; return its figures by the names of the table."""
    pids = list(gateway.serving_pids().values())
    options = ["--seconds", seconds, "--warm", WARM_S, "--first", 997 * number]
    options += ["--connections", case.connections, "--streams", case.streams]
    line = rust_generator.generator_command(f"127.0.0.1:{gateway.port}", bodies, options)
    before_s, degraded = sum(map(cpu_seconds, pids)), _degraded(gateway)
    generator = subprocess.run(pin_to_core(line, GENERATOR_CORE), check=True, capture_output=True)
    figures = rust_generator.parse_figures(generator.stdout.decode())
    spent_s = sum(map(cpu_seconds, pids)) - before_s
    answered = figures["calls"] / figures["seconds"] * (figures["seconds"] + WARM_S)
    return {
        "calls/s": figures["calls_per_s"],
        "p50 ms": figures["p50_ms"],
        "p99 ms": figures["p99_ms"],
        "us/call": spent_s / answered * 1e6,
        "us/row": spent_s / answered / case.rows * 1e6,
        "failed": float(figures["failed"]),
        "degraded": (_degraded(gateway) - degraded) / answered / case.rows,
    }


def _degraded(gateway: StandaloneGateway) -> float:
    return sum(map(float, DEGRADED_ROWS.findall(gateway.fetch("/metrics"))))


def measure_scaling(
    rounds: int, seconds: float, ingress: str, cases: Sequence[ScalingCase]
) -> list[list[Any]]:
    """Return, for each case, the figures of each round."""
    rounds_by_case: list[list[Any]] = [[] for _ in cases]
    with tempfile.TemporaryDirectory(prefix="turnout-growth-") as folder:
        os.sched_setaffinity(0, {GENERATOR_CORE})
        store = find_or_start(None, Path(folder))
        models = ScalingModels(Path(folder), store.url)
        try:
            for number in range(rounds):
                for size in dict.fromkeys(case.size for case in cases):
                    _print_progress(f"round {number + 1} of {rounds}: {size}")
                    with running_gateway(
                        models.gateway_folder(size), size, store.url, ingress
                    ) as gateway:
                        for position, case in enumerate(cases):
                            if case.size == size:
                                bodies = models.write_requests(case)
                                rounds_by_case[position].append(
                                    measure_case(gateway, case, bodies, seconds, number)
                                )
        finally:
            store.stop()
    return rounds_by_case


def scaling_table(
    cases: Sequence[ScalingCase], rounds_by_case: Sequence[Sequence[dict[str, float]]]
) -> str:
    """Return the cases as a Markdown table, with the number of failed calls below."""
    lines = ["| what grows | calls/s | p50 ms | p99 ms | us/call | us/row | degraded |"]
    lines.append("|---|---|---|---|---|---|---|")
    for case, rounds in zip(cases, rounds_by_case, strict=True):
        cells = [spread_text([r[name] for r in rounds], digits) for name, digits in FIGURES]
        cells.append(f"{max(r['degraded'] for r in rounds):.2%}")
        lines.append(f"| {case.value:,} {case.axis} | {' | '.join(cells)} |")
    failed = int(sum(r["failed"] for rounds in rounds_by_case for r in rounds))
    return "\n".join([*lines, "", f"{failed} calls failed"])


FIGURES = (("calls/s", 0), ("p50 ms", 2), ("p99 ms", 1), ("us/call", 1), ("us/row", 2))


def _print_progress(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> int:
    """Measure and print. Returns 1 when a call failed, 2 without cargo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default="", help="only cases whose axis begins with this")
    parser.add_argument("--ingress", choices=("native", "grpcio"))
    arguments = parser.parse_args()
    if rust_generator.build_generator() is None:
        _print_progress(CARGO_MISSING)
        return 2
    ingress = arguments.ingress or ("native" if is_built() else "grpcio")
    cases = [case for case in CASES if case.axis.startswith(arguments.only)]
    rounds_by_case = measure_scaling(arguments.rounds, arguments.seconds, ingress, cases)
    print(f"{ingress} ingress, {arguments.rounds} rounds of {arguments.seconds:g} s\n")
    print(scaling_table(cases, rounds_by_case))
    return int(any(r["failed"] for rounds in rounds_by_case for r in rounds))


if __name__ == "__main__":
    sys.exit(main())
