"""The servers that are compared: started on one core, asked on a port, their CPU read off."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.load.rust_generator import null_server
from benchmarks.serving.bench_model import CONTRACTS, BenchModel
from benchmarks.serving.workloads import CANNED, GATEWAY, HANDWRITTEN
from turnout.processes.port_checks import accepts_connections, free_tcp_port

Ready = TypeVar("Ready")

START_TIMEOUT_S = 60.0
STOP_S_MAX = 20.0
STREAMS_MAX = 64
CARGO_MISSING = (
    "this benchmark sends its calls with the load generator in Rust (benchmarks/loadgen), and "
    "cargo, which builds it, is not there; install Rust from https://rustup.rs and run it again"
)

DEGRADED_ROWS = re.compile(
    r'^turnout_feature_rows_total\{[^}]*"degraded"[^}]*\} (\S+)', re.MULTILINE
)
ANSWERED_CALLS = re.compile(r'^turnout_calls_total\{[^}]*"answered"[^}]*\} (\S+)', re.MULTILINE)


@dataclass(slots=True)
class RunningServer:
    """One server that runs."""

    name: str
    target: str
    """host:port."""
    pids: list[int] = field(default_factory=list)
    """Whose CPU is its own: of the gateway the serving worker, its spare and the supervisor."""

    metrics: str = ""
    """The gateway's /metrics."""
    _seen: tuple[float, float] = (0.0, 0.0)

    def degraded_share(self, rows: int) -> float:
        """Return the share of rows since last asked that were answered without the store.

        rows  in each call since then.

        Such an answer is cheaper, so it must not pass for a fast one. The metrics are a second
        old at most.
        """
        if not self.metrics:
            return 0.0
        with urllib.request.urlopen(self.metrics, timeout=5.0) as page:
            text = page.read().decode()
        degraded = sum(map(float, DEGRADED_ROWS.findall(text)))
        answered = sum(map(float, ANSWERED_CALLS.findall(text)))
        before, self._seen = self._seen, (degraded, answered)
        return round((degraded - before[0]) / max((answered - before[1]) * rows, 1.0), 6)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let this server run while the block lasts; outside it is stopped and costs nothing.

        A supervisor sleeps first and wakes last, so that it sees nobody else asleep.
        """
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)
        try:
            yield
        finally:
            for pid in reversed(self.pids):
                os.kill(pid, signal.SIGSTOP)

    def cpu_s(self) -> float:
        """Return user and system seconds of its processes so far (Linux; else 0)."""
        return sum(map(process_cpu_s, self.pids))


def process_cpu_s(pid: int) -> float:
    """Return user and system seconds of *pid* so far; 0 where it is gone, or there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pin_to_core(line: Sequence[str], core: int) -> list[str]:
    """Return a command line that stays on one core, where the system can say so."""
    pinned = shutil.which("taskset") is not None
    return ["taskset", "-c", str(core), *line] if pinned else list(line)


