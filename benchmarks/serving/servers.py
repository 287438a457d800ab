"""Starts the servers that are compared, each pinned to a core, and reads their CPU time."""

import asyncio
import contextlib
import json
import os
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
from benchmarks.serving.bench_model import ROWS_CALL_MAX, BenchModel
from benchmarks.serving.workloads import CANNED, GATEWAY, HANDWRITTEN
from host.processes import cpu_seconds
from turnout.processes.port_checks import accepts_connections, free_tcp_port

Ready = TypeVar("Ready")

START_TIMEOUT_S = 480.0
"""Some fifty versions are opened for the first time, each in a process of its own."""
STOP_S_MAX = 20.0
STREAMS_MAX = 64
CARGO_MISSING = (
    "this benchmark sends its calls with the load generator in Rust (benchmarks/loadgen), and "
    "cargo, which builds it, is not there; install Rust from https://rustup.rs and run it again"
)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A checkout of this repository, and the interpreter of its own environment."""

    name: str
    folder: Path
    python: Path


THIS_CHECKOUT = Checkout(GATEWAY, Path(__file__).parents[2], Path(sys.executable))


@dataclass(frozen=True, slots=True)
class ServerSetup:
    """What every gateway of one comparison has in common."""

    redis_url: str
    ingress: str
    """native or grpcio."""
    core: int | str
    """The core of the serving workers, or several cores as taskset writes them."""
    other_core: int
    """The core of everything else: supervisor, spare, controller, generator and store."""
    workers: int = 1
    """Serving workers of the gateway."""
    settings: tuple[str, ...] = ()
    """Further settings, NAME=VALUE."""


@dataclass(slots=True)
class RunningServer:
    """One server process, or one gateway with its processes."""

    name: str
    target: str
    """Address of its gRPC port, as host:port."""
    pids: list[int] = field(default_factory=list)
    """The processes whose CPU time counts: a gateway's serving workers, spare and supervisor."""
    pages: str = ""
    """URL of the supervisor's pages, such as /statistics; empty for a server without."""

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let this server run while the block lasts; outside it is stopped and costs no CPU.

        A supervisor is stopped first and continued last, so that it never sees a stopped worker.
        """
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)
        try:
            yield
        finally:
            for pid in reversed(self.pids):
                os.kill(pid, signal.SIGSTOP)

    def cpu_s(self) -> float:
        """Return the user and system seconds that its processes have used (Linux; elsewhere 0)."""
        return sum(map(cpu_seconds, self.pids))


def pin_to_core(line: Sequence[str], core: int | str) -> list[str]:
    """Return *line* pinned to a core, or to several as a text; without taskset, *line* as it is."""
    pinned = shutil.which("taskset") is not None
    return ["taskset", "-c", str(core), *line] if pinned else list(line)


@contextmanager
def running_servers(bench_model: BenchModel, setup: ServerSetup) -> Iterator[list[RunningServer]]:
    """Start this checkout's gateway and the server written by hand; each runs only when `awake`."""
    folders = bench_model.folder, bench_model.gateway_folder
    with (
        running_checkout(THIS_CHECKOUT, *folders, setup) as gateway,
        _handwritten_server(bench_model, setup) as handwritten,
        stopped_unless_awake([gateway, handwritten]) as servers,
    ):
        yield servers


