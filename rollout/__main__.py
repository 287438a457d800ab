"""The controller as a process: `python -m rollout --registry HOST:PORT --listen HOST:PORT`."""

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from host.files import keep_files_private
from host.text import log_to_stderr
from registry.types import read_token
from rollout.api.server import serve_rollout
from rollout.policy.policy import POLICIES, Policy
from rollout.policy.policy_files import read_policy_folder


async def main(
    registry: str, listen: str, actor: str, token: str | None, policies: Mapping[str, Policy]
) -> None:
    """Serve the controller until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    server = await serve_rollout(registry, listen, actor=actor, token=token, policies=policies)
    logging.getLogger("rollout").info("listening port=%d", server.port)
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m rollout", description=__doc__)
    parser.add_argument("--registry", required=True, help="host:port of the registry")
    parser.add_argument("--listen", required=True, help="host:port; port 0: any free port")
    parser.add_argument("--as", dest="actor", default="rollout", help="its name in the history")
    parser.add_argument("--token-file", type=Path, help="file with its token [TURNOUT_TOKEN]")
    parser.add_argument("--policies", type=Path, help="folder of policy files (docs/rollout.md)")
    options = parser.parse_args()
    policies = POLICIES if options.policies is None else read_policy_folder(options.policies)
    keep_files_private()
    log_to_stderr("%(asctime)s %(name)s %(message)s")
    token = (
        read_token(options.token_file) if options.token_file else os.environ.get("TURNOUT_TOKEN")
    )
    asyncio.run(main(options.registry, options.listen, options.actor, token, policies))
