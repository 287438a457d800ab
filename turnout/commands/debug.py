"""`turnout debug`: shows what is inside a running system, for its developers and operators."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from turnout.cli.context import CommandContext
from turnout.errors import NotReachableError, OperatorError
from turnout.processes.supervisor_pages import read_statistics
from turnout.processes.system_file import read_system_file
from turnout.views.terminal import terminal, text_table

app = typer.Typer(help="Show what is inside a running system.", no_args_is_help=True)


@app.callback()
def debug() -> None:
    """Show what is inside a running system."""


@app.command("workers")
def workers(
    ctx: typer.Context,
    slot: Annotated[
        int | None, typer.Option(min=0, help="Show the worker in this slot only.")
    ] = None,
    part: Annotated[
        str, typer.Option(help="Show this part only, such as pipeline, recorder or loader.")
    ] = "",
) -> None:
    """Show a snapshot of each gateway worker: its queues, caches and counters.

    The numbers are at most a few seconds old. They are for reading, and their names may change;
    alerts belong on /metrics.
    """
    context: CommandContext = ctx.obj
    addresses = read_system_file(context.running_folder())
    if addresses is None:
        raise NotReachableError(f"no system runs in {context.folder}; start one with `turnout up`")
    # Leave out the parts that were not requested. Raise an error when no part is left.
    snapshots = [row for row in read_statistics(addresses) if slot is None or row["slot"] == slot]
    if not snapshots:
        raise OperatorError(
            "no worker has sent a snapshot yet; workers send one each second"
            if slot is None
            else f"no worker in slot {slot} has sent a snapshot; `turnout debug workers` shows all"
        )
    if part:
        snapshots = [_only_part(row, part) for row in snapshots]
    terminal(context.json).result(snapshots, statistics_table(snapshots))


def statistics_table(snapshots: list[dict[str, Any]]) -> Any:  # noqa: ANN401  a rich renderable
    """Return one row for each value, one column for each worker.

    snapshots  rows of the /statistics page. A value that a worker does not have is shown as `-`.
    """
    columns = [dict(_flat_values(row["statistics"])) for row in snapshots]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, *(_text(column.get(name)) for column in columns)) for name in names]
    return text_table(("value", *map(_worker_title, snapshots)), rows)


def _worker_title(row: Mapping[str, Any]) -> str:
    place = "spare" if row["slot"] is None else f"slot {row['slot']}"
    return f"{place} (pid {row['pid']})"


def _only_part(row: dict[str, Any], part: str) -> dict[str, Any]:
    """Return *row* with the statistics of *part* only; raise OperatorError when it has none."""
    statistics = row["statistics"]
    if part not in statistics:
        raise OperatorError(
            f"worker {row['pid']} has no part {part!r}; it has {', '.join(sorted(statistics))}"
        )
    return {**row, "statistics": {part: statistics[part]}}


def _flat_values(statistics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in nested mappings as (dotted name, value)."""
    for name, value in statistics.items():
        if isinstance(value, Mapping):
            yield from _flat_values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
