"""`turnout monitor`: what monitoring has seen. `turnout run monitoring | journal-reader`."""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from host.clock import HOUR_S
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.monitoring.accept import accept_reference
from turnout.monitoring.export import export_files
from turnout.monitoring.figures import show_alarms, show_budget, show_figures
from turnout.views.incidents import duration_text
from turnout.views.terminal import terminal, text_table

if TYPE_CHECKING:
    from protos import monitoring_pb2 as pb

app = typer.Typer(help="Watch models in service.", no_args_is_help=True)


app.command("figures")(show_figures)
app.command("alarms")(show_alarms)
app.command("budget")(show_budget)
app.command("accept")(accept_reference)
app.command("export")(export_files)


@app.callback()
def _monitor() -> None:
    """Show what monitoring has seen."""


@app.command("status")
def status(
    ctx: typer.Context,
    hours: Annotated[int, typer.Option(min=1, help="Hours up to now.")] = 24,
) -> None:
    """Show what was counted of each version, which share of its traffic that is, and how late.

    rows are those that were counted from journals, and scored those that gateways say they scored.
    A gateway journals the keys that its settings name, so the share may be small on purpose.
    """
    context: CommandContext = ctx.obj
    until = int(time.time()) // HOUR_S + 1
    found = asyncio.run(_read_status(context, until - hours, until))
    screen = terminal(context.json)
    screen.result(status_json(found), status_tables(found))
    for reader in found.readers:
        for damage in reader.newest_damages:
            screen.hint(
                f"{reader.journal.gateway}: {damage.segment} is {damage.kind} from "
                f"{damage.offset} to {damage.next_offset}; what it had is not counted"
            )
    if any(version.windows_incomplete for version in found.versions):
        screen.hint("Some windows of gateways were lost, so scored rows are more than shown.")
    if found.decisions_problem:
        screen.hint(found.decisions_problem)


async def _read_status(
    context: CommandContext, since_hour: int, until_hour: int
) -> "pb.MonitoringStatus":
    async with clients.open_monitoring(context) as client:
        return await client.status(since_hour, until_hour)


def status_json(found: "pb.MonitoringStatus") -> dict[str, Any]:
    """Return the status as JSON values; a share is null where gateways have said nothing."""
    # A number has its JSON name here and its column in `status_tables`.
    return {
        "store": found.store,
        "at_unix_ms": found.at_unix_ms,
        "decision_rows": found.decision_rows,
        "decisions_problem": found.decisions_problem,
        "decision_shares": [
            {
                "model": item.model,
                "share": item.of_65536 / 65_536,
                "keys_a_day": item.keys_a_day or "all",
            }
            for item in found.decision_shares
        ],
        "versions": [
            {
                "model": item.model,
                "version": item.version,
                "rows": item.rows,
                "scored_rows": item.window_rows,
                "share": item.rows / item.window_rows if item.window_rows else None,
                "outcomes": item.outcomes,
                "windows_incomplete": item.windows_incomplete,
            }
            for item in found.versions
        ],
        # A model without outcomes that wait has no row.
        "outcomes_by_entity": [
            {
                "model": item.model,
                "waiting": item.number,
                "oldest_s": (found.at_unix_ms - item.oldest_unix_ms) / 1e3,
            }
            for item in found.outcome_backlogs
        ],
        # A reader that was never there has no row.
        "readers": [
            {
                "gateway": item.journal.gateway,
                "journal": item.journal.journal,
                "batches": item.sequence,
                "pushed_unix_ms": item.pushed_unix_ms,
                "lag_s": _lag_s(found, item),
                "backlog_bytes": item.backlog_bytes,
                "damages": item.damages,
                "lost_bytes": item.lost_bytes,
            }
            for item in found.readers
        ],
    }


def _lag_s(found: "pb.MonitoringStatus", reader: "pb.ReaderStatus") -> float:
    """Return the seconds since the newest batch was stored."""
    return (found.at_unix_ms - reader.pushed_unix_ms) / 1e3


