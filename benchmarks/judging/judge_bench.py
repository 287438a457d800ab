"""Measures each promise of the rollback controller's judge, with fixed seeds.

    python -m benchmarks.judging.judge_bench          # every bar, in full: about half an hour
    python -m benchmarks.judging.judge_bench --only aa --rollouts 1000
    python -m benchmarks.judging.judge_bench --only finds --runs 50 --other-judges --json found.json

The bars are aa, ramp, sticky, stalls, finds, promotes, absences, both-bad and exact. Exit code 1:
one was missed. Two measurements need a running gateway and are elsewhere: live A/A
(benchmarks/judging/live_aa.py) and the drills (tests/walks/system/test_drill.py).
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
from benchmarks.judging.stalls import count_stall_alarms
from rollout.policy.policy import STANDARD
from rollout.policy.stages import Stage
from rollout.simulation.simulate import single_share_policy
from rollout.simulation.streams import SCENARIOS

LOOKS_PER_ROLLOUT = 3_600
ALARMS_MAX = 0.01
DRIFT_MAX = 1e-9
COST_US_MAX = 20.0
STICKY_ROLLOUTS_MAX = 1_000
RAMP_ROLLOUTS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class BarResult:
    """One measured number, and the bound that was promised."""

    bar: str
    subject: str
    measured: str
    promised: str
    passed: bool | None
    """None: shown for comparison; nothing was promised."""
    value: Any = None


class JudgeBench:
    """Runs the bars under one set of options."""

    def __init__(self, arguments: argparse.Namespace, progress: Progress) -> None:
        self._arguments = arguments
        self._progress = progress
        self.bars: dict[str, Callable[[], Iterator[BarResult]]] = {
            "aa": self.healthy_rollouts,
            "ramp": self.ramp,
            "sticky": self.sticky,
            "stalls": self.stalls,
            "finds": self.bad_candidates,
            "promotes": self.promotes,
            "absences": self.missing_data,
            "both-bad": self.both_bad,
            "exact": self.exact_evidence,
        }

    @contextmanager
    def _progress_for(self, what: str) -> Iterator[Callable[[float], None]]:
        task = self._progress.add_task(what, total=1.0)
        try:
            yield lambda done: self._progress.update(task, completed=done)
        finally:
            self._progress.remove_task(task)

    def healthy_rollouts(self) -> Iterator[BarResult]:
        """False rollbacks of healthy rollouts, judged each second for an hour."""
        arguments = self._arguments
        policy = single_share_policy(finds.SHARE_BP)
        with self._progress_for(f"A/A, {arguments.rollouts:,} rollouts") as progress:
            counts = alarms.count_false_alarms(
                policy,
                alarms.STEADY_RAMP,
                arguments.rollouts,
                LOOKS_PER_ROLLOUT,
                arguments.seed,
                progress,
            )
        yield from _alarm_lines("aa", counts)

    def ramp(self) -> Iterator[BarResult]:
        """False rollbacks while the share grows and both arms get worse."""
        arguments = self._arguments
        rollouts = min(arguments.rollouts, RAMP_ROLLOUTS_MAX)
        with self._progress_for(f"ramp A/A, {rollouts:,} rollouts") as progress:
            counts = alarms.count_false_alarms(
                single_share_policy(finds.SHARE_BP),
                alarms.CLIMBING_RAMP,
                rollouts,
                LOOKS_PER_ROLLOUT,
                arguments.seed,
                progress,
            )
        yield from _alarm_lines("ramp", counts)

    def sticky(self) -> Iterator[BarResult]:
        """False rollbacks when a few customers fail often and stay in their arm."""
        rollouts = min(self._arguments.rollouts, STICKY_ROLLOUTS_MAX)
        for workers in (1, 2, 4, 8, 16):
            with self._progress_for(f"sticky A/A, {workers} workers"):
                counts = alarms.count_sticky_alarms(
                    workers, rollouts, LOOKS_PER_ROLLOUT, self._arguments.seed
                )
            once = counts.once_a_rollout / rollouts
            yield BarResult(
                "sticky",
                f"{workers} workers, a key once a rollout",
                f"{once:.2%} of {rollouts:,}",
                f"<= {ALARMS_MAX:.0%}",
                once <= ALARMS_MAX,
                asdict(counts),
            )
            worker = counts.once_a_worker / rollouts
            yield BarResult(
                "sticky",
                f"{workers} workers, a key once a worker; every call",
                f"{worker:.2%}; {counts.every_call / rollouts:.2%}",
                "> 5 % at 16 workers" if workers == 16 else "",
                worker > 0.05 if workers == 16 else None,
            )

    def stalls(self) -> Iterator[BarResult]:
        """False rollbacks on a host that now and then stalls one arm's run of a batch."""
        rollouts = min(self._arguments.rollouts, STICKY_ROLLOUTS_MAX)
        for calls in (1, 5, 20, 100):
            with self._progress_for(f"stalls, batches of {calls}"):
                counts = count_stall_alarms(
                    calls, rollouts, LOOKS_PER_ROLLOUT, self._arguments.seed
                )
            yield BarResult(
                "stalls",
                f"batches of {calls}, a batch weighs one (a call weighs one)",
                f"{counts.alarms_by_batch / rollouts:.2%} of {rollouts:,} "
                f"({counts.alarms_by_call / rollouts:.1%})",
                f"<= {ALARMS_MAX:.0%}",
                counts.alarms_by_batch <= ALARMS_MAX * rollouts,
                asdict(counts),
            )

    def bad_candidates(self) -> Iterator[BarResult]:
        """Calls that each kind of bad candidate gets until it is rolled back."""
        arguments = self._arguments
        for scenario, calls_max in finds.MEDIAN_CALLS_MAX.items():
            with self._progress_for(scenario) as progress:
                result = finds.detect_with_our_judge(
                    scenario, arguments.runs, arguments.seed, progress
                )
            yield BarResult(
                "finds",
                SCENARIOS[scenario].description,
                _detection_text(result),
                f"median <= {calls_max:,}, all found",
                result.median_calls <= calls_max and result.rollouts_found == result.runs,
                asdict(result),
            )
            if not arguments.other_judges:
                continue
            with self._progress_for(f"{scenario}, other judges") as progress:
                for other in finds.detect_with_other_judges(
                    scenario, min(arguments.runs, 20), arguments.seed, progress
                ):
                    yield BarResult(
                        "finds", f"  {other.judge}", _detection_text(other), "", None, asdict(other)
                    )

    def promotes(self) -> Iterator[BarResult]:
        """The time that a candidate without a failure takes to be promoted, beside the forecast."""
        with self._progress_for("promotes"):
            played, forecast_s = finds.play_to_promotion(self._arguments.seed)
        done = played.position.stage == Stage.DONE
        yield BarResult(
            "promotes",
            f"no failure in either arm, policy {STANDARD.name}",
            f"{played.position.stage.name} after {played.second:,} s",
            f"DONE in the forecast {forecast_s:,.0f} s, + 2 %",
            done and played.second <= 1.02 * forecast_s,
        )

    def missing_data(self) -> Iterator[BarResult]:
        """Rollouts without data to judge by, which must neither go back nor go on."""
        for what, played in finds.play_missing_data(self._arguments.seed, LOOKS_PER_ROLLOUT):
            stayed = len(played.steps) == 1
            hold = played.holds[0] if played.holds else "undecided"
            yield BarResult(
                "absences",
                what,
                f"{played.position.stage.name} for {played.second:,} s; {hold}",
                "stays",
                stayed,
            )

    def both_bad(self) -> Iterator[BarResult]:
        """Rollouts in which both arms begin to fail on 5 % of the calls after a minute."""
        runs = 4 * self._arguments.runs
        with self._progress_for("both arms fail") as progress:
            rolled_back, held = finds.play_both_bad(runs, self._arguments.seed, 600, progress)
        yield BarResult(
            "both-bad",
            "errors .1 -> 5 % in both arms",
            f"{rolled_back} of {runs} rolled back, {held} held",
            "<= 1 % back, HOLD raised",
            rolled_back <= ALARMS_MAX * runs and held == runs - rolled_back,
        )

    def exact_evidence(self) -> Iterator[BarResult]:
        """Differences of the evidence when it is split and resumed, and its CPU cost."""
        # The same records, split over gateways or resumed from checkpoints.
        seed = self._arguments.seed
        for what, gap in (
            ("the same records over 2, 5, 16 gateways", finds.merge_gap(seed, 120)),
            ("killed and resumed every 10 s", finds.resume_gap(seed, 120)),
        ):
            promised = f"|ln E| within {DRIFT_MAX:g}"
            yield BarResult("exact", what, f"{gap:.1e}", promised, gap < DRIFT_MAX, gap)
        # A billion calls.
        log_e = finds.billion_call_log_e()
        finite = float("-inf") < log_e < float("inf")
        yield BarResult("exact", "a billion calls", f"ln E = {log_e:.3e}", "finite", finite, log_e)
        # The cost of a second's records.
        cost = finds.measure_evidence_cost(seed=seed)
        yield BarResult(
            "exact",
            "CPU a metric and window, 100 records a window",
            _cost_text(cost),
            f"<= {COST_US_MAX:g} us",
            cost.median <= COST_US_MAX,
            asdict(cost),
        )
        with_batches = finds.measure_evidence_cost(seed=seed, with_batches=True)
        what = "  with the batch size of each latency, as gateways send it"
        yield BarResult("exact", what, _cost_text(with_batches), "", None, asdict(with_batches))


