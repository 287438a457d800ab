"""Runs a gateway without a registry: the real supervisor and workers, and a tiny model on disk.

Tests and measurements of processes and overload use it, where the model must not matter: three
ONNX nodes, 20 inputs in the request, no stored features.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway_folder import write_signed_deployment, write_signed_version
from protos.predict_pb2 import PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.bundle import seal_files
from registry.types import Deployment
from tests.tiny_models import tiny_contract, tiny_files

MODEL = "tiny"
INPUTS = 20
PREDICT = "/turnout.v1.Predictor/Predict"


@dataclass(frozen=True)
class StandaloneGateway:
    """One running gateway: its supervisor's process and its ports."""

    program: subprocess.Popen[bytes]
    port: int
    metrics_port: int

    def fetch(self, path: str) -> str:
        """Return the page /metrics, /healthz or /workers of the supervisor."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}") as page:
            text: str = page.read().decode()
            return text

    def workers(self) -> list[dict[str, Any]]:
        """Return the supervisor's rows of its workers, as /workers shows them now."""
        rows: list[dict[str, Any]] = json.loads(self.fetch("/workers"))
        return rows

    def serving_pids(self) -> dict[int, int]:
        """Return slot -> pid of the workers whose port is open, of each slot the newest."""
        rows = [row for row in self.workers() if row["state"] == "serving" and row["open"]]
        return {row["slot"]: row["pid"] for row in sorted(rows, key=lambda row: -row["age_s"])}

    def wait_settled(self, workers: int, within_s: float = 60.0) -> bool:
        """Wait until just *workers* workers serve and one spare is warm; False after *within_s*."""
        deadline_s = time.monotonic() + within_s
        wanted = sorted(["serving"] * workers + ["spare"])
        while time.monotonic() < deadline_s:
            rows = self.workers()
            opened = sum(row["open"] for row in rows)
            if sorted(row["state"] for row in rows) == wanted and opened == workers:
                return True
            time.sleep(0.05)
        return False

    def rolling_restart(self) -> None:
        """Start a rolling restart by SIGHUP, as an operator does."""
        os.kill(self.program.pid, signal.SIGHUP)


def write_gateway_folder(
    folder: Path, files: Mapping[str, bytes] | None = None, policy: ServingPolicy | None = None
) -> None:
    """Write a model, by default the tiny one, and its deployment into a gateway's *folder*."""
    files = files or tiny_files(MODEL, contract=tiny_contract(INPUTS))
    sealed = seal_files(files, model=MODEL, author="dana", created_unix_ms=1)
    digest = write_signed_version(folder, sealed)
    deployment = Deployment(
        model=MODEL,
        revision=1,
        production="1",
        digests=(("1", digest),),
        policy=policy or ServingPolicy(),
        why="benchmark",
    )
    write_signed_deployment(folder, deployment)


def tiny_request(key: str = "S1", criticality: int = 0, rows: int = 1) -> bytes:
    """Return the PredictRequest of one call of the tiny model, serialized."""
    row = Row(keys=[key], inputs=[0.5] * INPUTS)
    return PredictRequest(
        model=MODEL,
        rows=[row] * rows,
        criticality=criticality,  # type: ignore[arg-type]
    ).SerializeToString()


@contextmanager
def standalone_gateway(
    folder: Path, settings: Mapping[str, object], cores: str = ""
) -> Iterator[StandaloneGateway]:
    """Run a gateway that serves from *folder*; send it SIGTERM at the block's end.

    settings  settings of the gateway that differ from its defaults.
    cores     cores for taskset, for example "0,1"; empty: any core.
    """
    # Write the settings and start the gateway.
    file = folder / "gateway.json"
    file.write_text(json.dumps({"folder": str(folder), **settings}))
    announced = folder / "ports.json"
    announced.unlink(missing_ok=True)
    pinned = ["taskset", "-c", cores] if cores else []
    command = [sys.executable, "-m", "gateway", "--settings", str(file)]
    with (folder / "gateway.log").open("ab") as log:
        program = subprocess.Popen(
            [*pinned, *command, "--announce", str(announced)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        # Wait for its ports; terminate it at the end.
        try:
            while not announced.exists():
                assert program.poll() is None, (folder / "gateway.log").read_text()
                time.sleep(0.02)
            ports = json.loads(announced.read_text())
            yield StandaloneGateway(program, ports["port"], ports["metrics_port"])
        finally:
            program.terminate()
            try:
                program.wait(60)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
