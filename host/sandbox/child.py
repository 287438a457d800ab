"""The program of a sandboxed child: gives up what it can, then answers one request.

`host.sandbox.run` starts it. Its request is the file on descriptor 0, and its report goes to
descriptor 1 (`host.sandbox.report`).
"""

import importlib
import json
import os
import resource
import signal
from collections.abc import Callable

from host.processes import die_with_parent
from host.sandbox.report import ANSWER, PROBLEM, STEP, TEXT_BYTES_MAX, frame
from host.sandbox.seccomp import forbid_system_calls

OPEN_FILES_MAX = 256
THREADS_MAX = 256
"""Threads of a child of an ordinary user. Those of root are bounded by memory only."""
MIB = 1024 * 1024

Step = Callable[[str], None]
"""step(text) tells the parent what begins now, such as "opening churn.pkl"."""


def main(settings_json: str) -> None:
    """Answer the request on descriptor 0 and end the process.

    settings_json  the settings that `host.sandbox.run` wrote.
    """
    settings = json.loads(settings_json)
    _give_up_rights(settings)
    # The report moves away from descriptor 1, because models print.
    with os.fdopen(os.dup(0), "rb") as stream:
        request = stream.read()
    report = os.dup(1)
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)

    def step(text: str) -> None:
        _write(report, frame(STEP, text.encode()[:TEXT_BYTES_MAX]))

    # Everything that the module raises is a problem of its request, also SystemExit.
    try:
        answer = importlib.import_module(settings["module"]).answer(request, step)
        last = frame(ANSWER, answer)
    except BaseException as error:  # noqa: BLE001  the parent says it
        last = frame(PROBLEM, _problem(error, settings["memory_mb"]))
    _write(report, last)
    os._exit(0)  # no exit handler that a model left behind runs


def _give_up_rights(settings: dict[str, int]) -> None:
    """Limit this process. Raises OSError when the kernel refuses a limit."""
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES_MAX),
        (resource.RLIMIT_FSIZE, settings["temp_mb"] * MIB),
        (resource.RLIMIT_AS, settings["memory_mb"] * MIB),
        (resource.RLIMIT_NPROC, THREADS_MAX),
    ]
    for limit, most in limits:
        resource.setrlimit(limit, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (settings["cpu_s"], settings["cpu_s"] + 1))
    die_with_parent(signal.SIGKILL)
    forbid_system_calls(os.getpid())


def _problem(error: BaseException, memory_mb: int) -> bytes:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, MemoryError):
        text = f"it needs more than the {memory_mb} MB that it may have"
    return text.encode("utf-8", "replace")[:TEXT_BYTES_MAX]


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
