"""The whole system as a user starts it: `turnout up`, and the `turnout` command beside it."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.processes import start_ticks
from registry.client import RegistryClient
from tests.tiny_models import tiny_files
from turnout.__main__ import main
from turnout.demo.deploy_acts import wait_until_applied
from turnout.processes.system_file import SystemAddresses, read_system_file

UP_TIMEOUT_S = 60.0
TURNOUT = (sys.executable, "-m", "turnout")


def poll_system_until(condition: Callable[[], Any], seconds: float, description: str) -> Any:  # noqa: ANN401  whatever came true
    """Return what *condition* returned once it is true; fail with *what* after *seconds*."""
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up, f"{description}: not within {seconds:g} s"
        time.sleep(0.01)
    return value


@dataclass(frozen=True)
class RunningSystem:
    """One running system."""

    folder: Path
    addresses: SystemAddresses

    def turnout(self, *line: str, actor: str = "sam", exit_code: int = 0) -> Any:  # noqa: ANN401  any JSON
        """Run one command with --json, in this process; returns its value, or its complaint."""
        told = [*line, "--json", "--folder", str(self.folder), "--as", actor]
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as aside:
            try:
                main(told)
            except SystemExit as left:
                code = left.code
        assert code == exit_code, f"{line}: exit code {code}\n{aside.getvalue()}"
        return json.loads(out.getvalue()) if out.getvalue() else aside.getvalue()

    def kill(self, signum: signal.Signals) -> None:
        """Send a signal to `turnout up` itself."""
        os.kill(self.addresses.pid, signum)

    def workers(self) -> list[dict[str, Any]]:
        """What the supervisor says of its workers now."""
        with urllib.request.urlopen(self.addresses.metrics.replace("/metrics", "/workers")) as page:
            rows: list[dict[str, Any]] = json.load(page)
            return rows

    def states(self) -> list[str]:
        """The workers' states, sorted."""
        return sorted(row["state"] for row in self.workers())

    def wait_settled(self) -> None:
        """Return once two workers serve and a spare is warm."""
        poll_system_until(
            lambda: self.states() == ["serving", "serving", "spare"],
            30.0,
            "two serving and a spare",
        )

    async def _wait_applied(self, model: str) -> None:
        """Return once both workers and the spare have swapped the newest deployment in."""
        async with asyncio.timeout(20), RegistryClient(self.addresses.registry, "sam") as client:
            await wait_until_applied(client, await client.deployment(model), 3)

    def register(self, model: str, folder: Path, **options: Any) -> str:  # noqa: ANN401  tiny_files' own
        """Register a tiny version as dana; returns its label."""
        folder.mkdir(parents=True)
        for name, content in tiny_files(model, **options).items():
            (folder / name).write_bytes(content)
        label: str = self.turnout("versions", "register", model, str(folder), actor="dana")["label"]
        return label

    def approve(self, model: str, label: str, policy: str) -> None:
        """Approve as gabriel."""
        line = ("versions", "approve", model, label, "--policy", policy, "--yes")
        self.turnout(*line, actor="gabriel")

    def deploy(self, model: str, label: str) -> None:
        """Preload a version and make it production as soon as the registry's gate opens."""
        self.turnout("splits", "preload", model, label)

        def deployed() -> bool:
            try:
                self.turnout("splits", "set", model, "--production", label)
            except AssertionError:
                return False
            return True

        poll_system_until(deployed, 20.0, f"{model} {label} READY and deployed")
        asyncio.run(self._wait_applied(model))


@contextmanager
def turnout_up(folder: Path, *options: str) -> Iterator[RunningSystem]:
    """Run `turnout up` with *options* while the block lasts; SIGTERM at its end."""
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
    """Whether a process of that id runs."""
    return start_ticks(pid) is not None


def suspend(pid: int) -> None:
    """SIGSTOP: it is there, and does nothing."""
    os.kill(pid, signal.SIGSTOP)


def _addresses_once_up(folder: Path) -> SystemAddresses | None:
    """Return the system once all its parts have said that they answer."""
    said = folder.parent / "up.log"
    running = read_system_file(folder)
    return running if running is not None and said.stat().st_size else None
