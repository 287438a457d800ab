"""Ten times the load that a worker can bear: what is still answered, to whom, and how soon after.

    python -m benchmarks.endurance.overload --seconds 30

One worker alone on core 0, its callers on core 1 (where there are two). First its peak: 4
connections with every stream full. Then ten times that rate, open loop: CRITICAL .1 of the peak,
DEFAULT 4.4, SHEDDABLE 5.5, each kind over connections of its own, all together as many as
docs/operating.md says (--wait-s of work). Then half the peak, then the peak again: what else the
machine does changes within a minute, so the overload is held against the mean of the peaks before
and after it. Goodput is calls answered within their timeout of 1 s, from when they were due. On a
machine that others use too, compare answers a CPU second; --favoured (root, Linux) asks the kernel
to run these processes first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.load.http2_peer import CallerGroup
from benchmarks.standalone_gateway import (
    StandaloneGateway,
    standalone_gateway,
    write_gateway_folder,
)
from host.processes import cpu_seconds

STREAMS = 32
"""Settings.streams_max."""
OVERLOAD_FACTOR = 10.0


@dataclass(frozen=True)
class LoadPhase:
    """One phase's groups, and what the worker spent."""

    seconds: float
    cpu_s: float
    groups: dict[str, dict[str, Any]]
    """Group name -> the fields of benchmarks.load.http2_peer.GroupResult."""

    @property
    def answered(self) -> int:
        """In time, of all groups."""
        return sum(group["answered"] for group in self.groups.values())

    @property
    def per_s(self) -> float:
        """Goodput."""
        return self.answered / self.seconds

    @property
    def per_cpu_s(self) -> float:
        """Goodput a second of the worker's own CPU."""
        return self.answered / self.cpu_s

    def share(self, name: str) -> float:
        """Of what *name* asked, how much was answered in time."""
        group = self.groups[name]
        return float(group["answered"]) / max(1, group["calls_due"])


def run_phase(
    gateway: StandaloneGateway,
    seconds: float,
    groups: Sequence[CallerGroup],
    prioritised: bool = False,
) -> LoadPhase:
    """Let *groups* ask for *seconds*, from a process of their own."""
    pid = gateway.serving_pids()[0]
    before = cpu_seconds(pid)
    line = [sys.executable, "-m", "benchmarks.load.http2_peer", str(gateway.port), str(seconds)]
    asked = json.dumps([asdict(group) for group in groups])
    with subprocess.Popen(
        [*pin_command(1), *line, asked],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    ) as asking:
        if prioritised:
            raise_priority(asking.pid)
        said, _ = asking.communicate()
    assert asking.returncode == 0
    told = [json.loads(row) for row in said.splitlines()]
    return LoadPhase(seconds, cpu_seconds(pid) - before, {group["name"]: group for group in told})


def raise_priority(pid: int) -> None:
    """Let the session of *pid* run before others (sched(7), autogroups); root only."""
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-19")


def overload_groups(peak_per_s: float, wait_s: float) -> list[CallerGroup]:
    """Ten times *peak_per_s*, over connections that hold *wait_s* of work together."""
    connections = round(peak_per_s * wait_s / STREAMS)
    critical, default, sheddable = (max(1, round(s * connections)) for s in (0.2, 0.35, 0.45))
    return [
        CallerGroup("critical", critical, 0.1 * peak_per_s, criticality=1, queue_ms=500),
        CallerGroup("default", default, 4.4 * peak_per_s, criticality=2, queue_ms=5),
        CallerGroup("sheddable", sheddable, 5.5 * peak_per_s, criticality=3, queue_ms=5),
    ]


@dataclass(frozen=True)
class OverloadResult:
    """The phases."""

    peaks: tuple[LoadPhase, LoadPhase]
    """Before and after."""
    overload: LoadPhase
    after: LoadPhase

    @property
    def goodput(self) -> float:
        """Of the peak."""
        return self.overload.per_s / fmean(peak.per_s for peak in self.peaks)

    @property
    def goodput_a_cpu_s(self) -> float:
        """The same, a second of the worker's own CPU."""
        return self.overload.per_cpu_s / fmean(peak.per_cpu_s for peak in self.peaks)

    @property
    def recovered_s(self) -> int:
        """Seconds after the overload until a second in which everything asked was answered."""
        asked_per_s = self.after.groups["after"]["calls_due"] / self.after.seconds
        seconds: list[int] = self.after.groups["after"]["answered_by_s"]
        good = (s for s, answered in enumerate(seconds) if answered >= 0.98 * asked_per_s)
        return next(good, len(seconds))


def measure_overload(
    seconds: float, wait_s: float = 0.3, prioritised: bool = False, after_s: float = 10.0
) -> OverloadResult:
    """Run all phases against a gateway of one worker."""
    with tempfile.TemporaryDirectory(prefix="turnout-overload-") as folder:
        write_gateway_folder(Path(folder))
        # Ten times what the native door bears is more than these callers can ask.
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
    """At saturation calls wait in the client too: what is answered late counts here."""
    peak = phase.groups["peak"]
    peak["answered"] = peak["statuses"]["0"]
    return phase


def pin_command(core: int) -> list[str]:
    """What to put before a command to give it one core; nothing where there is only one."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--wait-s", type=float, default=0.3, help="work the connections hold")
    parser.add_argument("--favoured", action="store_true", help="before everybody else's")
    asked = parser.parse_args()
    began = time.monotonic()
    found = measure_overload(asked.seconds, asked.wait_s, asked.favoured)
    load = found.overload
    for peak in found.peaks:
        print(f"peak        {peak.per_s:8,.0f}/s {peak.per_cpu_s:8,.0f} a CPU second")
    print(f"at 10 x     {load.per_s:8,.0f}/s {load.per_cpu_s:8,.0f} a CPU second")
    print(f"goodput     {found.goodput:8.1%}   {found.goodput_a_cpu_s:8.1%}")
    for name, group in load.groups.items():
        print(
            f"{name:11} {load.share(name):8.2%} of {group['calls_due']}, {group['answer_ms']} ms, "
            f"refused {group['refusal_ms']} ms, statuses {group['statuses']}, "
            f"given up unsent {group['given_up_unsent']}"
        )
    calm = found.after.share("after")
    print(f"normal again after {found.recovered_s} s ({calm:.2%} of half the peak answered)")
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
