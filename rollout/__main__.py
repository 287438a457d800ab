"""The controller as a process: `python -m rollout --registry HOST:PORT --listen HOST:PORT`."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from access.certificate_ends import watch_certificates
from access.peer_tls import PeerError, ServerCertificate
from host.addresses import is_loopback
from host.files import keep_files_private
from host.processes import fail_fast
from host.text import log_to_stderr
from registry.types import read_token
from rollout.api.server import serve_rollout
from rollout.policy.policy import POLICIES, Policy
from rollout.policy.policy_files import read_policy_folder


async def main(
    registry: str,
    listen: str,
    actor: str,
    token: str | None,
    policies: Mapping[str, Policy],
    identities: Sequence[Path],
    registry_certificate: Path | None,
    certificate: ServerCertificate | None,
) -> None:
    """Serve the controller until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    server = await serve_rollout(
        registry,
        listen,
        actor=actor,
        token=token,
        registry_certificate=registry_certificate,
        certificate=certificate,
        policies=policies,
        identities=identities,
    )
    logging.getLogger("rollout").info("listening port=%d", server.port)
    files = {} if certificate is None else {"rollout": certificate.certificate}
    watching = fail_fast(asyncio.ensure_future(watch_certificates(files)))
    await stop.wait()
    watching.cancel()
    await server.stop()


def own_certificate(
    listen: str, token: str | None, certificate: Path | None, key: Path | None
) -> ServerCertificate | None:
    """Return the files with which the controller proves itself; None for plain text on loopback.

    Raises PeerError where callers would send their tokens to a controller without a certificate.
    """
    if certificate is not None and key is not None:
        return ServerCertificate(certificate, key)
    if token is None and is_loopback(listen) and certificate is key is None:
        return None
    raise PeerError(
        "callers send tokens and windows to the controller, so it must prove itself: give "
        "--tls-certificate and --tls-key; those of the registry, in keys/ of its folder, will do"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m rollout", description=__doc__)
    parser.add_argument("--registry", required=True, help="host:port of the registry")
    parser.add_argument("--listen", required=True, help="host:port; port 0: any free port")
    parser.add_argument("--as", dest="actor", default="rollout", help="its name in the history")
    parser.add_argument("--token-file", type=Path, help="file with its token [TURNOUT_TOKEN]")
    parser.add_argument("--policies", type=Path, help="folder of policy files (docs/rollout.md)")
    parser.add_argument(
        "--identities",
        type=Path,
        action="append",
        default=[],
        help="the registry's file with tokens, actors and roles; may be given more than once",
    )
    parser.add_argument("--registry-certificate", type=Path, help="PEM file, for its identity")
    parser.add_argument("--tls-certificate", type=Path, help="PEM file of this controller's own")
    parser.add_argument("--tls-key", type=Path, help="PEM file with the certificate's key")
    options = parser.parse_args()
    policies = POLICIES if options.policies is None else read_policy_folder(options.policies)
    keep_files_private()
    log_to_stderr("%(asctime)s %(name)s %(message)s")
    token = (
        read_token(options.token_file) if options.token_file else os.environ.get("TURNOUT_TOKEN")
    )
    try:
        own = own_certificate(options.listen, token, options.tls_certificate, options.tls_key)
        asyncio.run(
            main(
                options.registry,
                options.listen,
                options.actor,
                token,
                policies,
                options.identities,
                options.registry_certificate,
                own,
            )
        )
    except PeerError as error:
        sys.exit(f"rollout: {error}")