def _alarm_lines(bar: str, counts: alarms.AlarmCounts) -> Iterator[BarResult]:
    part = counts.any / counts.rollouts
    by_metric = ", ".join(f"{name} {hit}" for name, hit in counts.by_metric.items() if hit)
    yield BarResult(
        bar,
        f"{counts.rollouts:,} healthy rollouts x {LOOKS_PER_ROLLOUT:,} looks, all metrics",
        f"{part:.2%} rolled back ({by_metric or 'none'})",
        f"<= {ALARMS_MAX:.0%}",
        part <= ALARMS_MAX,
        asdict(counts),
    )
    for name, hit in counts.pooled.items():
        yield BarResult(bar, f"  {name}", f"{hit / counts.rollouts:.1%}", "", None)


def _cost_text(cost: finds.EvidenceCost) -> str:
    return (
        f"median {cost.median:.1f} us, nine in ten {cost.low:.1f} to {cost.high:.1f}, mean "
        f"{cost.mean:.1f}; by the clock {cost.wall:.1f}"
    )


def _detection_text(result: finds.DetectionResult) -> str:
    calls = (
        f"median {result.median_calls:,.0f}, p90 {result.p90_calls:,.0f}"
        if result.rollouts_found
        else "never"
    )
    soon = f", {result.too_soon} too soon" if result.too_soon else ""
    return f"{calls}; {result.rollouts_found} of {result.runs} found{soon}"


