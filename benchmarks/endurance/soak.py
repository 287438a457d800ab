"""Measures what a whole system keeps after long load with cancelled calls, errors and reloads.

    python -m benchmarks.endurance.soak --minutes 10

The system gets 70 % of the load that fills it, but at most 14,000 calls/s. 1 % of the calls are
cancelled as soon as they are sent, and 1 % have a broken message. Each minute every connection is
made anew, and another version is loaded beside the serving one, or unloaded. At the end of each
minute no call is open, and the memory, descriptors and tasks of each worker are read. The command
prints the slope of the memory: MB an hour by least squares, without the first fifth of the minutes,
+- two standard errors. Ten minutes show a slope of 10 MB an hour, an hour shows 1. Exit code 1: a
worker was replaced, or its memory surely grows by more than 5 MB an hour, or its descriptors or
tasks grow at all.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np

from benchmarks.load import rust_generator
from benchmarks.load.open_loop import CallerGroup, read_group_result, start_open_loop
from benchmarks.serving.bench_model import write_bodies
from benchmarks.standalone_gateway import INPUTS, MODEL, tiny_request
from tests.tiny_models import tiny_contract
from tests.walks.running_system import RunningSystem, turnout_up

SLOPE_MB_H_MAX = 5.0
PEAK_S = 5.0
PEAK_RATE_MAX = 20_000.0
"""Calls/s at which the search for the full load begins."""
STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
SETTLE_S = 3.0
"""From a minute's last call until its memory is freed and the gauges are written."""
GAUGE = re.compile(r'^turnout_worker_(tasks|fds)\{worker="(\d+)"\} ([\d.]+)', re.MULTILINE)


@dataclass(frozen=True)
class WorkerSample:
    """One worker at the end of one minute."""

    minute: int
    slot: int
    pid: int
    rss_mb: float
    fds: int
    tasks: int


