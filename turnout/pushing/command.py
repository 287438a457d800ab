"""`turnout features serve` takes pushed rows; `turnout features push` pushes those of a file.

DuckDB and redis-py take long to import, so each command imports what it needs by itself.
"""

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.files import keep_files_private
from host.processes import fail_fast
from host.text import log_to_stderr, read_fault
from turnout.cli.clients import open_registry
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError, StartError, UsageError
from turnout.views.terminal import terminal, text_table

if TYPE_CHECKING:
    from access.peer_tls import ServerCertificate
    from turnout_client import FeatureRow, RowResult

SHOWN_REFUSALS = 20
EVENT_TIME, EVENT_ID = "event_time_ms", "event_id"


def serve(
    ctx: typer.Context,
    listen: Annotated[
        str, typer.Option(help="host:port; port 0 takes a free port.")
    ] = "127.0.0.1:7003",
    offline: Annotated[
        Path | None, typer.Option(help="Folder of the offline store, on a disk of this host.")
    ] = None,
    identities: Annotated[
        list[Path] | None,
        typer.Option(help="File with tokens, actors and roles; may be given more than once."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file; else one is made in features/keys/.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file with the certificate's key.")
    ] = None,
    store_passwords: Annotated[
        Path | None,
        typer.Option(help="Folder of the store's passwords, for a store of `turnout up`."),
    ] = None,
    rows_per_second: Annotated[int, typer.Option(min=1, help="Rows of one caller.")] = 20_000,
) -> None:
    """Take pushed rows over gRPC until SIGTERM, and write them offline and online.

    It takes the rows of every view that is applied, or that a deployed version reads.
    """
    from access.identities import IdentitiesFileError
    from access.peer_tls import PeerError, certificate_for

    # All that this process writes is for this user only.
    context: CommandContext = ctx.obj
    keep_files_private()
    log_to_stderr("%(asctime)s %(name)s %(message)s")
    files = identities or []
    if store_passwords is not None and not context.store:
        raise UsageError("--store-passwords belongs to a store that is named with --store URL")
    # A server that takes tokens proves itself to its callers.
    try:
        certificate = certificate_for(
            context.folder / "features" / "keys",
            listen,
            tls_certificate,
            tls_key,
            tokens=bool(files),
        )
        # Serve until a signal.
        root = offline or context.offline_folder()
        serving = _serve(
            context, listen, root, files, certificate, store_passwords, rows_per_second
        )
        asyncio.run(serving)
    except (IdentitiesFileError, PeerError) as error:
        raise StartError(str(error)) from error


async def _serve(
    context: CommandContext,
    listen: str,
    offline: Path,
    identities: list[Path],
    certificate: "ServerCertificate | None",
    store_passwords: Path | None,
    rows_s: int,
) -> None:
    """Serve until SIGTERM or SIGINT. Print one line with the address when the server is ready."""
    from access.certificate_ends import watch_certificates
    from features.offline import OfflineStore
    from features.online.store_client import store_client
    from features.online.store_users import WRITER
    from features.push.server import STORE_S, serve_features
    from turnout.pushing.served_views import RegistryViews

    # A signal that comes early must not be lost.
    stop_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_requested.set)
    # The store of `turnout up` asks for the writer's password.
    url = context.store if store_passwords else context.store_url(WRITER)
    user = WRITER if store_passwords else ""
    client = store_client(url, user, store_passwords or "", timeout_s=STORE_S)
    # The views come from the registry, now and again.
    async with open_registry(context) as registry:
        try:
            server = await serve_features(
                listen,
                read_views=RegistryViews(registry).read,
                offline=OfflineStore(offline),
                client=client,
                identities=identities,
                certificate=certificate,
                rows_s=rows_s,
            )
        except RuntimeError as error:
            raise StartError(f"cannot listen on {listen}: {error}") from error
        sys.stdout.write(f"features listening on {listen.rpartition(':')[0]}:{server.port}\n")
        sys.stdout.flush()
        files = {} if certificate is None else {"features": certificate.certificate}
        watching = fail_fast(asyncio.ensure_future(watch_certificates(files)))
        await stop_requested.wait()
        watching.cancel()
        await server.stop()


