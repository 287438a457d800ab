"""`turnout features forget`: removes a person's rows, and writes a receipt without the id.

Numpy and grpc take long to import, so the command imports what it needs by itself.
"""

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.files import replace_file
from turnout.cli.arguments import check_new_file
from turnout.cli.clients import open_registry
from turnout.cli.context import CommandContext
from turnout.errors import ExitCode, OperatorError
from turnout.forgetting.receipt import make_receipt, receipt_digest, receipt_key, receipt_text
from turnout.views.terminal import Terminal, terminal, text_table

if TYPE_CHECKING:
    from turnout.forgetting.entities import KnownEntities
    from turnout.forgetting.removals import Removal, Removed

FINDING = "forgotten"
"""The kind of the finding that the history has of a removal."""


class Storage(StrEnum):
    """Where a person's rows are, in the order of their removal.

    Offline goes first, so that a materialise which begins later has nothing to write back.
    Monitoring goes after the journals, so that their readers have nothing to push again.
    """

    OFFLINE = "offline"
    ONLINE = "online"
    JOURNALS = "journals"
    MONITORING = "monitoring"


def forget(
    ctx: typer.Context,
    keys: Annotated[list[str], typer.Argument(help="Id of the person, or of each entity.")],
    entity: Annotated[
        list[str] | None,
        typer.Option(help="Entity of each id, in order. Default: the only one that views have."),
    ] = None,
    only: Annotated[
        list[Storage] | None, typer.Option(help="Only from here; may be repeated. Default: all.")
    ] = None,
    offline: Annotated[
        Path | None,
        typer.Option(help="Folder of the offline store. Default: the environment's or system's."),
    ] = None,
    journal: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a gateway, or of journals; may be repeated. Default: ours."),
    ] = None,
    monitoring: Annotated[
        str, typer.Option(help="host:port of monitoring. Default: that of the registry.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and remove nothing.")] = False,
    receipt: Annotated[Path | None, typer.Option(help="File for the receipt, as JSON.")] = None,
) -> None:
    """Remove a person's rows from the stores; calls and outcomes from journals and monitoring.

    All editions of all views with the entity are searched. Rows that are loaded again come back.
    Exit code 1: something could not be searched; the receipt says what.
    """
    from turnout.forgetting.entities import named_entities
    from turnout.forgetting.removals import Removal

    # No row is removed whose count cannot be written.
    check_new_file("--receipt", receipt)
    # What is known decides which entity the ids belong to.
    context: CommandContext = ctx.obj
    known = asyncio.run(_known(context))
    named = named_entities(keys, entity or [], known)
    # Every place must be there before the first row is removed.
    chosen = [item for item in Storage if not only or item in only]
    root = offline or context.offline_folder()
    folders = journal or [context.running_folder()]
    key = receipt_key(known.prediction_id_key)
    removal = Removal(context, known, named, dry_run, monitoring)
    screen = terminal(context.json)
    _check_places(removal, chosen, root, folders)
    # Remove.
    removed = _run(screen, _removals(removal, chosen, root, folders))
    # Only a reader with the id and the key learns the person.
    left = [text for item in removed.values() for text in item.left]
    counts = {item.value: done.counts for item, done in removed.items()}
    written = make_receipt(key, context.actor, named, counts, left, dry_run=dry_run)
    if receipt is not None:
        replace_file(receipt, receipt_text(written))
    _show(screen, written)
    if not dry_run:
        asyncio.run(_note_in_history(context, known.models_with(named), receipt_digest(written)))
    if left:
        raise typer.Exit(ExitCode.FAILED)


def _removals(
    removal: "Removal", chosen: Sequence[Storage], root: Path, folders: Sequence[Path]
) -> "dict[Storage, Callable[[], Removed]]":
    """Return what removes from each chosen place."""
    removals: dict[Storage, Callable[[], Removed]] = {
        Storage.OFFLINE: lambda: removal.from_offline_store(root),
        Storage.ONLINE: removal.from_online_store,
        Storage.JOURNALS: lambda: removal.from_journals(folders),
        Storage.MONITORING: removal.from_monitoring,
    }
    return {item: removals[item] for item in chosen}


def _run(
    screen: Terminal, removals: "dict[Storage, Callable[[], Removed]]"
) -> "dict[Storage, Removed]":
    """Run the removals in order, and show which one runs."""
    removed = {}
    with screen.progress() as progress:
        for item, remove in removals.items():
            task = progress.add_task(f"searching {item}", total=None, note="")
            try:
                removed[item] = remove()
            except Exception:
                _tell_removed(screen, removed)
                raise
            progress.update(task, completed=1, total=1)
    return removed


def _tell_removed(screen: Terminal, removed: "dict[Storage, Removed]") -> None:
    """Say what was removed before an error, because no later receipt counts it."""
    counts = [
        f"{item} {what.replace('_', ' ')}: {count:,}"
        for item, done in removed.items()
        for what, count in done.counts.items()
        if count
    ]
    if counts:
        screen.note(f"before this error, and so in no receipt: {', '.join(counts)}; run this again")


def _show(screen: Terminal, receipt: dict[str, object]) -> None:
    removed = receipt["removed"]
    assert isinstance(removed, dict)
    rows = [
        (where, what.replace("_", " "), f"{count:,}")
        for where, counts in removed.items()
        for what, count in counts.items()
    ]
    column = "would be removed" if receipt["dry_run"] else "removed"
    screen.result(receipt, text_table(("where", "what", column), rows))
    left = receipt["left"]
    assert isinstance(left, list)
    for text in left:
        screen.note(text)


async def _note_in_history(context: CommandContext, models: Sequence[str], digest: str) -> None:
    """Write a finding about each model: the history proves the receipt and has no person's id."""
    from protos.registry_pb2 import Finding

    async with open_registry(context) as client:
        for model in models:
            text = f"rows of one entity were removed; SHA-256 of the receipt: {digest}"
            await client.write_finding(Finding(model=model, kind=FINDING, text=text))


async def _known(context: CommandContext) -> "KnownEntities":
    from turnout.forgetting.entities import known_entities

    async with open_registry(context) as client:
        return await known_entities(context, client)


def _check_places(
    removal: "Removal", chosen: list[Storage], root: Path, folders: list[Path]
) -> None:
    """Raise OperatorError for a place that cannot be searched, before anything is removed.

    What was removed before such an error would be in no receipt.
    """
    _check_folders("offline", [root] if Storage.OFFLINE in chosen else [])
    _check_folders("journal", folders if Storage.JOURNALS in chosen else [])
    if Storage.ONLINE in chosen:
        removal.try_online_store()
    if Storage.MONITORING in chosen:
        removal.try_monitoring()


def _check_folders(option: str, folders: list[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise OperatorError(
                f"there is no folder {folder}, and nothing was removed; name another with "
                f"--{option}, or say with --only where else to look"
            )
