"""Is the judge sure, fast and right? Each bar of the rollback controller, with fixed seeds.

    python -m benchmarks.judging.judge_bench          # every bar, in full: about half an hour
    python -m benchmarks.judging.judge_bench --only aa --rollouts 1000
    python -m benchmarks.judging.judge_bench --only finds --runs 50 --peers --json found.json

Bars: aa, ramp, sticky, stalls, finds, promotes, absences, both-bad, exact. Exit code 1: one was
missed.
Not here, because they need a running gateway: live A/A (benchmarks/judging/live_aa.py) and the
drills (tests/walks/system/test_drill.py).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.judging import detection as finds
from benchmarks.judging import false_alarms as alarms
from benchmarks.judging.stalls import stalled
from rollout.policy.policy import STANDARD
from rollout.policy.stages import Stage
from rollout.simulation.simulate import at_share
from rollout.simulation.streams import SCENARIOS

LOOKS = 3_600
ALARMS_MAX = 0.01
DRIFT_MAX = 1e-9
COST_US_MAX = 20.0
STICKY_ROLLOUTS_MAX = 1_000
RAMP_ROLLOUTS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Line:
    """One measured number beside what was promised."""

    bar: str
    what: str
    measured: str
    promised: str
    held: bool | None
    """None: shown to compare, nothing was promised."""
    value: Any = None


class Bench:
    """All bars under one set of options."""

    def __init__(self, asked: argparse.Namespace, progress: Progress) -> None:
        self._asked = asked
        self._progress = progress
        self.bars: dict[str, Callable[[], Iterator[Line]]] = {
            "aa": self.aa,
            "ramp": self.ramp,
            "sticky": self.sticky,
            "stalls": self.stalls,
            "finds": self.finds,
            "promotes": self.promotes,
            "absences": self.absences,
            "both-bad": self.both_bad,
            "exact": self.exact,
        }

    @contextmanager
    def _shown(self, what: str) -> Iterator[Callable[[float], None]]:
        task = self._progress.add_task(what, total=1.0)
        try:
            yield lambda done: self._progress.update(task, completed=done)
        finally:
            self._progress.remove_task(task)

    def aa(self) -> Iterator[Line]:
        """Healthy rollouts, looked at each second for an hour."""
        asked = self._asked
        policy = at_share(finds.SHARE_BP)
        with self._shown(f"A/A, {asked.rollouts:,} rollouts") as progress:
            told = alarms.healthy(
                policy, alarms.STEADY, asked.rollouts, LOOKS, asked.seed, progress
            )
        yield from _alarm_lines("aa", told)

    def ramp(self) -> Iterator[Line]:
        """The same while the share grows and both arms get worse."""
        asked = self._asked
        rollouts = min(asked.rollouts, RAMP_ROLLOUTS_MAX)
        with self._shown(f"ramp A/A, {rollouts:,} rollouts") as progress:
            told = alarms.healthy(
                at_share(finds.SHARE_BP), alarms.CLIMB, rollouts, LOOKS, asked.seed, progress
            )
        yield from _alarm_lines("ramp", told)

    def sticky(self) -> Iterator[Line]:
        """A few customers fail often, and stay in their arm."""
        rollouts = min(self._asked.rollouts, STICKY_ROLLOUTS_MAX)
        for workers in (1, 2, 4, 8, 16):
            with self._shown(f"sticky A/A, {workers} workers"):
                told = alarms.sticky(workers, rollouts, LOOKS, self._asked.seed)
            once = told.once_a_rollout / rollouts
            yield Line(
                "sticky",
                f"{workers} workers, a key once a rollout",
                f"{once:.2%} of {rollouts:,}",
                f"<= {ALARMS_MAX:.0%}",
                once <= ALARMS_MAX,
                asdict(told),
            )
            worker = told.once_a_worker / rollouts
            yield Line(
                "sticky",
                f"{workers} workers, a key once a worker; every call",
                f"{worker:.2%}; {told.every_call / rollouts:.2%}",
                "> 5 % at 16 workers" if workers == 16 else "",
                worker > 0.05 if workers == 16 else None,
            )

    def stalls(self) -> Iterator[Line]:
        """A host that holds up one arm's run of a batch now and then."""
        rollouts = min(self._asked.rollouts, STICKY_ROLLOUTS_MAX)
        for calls in (1, 5, 20, 100):
            with self._shown(f"stalls, batches of {calls}"):
                told = stalled(calls, rollouts, LOOKS, self._asked.seed)
            yield Line(
                "stalls",
                f"batches of {calls}, a batch weighs one (a call weighs one)",
                f"{told.by_batch / rollouts:.2%} of {rollouts:,} ({told.by_call / rollouts:.1%})",
                f"<= {ALARMS_MAX:.0%}",
                told.by_batch <= ALARMS_MAX * rollouts,
                asdict(told),
            )

    def finds(self) -> Iterator[Line]:
        """Each bad candidate, and how many calls it got."""
        asked = self._asked
        for scenario, calls_max in finds.BARS.items():
            with self._shown(scenario) as progress:
                told = finds.find(scenario, asked.runs, asked.seed, progress)
            yield Line(
                "finds",
                SCENARIOS[scenario].words,
                _found_words(told),
                f"median <= {calls_max:,}, all found",
                told.median_calls <= calls_max and told.found == told.runs,
                asdict(told),
            )
            if not asked.peers:
                continue
            with self._shown(f"{scenario}, other judges") as progress:
                for one in finds.find_beside(scenario, min(asked.runs, 20), asked.seed, progress):
                    yield Line("finds", f"  {one.judge}", _found_words(one), "", None, asdict(one))

    def promotes(self) -> Iterator[Line]:
        """A candidate without a failure, under the standard policy."""
        with self._shown("promotes"):
            played, foretold = finds.promoted(self._asked.seed)
        done = played.place.stage == Stage.DONE
        yield Line(
            "promotes",
            f"no failure in either arm, policy {STANDARD.name}",
            f"{played.place.stage.name} after {played.second:,} s",
            f"DONE in the foretold {foretold:,.0f} s, + 2 %",
            done and played.second <= 1.02 * foretold,
        )

    def absences(self) -> Iterator[Line]:
        """Nothing to judge by: neither back nor on."""
        for what, played in finds.absences(self._asked.seed, LOOKS):
            stayed = len(played.steps) == 1
            held = played.holds[0] if played.holds else "undecided"
            yield Line(
                "absences",
                what,
                f"{played.place.stage.name} for {played.second:,} s; {held}",
                "stays",
                stayed,
            )

    def both_bad(self) -> Iterator[Line]:
        """Both arms begin to fail on 5 % after a minute."""
        runs = 4 * self._asked.runs
        with self._shown("both arms fail") as progress:
            back, held = finds.both_bad(runs, self._asked.seed, 600, progress)
        yield Line(
            "both-bad",
            "errors .1 -> 5 % in both arms",
            f"{back} of {runs} rolled back, {held} held",
            "<= 1 % back, HOLD raised",
            back <= ALARMS_MAX * runs and held == runs - back,
        )

    def exact(self) -> Iterator[Line]:
        """One evidence, however it is cut and resumed; what it costs."""
        seed = self._asked.seed
        for what, gap in (
            ("the same records over 2, 5, 16 gateways", finds.merge_gap(seed, 120)),
            ("killed and resumed every 10 s", finds.resume_gap(seed, 120)),
        ):
            promised = f"|ln E| within {DRIFT_MAX:g}"
            yield Line("exact", what, f"{gap:.1e}", promised, gap < DRIFT_MAX, gap)
        log_e = finds.billion()
        finite = float("-inf") < log_e < float("inf")
        yield Line("exact", "a billion calls", f"ln E = {log_e:.3e}", "finite", finite, log_e)
        cost = finds.cost(seed=seed)
        yield Line(
            "exact",
            "CPU a metric and window, 100 records a window",
            _cost_words(cost),
            f"<= {COST_US_MAX:g} us",
            cost.median <= COST_US_MAX,
            asdict(cost),
        )
        told = finds.cost(seed=seed, batches_told=True)
        what = "  with the batch of each latency, as gateways tell it"
        yield Line("exact", what, _cost_words(told), "", None, asdict(told))


