"""Probes: one child process that examines the files of a version, reports and ends.

The parent calls `run_probe` and `judge_report`; the program of the child calls `report_probe`. The
child writes a line of JSON before each step, so that the parent can tell in which step it died.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from host.child_process import (
    ChildProcess,
    ResourceLimits,
    describe_exit,
    parse_and_confine,
)
from host.files import pack_files, unpack_files

PROBE_NICE = 10
"""Priority of a probe: the processes that answer callers go first."""

REPORT_BYTES_MAX = 64 * 1024
REASON_CHARACTERS_MAX = 2_000

Examine = Callable[[dict[str, bytes], str, Callable[..., None]], None]
"""examine(files, digest, report): report(doing=...) before each step, report(proved={...}) last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLimits:
    """Limits on one probe.

    seconds  from start to proof.
    """

    resources: ResourceLimits
    seconds: float


@dataclass(frozen=True, slots=True)
class ProbeEnd:
    """How a probe ended."""

    report: bytes
    """Lines of JSON, the last of which may be cut off."""
    code: int
    """As ChildProcess.exited."""
    timed_out: bool
    """Whether it was killed because its time was over."""


async def run_probe(
    module: str,
    digest: str,
    files: Mapping[str, bytes],
    limits: ProbeLimits,
    executor: Executor | None = None,
) -> ProbeEnd:
    """Run `python -m module` over *files* until it ends.

    executor  writes the files for the child; None is the loop's own.

    A child that is late is killed. When this task is cancelled, the child is killed and the task
    ends after it. Raises OSError when the host has no process, descriptor or memory to give.
    """
    # The child inherits its files and one end of a pipe for its report.
    files_fd = await _pack_in_thread(files, executor)
    read_end, write_end = os.pipe()
    try:
        arguments = [f"--files-fd={files_fd}", f"--report-fd={write_end}", f"--digest={digest}"]
        child = ChildProcess(
            module, [*limits.resources.to_arguments(), *arguments], (files_fd, write_end)
        )
        # Only the child holds the write end now, so the report ends when the child does.
        os.close(write_end)
        write_end = -1
        # Whatever happens, this ends after the child.
        try:
            done, _ = await asyncio.wait({child.exited}, timeout=limits.seconds)
        finally:
            child.kill()
            await asyncio.wait({child.exited})
        os.set_blocking(read_end, False)
        return ProbeEnd(_read_report(read_end), child.exited.result(), not done)
    finally:
        for descriptor in (files_fd, read_end, write_end):
            if descriptor >= 0:
                os.close(descriptor)


async def _pack_in_thread(files: Mapping[str, bytes], executor: Executor | None) -> int:
    """Return the descriptor of pack_files; when this task is cancelled, wait and close it."""
    packing = asyncio.get_running_loop().run_in_executor(executor, pack_files, files)
    try:
        return await asyncio.shield(packing)
    except asyncio.CancelledError:
        await asyncio.wait({packing})
        os.close(packing.result())
        raise


def _read_report(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, REPORT_BYTES_MAX)
    except BlockingIOError:
        return b""


def judge_report(end: ProbeEnd, limits: ProbeLimits) -> dict[str, Any]:
    """Return what a probe measured, or {"refused": reason} with the step and the kind of end."""
    # The last whole line is the result, or the step in which the probe ended.
    last: dict[str, Any] = {}
    for line in end.report.splitlines():
        try:
            last = json.loads(line)
        except ValueError:
            break  # the probe died while it wrote the line
    doing = last.get("doing", "starting")
    resources = limits.resources
    # The probe came to a result of its own.
    if "refused" in last:
        return {"refused": f"{last['refused']} (in a child of at most {resources.memory_mb} MB)"}
    if "proved" in last:
        return dict(last["proved"])
    # It ended before it had one: the step and the kind of end are the reason.
    if end.timed_out:
        return {
            "refused": f"not done after {limits.seconds:g} s while {doing}; ended "
            f"(probe_s_max={limits.seconds:g})"
        }
    if end.code == -signal.SIGXCPU:
        return {
            "refused": f"used {resources.cpu_s} s of CPU while {doing}; ended "
            f"(probe_cpu_s_max={resources.cpu_s})"
        }
    return {"refused": f"its probe ended with {describe_exit(end.code)} while {doing}"}


def report_probe(
    program: str,
    description: str | None,
    examine: Examine,
    refusals: tuple[type[Exception], ...],
) -> None:
    """Run the child's side of a probe, and end the process.

    program, description  as in parse_and_confine.
    refusals              exceptions of *examine* whose words are the reason of a refusal.
    """
    arguments = parse_and_confine(program, description, "report-fd", PROBE_NICE)

    worded: tuple[type[Exception], ...] = (*refusals, MemoryError)

    def report(**line: object) -> None:
        os.write(arguments.report_fd, json.dumps(line).encode() + b"\n")

    try:
        examine(unpack_files(arguments.files_fd), arguments.digest, report)
    except worded as error:
        report(refused=str(error)[:REASON_CHARACTERS_MAX] or type(error).__name__)
    sys.stdout.flush()
    os._exit(0)  # no exit handler that the version may have left behind must run
