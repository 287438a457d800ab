"""Judges the same traffic by our judge and by the decision rules of other tools.

    python -m benchmarks.judging.compare_judges errors-5
    python -m benchmarks.judging.compare_judges slow --rate 30 --share-bp 1000 --runs 20
    python -m benchmarks.judging.compare_judges --journal .turnout/gateway --model churn --version 3

The candidate's share in the journal is given with --share-bp.

`turnout rollout simulate` lists the scenarios. `judge_bench --only finds --other-judges` does this
for all scenarios.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.judging.other_judges import judge_with_others
from journal.served import read_served_batches
from rollout.simulation.recorded import replay_journal
from rollout.simulation.simulate import (
    JudgeResult,
    JudgeSummary,
    judge_ticks,
    simulate_canary,
    single_share_policy,
    summarise_results,
)
from rollout.simulation.streams import SCENARIOS, TrafficStream

COLUMNS = ("judge", "verdict", "after", "candidate's calls", "because")


def judge_scenario(arguments: argparse.Namespace) -> list[list[JudgeResult]]:
    """Return the results of every judge on each run: ours first, then the others."""
    scenario = replace(SCENARIOS[arguments.scenario], calls_a_second=arguments.rate)
    policy = single_share_policy(arguments.share_bp)
    runs = []
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        stream = TrafficStream(scenario, arguments.share_bp / 10_000, seed)
        ours = simulate_canary(scenario, policy, seed, arguments.seconds)
        others = judge_with_others(stream.seconds_of_traffic(arguments.seconds))
        runs.append([ours, *others])
    return runs


def judge_journal(arguments: argparse.Namespace) -> list[list[JudgeResult]]:
    """Return the results of every judge on the calls recorded in a gateway's journal."""
    batches = read_served_batches(Path(arguments.journal))
    share = arguments.share_bp / 10_000
    ticks = list(replay_journal(batches, arguments.model, arguments.version, share))
    if not ticks:
        sys.exit(
            f"no call that version {arguments.version} of {arguments.model!r} answered as canary "
            f"is in {arguments.journal}"
        )
    return [
        [judge_ticks(ticks, single_share_policy(arguments.share_bp)), *judge_with_others(ticks)]
    ]


def results_table(summaries: Sequence[JudgeSummary]) -> Table:
    """Return one row for each judge."""
    table = Table(*COLUMNS)
    for summary in summaries:
        table.add_row(
            summary.judge,
            summary.verdict_text,
            f"{summary.second:,.0f} s",
            f"{summary.calls:,.0f}",
            summary.reason,
        )
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Compare the judges and print a table, or JSON for scripts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", choices=sorted(SCENARIOS))
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second of both arms")
    parser.add_argument("--share-bp", type=int, default=500, help="the candidate's share")
    parser.add_argument("--seconds", type=int, default=3_600, help="length of each run")
    parser.add_argument("--runs", type=int, default=1, help="several runs are shown as medians")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run")
    parser.add_argument("--journal", default="", help="a gateway's folder, instead of a scenario")
    parser.add_argument("--model", default="", help="with --journal")
    parser.add_argument("--version", default="", help="with --journal: the canary's label")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    if arguments.journal and not (arguments.model and arguments.version):
        parser.error("--journal needs --model and --version: the canary to judge")
    if not arguments.journal and arguments.scenario is None:
        parser.error("name a scenario, or a journal with --journal")

    runs = judge_journal(arguments) if arguments.journal else judge_scenario(arguments)
    summaries = [summarise_results(of_judge) for of_judge in zip(*runs, strict=True)]
    if arguments.json:
        print(json.dumps([asdict(summary) for summary in summaries], indent=1))
    else:
        Console().print(results_table(summaries))


if __name__ == "__main__":
    main()
