"""Each task and thread of each process ends by an error: health, metrics or the process say so.

The thread of the native server cannot be failed from here: a panic aborts the worker
(ingress/Cargo.toml), and tests/walks/models shows what follows a crash.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from host.files import replace_file
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.gateway.supervision.test_handshake_refusals import answers, page
from tests.gateway.transport.test_tls import Certificate, write_files
from tests.walks.parts.failing_parts import FailingParts
from tests.walks.running_system import TURNOUT, poll_system_until
from turnout.processes.port_checks import free_tcp_port
from turnout.processes.system_file import SystemAddresses, read_system_file

pytestmark = pytest.mark.walk

WORKER = "gateway.worker"
TASKS_OF_WORKER = {
    "pipeline": "gateway.predict.pipeline:PredictPipeline.run",
    "registry_watch": "gateway.models.registry_watch:RegistryWatch._watch",
    "registry_report": "gateway.models.registry_watch:RegistryWatch._report",
    "window_stream": "gateway.telemetry.window_stream:WindowStream.run",
    "window_writer": "gateway.telemetry.window_stream:WindowStream._write_batches",
    "closing_windows": "gateway.telemetry.recorder:Recorder.fold_steps",
    "certificates": "access.certificate_ends:watch_certificates",
    "view_ages": "gateway.telemetry.view_ages:ViewAges.watch",
    "callers": "gateway.callers.directory:CallerDirectory.follow",
    "heartbeats": "gateway.supervision.channel:ControlConnection.send_if_read",
}
"""Tasks whose failure ends the worker, so that its slot gets another one."""
TASKS_OF_GRPCIO = {"keeping_room": "access.client_connections:keep_room"}
CAUSES = {"heartbeats": "silent"}
"""Part -> cause of the restart; the others are `died`."""
OTHERS_OF_WORKER = {
    "journal": "journal.writer:JournalAppender._next_group",
    "handshake_log": "gateway.transport.grpcio.handshake_log:HandshakeLog.pass_on",
    "store": "features.online.reader:OnlineReader._connect",
}
"""Threads and a task whose failure leaves the worker running: its metrics or log say so."""


@contextmanager
def one_worker(folder: Path, parts: FailingParts, ingress: str) -> Iterator[dict[str, int]]:
    """Run a gateway of one worker, which has every task; yield its ports."""
    certificate, announced = Certificate("localhost"), folder / "ports.json"
    files = write_files(folder, certificate, None)
    callers = folder / "callers.toml"
    replace_file(callers, f'[[callers]]\nname = "a"\ntoken_sha256 = ["{sha256().hexdigest()}"]\n')
    nobody = f"127.0.0.1:{free_tcp_port()}"
    settings: dict[str, Any] = {"folder": folder / "state", "workers": 1, "callers_file": callers}
    settings |= {"tls_certificate": files.tls_certificate, "tls_key": files.tls_key}
    settings |= {"registry": nobody, "redis_url": f"redis://{nobody}/0"}
    settings |= {"window_sinks": json.dumps([nobody]), "restart_backoff_ms_max": 200}
    line = [f"--set={name}={value}" for name, value in settings.items()]
    line += [f"--ingress={ingress}", f"--announce={announced}"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "gateway", *line], env=parts.environment(), stderr=log
        ) as gateway,
    ):
        try:
            poll_system_until(announced.exists, 30.0, "the gateway's ports")
            ports: dict[str, int] = json.loads(announced.read_text())
            yield ports
        finally:
            gateway.send_signal(signal.SIGTERM)
            gateway.wait(30)


def total(port: int, name: str, **labels: str) -> float:
    """Return the sum of the samples of /metrics with this name and these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = page(port, "metrics").splitlines()
    found = [line for line in lines if line.startswith(f"{name}{{")]
    return sum(
        float(line.rpartition(" ")[2]) for line in found if all(text in line for text in wanted)
    )