def bars_table(lines: list[BarResult]) -> Table:
    """Return the bars as a table for a terminal."""
    table = Table(box=None, pad_edge=False)
    for column in ("bar", "what", "measured", "promised", ""):
        table.add_column(column, overflow="fold")
    marks = {True: "[green]held", False: "[bold red]missed", None: ""}
    for line in lines:
        table.add_row(line.bar, line.subject, line.measured, line.promised, marks[line.passed])
    return table


def main() -> None:
    """Run the bars of the command line, print a table, and exit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], help="a bar; may be repeated")
    parser.add_argument("--seed", type=int, default=20_260, help="fresh: any other number")
    parser.add_argument("--rollouts", type=int, default=10_000, help="for aa; ramp 2,000 at most")
    parser.add_argument("--runs", type=int, default=100, help="a scenario to be found")
    parser.add_argument(
        "--other-judges",
        action="store_true",
        help="also run the judges of other tools, 20 runs each",
    )
    parser.add_argument("--json", type=Path, default=None, help="write every number there")
    arguments = parser.parse_args()
    # Run the bars, with their progress on stderr.
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    lines: list[BarResult] = []
    began = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        bench = JudgeBench(arguments, progress)
        unknown = set(arguments.only) - set(bench.bars)
        if unknown:
            parser.error(f"no bar {', '.join(sorted(unknown))}; there are {', '.join(bench.bars)}")
        for name in arguments.only or bench.bars:
            for line in bench.bars[name]():
                lines.append(line)
                progress.print(f"{line.bar}: {line.subject}: {line.measured}", highlight=False)
    # Print and keep what they measured.
    Console(width=None if sys.stdout.isatty() else 160).print(bars_table(lines))
    took_s = time.monotonic() - began
    Console().print(f"{took_s:,.0f} s, seed {arguments.seed}")
    if arguments.json is not None:
        report = {
            "seed": arguments.seed,
            "took_s": round(took_s),
            "lines": [asdict(line) for line in lines],
        }
        arguments.json.write_text(json.dumps(report, indent=1))
    sys.exit(any(line.passed is False for line in lines))


if __name__ == "__main__":
    main()
