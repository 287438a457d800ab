"""Measures what a worker still answers at ten times the load that it can bear.

    python -m benchmarks.endurance.overload --seconds 30

One worker has core 0, and its callers have core 1 where there are two. The phases are:

- the peak: 4 connections with every stream in use;
- the overload: ten times the peak's rate in an open loop. CRITICAL calls come at .1 of the peak's
  rate, DEFAULT at 4.4, SHEDDABLE at 5.5. Each kind has connections of its own, and all together are
  as many as docs/operating.md says: they hold --wait-s seconds of work;
- half the peak's rate, until the worker answers normally again;
- the peak again. The machine's pace changes within a minute, so the overload is compared with the
  mean of the two peaks.

Goodput counts the calls that are answered within their timeout of 1 s, from when they were due. On
a machine that others use too, compare answers a CPU second. --favoured (root, Linux) asks the
kernel to run these processes before all others.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.load.open_loop import CallerGroup, read_group_result, start_open_loop
from benchmarks.standalone_gateway import (
    StandaloneGateway,
    standalone_gateway,
    write_gateway_folder,
)
from host.processes import cpu_seconds

STREAMS = 32
"""The default of Settings.streams_max."""
START_S = 2.0
"""Within this time every process of a phase is connected."""


@dataclass(frozen=True)
class LoadPhase:
    """What one phase gave: the result of each group, and the worker's CPU time."""

    seconds: float
    cpu_s: float
    groups: dict[str, dict[str, Any]]
    """Group name -> the fields of its benchmarks.load.open_loop.GroupResult."""

    @property
    def answered(self) -> int:
        """Calls of all groups that were answered in time."""
        return sum(group["answered"] for group in self.groups.values())

    @property
    def per_s(self) -> float:
        """Goodput: calls/s answered in time."""
        return self.answered / self.seconds

    @property
    def per_cpu_s(self) -> float:
        """Calls answered in time for each second of the worker's CPU time."""
        return self.answered / self.cpu_s

    def share(self, name: str) -> float:
        """Return the share of the calls due of group *name* that was answered in time."""
        group = self.groups[name]
        return float(group["answered"]) / max(1, group["calls_due"])


def run_phase(
    gateway: StandaloneGateway,
    seconds: float,
    groups: Sequence[CallerGroup],
    prioritised: bool = False,
) -> LoadPhase:
    """Send the calls of *groups* for *seconds*, each group from a process of its own."""
    pid = gateway.serving_pids()[0]
    before_s = cpu_seconds(pid)
    # Several processes begin together; one begins at once.
    begin_s = time.monotonic() + START_S if len(groups) > 1 else 0.0
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                start_open_loop(gateway.port, seconds, group, begin_s, pin_command(1))
            )
            for group in groups
        ]
        # Wait for all of them, and count the worker's CPU.
        if prioritised:
            for process in processes:
                raise_priority(process.pid)
        results = {result["name"]: result for result in map(read_group_result, processes)}
    return LoadPhase(seconds, cpu_seconds(pid) - before_s, results)


def raise_priority(pid: int) -> None:
    """Let the session of *pid* run before others (sched(7), autogroups). Needs root."""
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-19")


def overload_groups(peak_per_s: float, wait_s: float) -> list[CallerGroup]:
    """Return callers of ten times *peak_per_s*, whose connections hold *wait_s* of work."""
    connections = round(peak_per_s * wait_s / STREAMS)
    critical, default, sheddable = (max(1, round(s * connections)) for s in (0.2, 0.35, 0.45))
    return [
        CallerGroup("critical", critical, 0.1 * peak_per_s, criticality=1, queue_ms=500),
        CallerGroup("default", default, 4.4 * peak_per_s, criticality=2, queue_ms=5),
        CallerGroup("sheddable", sheddable, 5.5 * peak_per_s, criticality=3, queue_ms=5),
    ]


