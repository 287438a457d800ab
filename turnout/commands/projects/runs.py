"""`turnout runs`: lists, shows and compares training runs, and prints their logs."""

import asyncio
import datetime as dt
import json
from typing import Annotated, Any

import typer

from protos import registry_pb2 as pb
from turnout.cli import clients
from turnout.cli.arguments import Model, Reason
from turnout.cli.context import CommandContext
from turnout.training_runs.waiting_runs import waiting_runs
from turnout.views.cards import metric_lines
from turnout.views.proposals import decay_text, interval, proposal_json, proposal_lines
from turnout.views.runs import differences, duration, run_json, run_result, state_name
from turnout.views.terminal import named_values, terminal, text_table

app = typer.Typer(
    help="List, show and compare training runs; queue and cancel them; print their logs.",
    no_args_is_help=True,
)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or 8 digits of it.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Only runs of this model.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most runs that are listed.")] = 30,
    proposals: Annotated[
        bool,
        typer.Option("--proposals", help="Only versions that nobody has approved or rejected yet."),
    ] = False,
) -> None:
    """List training runs, newest first: also those that failed, and those that run now."""
    context: CommandContext = ctx.obj
    if proposals:
        _list_proposals(context, model, limit)
        return

    async def read() -> list[pb.Run]:
        async with clients.open_registry(context) as client:
            return await client.list_runs(model, limit)

    runs = asyncio.run(read())
    # People see a table, scripts get every field but inputs and results.
    columns = ("run", "model", "state", "result", "cause", "by", "begun", "took")
    rows = [
        (
            run.id[:8],
            f"{run.model}/{run.setting}",
            state_name(run),
            run_result(run),
            run.cause,
            run.actor,
            _local_time(run.begun_unix_ms or run.queued_unix_ms),
            duration(run),
        )
        for run in runs
    ]
    # A new system has no runs.
    screen = terminal(context.json)
    screen.result([run_json(run, whole=False) for run in runs], text_table(columns, rows))
    if not runs:
        screen.hint("There is no run yet. Next: turnout train MODEL")


def _list_proposals(context: CommandContext, model: str, limit: int) -> None:
    """List the versions that runs made and that wait for a decision, with their evidence."""

    async def read() -> list[pb.Run]:
        async with clients.open_registry(context) as client:
            return await waiting_runs(client, model, limit)

    values = [proposal_json(run) for run in asyncio.run(read())]
    columns = ("run", "version", "trigger", "champion", "gain over it", "champion since then")
    rows = [
        (
            value["run"][:8],
            f"{value['model']} {value['version']}",
            value["trigger"],
            str(value["champion"] or "none")[:12],
            interval(value["gain"]),
            decay_text(value["decay"]),
        )
        for value in values
    ]
    screen = terminal(context.json)
    screen.result(values, text_table(columns, rows))
    if values:
        screen.hint(f"Next, by another person: {values[0]['next_step']}")
    else:
        screen.hint("No version waits for a decision.")


@app.command()
def queue(
    ctx: typer.Context,
    model: Model,
    setting: Annotated[
        str, typer.Option(help="The recipe's setting, when the model has several recipes.")
    ] = "",
    run_key: Annotated[
        str, typer.Option(help="Name of this run: the same name trains no second time.")
    ] = "",
    cause: Annotated[str, typer.Option(help="Why it is trained, for `turnout runs`.")] = "",
) -> None:
    """Ask for a run that a runner takes (`turnout run training`). No schedule's bounds hold."""
    from turnout.cli.projects import load_definitions

    context: CommandContext = ctx.obj

    async def ask() -> pb.BeginRunReply:
        # A recipe that is not there would wait for ever.
        recipe = (await load_definitions(context)).recipe(model, setting)
        async with clients.open_registry(context) as client:
            return await client.queue_run(
                pb.QueueRunRequest(
                    model=model,
                    setting=recipe.setting,
                    key=run_key,
                    cause=cause or f"asked for by {context.actor}",
                )
            )

    # The key may have a run already.
    reply = asyncio.run(ask())
    run, screen = reply.run, terminal(context.json)
    said = "is queued" if reply.begun else f"has this key already, and is {state_name(run)}"
    screen.result(run_json(run, whole=False), f"Run {run.id[:8]} of {model}/{run.setting} {said}.")
    screen.hint(f"turnout run training trains it; turnout runs logs {run.id[:8]} -f shows it")


