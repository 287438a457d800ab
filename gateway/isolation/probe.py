"""`python -m gateway.isolation.probe`: opens a version for the first time on this host.

It runs in a child process: it loads the version, scores the golden rows, warms up and measures.
Before each step it writes a line of JSON, so that the worker can tell in which step it died. It
never outlives its worker.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gateway.isolation.child_process import parse_and_confine
from gateway.isolation.packed_files import unpack_files
from gateway.models.native_trees import choose_scorer
from host.processes import peak_rss_bytes
from registry.bundle import Session, golden_test, load_session, verify_bundle, warm_up
from registry.types import ScoringError, VersionRefusedError

PROBE_NICE = 10
"""Priority of a probe: the host's workers, which answer callers, go first."""

TIMED_RUNS = 5
"""Timed runs of one row. The fastest counts; the others show the load of the host."""


def probe_version(files: dict[str, bytes], digest: str, report: Callable[..., None]) -> None:
    """Do with the version what a worker does before it is READY, and report each step.

    Raises VersionRefusedError or ScoringError for a version that fails.
    """
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
    report(doing="comparing native scoring with onnxruntime")
    choose_scorer(bundle, session)
    row = bundle.golden_inputs[:1]
    run_us = min(_run_us(session, row) for _ in range(TIMED_RUNS))
    memory_mb = round(peak_rss_bytes() / 2**20, 1)
    report(
        proved={"load_ms": round(load_ms, 1), "run_us": round(run_us, 1), "memory_mb": memory_mb}
    )


def _run_us(session: Session, row: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    began = time.perf_counter()
    session.run(row)
    return (time.perf_counter() - began) * 1e6


def main() -> None:
    """Read the command line and the packed files, probe the version, report the result."""
    arguments = parse_and_confine("gateway.isolation.probe", __doc__, "report-fd", PROBE_NICE)

    def report(**line: object) -> None:
        os.write(arguments.report_fd, json.dumps(line).encode() + b"\n")

    try:
        probe_version(unpack_files(arguments.files_fd), arguments.digest, report)
    except (VersionRefusedError, ScoringError, MemoryError) as error:
        report(refused=str(error)[:2000] or type(error).__name__)
    sys.stdout.flush()
    os._exit(0)  # no exit handler that the version may have left behind must run


if __name__ == "__main__":
    main()
