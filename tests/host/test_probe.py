"""The parts of a probe that need no process: its files and its report."""

import os
import signal

import pytest

from host.child_process import ResourceLimits
from host.files import pack_files, unpack_files
from host.probe import ProbeEnd, ProbeLimits, judge_report

LIMITS = ProbeLimits(resources=ResourceLimits(memory_mb=512, cpu_s=20), seconds=60.0)
LOADING = b'{"doing": "loading model.onnx"}\n'


@pytest.mark.parametrize(
    ("report", "code", "timed_out", "reason"),
    [
        (LOADING, -signal.SIGSEGV, False, "SIGSEGV while loading model.onnx"),
        (b"", 1, False, "exit code 1 while starting"),
        (LOADING, -signal.SIGXCPU, False, "used 20 s of CPU while loading"),
        (LOADING, -signal.SIGKILL, True, "not done after 60 s while loading"),
        (LOADING + b'{"refused": "golden row 3"}\n', 0, False, "golden row 3 (in a child of"),
        (LOADING + b'{"doing": "sco', -signal.SIGABRT, False, "SIGABRT while loading"),
    ],
)
def test_judge_report_refuses_a_failed_probe_and_says_how_it_ended(
    report: bytes, code: int, timed_out: bool, reason: str
) -> None:
    """The reason has the signal's name, the step, the limit that was reached and its setting."""
    assert reason in judge_report(ProbeEnd(report, code, timed_out), LIMITS)["refused"]


def test_judge_report_returns_what_a_successful_probe_measured() -> None:
    """The result is that of the last line; a crash at exit changes nothing."""
    report = b'{"proved": {"run_us": 20.5, "load_ms": 3.0}}\n'
    assert judge_report(ProbeEnd(report, -6, timed_out=False), LIMITS) == {
        "run_us": 20.5,
        "load_ms": 3.0,
    }


def test_unpack_files_returns_the_packed_bytes() -> None:
    """Files may be empty and have non-ASCII names."""
    files = {"model.onnx": bytes(range(256)) * 100, "card.json": b"", "é": b"{}"}
    files_fd = pack_files(files)
    try:
        assert unpack_files(files_fd) == files
        assert unpack_files(files_fd) == files
    finally:
        os.close(files_fd)