@contextmanager
def running_servers(
    bench_model: BenchModel, redis_url: str, core: int, other_core: int, ingress: str
) -> Iterator[list[RunningServer]]:
    """Start the gateway and the server written by hand; each runs only where it is `awake`."""
    with (
        _running_controller(bench_model, other_core) as sink,
        _running_gateway(bench_model, redis_url, sink, core, other_core, ingress) as gateway,
        _handwritten_server(bench_model, redis_url, core) as plain,
    ):
        sides = [gateway, plain]
        for side in sides:
            with side.awake():
                pass
        try:
            yield sides
        finally:
            for pid in (pid for side in sides for pid in side.pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@contextmanager
def canned_server(core: int) -> Iterator[RunningServer]:
    """Run the load generator's own server, which answers every call with the same bytes."""
    with null_server(pin_to_core([], core)) as (target, pid):
        yield RunningServer(CANNED, target, [pid])


@contextmanager
def _handwritten_server(ground: BenchModel, redis_url: str, core: int) -> Iterator[RunningServer]:
    line = [sys.executable, "-m", "benchmarks.serving.handwritten_server", "--redis", redis_url]
    for model in CONTRACTS:
        line += ["--model", f"{model}={ground.onnx(model)}"]
    with _running_program(pin_to_core(line, core), stdout=subprocess.PIPE) as program:
        yield RunningServer(HANDWRITTEN, f"127.0.0.1:{_read_port(program)}", [program.pid])


@contextmanager
def _running_controller(ground: BenchModel, core: int) -> Iterator[str]:
    """A controller that is told every window, beside the generator; its host:port."""
    address = f"127.0.0.1:{free_tcp_port()}"
    line = [sys.executable, "-m", "turnout.control", "--listen", address]
    line += ["--folder", str(ground.folder / "registry")]
    path = ground.folder / "controller.log"
    with (
        path.open("wb") as log,
        _running_program(pin_to_core(line, core), stdout=log, stderr=log) as program,
    ):
        _wait_until_up(program, path, lambda: asyncio.run(accepts_connections(address)))
        yield address


@contextmanager
def _running_gateway(
    ground: BenchModel, redis_url: str, sink: str, core: int, other_core: int, ingress: str
) -> Iterator[RunningServer]:
    """The gateway as it is always run: a supervisor, one worker, a warm spare; journal and all.

    The worker has the server's core for itself. Supervisor and spare, which do next to nothing,
    sit on the other: beside a worker that never rests, some kernels let them wait for seconds.
    """
    announced = ground.folder / "ports.json"
    line = [sys.executable, "-m", "gateway", "--announce", str(announced)]
    settings = ["workers=1", f"folder={ground.gateway_folder}", f"redis_url={redis_url}"]
    settings.append(f"window_sinks={json.dumps([sink])}")
    # Room for the 64 calls that the widest workload opens on each connection.
    for setting in (*settings, f"ingress={ingress}", f"streams_max={STREAMS_MAX}"):
        line += ["--set", setting]
    path = ground.folder / "gateway.log"
    with (
        path.open("wb") as log,
        _running_program(pin_to_core(line, core), stdout=log, stderr=log) as program,
    ):
        ports = _wait_until_up(program, path, lambda: _gateway_ports(announced))
        worker, spare = ports.workers
        for pid in (program.pid, spare):
            os.sched_setaffinity(pid, {other_core})
        try:
            yield RunningServer(
                GATEWAY,
                f"127.0.0.1:{ports.port}",
                [worker, spare, program.pid],
                f"{ports.observed}/metrics",
            )
        except (OSError, RuntimeError) as error:
            words = path.read_text(encoding="utf-8")
            raise RuntimeError(f"{error}\nThe gateway's log:\n{words[-4000:]}") from error


@dataclass(frozen=True, slots=True)
class _Ports:
    port: int
    observed: str
    workers: tuple[int, int]
    """Process ids of the serving worker and the spare."""


def _gateway_ports(announced: Path) -> _Ports | None:
    """Return where it is once one worker serves and the spare is warm."""
    try:
        ports = json.loads(announced.read_text(encoding="utf-8"))
        observed = f"http://127.0.0.1:{ports['observe_port']}"
        with urllib.request.urlopen(f"{observed}/workers", timeout=1.0) as page:
            workers = json.load(page)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    pids = {worker["state"]: int(worker["pid"]) for worker in workers}
    if len(workers) != 2 or set(pids) != {"serving", "spare"}:
        return None
    return _Ports(int(ports["port"]), observed, (pids["serving"], pids["spare"]))


@contextmanager
def _running_program(line: Sequence[str], **streams: object) -> Iterator["subprocess.Popen[bytes]"]:
    # A session of its own, as a gateway's workers have: Linux shares a core between sessions
    # first, so that otherwise one side would compete with this program's, and the other not.
    program = subprocess.Popen(line, start_new_session=True, **streams)  # type: ignore[call-overload]
    try:
        yield program
    finally:
        program.terminate()
        try:
            program.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
        if program.stdout is not None:
            program.stdout.close()


def _wait_until_up(
    program: "subprocess.Popen[bytes]", log: Path, probe_ready: Callable[[], Ready | None]
) -> Ready:
    """Return what *up* says once it says something; RuntimeError with *log* when it never does."""
    give_up = time.monotonic() + START_TIMEOUT_S
    while not (said := probe_ready()):
        if program.poll() is not None or time.monotonic() > give_up:
            words = log.read_text(encoding="utf-8")
            raise RuntimeError(f"{log.stem} did not come up:\n{words[-2000:]}")
        time.sleep(0.05)  # between looks at another process, which tells us of nothing by itself
    return said


def _read_port(program: "subprocess.Popen[bytes]") -> int:
    assert program.stdout is not None
    line = program.stdout.readline()
    if not line:
        raise RuntimeError(f"a server left with code {program.wait()} before it said its port")
    return int(line)