def _alarm_lines(bar: str, told: alarms.Alarms) -> Iterator[Line]:
    part = told.any / told.rollouts
    by_metric = ", ".join(f"{name} {hit}" for name, hit in told.by_metric.items() if hit)
    yield Line(
        bar,
        f"{told.rollouts:,} healthy rollouts x {LOOKS:,} looks, all metrics",
        f"{part:.2%} rolled back ({by_metric or 'none'})",
        f"<= {ALARMS_MAX:.0%}",
        part <= ALARMS_MAX,
        asdict(told),
    )
    for name, hit in told.pooled.items():
        yield Line(bar, f"  {name}", f"{hit / told.rollouts:.1%}", "", None)


def _cost_words(cost: finds.Cost) -> str:
    return (
        f"median {cost.median:.1f} us, nine in ten {cost.low:.1f} to {cost.high:.1f}, mean "
        f"{cost.mean:.1f}; by the clock {cost.wall:.1f}"
    )


def _found_words(told: finds.Found) -> str:
    calls = f"median {told.median_calls:,.0f}, p90 {told.p90_calls:,.0f}" if told.found else "never"
    soon = f", {told.too_soon} too soon" if told.too_soon else ""
    return f"{calls}; {told.found} of {told.runs} found{soon}"


def shown(lines: list[Line]) -> Table:
    """Return what was measured, for people."""
    table = Table(box=None, pad_edge=False)
    for column in ("bar", "what", "measured", "promised", ""):
        table.add_column(column, overflow="fold")
    marks = {True: "[green]held", False: "[bold red]missed", None: ""}
    for line in lines:
        table.add_row(line.bar, line.what, line.measured, line.promised, marks[line.held])
    return table


def main() -> None:
    """Run the bars that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], help="a bar; may be repeated")
    parser.add_argument("--seed", type=int, default=20_260, help="fresh: any other number")
    parser.add_argument("--rollouts", type=int, default=10_000, help="for aa; ramp 2,000 at most")
    parser.add_argument("--runs", type=int, default=100, help="a scenario to be found")
    parser.add_argument("--peers", action="store_true", help="other judges beside, 20 runs each")
    parser.add_argument("--json", type=Path, default=None, help="write every number there")
    asked = parser.parse_args()
    aside = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    lines: list[Line] = []
    began = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=aside, transient=True) as progress:
        bench = Bench(asked, progress)
        unknown = set(asked.only) - set(bench.bars)
        if unknown:
            parser.error(f"no bar {', '.join(sorted(unknown))}; there are {', '.join(bench.bars)}")
        for name in asked.only or bench.bars:
            for line in bench.bars[name]():
                lines.append(line)
                progress.print(f"{line.bar}: {line.what}: {line.measured}", highlight=False)
    Console(width=None if sys.stdout.isatty() else 160).print(shown(lines))
    took_s = time.monotonic() - began
    Console().print(f"{took_s:,.0f} s, seed {asked.seed}")
    if asked.json is not None:
        told = {
            "seed": asked.seed,
            "took_s": round(took_s),
            "lines": [asdict(one) for one in lines],
        }
        asked.json.write_text(json.dumps(told, indent=1))
    sys.exit(any(line.held is False for line in lines))


if __name__ == "__main__":
    main()