def status_tables(found: "pb.MonitoringStatus") -> Any:  # noqa: ANN401  a rich renderable
    """Return the tables that people read."""
    from rich.console import Group

    # One row for each version.
    versions = text_table(
        ("model", "version", "rows", "scored", "share", "outcomes"),
        [
            (
                item.model,
                item.version,
                f"{item.rows:,}",
                f"{item.window_rows:,}",
                f"{item.rows / item.window_rows:.1%}" if item.window_rows else "-",
                f"{item.outcomes:,}",
            )
            for item in found.versions
        ],
    )
    # One row for each journal.
    readers = text_table(
        ("gateway", "batches", "last batch", "to read", "damages"),
        [
            (
                item.journal.gateway,
                f"{item.sequence:,}",
                f"{_lag_s(found, item):,.0f} s ago",
                f"{item.backlog_bytes:,} bytes",
                str(item.damages),
            )
            for item in found.readers
        ],
    )
    shown: list[Any] = [versions, "", readers]
    # One row for each model with outcomes that wait.
    if found.outcome_backlogs:
        waiting = text_table(
            ("model", "outcomes by entity that wait", "oldest"),
            [
                (
                    item.model,
                    f"{item.number:,}",
                    duration_text((found.at_unix_ms - item.oldest_unix_ms) / 1e3),
                )
                for item in found.outcome_backlogs
            ],
        )
        shown += ["", waiting]
    return Group(*shown)


def run_monitoring(
    ctx: typer.Context,
    listen: Annotated[str, typer.Option(help="host:port to listen on.")],
    folder: Annotated[
        Path, typer.Option("--data", help="Folder of its database and files.")
    ] = Path("monitoring"),
    database: Annotated[
        str, typer.Option("--database", help="URL of its database, or file:PATH. Default: SQLite.")
    ] = "",
    decisions: Annotated[
        int | None,
        typer.Option(min=0, max=65_536, help="Keys of 65536 to keep rows of. Default: policies."),
    ] = None,
    online_store: Annotated[
        str, typer.Option(help="URL of the online store, or file:PATH, for looks at fairness.")
    ] = "",
    identities: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The registry's identities.")
    ] = None,
    metrics: Annotated[str, typer.Option(help="host:port of its /metrics page.")] = "",
    metrics_token_file: Annotated[
        Path | None, typer.Option(exists=True, help="File with the token that the page needs.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file of its own.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with the key.")] = None,
) -> None:
    """Run monitoring as a process of its own, until Ctrl-C.

    Start control with --no-monitoring then, and name this address in `window_sinks` of gateways.
    """
    # Who asks the registry, and where it is.
    context: CommandContext = ctx.obj
    # This process becomes the server, so that signals reach it.
    options: dict[str, object] = {
        "--folder": folder,
        "--listen": listen,
        "--registry": context.registry_address(),
        "--as": context.actor,
        "--registry-certificate": context.certificate(),
        "--store": database,
        "--decisions": "" if decisions is None else str(decisions),
        "--online-store": online_store,
        "--identities": identities,
        "--metrics": metrics,
        "--metrics-token-file": metrics_token_file,
        "--tls-certificate": tls_certificate,
        "--tls-key": tls_key,
    }
    # What is empty is left out.
    _become("monitoring", options, context.bearer_token())


def run_journal_reader(
    ctx: typer.Context,
    gateway: Annotated[str, typer.Option("--name", help="Name of the gateway in its settings.")],
    folder: Annotated[
        Path, typer.Option("--gateway-folder", help="Folder of the gateway in its settings.")
    ],
    monitoring: Annotated[
        str, typer.Option(help="host:port of monitoring. Default: that of the registry.")
    ] = "",
    gateway_token_file: Annotated[
        Path | None, typer.Option(exists=True, help="File with the gateway's token.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is new.")] = False,
) -> None:
    """Read a gateway host's journal at the lowest priority and push counts, until Ctrl-C."""
    context: CommandContext = ctx.obj
    options: dict[str, object] = {
        "--journal": folder / "journal",
        "--keys": folder / "keys.pb",
        "--gateway": gateway,
        "--monitoring": monitoring or context.registry_address(),
        "--certificate": context.certificate(),
        "--token-file": gateway_token_file,
    }
    _become("monitoring.fold", options, None, flags=("--once",) if once else ())


def _become(
    module: str, options: dict[str, object], token: str | None, flags: Sequence[str] = ()
) -> NoReturn:
    """Replace this process by a program; a token goes through its environment."""
    arguments = [sys.executable, "-P", "-m", module, *flags]
    for name, value in options.items():
        if value:
            arguments += [name, str(value)]
    environment = os.environ | ({"TURNOUT_TOKEN": token} if token else {})
    os.execve(sys.executable, arguments, environment)  # noqa: S606  no shell is wanted
