"""`turnout restart`: every gateway worker replaced, no call failed."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from typing import Annotated, Any

import typer

from host.processes import start_ticks
from turnout.cli.context import CommandContext
from turnout.errors import NotReachableError, OperatorError
from turnout.processes.system_file import SystemAddresses, read_system_file
from turnout.views.terminal import named_values, terminal

RESTART_POLL_S = 0.2


def restart(
    ctx: typer.Context,
    wait_s: Annotated[
        float, typer.Option(min=0.0, help="For the last old worker to leave; 0: do not wait.")
    ] = 120.0,
) -> None:
    """Replace every gateway worker, one by one, without failing a call."""
    asked: CommandContext = ctx.obj
    running = read_system_file(asked.running_folder())
    if running is None:
        raise NotReachableError(f"no system runs in {asked.folder}; `turnout up` starts one")
    pid, ticks = running.children["gateway"]
    if start_ticks(pid) != ticks:
        raise NotReachableError(f"the gateway's supervisor (pid {pid}) is not there any more")
    before = {row["pid"] for row in read_workers(running)}
    began = time.monotonic()
    os.kill(pid, signal.SIGHUP)
    screen = terminal(asked.json)
    if wait_s == 0:
        screen.result(
            {"replacing": len(before)}, named_values({"replacing": f"{len(before)} workers"})
        )
        return
    left = wait_until_gone(before, lambda: read_workers(running), wait_s)
    if left:
        raise OperatorError(
            f"after {wait_s:g} s {len(left)} of {len(before)} old workers are still there (pids "
            f"{sorted(left)}); a worker leaves when its clients have: drain_grace_s plus 1.1 times "
            "connection_age_s_max (docs/operating.md)"
        )
    took_s = round(time.monotonic() - began, 1)
    screen.result(
        {"replaced": len(before), "seconds": took_s},
        named_values({"replaced": f"{len(before)} workers in {took_s} s"}),
    )


def read_workers(addresses: SystemAddresses) -> list[dict[str, Any]]:
    """What the supervisor says of its workers now."""
    url = addresses.metrics.replace("/metrics", "/workers")
    with urllib.request.urlopen(url, timeout=5) as page:  # noqa: S310  our own loopback port
        rows: list[dict[str, Any]] = json.load(page)
    return rows


def wait_until_gone(
    before: set[int], now: Callable[[], list[dict[str, Any]]], within_s: float
) -> set[int]:
    """Wait until none of *before* is a worker; returns those that still are."""
    end = time.monotonic() + within_s
    while (left := before & {row["pid"] for row in now()}) and time.monotonic() < end:
        time.sleep(RESTART_POLL_S)
    return left
