"""`turnout restart`: replaces every gateway worker; no call fails."""

import os
import signal
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from host.processes import start_ticks
from turnout.cli.context import CommandContext
from turnout.errors import NotReachableError, OperatorError
from turnout.processes.supervisor_pages import read_workers
from turnout.processes.system_file import read_system_file
from turnout.views.terminal import named_values, terminal

RESTART_POLL_S = 0.2


def restart(
    ctx: typer.Context,
    wait_s: Annotated[
        float,
        typer.Option(
            min=0.0, help="Seconds to wait for the last old worker to end. 0: do not wait."
        ),
    ] = 120.0,
) -> None:
    """Replace every gateway worker, one after another; no call fails."""
    context: CommandContext = ctx.obj
    # system.json names the supervisor; its start time distinguishes it from a reused pid.
    running = read_system_file(context.running_folder())
    if running is None:
        raise NotReachableError(f"no system runs in {context.folder}; start one with `turnout up`")
    pid, ticks = running.children["gateway"]
    if start_ticks(pid) != ticks:
        raise NotReachableError(f"the gateway's supervisor (pid {pid}) has ended")
    # SIGHUP starts a rolling restart; every worker of now is then an old one.
    before = {row["pid"] for row in read_workers(running)}
    began = time.monotonic()
    os.kill(pid, signal.SIGHUP)
    screen = terminal(context.json)
    if wait_s == 0:
        screen.result(
            {"replacing": len(before)}, named_values({"replacing": f"{len(before)} workers"})
        )
        return
    # Old workers end some time after they have been replaced: their clients leave first.
    left = wait_until_gone(before, lambda: read_workers(running), wait_s)
    if left:
        raise OperatorError(
            f"after {wait_s:g} s {len(left)} of {len(before)} old workers are still there (pids "
            f"{sorted(left)}). A worker ends when its clients have left: it can take drain_grace_s "
            "plus 1.1 times connection_age_s_max (docs/operating.md)"
        )
    took_s = round(time.monotonic() - began, 1)
    screen.result(
        {"replaced": len(before), "seconds": took_s},
        named_values({"replaced": f"{len(before)} workers in {took_s} s"}),
    )


def wait_until_gone(
    before: set[int], now: Callable[[], list[dict[str, Any]]], within_s: float
) -> set[int]:
    """Wait until none of the pids *before* is a worker; return those that still are.

    now       returns the rows of the /workers page.
    within_s  the longest wait, in seconds.
    """
    end = time.monotonic() + within_s
    while (left := before & {row["pid"] for row in now()}) and time.monotonic() < end:
        time.sleep(RESTART_POLL_S)
    return left
