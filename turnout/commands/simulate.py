"""`turnout rollout simulate`: one stream through this judge and through other tools' beside it."""

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from turnout.cli.context import CommandContext
from turnout.errors import OperatorError, UsageError
from turnout.views.terminal import terminal, text_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protos.journal_pb2 import ServedBatch
    from rollout.simulation.simulate import JudgeResult
    from rollout.simulation.streams import Scenario

RESULT_COLUMNS = ("judge", "verdict", "after", "candidate's calls", "because")


def simulate(
    ctx: typer.Context,
    scenario: Annotated[str, typer.Argument(help="By name; empty: list them.")] = "",
    rate: Annotated[float, typer.Option(min=0.0, help="Calls a second, both arms.")] = 100.0,
    share_bp: Annotated[int, typer.Option(min=1, max=9_999, help="The candidate's.")] = 500,
    seconds: Annotated[int, typer.Option(min=1, help="How long is looked.")] = 3_600,
    runs: Annotated[int, typer.Option(min=1, help="Rollouts; with several, medians.")] = 1,
    seed: Annotated[int, typer.Option(help="The first run's.")] = 1,
    journal: Annotated[
        str, typer.Option(help="Instead: a gateway's folder; judges failures only.")
    ] = "",
    model: Annotated[str, typer.Option(help="With --journal.")] = "",
    version: Annotated[str, typer.Option(help="With --journal: the canary's label.")] = "",
) -> None:
    """Play made-up or recorded traffic; show which judge would have rolled back, and when."""
    from rollout.simulation.recorded import replay_journal
    from rollout.simulation.simulate import (
        judge_ticks,
        judge_with_others,
        simulate_canary,
        single_share_policy,
    )
    from rollout.simulation.streams import SCENARIOS, TrafficStream

    asked: CommandContext = ctx.obj
    if journal:
        if not (model and version):
            raise UsageError("--journal needs --model and --version: whose canary to judge")
        ticks = list(
            replay_journal(_recorded_calls(Path(journal)), model, version, share_bp / 10_000)
        )
        if not ticks:
            raise OperatorError(
                f"no call that version {version} of {model!r} answered as canary is in {journal}"
            )
        _print_results(
            asked, [[judge_ticks(ticks, single_share_policy(share_bp)), *judge_with_others(ticks)]]
        )
    elif not scenario:
        told = {one.name: one.description for one in SCENARIOS.values()}
        terminal(asked.json).result(
            told, text_table(("scenario", "what happens"), list(told.items()))
        )
    elif scenario not in SCENARIOS:
        raise OperatorError(f"no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    else:
        played: Scenario = replace(SCENARIOS[scenario], calls_a_second=rate)
        screen = terminal(asked.json)
        found: list[list[JudgeResult]] = []
        with screen.progress() as progress:
            task = progress.add_task(played.description, total=runs, note="")
            for run in range(seed, seed + runs):
                stream = TrafficStream(played, share_bp / 10_000, run)
                ours = simulate_canary(played, single_share_policy(share_bp), run, seconds)
                found.append([ours, *judge_with_others(stream.seconds_of_traffic(seconds))])
                progress.update(task, completed=len(found), note=f"{len(found)} of {runs}")
        _print_results(asked, found)


def _recorded_calls(folder: Path) -> "Iterator[ServedBatch]":
    from journal.reader import JournalReader
    from journal.segment import JournalKind
    from protos.journal_pb2 import ServedBatch

    for journal in sorted({folder, *folder.rglob("journal")}):
        for payload, _ in JournalReader(journal, JournalKind.SERVED):
            yield ServedBatch.FromString(payload)


def _print_results(context: CommandContext, results: "list[list[JudgeResult]]") -> None:
    """One line a judge, over all runs."""
    rows: list[tuple[str, ...]] = []
    value = []
    for of_judge in zip(*results, strict=True):
        back = [one for one in of_judge if one.verdict == "rolled back"]
        shown = back or list(of_judge)
        verdict = shown[0].verdict
        if len(of_judge) > 1:
            verdict = f"{len(back)} of {len(of_judge)} rolled back"
        after, calls = median(one.second for one in shown), median(one.calls for one in shown)
        rows.append((shown[0].judge, verdict, f"{after:,.0f} s", f"{calls:,.0f}", shown[0].reason))
        value.append(
            {
                "judge": shown[0].judge,
                "runs": len(of_judge),
                "rolled_back": len(back),
                "verdict": shown[0].verdict,
                "second": after,
                "calls": calls,
                "reason": shown[0].reason,
            }
        )
    terminal(context.json).result(value, text_table(RESULT_COLUMNS, rows))
