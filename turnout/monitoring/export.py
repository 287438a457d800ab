"""`turnout monitor export`: what monitoring has as Parquet files, for BI tools."""

import asyncio
import datetime as dt
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from host.clock import DAY_S
from host.files import fsync_folder
from turnout.cli import clients
from turnout.cli.arguments import MonitoringAddress, check_new_folder
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError, UsageError
from turnout.monitoring.export_tables import (
    TABLES,
    Row,
    alarm_row,
    cell_row,
    figure_row,
    incident_row,
)
from turnout.views.terminal import terminal, text_table

DAY_HOURS = 24
EPOCH = dt.date(1970, 1, 1)
DAYS = 91
"""Days that are exported when --since is not given."""
INCIDENTS_MAX = 1_000_000
WITHOUT_DUCKDB = (
    "Parquet files are written by DuckDB, which is not installed: pip install 'turnout[training]' "
    "beside turnout[control]"
)


@dataclass(frozen=True, slots=True)
class ExportDays:
    """Unix days from the first to the last."""

    first: int
    last: int


def export_files(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A new folder for the files.")],
    since: Annotated[
        str, typer.Option(help="First day (UTC). Default: 90 days before the last.")
    ] = "",
    until: Annotated[str, typer.Option(help="Last day (UTC). Default: today.")] = "",
    monitoring: MonitoringAddress = "",
) -> None:
    """Write figures, alarms, cells and incidents as Parquet files into a new folder.

    The folder is there with all files or not at all. docs/review.md has the columns.
    """
    # What cannot be written is refused before anything is read.
    context: CommandContext = ctx.obj
    days = export_days(since, until, int(time.time()) // DAY_S)
    if find_spec("duckdb") is None:
        raise OperatorError(WITHOUT_DUCKDB)
    check_new_folder("FOLDER", folder)
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"the folder {folder.absolute().parent} does not exist; make it first")
    # Files are made beside, and get their name together.
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
    try:
        rows, notes = asyncio.run(_write_rows(context, beside, days, monitoring))
        _write_parquet(beside)
        beside.chmod(0o777 & ~_umask())
        beside.rename(folder)
        fsync_folder(folder.absolute().parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    # What is in it.
    files = [{"file": f"{name}.parquet", "rows": count} for name, count in rows.items()]
    screen = terminal(context.json)
    value = {"folder": str(folder), "files": files, "notes": notes}
    screen.result(value, text_table(("file", "rows"), [list(file.values()) for file in files]))
    for note in notes:
        screen.hint(f"Note: {note}.")
    screen.hint(f"Written: {folder}. DuckDB reads it: SELECT * FROM '{folder}/figures.parquet'")


def export_days(since: str, until: str, today: int) -> ExportDays:
    """Return the days of an export. Raises UsageError for what is no date, and no day at all."""
    last = _unix_day(until, "--until") if until else today
    first = _unix_day(since, "--since") if since else last - DAYS + 1
    if first > last:
        raise UsageError(
            f"the export begins on {EPOCH + dt.timedelta(first)} and ends on "
            f"{EPOCH + dt.timedelta(last)}; give a --since that is not after --until"
        )
    return ExportDays(first, last)


def _unix_day(text: str, option: str) -> int:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is no date; write it as 2026-11-30") from error
    return (day - EPOCH).days


@dataclass(slots=True)
class _JsonLines:
    """Writes rows of tables as lines of JSON, which DuckDB reads in blocks."""

    files: dict[str, TextIO]
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))

    def add(self, table: str, rows: Iterable[Row]) -> None:
        for row in rows:
            line = {column: row[column] for column in TABLES[table]}
            self.files[table].write(json.dumps(line) + "\n")
            self.rows[table] += 1

    async def add_stream(
        self, table: str, items: AsyncIterator[Any], row_of: Callable[[Any], Row]
    ) -> None:
        async for item in items:
            self.add(table, (row_of(item),))


async def _write_rows(
    context: CommandContext, folder: Path, days: ExportDays, monitoring: str
) -> tuple[dict[str, int], list[str]]:
    """Read everything into lines of JSON; return table -> rows, and what was left out."""
    with ExitStack() as stack:
        lines = _JsonLines(
            {
                name: stack.enter_context((folder / f"{name}.json").open("w", encoding="utf-8"))
                for name in TABLES
            }
        )
        # Monitoring: a day at a time, so that memory is bounded.
        async with clients.open_monitoring(context, monitoring) as client:
            for day in range(days.first, days.last + 1):
                lines.add("figures", map(figure_row, await client.figures(day, day + 1)))
            alarms = await client.alarms(days.first * DAY_S, (days.last + 1) * DAY_S)
            lines.add("alarms", map(alarm_row, alarms))
            hours = days.first * DAY_HOURS, (days.last + 1) * DAY_HOURS
            await lines.add_stream("cells", client.cells(*hours), cell_row)
            notes = client.notes
        # The registry has the incidents, as the history proves them.
        async with clients.open_registry(context) as registry:
            incidents = await registry.list_incidents(limit=INCIDENTS_MAX)
        begin, end = days.first * DAY_S * 1_000, (days.last + 1) * DAY_S * 1_000
        opened = [item for item in incidents if begin <= item.opened_unix_ms < end]
        lines.add("incidents", map(incident_row, opened))
    return lines.rows, notes


def _write_parquet(folder: Path) -> None:
    """Make each table's lines of JSON a Parquet file, which is durable, in place of them."""
    from features.storage.database import open_duckdb

    with open_duckdb() as connection:
        for name, columns in TABLES.items():
            lines, file = folder / f"{name}.json", folder / f"{name}.parquet"
            types = ", ".join(f"{column!r}: {kind!r}" for column, (kind, _) in columns.items())
            connection.execute(
                f"COPY (SELECT * FROM read_json({_quoted(lines)}, format = 'newline_delimited', "
                f"columns = {{{types}}}, maximum_object_size = 67108864)) "
                f"TO {_quoted(file)} (FORMAT parquet, COMPRESSION zstd)"
            )
            lines.unlink()
            with file.open("rb") as written:
                os.fsync(written.fileno())


def _quoted(path: Path) -> str:
    """Return a path as a text in SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def _umask() -> int:
    """Return this process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
