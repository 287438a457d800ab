"""Starts a child that trains, keeps it within its limits, and says in words how it ended."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from host.child_process import ChildProcess, describe_exit
from host.processes import process_ids_of_session
from host.text import escape_controls

PROGRAM = "turnout.retraining.child"
WATCH_S = 0.2
"""Time between two counts of a child's processes."""
READ_BYTES = 64 * 1024
TAIL_BYTES = 4_000
"""The end of what a child prints, whose last line may say why it ended."""
KILLS_MAX = 50
"""Times that a session is ended: what starts processes all the time is faster than one kill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLimits:
    """Bounds on one child and on what it starts.

    memory_mb  address space of each process. The kernel refuses more.
    cpu_s      CPU seconds of each process.
    seconds    from start to end.
    processes  at one time.
    """

    memory_mb: int = 8_192
    cpu_s: int = 4 * 3_600
    seconds: float = 6 * 3_600.0
    processes: int = 32


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child ended: its exit code, or why it was ended or failed; "" after success."""

    code: int
    reason: str


async def run_child(
    command: Sequence[str],
    limits: TrainingLimits,
    log: Callable[[bytes], Awaitable[None]],
    fenced: asyncio.Event,
    *,
    program: str = PROGRAM,
    without: Sequence[str] = (),
) -> ChildEnd:
    """Run one command of `turnout` in a child, and return how it ended.

    log      is given what the child prints, in order.
    fenced   ends the child when it is set.
    program  the module that is run.
    without  variables of the environment that the child must not have.

    When this is cancelled, the child and all that it started have ended. Raises OSError when the
    host has no process to give.
    """
    # Only the child holds the write end, so its log ends when it and all that it started do.
    read_end, write_end = os.pipe()
    arguments = [f"--parent={os.getpid()}", f"--memory-mb={limits.memory_mb}"]
    arguments += [f"--cpu-s={limits.cpu_s}", f"--log-fd={write_end}", "--", *command]
    try:
        child = ChildProcess(program, arguments, (write_end,), without=without)
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    # Copy what it prints until it ends, or must end.
    tail = bytearray()
    copying = asyncio.create_task(_copy(read_end, log, tail))
    try:
        ended_for = await _watch(child, limits, fenced)
    finally:
        _end_session(child.pid)
        child.kill()
        await asyncio.wait({child.exited})
        # The pipe is at its end now.
        await asyncio.wait({copying}, timeout=5.0)
        copying.cancel()
    code = child.exited.result()
    return ChildEnd(code, ended_for or _how_it_ended(code, limits, bytes(tail)))


async def _copy(read_end: int, log: Callable[[bytes], Awaitable[None]], tail: bytearray) -> None:
    """Copy a pipe to *log* until its end, and keep the newest bytes in *tail*."""
    reader = asyncio.StreamReader(limit=READ_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
    )
    try:
        while data := await reader.read(READ_BYTES):
            tail += data
            del tail[:-TAIL_BYTES]
            await log(data)
    finally:
        transport.close()


async def _watch(child: ChildProcess, limits: TrainingLimits, fenced: asyncio.Event) -> str:
    """Return when the child has ended, or why it must end."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limits.seconds
    while not child.exited.done():
        if fenced.is_set():
            return "the run was cancelled, or another trainer has it"
        if loop.time() >= deadline:
            return f"it was not done after {limits.seconds:g} s (turnout run training --seconds)"
        # Each fork is a process of the child's session.
        count = len(process_ids_of_session(child.pid))
        if count > limits.processes:
            return f"it started {count} processes; it may have {limits.processes}"
        await asyncio.wait({child.exited}, timeout=min(WATCH_S, deadline - loop.time()))
    return ""


def _end_session(session: int) -> None:
    """End every process that the child has started, which may go on starting others."""
    for _ in range(KILLS_MAX):
        processes = process_ids_of_session(session)
        if not processes:
            return
        for pid in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _how_it_ended(code: int, limits: TrainingLimits, tail: bytes) -> str:
    lines = tail.decode("utf-8", "replace").strip().splitlines()
    last = escape_controls(lines[-1])[:500] if lines else ""
    if code == 0:
        return ""
    if code == -signal.SIGXCPU:
        return f"it used more than {limits.cpu_s} s of CPU time (turnout run training --cpu-s)"
    if code == -signal.SIGKILL:
        return (
            "it was killed (SIGKILL): the host was out of memory, or somebody killed it. It may "
            f"use {limits.memory_mb} MB (turnout run training --memory-mb)"
        )
    if code < 0:
        return f"it crashed with {describe_exit(code)}"
    return last or f"it ended with {describe_exit(code)}"