@app.command()
def cancel(ctx: typer.Context, run: RunId, reason: Reason) -> None:
    """End a run that waits or trains now. Its trainer stops at its next step."""
    context: CommandContext = ctx.obj

    async def end() -> pb.Run:
        async with clients.open_registry(context) as client:
            return await client.cancel_run(run, reason)

    ended = asyncio.run(end())
    terminal(context.json).result(
        run_json(ended, whole=False), f"Run {ended.id[:8]} of {ended.model} is cancelled."
    )


@app.command()
def show(ctx: typer.Context, run: RunId) -> None:
    """Show one run: why it ran, what it was made from, each number of its gate, what came of it."""
    context: CommandContext = ctx.obj
    found = asyncio.run(_get_runs(context, run))[0]
    value = run_json(found, whole=True)
    inputs, result = value["inputs"], value["result"]
    shown = {
        "run": f"{found.id} ({state_name(found)})",
        "key": found.key if found.key != found.id else "-",
        "model": f"{found.model}/{found.setting}",
        "cause": f"{found.cause}, by {found.actor}",
        "queued": _local_time(found.queued_unix_ms) if found.queued_unix_ms else "-",
        "begun": _begun(found),
        "took": duration(found),
        "commit": inputs.get("commit", "-"),
        "recipe": str(inputs.get("recipe_sha256", "-"))[:12],
        **{name: line for name, line in proposal_lines(found).items() if name != "run"},
        "result": run_result(found) or "-",
        **_measured(result),
    }
    checks = [
        ("passed" if check["passed"] else "FAILED", check["name"], check["text"])
        for check in result.get("gate", [])
    ]
    screen = terminal(context.json)
    screen.result(value, named_values(shown), text_table(("gate", "check", "numbers"), checks))
    screen.hint(f"Its log: turnout runs logs {found.id[:8]}")


@app.command()
def compare(ctx: typer.Context, run: RunId, other: RunId) -> None:
    """Show in what two runs differ: recipe, data, packages, metrics, seconds."""
    context: CommandContext = ctx.obj
    pair = asyncio.run(_get_runs(context, run, other))
    first, second = (
        {"state": state_name(one), "setting": one.setting, **_contents(one)} for one in pair
    )
    found = differences(first, second)
    value = [{"field": field, "first": left, "second": right} for field, left, right in found]
    columns = ("field", pair[0].id[:8], pair[1].id[:8])
    terminal(context.json).result(value, text_table(columns, found))


@app.command()
def logs(
    ctx: typer.Context,
    run: RunId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
) -> None:
    """Print the log of a run."""
    context: CommandContext = ctx.obj
    screen = terminal(context.json)

    async def copy() -> None:
        # A part may end within a character or a line.
        left = b""
        # With --follow the stream ends with the run.
        async with clients.open_registry(context) as client:
            found = await client.get_run(run)
            async for part in client.read_run_log(found.id, follow=follow):
                *lines, left = (left + part).split(b"\n")
                for line in lines:
                    _print_line(line)
        if left:
            _print_line(left)

    def _print_line(line: bytes) -> None:
        text = line.decode(errors="replace")
        if context.json:
            screen.line({"run": run, "line": text})
        else:
            screen.stdout.print(text, markup=False, highlight=False)

    asyncio.run(copy())


async def _get_runs(context: CommandContext, *ids: str) -> list[pb.Run]:
    async with clients.open_registry(context) as client:
        return [await client.get_run(run_id) for run_id in ids]


def _contents(run: pb.Run) -> dict[str, Any]:
    contents = {**json.loads(run.inputs_json or b"{}"), **json.loads(run.result_json or b"{}")}
    # The inputs have the same recipe, and each difference is told once.
    if "recipe" in contents:
        contents.get("built_from", {}).pop("recipe", None)
    return contents


def _measured(result: dict[str, Any]) -> dict[str, str]:
    """Return the metrics, seconds and memory of a run for display."""
    shown = {name: str(text) for name, text in metric_lines(result, places=4).items()}
    if result.get("seconds"):
        shown["seconds"] = ", ".join(f"{name} {s:.1f}" for name, s in result["seconds"].items())
    if "memory_mb" in result:
        shown["memory"] = f"{result['memory_mb']:,} MB at most"
    return shown


def _begun(run: pb.Run) -> str:
    return f"{_local_time(run.begun_unix_ms)}, attempt {run.attempt}" if run.attempt else "-"


def _local_time(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms / 1000).strftime("%Y-%m-%d %H:%M")  # noqa: DTZ006