def wait_for_more(port: int, name: str, before: float, **labels: str) -> None:
    """Return once a sum of /metrics is larger than *before*."""
    poll_system_until(lambda: total(port, name, **labels) > before, 60.0, f"more {labels}")


def wait_settled(port: int) -> None:
    """Return once a worker serves and a spare waits."""

    def settled() -> bool:
        rows = json.loads(page(port, "workers") or "[]")
        return sorted(row["state"] for row in rows) == ["serving", "spare"]

    poll_system_until(settled, 60.0, "a worker serves and a spare waits")


@pytest.mark.parametrize(
    "ingress",
    [
        pytest.param("grpcio", marks=pytest.mark.nightly),
        pytest.param("native", marks=NEEDS_NATIVE_INGRESS),
    ],
)
def test_each_task_of_a_worker_that_fails_ends_the_worker(tmp_path: Path, ingress: str) -> None:
    """/metrics counts the restart, the log names the error, and another worker serves."""
    tasks = TASKS_OF_WORKER | (TASKS_OF_GRPCIO if ingress == "grpcio" else {})
    parts, log = FailingParts(tmp_path / "parts"), tmp_path / "log"
    parts.add(WORKER, tasks)
    with one_worker(tmp_path, parts, ingress) as ports:
        metrics_port, restarts = ports["metrics_port"], "turnout_worker_restarts_total"
        wait_settled(metrics_port)
        for part in tasks:
            cause = CAUSES.get(part, "died")
            if cause == "silent":  # a worker that is not ready yet would end
                wait_settled(metrics_port)
            before = total(metrics_port, restarts, cause=cause)
            parts.fail(part)
            wait_for_more(metrics_port, restarts, before, cause=cause)
            assert f"injected into {part}" in log.read_text(), part
        wait_settled(metrics_port)


def test_threads_of_a_worker_that_fail_are_in_its_metrics_and_log(tmp_path: Path) -> None:
    """The journal's threads, the one that reads gRPC's log, and the store's connection."""
    parts, log = FailingParts(tmp_path / "parts"), tmp_path / "log"
    parts.add(WORKER, OTHERS_OF_WORKER)
    with one_worker(tmp_path, parts, "grpcio") as ports:
        metrics_port = ports["metrics_port"]
        wait_settled(metrics_port)
        # The journal says that it takes no records. A worker and a spare have two kinds each.
        healthy = partial(total, metrics_port, "turnout_journal_healthy")
        poll_system_until(lambda: healthy() == 4, 60.0, "four healthy journals")
        parts.fail("journal")
        poll_system_until(lambda: healthy() == 3, 60.0, "three healthy journals")
        # A handshake is refused, whose line cannot be read; later lines are in the log.
        parts.fail("handshake_log")
        assert not answers(ports["port"], None)
        said = "handshakes are not counted any more"
        poll_system_until(lambda: said in log.read_text(), 10.0, "the log")
        # The store is tried again. The worker has served all the time.
        parts.fail("store")
        poll_system_until(lambda: "injected into store" in log.read_text(), 10.0, "the error")
        assert total(metrics_port, "turnout_worker_restarts_total") == 0
        assert page(metrics_port, "readyz") == "ready\n"


CONTROL, READER, SUPERVISOR = "turnout.control", "monitoring.fold", "gateway"
TASKS_OF_SYSTEM = {
    CONTROL: {
        "control_certificates": "access.certificate_ends:watch_certificates",
        "control_connections": "access.client_connections:keep_room",
        "leader": "rollout.controller.leader:run_leader",
    },
    READER: {"reading": "monitoring.fold.sink_client:JournalReaderLoop.run"},
    SUPERVISOR: {"slots": "gateway.supervision.supervisor:Supervisor._execute_due"},
}
"""Module of a process -> tasks whose failure ends it, so that `turnout up` starts it again."""
NAMES = {CONTROL: "control", READER: "journal-reader", SUPERVISOR: "gateway"}
LOOPS_OF_CONTROL = {
    "counts": "monitoring.api.component:MonitoringComponent._write_windows",
    "acts": "rollout.controller.leader:_act_loop",
}
"""What control tries again; its log says so."""
AT_START_OF_CONTROL = {"proving": "registry.api.service:RegistryService.prove_older_entries"}