def main() -> int:
    """Run the soak, print its figures, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--load", type=float, default=0.7, help="of what fills it")
    parser.add_argument("--minute-s", type=float, default=60.0, help="how long a minute is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnout-soak-") as folder:
        samples, statuses = run_soak(
            Path(folder), arguments.minutes, arguments.load, arguments.minute_s
        )
    faults = growth_faults(samples, arguments.minutes * arguments.minute_s / 3_600)
    print(f"statuses {dict(statuses)}")
    print("\n".join(faults) or "nothing grew")
    return 1 if faults else 0


def run_soak(
    folder: Path, minutes: int, load: float, minute_s: float
) -> tuple[list[WorkerSample], Counter[str]]:
    """Return samples of each minute, the first before any load, and how often each status came."""
    statuses: Counter[str] = Counter()
    with turnout_up(folder / "state") as system:
        _deploy(system, folder)
        system.wait_settled()
        bodies = folder / "good.bodies"
        write_bodies(bodies, [tiny_request()])
        port = int(system.addresses.gateway.rpartition(":")[2])
        source = LoadSource(port, bodies, rust=rust_generator.build_generator() is not None)
        rate = load * source.send(PEAK_S, PEAK_RATE_MAX)["OK"] / PEAK_S
        print(f"full load {rate / load:,.0f} calls/s; soaking at {rate:,.0f}", flush=True)
        samples: list[WorkerSample] = []
        for minute in range(minutes + 1):
            minute_samples = _sample_workers(system, minute)
            samples += minute_samples
            memory = ", ".join(f"{sample.rss_mb:.1f}" for sample in minute_samples)
            print(f"minute {minute} of {minutes}: {memory} MB", file=sys.stderr)
            if minute == minutes:
                break
            began = time.monotonic()
            asyncio.run(_reload(system, load_it=minute % 2 == 0))
            seconds = minute_s - SETTLE_S - (time.monotonic() - began)
            statuses += source.send_with_faults(seconds, rate)
            time.sleep(SETTLE_S)
    return samples, statuses


def growth_faults(samples: Sequence[WorkerSample], hours: float) -> list[str]:
    """Print each worker's figures; return a sentence for each thing that grew and must not."""
    faults: list[str] = []
    for slot in sorted({sample.slot for sample in samples}):
        worker_samples = [sample for sample in samples if sample.slot == slot]
        later = worker_samples[1 + len(worker_samples) // 5 :]
        minute_h = hours / (len(worker_samples) - 1)
        slope, error = memory_slope(
            [sample.minute * minute_h for sample in later], [sample.rss_mb for sample in later]
        )
        fds, tasks = (
            growth_of([s.fds for s in worker_samples]),
            growth_of([s.tasks for s in worker_samples]),
        )
        print(
            f"worker {slot}: rss {[round(s.rss_mb, 1) for s in worker_samples]} MB, "
            f"slope {slope:+.1f} +- {error:.1f} MB/h, fds {[s.fds for s in worker_samples]}, "
            f"tasks {[s.tasks for s in worker_samples]}"
        )
        if len({sample.pid for sample in worker_samples}) > 1:
            faults.append(f"worker {slot} was replaced")
        if slope - error > SLOPE_MB_H_MAX:
            faults.append(f"worker {slot} grows by {slope:.1f} +- {error:.1f} MB an hour")
        if fds > 0 or tasks > 0:
            faults.append(f"worker {slot} kept {fds} descriptors and {tasks} tasks")
    return faults


def memory_slope(times_h: Sequence[float], rss_mb: Sequence[float]) -> tuple[float, float]:
    """Return the least-squares slope in MB an hour, and two standard errors of it; 0 below 4."""
    if len(times_h) < 4:
        return 0.0, 0.0
    x = np.array(times_h) - np.mean(times_h)
    y = np.array(rss_mb) - np.mean(rss_mb)
    slope = float(x @ y / (x @ x))
    residuals = y - slope * x
    variance = residuals @ residuals / (len(x) - 2)
    return slope, 2.0 * float(np.sqrt(variance / (x @ x)))


def growth_of(counts: Sequence[int]) -> int:
    """Return by how much the last two minutes lie above the first two under load."""
    return min(counts[-2:]) - max(counts[1:3])


@dataclass(frozen=True)
class LoadSource:
    """Sends calls to one gateway: with the Rust generator, or without cargo with `open_loop`."""

    port: int
    bodies: Path
    """The message of the calls, as the generator in Rust reads it."""
    rust: bool

    def send(self, seconds: float, rate: float) -> Counter[str]:
        """Send good calls at *rate* calls/s for *seconds*; return how often each status came."""
        if not self.rust:
            with start_open_loop(self.port, seconds, CallerGroup("good", 8, rate)) as peer:
                return _peer_statuses(peer)
        options = ["--seconds", seconds, "--warm", 0, "--connections", 8, "--streams", 32]
        command = rust_generator.generator_command(
            f"127.0.0.1:{self.port}", self.bodies, [*options, "--rate", round(rate, 1)]
        )
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        return Counter(rust_generator.parse_figures(output.decode())["statuses"])

    def send_with_faults(self, seconds: float, rate: float) -> Counter[str]:
        """Like `send`; 1 % of the calls are cancelled and 1 % have a broken message."""
        faulty = CallerGroup("faulty", 8, 0.02 * rate, cancel_every=2, corrupt_every=2)
        with start_open_loop(self.port, seconds, faulty) as peer:
            return self.send(seconds, 0.98 * rate) + _peer_statuses(peer)


def _peer_statuses(process: "subprocess.Popen[bytes]") -> Counter[str]:
    """Wait for the process's end; return how often each gRPC status came, by its name."""
    statuses = read_group_result(process)["statuses"]
    return Counter({STATUS_NAMES.get(int(code), code): n for code, n in statuses.items()})


def _sample_workers(system: RunningSystem, minute: int) -> list[WorkerSample]:
    with urllib.request.urlopen(system.addresses.metrics) as answer:
        page = answer.read().decode()
    gauges = {(name, int(slot)): int(float(value)) for name, slot, value in GAUGE.findall(page)}
    return [
        WorkerSample(
            minute,
            row["slot"],
            row["pid"],
            row["rss_bytes"] / 1e6,
            gauges.get(("fds", row["slot"]), 0),
            gauges.get(("tasks", row["slot"]), 0),
        )
        for row in system.workers()
        if row["state"] == "serving"
    ]


def _deploy(system: RunningSystem, folder: Path) -> None:
    """Deploy version 1; register version 2, which is loaded and unloaded later."""
    contract = tiny_contract(INPUTS)
    label = system.register(MODEL, folder / "first", contract=contract)
    system.approve(MODEL, label, "initial")
    system.deploy(MODEL, label)
    system.register(MODEL, folder / "second", contract=contract, golden_rows=33)


async def _reload(system: RunningSystem, *, load_it: bool) -> None:
    async with system.registry_client("sam") as registry:
        deployment = await registry.deployment(MODEL)
        await registry.deploy(replace(deployment, preload=("2",) if load_it else (), why="soak"))


if __name__ == "__main__":
    sys.exit(main())
