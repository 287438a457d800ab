"""`python -m gateway.isolation.probe`: opens a version in a child process, first on this host.

It loads the bytes, runs the golden rows, warms and measures, and writes a line of JSON before each
step, so that whoever started it can say what it died of. It never outlives its worker.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gateway.isolation.child_process import confined
from gateway.isolation.packed_files import unpack
from gateway.models.native_trees import quicker
from registry.bundle import Session, golden_test, load, verify, warm
from registry.types import ScoringError, VersionRefusedError

NICE = 10
"""Callers first: a probe yields to every worker of the host."""

RUNS = 5
"""Of one row; the fastest counts, the others measure the neighbours."""


def probe(files: dict[str, bytes], digest: str, say: Callable[..., None]) -> None:
    """Take the version through everything a worker does with it before READY."""
    say(doing="verifying")
    bundle = verify(files, trusted_key=None, expected_digest=digest)
    say(doing="loading model.onnx")
    began = time.perf_counter()
    session = load(bundle)
    load_ms = (time.perf_counter() - began) * 1e3
    say(doing="scoring the golden rows")
    golden_test(bundle, session)
    say(doing="scoring batches of golden rows")
    warm(bundle, session)
    say(doing="holding other kernels against onnxruntime")
    quicker(bundle, session)
    row = bundle.golden_inputs[:1]
    run_us = min(_run_us(session, row) for _ in range(RUNS))
    say(proved={"load_ms": round(load_ms, 1), "run_us": round(run_us, 1), "memory_mb": peak_mb()})


def _run_us(session: Session, row: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    began = time.perf_counter()
    session.run(row)
    return (time.perf_counter() - began) * 1e6


def peak_mb() -> float:
    """Most resident memory this process has had, in MB; 0 where the system has no /proc."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return round(int(found[1]) / 1024, 1) if found else 0.0


def main() -> None:
    """Read the command line and the parcel, probe, report."""
    asked = confined("gateway.isolation.probe", __doc__, "report-fd", NICE)

    def say(**line: object) -> None:
        os.write(asked.report_fd, json.dumps(line).encode() + b"\n")

    try:
        probe(unpack(asked.parcel_fd), asked.digest, say)
    except (VersionRefusedError, ScoringError, MemoryError) as error:
        say(refused=str(error)[:2000] or type(error).__name__)
    sys.stdout.flush()
    os._exit(0)  # whatever the version left behind in this process must not run at its exit


if __name__ == "__main__":
    main()