@contextmanager
def stopped_unless_awake(servers: list[RunningServer]) -> Iterator[list[RunningServer]]:
    """Stop all *servers*, each of which then runs only when `awake`; continue them at the end."""
    for server in servers:
        with server.awake():
            pass
    try:
        yield servers
    finally:
        for pid in (pid for server in servers for pid in server.pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def canned_server(core: int) -> Iterator[RunningServer]:
    """Run the load generator's own server, which answers every call with the same bytes."""
    with null_server(pin_to_core([], core)) as (target, pid):
        yield RunningServer(CANNED, target, [pid])


@contextmanager
def _handwritten_server(bench_model: BenchModel, setup: ServerSetup) -> Iterator[RunningServer]:
    line = [sys.executable, "-m", "benchmarks.serving.handwritten_server"]
    line += ["--redis", setup.redis_url]
    for model, file in bench_model.onnx_files().items():
        line += ["--model", f"{model}={file}"]
    with _running_program(pin_to_core(line, setup.core), stdout=subprocess.PIPE) as program:
        yield RunningServer(HANDWRITTEN, f"127.0.0.1:{_read_port(program)}", [program.pid])


@contextmanager
def running_checkout(
    checkout: Checkout, folder: Path, gateway_folder: Path, setup: ServerSetup
) -> Iterator[RunningServer]:
    """Run the gateway of *checkout* in its usual form, with a controller that takes its windows.

    folder          takes the logs and the controller's database.
    gateway_folder  has the versions and deployments to serve; the journal is written there.

    A supervisor, its workers and a warm spare run, and the journal is written. The workers have the
    server's core for themselves. Supervisor and spare do next to nothing and have the other core:
    beside a worker that never rests, some kernels let them wait for seconds.
    """
    announced, log_path = folder / "ports.json", folder / "gateway.log"
    with (
        log_path.open("wb") as log,
        _running_controller(checkout, folder, setup.other_core) as sink,
    ):
        # Start the gateway on the server's core.
        settings = [
            f"workers={setup.workers}",
            f"folder={gateway_folder}",
            f"redis_url={setup.redis_url}",
            f"window_sinks={json.dumps([sink])}",
            f"ingress={setup.ingress}",
            # The widest workload has 64 calls open on each connection.
            f"streams_max={STREAMS_MAX}",
            f"rows_call_max={ROWS_CALL_MAX}",
            # Some fifty probes at once take each other's CPU time; none may be refused for that.
            f"probe_s_max={START_TIMEOUT_S}",
            *setup.settings,
        ]
        # The controller has made a certificate, unless its checkout is too old for that.
        certificate = folder / "registry" / "keys" / "control.crt"
        if certificate.exists():
            settings.append(f"registry_certificate={certificate}")
        line = [str(checkout.python), "-m", "gateway", "--announce", str(announced)]
        for setting in settings:
            line += ["--set", setting]
        with _running_program(
            pin_to_core(line, setup.core), cwd=checkout.folder, stdout=log, stderr=log
        ) as program:
            # Only the serving workers keep the server's core.
            ports = _wait_until_up(
                program, log_path, lambda: _gateway_ports(announced, setup.workers)
            )
            for pid in (program.pid, ports.spare):
                os.sched_setaffinity(pid, {setup.other_core})
            pids = [*ports.workers, ports.spare, program.pid]
            try:
                yield RunningServer(checkout.name, f"127.0.0.1:{ports.port}", pids, ports.observed)
            except (OSError, RuntimeError) as error:
                log_end = log_path.read_text(encoding="utf-8")[-4000:]
                raise RuntimeError(f"{error}\nThe gateway's log:\n{log_end}") from error


@contextmanager
def _running_controller(checkout: Checkout, folder: Path, core: int) -> Iterator[str]:
    """Run a controller, to which the gateway sends every window; yields its host:port."""
    address, log_path = f"127.0.0.1:{free_tcp_port()}", folder / "controller.log"
    line = [str(checkout.python), "-m", "turnout.control", "--listen", address]
    line += ["--folder", str(folder / "registry")]
    with (
        log_path.open("wb") as log,
        _running_program(
            pin_to_core(line, core), cwd=checkout.folder, stdout=log, stderr=log
        ) as program,
    ):
        _wait_until_up(program, log_path, lambda: asyncio.run(accepts_connections(address)))
        yield address


@dataclass(frozen=True, slots=True)
class _Ports:
    port: int
    observed: str
    workers: list[int]
    """Process ids of the serving workers."""
    spare: int


def _gateway_ports(announced: Path, workers: int) -> _Ports | None:
    """Return the gateway's ports once *workers* serve and the spare is warm; until then None."""
    try:
        ports = json.loads(announced.read_text(encoding="utf-8"))
        # An older checkout calls the port observe_port.
        metrics_port = ports.get("metrics_port") or ports["observe_port"]
        observed = f"http://127.0.0.1:{metrics_port}"
        with urllib.request.urlopen(f"{observed}/workers", timeout=1.0) as page:
            rows = json.load(page)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    serving = [int(row["pid"]) for row in rows if row["state"] == "serving"]
    spares = [int(row["pid"]) for row in rows if row["state"] == "spare"]
    if len(serving) != workers or len(spares) != 1 or len(rows) != workers + 1:
        return None
    return _Ports(int(ports["port"]), observed, serving, spares[0])


@contextmanager
def _running_program(line: Sequence[str], **streams: object) -> Iterator["subprocess.Popen[bytes]"]:
    # Linux first shares a core between sessions. A gateway's workers have a session of their own,
    # so the other servers get one too; otherwise they would compete with this program's session.
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
    """Poll *probe_ready* until it returns something; return that.

    Raises RuntimeError with the end of *log* when the program ends first or START_TIMEOUT_S pass.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not (ready := probe_ready()):
        if program.poll() is not None or time.monotonic() > deadline_s:
            log_end = log.read_text(encoding="utf-8")[-2000:]
            raise RuntimeError(f"{log.stem} did not come up:\n{log_end}")
        time.sleep(0.05)
    return ready


def _read_port(program: "subprocess.Popen[bytes]") -> int:
    assert program.stdout is not None
    line = program.stdout.readline()
    if not line:
        raise RuntimeError(f"a server ended with code {program.wait()} before it printed its port")
    return int(line)