@dataclass(frozen=True)
class OverloadResult:
    """The phases of one measurement, and what they say together."""

    peaks: tuple[LoadPhase, LoadPhase]
    """Before the overload, and at the end."""
    overload: LoadPhase
    after: LoadPhase

    @property
    def goodput(self) -> float:
        """The overload's goodput over the peaks' mean."""
        return self.overload.per_s / fmean(peak.per_s for peak in self.peaks)

    @property
    def goodput_a_cpu_s(self) -> float:
        """Like `goodput`, but of calls answered in a second of the worker's CPU time."""
        return self.overload.per_cpu_s / fmean(peak.per_cpu_s for peak in self.peaks)

    @property
    def recovered_s(self) -> int:
        """Seconds after the overload until 98 % of the calls due in a second were answered."""
        due_per_s = self.after.groups["after"]["calls_due"] / self.after.seconds
        seconds: list[int] = self.after.groups["after"]["answered_by_s"]
        good = (s for s, answered in enumerate(seconds) if answered >= 0.98 * due_per_s)
        return next(good, len(seconds))


def measure_overload(
    seconds: float, wait_s: float = 0.3, prioritised: bool = False, after_s: float = 10.0
) -> OverloadResult:
    """Run all phases on a gateway of one worker that uses the grpcio ingress."""
    with tempfile.TemporaryDirectory(prefix="turnout-overload-") as folder:
        write_gateway_folder(Path(folder))
        # These callers cannot send ten times what the native ingress bears.
        settings = {"workers": 1, "ingress": "grpcio"}
        with standalone_gateway(
            Path(folder), settings, cores="0" if pin_command(0) else ""
        ) as gateway:
            assert gateway.wait_settled(1), gateway.workers()
            if prioritised:
                raise_priority(gateway.serving_pids()[0])
            full = [CallerGroup("peak", 4, 20_000)]
            run_phase(gateway, 1.0, full, prioritised)  # warm
            peak_s = max(3.0, seconds / 4)
            before = count_late_answers(run_phase(gateway, peak_s, full, prioritised))
            load = run_phase(gateway, seconds, overload_groups(before.per_s, wait_s), prioritised)
            after = run_phase(
                gateway, after_s, [CallerGroup("after", 4, 0.5 * before.per_s)], prioritised
            )
            again = count_late_answers(run_phase(gateway, peak_s, full, prioritised))
    return OverloadResult((before, again), load, after)


def count_late_answers(phase: LoadPhase) -> LoadPhase:
    """Count late answers too: at saturation calls also wait in the client."""
    peak = phase.groups["peak"]
    peak["answered"] = peak["statuses"]["0"]
    return phase


def pin_command(core: int) -> list[str]:
    """Return the start of a command that pins it to a core; empty on a machine with one core."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


def main() -> None:
    """Measure, and print every phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--wait-s", type=float, default=0.3, help="work the connections hold")
    parser.add_argument("--favoured", action="store_true", help="run before all other processes")
    arguments = parser.parse_args()
    began = time.monotonic()
    result = measure_overload(arguments.seconds, arguments.wait_s, arguments.favoured)
    load = result.overload
    for peak in result.peaks:
        print(f"peak        {peak.per_s:8,.0f}/s {peak.per_cpu_s:8,.0f} a CPU second")
    print(f"at 10 x     {load.per_s:8,.0f}/s {load.per_cpu_s:8,.0f} a CPU second")
    print(f"goodput     {result.goodput:8.1%}   {result.goodput_a_cpu_s:8.1%}")
    for name, group in load.groups.items():
        print(
            f"{name:11} {load.share(name):8.2%} of {group['calls_due']}, {group['answer_ms']} ms, "
            f"refused {group['refusal_ms']} ms, statuses {group['statuses']}, "
            f"given up unsent {group['given_up_unsent']}"
        )
    after = result.after.share("after")
    print(f"normal again after {result.recovered_s} s ({after:.2%} of half the peak answered)")
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
