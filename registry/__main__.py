"""`python -m registry --folder DIR --listen HOST:PORT` serves the registry in its own process."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from access.certificate_ends import watch_certificates
from access.identities import IdentitiesFileError
from access.peer_tls import PeerError, ServerCertificate, certificate_for
from host.files import keep_files_private
from host.processes import fail_fast
from host.text import log_to_stderr
from registry.api.server import serve_registry
from registry.types import RegistryError


def registry_arguments() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m registry", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder of the database, versions and keys"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:7001", help="host:port; port 0 takes a free port"
    )
    parser.add_argument(
        "--identities",
        type=Path,
        action="append",
        default=[],
        help="file with tokens, actors and roles; may be given more than once",
    )
    parser.add_argument("--tls-certificate", type=Path, help="PEM file; else one is made in keys/")
    parser.add_argument("--tls-key", type=Path, help="PEM file with the certificate's key")
    return parser


async def run_registry(
    folder: Path,
    listen: str,
    identities: Sequence[Path],
    certificate: ServerCertificate | None,
) -> None:
    """Serve until SIGTERM or SIGINT. Print one line with the address when the server is ready."""
    server = await serve_registry(folder, listen, identities=identities, certificate=certificate)
    host = listen.rpartition(":")[0]
    sys.stdout.write(f"registry listening on {host}:{server.port}\n")
    sys.stdout.flush()
    files = {} if certificate is None else {"registry": certificate.certificate}
    watching = fail_fast(asyncio.ensure_future(watch_certificates(files)))
    stop_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_requested.set)
    await stop_requested.wait()
    watching.cancel()
    await server.stop()


def main() -> int:
    """Serve the registry and return the exit code: 0, or 3 when the registry cannot start."""
    keep_files_private()
    log_to_stderr("%(asctime)s %(name)s %(message)s")
    options = registry_arguments().parse_args()
    try:
        certificate = certificate_for(
            options.folder / "keys",
            options.listen,
            options.tls_certificate,
            options.tls_key,
            tokens=bool(options.identities),
        )
        asyncio.run(run_registry(options.folder, options.listen, options.identities, certificate))
    except (RegistryError, IdentitiesFileError, PeerError) as error:
        sys.stderr.write(f"registry: {error}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
