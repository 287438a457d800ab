"""`turnout rollout simulate`: judges the same traffic by Turnout's and other tools' rules."""

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

RESULT_COLUMNS = ("judge", "verdict", "after", "candidate's calls", "reason")


def simulate(
    ctx: typer.Context,
    scenario: Annotated[
        str, typer.Argument(help="Name of a scenario. Default: list all scenarios.")
    ] = "",
    rate: Annotated[
        float, typer.Option(min=0.0, help="Calls a second, production and candidate together.")
    ] = 100.0,
    share_bp: Annotated[
        int,
        typer.Option(min=1, max=9_999, help="The candidate's share in basis points (500 = 5 %)."),
    ] = 500,
    seconds: Annotated[
        int, typer.Option(min=1, help="Longest simulated rollout, in seconds.")
    ] = 3_600,
    runs: Annotated[
        int, typer.Option(min=1, help="Number of rollouts; of more than one, medians are shown.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of the first rollout.")] = 1,
    journal: Annotated[
        str, typer.Option(help="Judge recorded traffic in this gateway folder; failures only.")
    ] = "",
    model: Annotated[str, typer.Option(help="With --journal: the model's name.")] = "",
    version: Annotated[str, typer.Option(help="With --journal: label of the canary.")] = "",
) -> None:
    """Simulate a rollout; show which judge rolls back, and when.

    The other judges are rules of Flagger, Argo Rollouts, SageMaker and Kayenta.
    """
    # The simulator imports numpy, which `turnout --help` does not need.
    from rollout.simulation.streams import SCENARIOS

    # Recorded traffic, a list of scenarios, or simulated traffic.
    context: CommandContext = ctx.obj
    if journal:
        if not (model and version):
            raise UsageError(
                "--journal needs --model and --version, which name the canary to judge"
            )
        _print_results(context, [_judge_journal(Path(journal), model, version, share_bp)])
    elif not scenario:
        descriptions = {scenario.name: scenario.description for scenario in SCENARIOS.values()}
        terminal(context.json).result(
            descriptions, text_table(("scenario", "what happens"), list(descriptions.items()))
        )
    elif scenario not in SCENARIOS:
        raise OperatorError(f"there is no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    else:
        # Every run has its own seed, so that medians mean something.
        chosen = replace(SCENARIOS[scenario], calls_a_second=rate)
        results = _simulate(context, chosen, share_bp, seconds, range(seed, seed + runs))
        _print_results(context, results)


def _judge_journal(folder: Path, model: str, version: str, share_bp: int) -> "list[JudgeResult]":
    """Return each judge's result on the recorded calls below *folder*."""
    from rollout.simulation.recorded import replay_journal
    from rollout.simulation.simulate import judge_ticks, judge_with_others, single_share_policy

    ticks = list(replay_journal(_recorded_calls(folder), model, version, share_bp / 10_000))
    if not ticks:
        raise OperatorError(
            f"{folder} has no call that version {version} of {model!r} answered as canary"
        )
    return [judge_ticks(ticks, single_share_policy(share_bp)), *judge_with_others(ticks)]


def _simulate(
    context: CommandContext, scenario: "Scenario", share_bp: int, seconds: int, seeds: range
) -> "list[list[JudgeResult]]":
    """Return each judge's result on one simulated rollout for each seed, with a progress bar."""
    from rollout.simulation.simulate import judge_with_others, simulate_canary, single_share_policy
    from rollout.simulation.streams import TrafficStream

    results: list[list[JudgeResult]] = []
    with terminal(context.json).progress() as progress:
        task = progress.add_task(scenario.description, total=len(seeds), note="")
        for seed in seeds:
            stream = TrafficStream(scenario, share_bp / 10_000, seed)
            result = simulate_canary(scenario, single_share_policy(share_bp), seed, seconds)
            results.append([result, *judge_with_others(stream.seconds_of_traffic(seconds))])
            progress.update(task, completed=len(results), note=f"{len(results)} of {len(seeds)}")
    return results


def _recorded_calls(folder: Path) -> "Iterator[ServedBatch]":
    from journal.reader import JournalReader
    from journal.segment import JournalKind
    from protos.journal_pb2 import ServedBatch

    for journal in sorted({folder, *folder.rglob("journal")}):
        for payload, _ in JournalReader(journal, JournalKind.SERVED):
            yield ServedBatch.FromString(payload)


def _print_results(context: CommandContext, results: "list[list[JudgeResult]]") -> None:
    """Print one line for each judge, over all runs: medians of the runs it rolled back, if any."""
    rows: list[tuple[str, ...]] = []
    value = []
    for judge_results in zip(*results, strict=True):
        rolled_back = [result for result in judge_results if result.verdict == "rolled back"]
        shown = rolled_back or list(judge_results)
        verdict = shown[0].verdict
        if len(judge_results) > 1:
            verdict = f"{len(rolled_back)} of {len(judge_results)} rolled back"
        after = median(result.second for result in shown)
        calls = median(result.calls for result in shown)
        rows.append((shown[0].judge, verdict, f"{after:,.0f} s", f"{calls:,.0f}", shown[0].reason))
        value.append(
            {
                "judge": shown[0].judge,
                "runs": len(judge_results),
                "rolled_back": len(rolled_back),
                "verdict": shown[0].verdict,
                "second": after,
                "calls": calls,
                "reason": shown[0].reason,
            }
        )
    terminal(context.json).result(value, text_table(RESULT_COLUMNS, rows))
