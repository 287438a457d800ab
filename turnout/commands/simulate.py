"""`turnout rollout simulate`: simulated or recorded traffic through the judge."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turnout.cli.context import CommandContext
from turnout.errors import OperatorError, UsageError
from turnout.views.terminal import terminal, text_table

if TYPE_CHECKING:
    from rollout.simulation.simulate import JudgeResult

RESULT_COLUMNS = ("judge", "verdict", "after", "candidate's calls", "reason")


def simulate(
    ctx: typer.Context,
    scenario: Annotated[
        str, typer.Argument(help="Name of a scenario. Without it: list the scenarios.")
    ] = "",
    rate: Annotated[float, typer.Option(min=0.0, help="Calls a second of both arms.")] = 100.0,
    share_bp: Annotated[
        int, typer.Option(min=1, max=9_999, help="The candidate's share, in basis points.")
    ] = 500,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each rollout.")] = 3_600,
    runs: Annotated[
        int, typer.Option(min=1, help="Number of rollouts. Several are shown as medians.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the first rollout.")] = 1,
    journal: Annotated[
        str,
        typer.Option(help="Judge the calls recorded in this gateway's folder, failures only."),
    ] = "",
    model: Annotated[str, typer.Option(help="With --journal: the model.")] = "",
    version: Annotated[str, typer.Option(help="With --journal: the canary's label.")] = "",
) -> None:
    """Judge simulated or recorded traffic; show whether and when the canary is rolled back."""
    from journal.served import read_served_batches
    from rollout.simulation.recorded import replay_journal
    from rollout.simulation.simulate import judge_ticks, simulate_canary, single_share_policy
    from rollout.simulation.streams import SCENARIOS

    context: CommandContext = ctx.obj
    policy = single_share_policy(share_bp)
    if journal:
        # Recorded traffic: judge the calls of one canary again.
        if not (model and version):
            raise UsageError("--journal needs --model and --version: the canary to judge")
        batches = read_served_batches(Path(journal))
        ticks = list(replay_journal(batches, model, version, share_bp / 10_000))
        if not ticks:
            raise OperatorError(
                f"{journal} has no call that version {version} of {model!r} answered as canary"
            )
        _print_results(context, [judge_ticks(ticks, policy)])
    elif not scenario:
        # No scenario: list the scenarios.
        described = {known.name: known.description for known in SCENARIOS.values()}
        terminal(context.json).result(
            described, text_table(("scenario", "what happens"), list(described.items()))
        )
    elif scenario not in SCENARIOS:
        raise OperatorError(f"there is no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    else:
        # Simulated traffic: judge each rollout with a seed of its own.
        simulated = replace(SCENARIOS[scenario], calls_a_second=rate)
        results: list[JudgeResult] = []
        with terminal(context.json).progress() as progress:
            task = progress.add_task(simulated.description, total=runs, note="")
            for run_seed in range(seed, seed + runs):
                results.append(simulate_canary(simulated, policy, run_seed, seconds))
                progress.update(task, completed=len(results), note=f"{len(results)} of {runs}")
        _print_results(context, results)


def _print_results(context: CommandContext, results: "list[JudgeResult]") -> None:
    """Print one line that summarises all rollouts."""
    from rollout.simulation.simulate import summarise_results

    summary = summarise_results(results)
    row = (
        summary.judge,
        summary.verdict_text,
        f"{summary.second:,.0f} s",
        f"{summary.calls:,.0f}",
        summary.reason,
    )
    terminal(context.json).result([asdict(summary)], text_table(RESULT_COLUMNS, [row]))
