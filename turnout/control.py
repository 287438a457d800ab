"""`python -m turnout.control`: registry and rollouts on one gRPC server, in one process."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
import uvloop

from registry.api import server as registry_server
from registry.types import read_token
from rollout.api import server as rollout_server
from rollout.policy.policy import POLICIES, Policy
from rollout.policy.policy_files import read_policy_folder

STOP_GRACE_S = 2.0
TOKEN_VARIABLE = "TURNOUT_TOKEN"  # noqa: S105  the variable's name
"""Without --token-file: the controller's own token, where the registry has an identities file."""


async def serve_control(
    folder: Path,
    address: str,
    identities: Path | None,
    token: str | None,
    policies: Mapping[str, Policy],
) -> None:
    """Serve the registry kept in *folder*, and its rollouts, until SIGTERM or SIGINT.

    The controller speaks to the registry over this very port: there is one way in, and both can
    be pulled apart into two processes without a change.
    """
    told = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, told.set)
    options = dict((*rollout_server.SERVER_OPTIONS, *registry_server.SERVER_OPTIONS))
    server = grpc.aio.server(options=tuple(options.items()))
    registry = await registry_server.add_registry_to(server, folder, identities=identities)
    try:
        rollouts = rollout_server.add_rollout_to(server, address, token=token, policies=policies)
        server.add_insecure_port(address)
        await server.start()
        await rollouts.start()
        await told.wait()
        await rollouts.stop()
        registry.end_watches()
        await server.stop(STOP_GRACE_S)
    finally:
        registry.close()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m turnout.control", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the registry's folder")
    parser.add_argument("--listen", required=True, help="host:port")
    parser.add_argument("--identities", type=Path, help="tokens and roles; docs/governance.md")
    parser.add_argument("--token-file", type=Path, help="the controller's own token")
    parser.add_argument("--policies", type=Path, help="a folder of policy files: docs/rollout.md")
    options = parser.parse_args()
    policies = POLICIES if options.policies is None else read_policy_folder(options.policies)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    token = read_token(options.token_file) if options.token_file else os.environ.get(TOKEN_VARIABLE)
    uvloop.run(serve_control(options.folder, options.listen, options.identities, token, policies))


if __name__ == "__main__":
    main()
