"""A system as a user runs it: `turnout up` in a process, and the `turnout` command beside it."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from access.peer_tls import CONTROL_NAME
from host.processes import is_alive
from registry.client import RegistryClient
from tests.tiny_models import tiny_files
from turnout.__main__ import main
from turnout.demo.deploy_acts import wait_until_applied
from turnout.processes.supervisor_pages import read_workers
from turnout.processes.system_file import SystemAddresses, read_system_file

UP_TIMEOUT_S = 60.0
TURNOUT = (sys.executable, "-m", "turnout")


def poll_system_until(condition: Callable[[], Any], seconds: float, description: str) -> Any:  # noqa: ANN401  what the condition returned
    """Return the result of *condition* once it is true; fail after *seconds*.

    A condition that takes long, such as a command, is asked half of the time, so that the system
    has the processor for the other half.
    """
    give_up = time.monotonic() + seconds
    began = time.monotonic()
    while not (value := condition()):
        ended = time.monotonic()
        assert ended < give_up, f"{description}: not within {seconds:g} s"
        time.sleep(max(0.01, ended - began))
        began = time.monotonic()
    return value


@dataclass(frozen=True)
class RunningSystem:
    """One system that runs in processes of its own."""

    folder: Path
    addresses: SystemAddresses

    def turnout(self, *line: str, actor: str = "sam", exit_code: int = 0) -> Any:  # noqa: ANN401  any JSON
        """Run one command with --json in this process.

        Returns its JSON value, or what it printed to stderr when it printed no value.
        """
        arguments = [*line, "--json", "--folder", str(self.folder), "--as", actor]
        with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
            try:
                main(arguments)
            except SystemExit as exit_error:
                code = exit_error.code
        said = f"{stdout.getvalue()}\n{stderr.getvalue()}"
        assert code == exit_code, f"{line}: exit code {code}\n{said}"
        return json.loads(stdout.getvalue()) if stdout.getvalue() else stderr.getvalue()

    def registry_client(self, actor: str, token: str | None = None) -> RegistryClient:
        """Return a client of the registry; an async context manager."""
        addresses = self.addresses
        return RegistryClient(addresses.registry, actor, token, certificate=addresses.certificate)

    def registry_channel(self, *options: tuple[str, int]) -> grpc.Channel:
        """Return a blocking channel to registry and controller; a context manager."""
        return grpc.secure_channel(
            self.addresses.registry,
            grpc.ssl_channel_credentials(self.addresses.certificate.read_bytes()),
            [("grpc.ssl_target_name_override", CONTROL_NAME), *options],
        )

    def registry_aio_channel(self, *options: tuple[str, int]) -> grpc.aio.Channel:
        """Return a channel to registry and controller for asyncio."""
        return grpc.aio.secure_channel(
            self.addresses.registry,
            grpc.ssl_channel_credentials(self.addresses.certificate.read_bytes()),
            [("grpc.ssl_target_name_override", CONTROL_NAME), *options],
        )

    def kill(self, signum: signal.Signals) -> None:
        """Send a signal to the process of `turnout up`."""
        os.kill(self.addresses.pid, signum)

    def workers(self) -> list[dict[str, Any]]:
        """Return the rows of the supervisor's /workers page."""
        return read_workers(self.addresses)

    def states(self) -> list[str]:
        """Return the states of the workers, sorted."""
        return sorted(row["state"] for row in self.workers())

    def wait_settled(self) -> None:
        """Return once two workers serve and the spare is ready."""
        poll_system_until(
            lambda: self.states() == ["serving", "serving", "spare"],
            30.0,
            "two serving and a spare",
        )

    def wait_applied(self, model: str) -> None:
        """Return once both workers and the spare have applied the newest deployment."""

        async def wait() -> None:
            async with asyncio.timeout(20), self.registry_client("sam") as client:
                await wait_until_applied(client, await client.deployment(model), 3)

        asyncio.run(wait())

    def register(self, model: str, folder: Path, **options: Any) -> str:  # noqa: ANN401  options of tiny_files
        """Register a tiny version as dana; return its label."""
        folder.mkdir(parents=True)
        for name, content in tiny_files(model, **options).items():
            (folder / name).write_bytes(content)
        label: str = self.turnout("versions", "register", model, str(folder), actor="dana")["label"]
        return label

    def approve(self, model: str, label: str, policy: str) -> None:
        """Approve a version as gabriel."""
        line = ("versions", "approve", model, label, "--policy", policy, "--yes")
        self.turnout(*line, actor="gabriel")

    def deploy(self, model: str, label: str) -> None:
        """Preload a version, and make it production once the registry's gate accepts it."""
        self.turnout("splits", "preload", model, label)

        def deployed() -> bool:
            try:
                self.turnout("splits", "set", model, "--production", label)
            except AssertionError:
                return False
            return True

        poll_system_until(deployed, 20.0, f"{model} {label} READY and deployed")
        self.wait_applied(model)


@contextmanager
def turnout_up(folder: Path, *options: str) -> Iterator[RunningSystem]:
    """Run `turnout up` with *options* while the block lasts; end it with SIGTERM."""
    log = (folder.parent / "up.log").open("wb")
    program = subprocess.Popen(
        [*TURNOUT, "up", "--json", "--folder", str(folder), *options], stdout=log, stderr=log
    )
    try:
        poll_system_until(
            lambda: _addresses_once_up(folder) or program.poll() is not None,
            UP_TIMEOUT_S,
            "turnout up",
        )
        running = _addresses_once_up(folder)
        assert running is not None, (folder.parent / "up.log").read_text()
        yield RunningSystem(folder, running)
    finally:
        if program.poll() is None:
            program.send_signal(signal.SIGTERM)
        program.wait(40)
        log.close()


def process_runs(pid: int) -> bool:
    """Whether process *pid* runs; a zombie does not."""
    return is_alive(pid)


def suspend(pid: int) -> None:
    """Stop a process with SIGSTOP: it stays alive and does nothing."""
    os.kill(pid, signal.SIGSTOP)


def _addresses_once_up(folder: Path) -> SystemAddresses | None:
    """Return the addresses once `turnout up` has printed them, which it does when all is ready."""
    output = folder.parent / "up.log"
    running = read_system_file(folder)
    return running if running is not None and output.stat().st_size else None
