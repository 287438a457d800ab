"""Monitoring as a process: `python -m monitoring --registry HOST:PORT --listen HOST:PORT ...`."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from access.peer_tls import PeerError, ServerCertificate
from host.addresses import is_loopback, read_url_option
from host.files import keep_files_private
from host.text import log_to_stderr
from monitoring.api.component import MonitoringComponent
from monitoring.api.decision_policy import decisions_option
from monitoring.api.server import serve_monitoring
from monitoring.cohorts.sensitive_attributes import given_store
from monitoring.errors import MonitoringError
from monitoring.metrics.page import MetricsAddress
from registry.types import read_token

log = logging.getLogger("monitoring")

TOKEN_VARIABLE = "TURNOUT_TOKEN"  # noqa: S105  the variable's name


async def run_server(
    options: argparse.Namespace, token: str | None, own: ServerCertificate | None
) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    component = MonitoringComponent(
        options.folder,
        options.store,
        options.registry,
        actor=options.actor,
        token=token,
        certificate=options.registry_certificate,
        decisions=options.decisions,
        metrics=metrics_address(options),
        online_store=given_store(options.online_store, options.store_passwords),
    )
    server = await serve_monitoring(
        component, options.listen, certificate=own, identities=options.identities
    )
    log.info("listening port=%d store=%s", server.port, component.store.kind)
    await stop.wait()
    await server.stop()


def metrics_address(options: argparse.Namespace) -> MetricsAddress | None:
    """Return where the metrics page is; None: there is none. Raises MonitoringError."""
    if not options.metrics:
        return None
    file = options.metrics_token_file
    return MetricsAddress(options.metrics, read_token(file) if file else None)


def server_certificate(options: argparse.Namespace, token: str | None) -> ServerCertificate | None:
    """Return the files with which monitoring proves itself; None for plain text on loopback.

    Raises PeerError where readers would send their tokens to a server without a certificate.
    """
    if options.tls_certificate is not None and options.tls_key is not None:
        return ServerCertificate(options.tls_certificate, options.tls_key)
    if token is None and not options.identities and is_loopback(options.listen):
        return None
    raise PeerError(
        "readers of journals send tokens to monitoring, so it must prove itself: give "
        "--tls-certificate and --tls-key; those of the registry, in keys/ of its folder, will do"
    )


def main() -> None:
    """Parse the command line and serve until a signal."""
    # Where things are, and how monitoring and its callers prove themselves.
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for the database and files")
    parser.add_argument(
        "--store",
        type=read_url_option,
        default="",
        help="URL of the database, or file:PATH of a file with it; default: SQLite there",
    )
    parser.add_argument("--registry", required=True, help="host:port of the registry")
    parser.add_argument(
        "--decisions",
        type=decisions_option,
        help="keys of 65536 of which scored rows are kept; default: as policies say; 0: none",
    )
    # Where looks at fairness read sensitive attributes.
    parser.add_argument(
        "--online-store",
        type=read_url_option,
        default="",
        help="URL, or file:PATH of a file with it; looks at fairness read attributes there",
    )
    parser.add_argument(
        "--store-passwords",
        default="",
        help="folder with the passwords of its users, of a store of `turnout up`",
    )
    parser.add_argument("--listen", required=True, help="host:port; port 0: any free port")
    parser.add_argument("--as", dest="actor", default="monitoring", help="its name at the registry")
    parser.add_argument("--token-file", type=Path, help="file with its token [TURNOUT_TOKEN]")
    parser.add_argument(
        "--identities",
        type=Path,
        action="append",
        default=[],
        help="the registry's file with tokens, actors and roles; may be given more than once",
    )
    parser.add_argument("--metrics", default="", help="host:port of its /metrics page")
    parser.add_argument("--metrics-token-file", type=Path, help="file with the page's token")
    parser.add_argument("--registry-certificate", type=Path, help="PEM file, for its identity")
    parser.add_argument("--tls-certificate", type=Path, help="PEM file of this server's own")
    parser.add_argument("--tls-key", type=Path, help="PEM file with the certificate's key")
    # What it writes is for this user only.
    options = parser.parse_args()
    keep_files_private()
    log_to_stderr("%(asctime)s %(name)s %(message)s")
    token = read_token(options.token_file) if options.token_file else os.environ.get(TOKEN_VARIABLE)
    try:
        asyncio.run(run_server(options, token, server_certificate(options, token)))
    except (PeerError, MonitoringError) as error:
        sys.exit(f"monitoring: {error}")


if __name__ == "__main__":
    main()