@contextmanager
def system_with(parts: FailingParts, folder: Path) -> Iterator[SystemAddresses]:
    """Run `turnout up`; its processes are those whose parts can fail."""
    output, state = folder / "up.log", folder / "state"
    up = [*TURNOUT, "up", "--json", "--folder", str(state), "--workers", "1"]
    with (
        output.open("wb") as log,
        subprocess.Popen(up, env=parts.environment(), stdout=log, stderr=log) as program,
    ):
        try:
            poll_system_until(
                lambda: (b'"gateway"' in output.read_bytes()) or program.poll() is not None,
                60.0,
                "turnout up",
            )
            running = read_system_file(state)
            assert running is not None, output.read_text()
            yield running
        finally:
            program.send_signal(signal.SIGTERM)
            program.wait(60)


def pid_of(state: Path, name: str) -> int:
    """Return the process id of a child of `turnout up`."""
    running = read_system_file(state)
    assert running is not None
    return running.children[name][0]


def wait_for_another(state: Path, name: str, before: int) -> None:
    """Return once another process than *before* is the child of this name."""
    poll_system_until(lambda: pid_of(state, name) != before, 60.0, f"another {name}")


def log_of(state: Path, name: str) -> str:
    """Return the log of a child of `turnout up`."""
    return (state / "logs" / f"{name}.log").read_text()


def wait_for_line(state: Path, name: str, text: str) -> None:
    """Return once the log of a child has this text."""
    poll_system_until(lambda: text in log_of(state, name), 30.0, text)


def test_each_task_of_the_other_processes_that_fails_ends_its_process(tmp_path: Path) -> None:
    """`turnout up` says that the process ended, and starts it again."""
    parts, state = FailingParts(tmp_path / "parts"), tmp_path / "state"
    for process, tasks in TASKS_OF_SYSTEM.items():
        parts.add(process, tasks)
    parts.add(CONTROL, LOOPS_OF_CONTROL | AT_START_OF_CONTROL)
    with system_with(parts, tmp_path):
        for process, tasks in TASKS_OF_SYSTEM.items():
            for part in tasks:
                before = pid_of(state, NAMES[process])
                parts.fail(part)
                wait_for_another(state, NAMES[process], before)
                assert f"injected into {part}" in log_of(state, NAMES[process]), part
        # What is tried again does not end control.
        before = pid_of(state, "control")
        for part in LOOPS_OF_CONTROL:
            parts.fail(part)
            wait_for_line(state, "control", f"injected into {part}")
        assert pid_of(state, "control") == before
        # A task that runs at the start only.
        parts.fail("proving")
        os.kill(before, signal.SIGKILL)
        wait_for_line(state, "control", "injected into proving")


def test_pages_whose_thread_fails_are_closed(tmp_path: Path) -> None:
    """Probes of /healthz then fail at once, instead of hanging; callers are served."""
    parts = FailingParts(tmp_path / "parts")
    parts.add(
        SUPERVISOR, {"pages": "gateway.supervision.metrics_endpoint:PageServer.service_actions"}
    )
    with one_worker(tmp_path, parts, "grpcio") as ports:
        url = f"http://127.0.0.1:{ports['metrics_port']}/healthz"

        def refused() -> bool:
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except urllib.error.HTTPError:
                return False
            except urllib.error.URLError as error:
                return isinstance(error.reason, ConnectionRefusedError)
            except ConnectionResetError:
                return False  # The probe waited to be accepted, and failed at once.
            return False

        poll_system_until(lambda: page(ports["metrics_port"], "readyz"), 30.0, "it serves")
        parts.fail("pages")
        poll_system_until(refused, 10.0, "the port is closed")
        assert "the pages have stopped" in (tmp_path / "log").read_text()
