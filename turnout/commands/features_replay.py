"""`turnout features replay`: served features against the offline join at the same instants.

DuckDB takes long to import, so the command imports what it needs by itself.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnout.cli.clients import open_registry
from turnout.cli.context import CommandContext
from turnout.errors import ExitCode, OperatorError, UsageError
from turnout.views.terminal import Terminal, terminal, text_table

if TYPE_CHECKING:
    from features.contract import ModelContract
    from features.replay.compare import ReplayReport
    from protos import registry_pb2
    from protos.journal_pb2 import ServedBatch

CHUNK_ROWS_MAX = 500_000
CHUNK_VALUES_MAX = 10_000_000
"""Values of vectors that are compared at once, 40 MB. The join reads the keys of all stored rows
for each chunk, so few chunks are fast. Many features make small chunks."""
SPAN = re.compile(r"(\d+)([smhd])")
SPAN_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
COLUMNS = ("feature", "different", "missing", "extra", "late", "probable cause")


def replay(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Option(help="Label of the version. Default: production.")] = "",
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a gateway, or of its journals. Default: the running system's."
        ),
    ] = None,
    offline: Annotated[
        Path | None,
        typer.Option(help="Folder of the offline store. Default: the running system's."),
    ] = None,
    since: Annotated[
        str, typer.Option(help="Only calls of the last 30m, 24h, 7d. Default: all.")
    ] = "",
    rows: Annotated[
        int, typer.Option(min=1, help="Compare at most about so many rows.")
    ] = 1_000_000,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Write the result into the registry, for policies that ask for it."
        ),
    ] = False,
) -> None:
    """Compare served features with what training would have had, and name the causes of skew.

    Late rows, which the online store had not got yet, are counted apart. Exit code 1: a feature
    differs for another reason, or no served row was found.
    """
    # Find the version's contract, the journal and the offline store.
    context: CommandContext = ctx.obj
    found, contract = asyncio.run(_version(context, model, version))
    since_ms = time.time_ns() // 1_000_000 - _span_ms(since) if since else 0
    journals = journal or context.running_folder()
    store = offline or context.offline_folder()
    for name, folder in (("journal", journals), ("offline", store)):
        if not folder.is_dir():
            raise OperatorError(f"there is no folder {folder}; name another with --{name}")
    # Compare, and print what differs.
    screen = terminal(context.json)
    report = _compare(screen, contract, journals, store, since_ms, rows)
    if not report.rows:
        raise OperatorError(
            f"{journals} has no served row of version {found.label} of {model!r}, or of another "
            "version with its contract; see --since and --journal"
        )
    # The registry keeps what was found, whether or not features differ.
    finding = asyncio.run(_record(context, found, report)) if record else None
    number = None if finding is None else finding.sequence
    value = {"model": model, "version": found.label, "finding": number, **report.as_json()}
    screen.result(value, *_text(model, found.label, report))
    if finding is not None:
        screen.hint(f"Recorded as finding {number} of {model}, by {finding.who}.")
    # A script sees the difference in the exit code.
    if report.skewed:
        raise typer.Exit(ExitCode.FAILED)


def _compare(
    screen: Terminal,
    contract: "ModelContract",
    journals: Path,
    store: Path,
    since_ms: int,
    rows_max: int,
) -> "ReplayReport":
    """Compare the journaled rows with the offline store, with a progress display."""
    from features.offline import OfflineStore
    from features.replay.compare import compare_served
    from features.replay.served_rows import served_rows
    from journal.served import read_served_batches

    with screen.progress() as progress:
        task = progress.add_task("replaying", total=None, note="")

        def batches() -> "Iterator[ServedBatch]":
            for number, batch in enumerate(read_served_batches(journals), 1):
                progress.update(task, completed=number, note=f"{number:,} records")
                yield batch

        chunks = served_rows(
            batches(),
            contract,
            since_ms=since_ms,
            rows_max=rows_max,
            chunk_rows=chunk_rows(contract.width),
        )
        return compare_served(OfflineStore(store), contract, chunks)


def chunk_rows(width: int) -> int:
    """Return how many rows of *width* values are compared at once."""
    return min(CHUNK_ROWS_MAX, CHUNK_VALUES_MAX // width)


def _text(model: str, label: str, report: "ReplayReport") -> list[Any]:
    """Return what people see: a table of the features that differ, and the counts."""
    counted = (
        f"{report.rows:,} served rows of {model} {label} compared, {report.degraded:,} left out "
        "because the store had not answered."
    )
    # The features that differ, the worst first.
    differing = [result for result in report.features if result.skew or result.late]
    if not differing:
        return [f"{counted} Every stored feature is equal, bit for bit."]
    lines = [
        (
            *(result.name, result.different, result.missing, result.extra, result.late),
            result.cause or "late: the online store had an older row",
        )
        for result in sorted(differing, key=lambda result: -result.skew)
    ]
    # How late the late rows were.
    lags = [
        f"View {view}: {late:,} rows were late, by {median / 1_000:,.0f} s in the median and "
        f"{longest / 1_000:,.0f} s at most."
        for view in sorted({result.view for result in report.features})
        for late, median, longest in [report.lag_ms(view)]
        if late
    ]
    return [text_table(COLUMNS, lines), counted, *lags]


async def _version(
    context: CommandContext, model: str, version: str
) -> "tuple[registry_pb2.Version, ModelContract]":
    """Return the version, or the one that is in production, and its contract."""
    from registry.bundle import verify_bundle

    async with open_registry(context) as client:
        label = version or (await client.deployment(model)).production
        if not label:
            raise UsageError(f"{model!r} has no production version; name one with --version")
        found = await client.get_version(model, label)
        files = await client.fetch(model, found.label)
    contract = verify_bundle(files, trusted_key=None).contract
    if not contract.views:
        raise OperatorError(
            f"version {found.label} of {model!r} reads no view; there is nothing to replay"
        )
    return found, contract


async def _record(
    context: CommandContext, version: "registry_pb2.Version", report: "ReplayReport"
) -> "registry_pb2.Finding":
    """Write the report into the registry as a finding, and return it."""
    from features.replay.record import REPLAY, SKEWED_NAMED_MAX, ReplayRecord
    from protos import registry_pb2

    skewed = report.skewed
    replayed = ReplayRecord(
        version_digest=version.digest,
        model_contract=version.model_contract,
        from_ms=report.from_ms,
        to_ms=report.to_ms,
        rows=report.rows,
        degraded_rows=report.degraded,
        late_values=sum(result.late for result in report.features),
        skewed_features=len(skewed),
        skewed={result.name: result.skew for result in skewed[:SKEWED_NAMED_MAX]},
    )
    finding = registry_pb2.Finding(
        model=version.model, version=version.label, kind=REPLAY, text=replayed.text()
    )
    async with open_registry(context) as client:
        return await client.write_finding(finding)


def _span_ms(text: str) -> int:
    found = SPAN.fullmatch(text)
    if found is None:
        raise UsageError(f"--since {text!r}: write a number and s, m, h or d, such as 24h")
    return int(found[1]) * SPAN_MS[found[2]]
