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

from gateway.isolation.child_process import parse_and_confine
from gateway.isolation.packed_files import unpack_files
from gateway.models.native_trees import choose_scorer
from registry.bundle import Session, golden_test, load_session, verify_bundle, warm_up
from registry.types import ScoringError, VersionRefusedError

PROBE_NICE = 10
"""Callers first: a probe yields to every worker of the host."""

TIMED_RUNS = 5
"""Of one row; the fastest counts, the others measure the neighbours."""


def probe_version(files: dict[str, bytes], digest: str, report: Callable[..., None]) -> None:
    """Take the version through everything a worker does with it before READY."""
    report(doing="verifying")
    bundle = verify_bundle(files, trusted_key=None, expected_digest=digest)
    report(doing="loading model.onnx")
    began = time.perf_counter()
    session = load_session(bundle)
    load_ms = (time.perf_counter() - began) * 1e3
    report(doing="scoring the golden rows")
    golden_test(bundle, session)
    report(doing="scoring batches of golden rows")
    warm_up(bundle, session)
    report(doing="holding other kernels against onnxruntime")
    choose_scorer(bundle, session)
    row = bundle.golden_inputs[:1]
    run_us = min(_run_us(session, row) for _ in range(TIMED_RUNS))
    report(
        proved={"load_ms": round(load_ms, 1), "run_us": round(run_us, 1), "memory_mb": peak_mb()}
    )


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
    asked = parse_and_confine("gateway.isolation.probe", __doc__, "report-fd", PROBE_NICE)

    def say(**line: object) -> None:
        os.write(asked.report_fd, json.dumps(line).encode() + b"\n")

    try:
        probe_version(unpack_files(asked.files_fd), asked.digest, say)
    except (VersionRefusedError, ScoringError, MemoryError) as error:
        say(refused=str(error)[:2000] or type(error).__name__)
    sys.stdout.flush()
    os._exit(0)  # whatever the version left behind in this process must not run at its exit


if __name__ == "__main__":
    main()