def push(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="File of JSON lines; - reads standard input.")],
    view: Annotated[str, typer.Option(help="Name of the view.")],
    view_hash: Annotated[
        str, typer.Option(help="16 digits or more of one edition. Default: all editions.")
    ] = "",
    server: Annotated[
        str, typer.Option(help="host:port. Default: the environment's or the running system's.")
    ] = "",
    certificate: Annotated[
        Path | None, typer.Option(help="Certificate of the server that --server names.")
    ] = None,
) -> None:
    """Push the rows of a file: online and offline at once, as a streaming job does.

    Each line is one JSON object with the view's entities, `event_time_ms` and features, as the
    view's transform returns them, and `event_id` if the row has one. A file may be pushed again:
    rows that are stored already are duplicates. Exit code 1: a row was refused.
    """
    # The view says which of the names are entities.
    context: CommandContext = ctx.obj
    entities = asyncio.run(_entities_of(context, view))
    text = sys.stdin.read() if str(file) == "-" else _read(file)
    rows = list(_rows_of(text, entities, file))
    # The server proves itself before it gets the rows.
    address, proof = (server, certificate) if server else context.features_server()
    results = _push_all(context, address, proof, view, rows, view_hash)
    # Counts come first, then the refused rows with their lines.
    counts = Counter(result.status for result in results)
    refused = [
        {"line": line, "reason": result.reason}
        for line, result in enumerate(results, start=1)
        if result.status == "refused"
    ]
    screen = terminal(context.json)
    shown = [(status, f"{counts[status]:,}") for status in ("written", "older", "duplicate")]
    shown.append(("refused", f"{len(refused):,}"))
    screen.result(
        {**{name: counts[name] for name, _ in shown}, "refusals": refused},
        text_table(("rows", "number"), shown),
    )
    if refused:
        lines = "; ".join(
            f"line {item['line']}: {item['reason']}" for item in refused[:SHOWN_REFUSALS]
        )
        raise OperatorError(f"{len(refused):,} of {len(rows):,} rows were refused: {lines}")


async def _entities_of(context: CommandContext, name: str) -> tuple[str, ...]:
    """Return the entities of a view that is applied or deployed. OperatorError without one."""
    from turnout.pushing.served_views import RegistryViews

    async with open_registry(context) as registry:
        served = await RegistryViews(registry).fetch()
    found = [view.entities for view in served.views if view.name == name]
    if not found:
        names = ", ".join(sorted({view.name for view in served.views})) or "none"
        raise OperatorError(
            f"no view that is applied or deployed is called {name!r}; there are {names}. "
            "`turnout apply` makes a project's views known"
        )
    return found[0]


def _push_all(
    context: CommandContext,
    address: str,
    certificate: Path | None,
    view: str,
    rows: "list[FeatureRow]",
    view_hash: str,
) -> "list[RowResult]":
    """Send all rows over one connection to a server that has proven itself."""
    from access.peer_tls import pinned_credentials, refuse_token_in_clear
    from turnout_client import SyncFeaturesClient

    token = context.bearer_token()
    refuse_token_in_clear(address, certificate, token)
    credentials, name = (None, "") if certificate is None else pinned_credentials(certificate)
    with SyncFeaturesClient(
        address, credentials=credentials, token=token, server_name=name
    ) as client:
        return client.push(view, rows, view_hash=view_hash)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {read_fault(error)}") from error


def _rows_of(text: str, entities: tuple[str, ...], file: Path) -> "Iterator[FeatureRow]":
    """Yield the rows of JSON lines. Raises UsageError, which names the line."""
    from turnout_client import FeatureRow

    for number, line in enumerate(text.splitlines(), start=1):
        try:
            item: dict[str, Any] = json.loads(line)
            ids = [str(item.pop(entity)) for entity in entities]
            event_time_ms = int(item.pop(EVENT_TIME))
            event_id = str(item.pop(EVENT_ID, ""))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            needed = ", ".join((*entities, EVENT_TIME))
            missing = f"; {error.args[0]} is missing" if isinstance(error, KeyError) else ""
            raise UsageError(
                f"{file}, line {number}: a JSON object is needed with {needed} "
                f"({EVENT_TIME} in Unix milliseconds) and features{missing}. No row was sent"
            ) from error
        wrong = [name for name, value in item.items() if not isinstance(value, _VALUES)]
        if wrong:
            raise UsageError(f"{file}, line {number}: {wrong[0]!r} is no number, text or null")
        yield FeatureRow(ids, event_time_ms, item, event_id)


_VALUES = (int, float, str, type(None))
