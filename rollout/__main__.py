"""`python -m rollout --registry HOST:PORT --listen HOST:PORT`: the controller by itself."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from registry.types import read_token
from rollout.api.server import serve_rollout
from rollout.policy.policy import POLICIES, Policy
from rollout.policy.policy_files import read_policy_folder


async def main(
    registry: str, listen: str, actor: str, token: str | None, policies: Mapping[str, Policy]
) -> None:
    """Serve until SIGTERM or SIGINT."""
    told = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, told.set)
    server = await serve_rollout(registry, listen, actor=actor, token=token, policies=policies)
    logging.getLogger("rollout").info("listening port=%d", server.port)
    await told.wait()
    await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m rollout", description=__doc__)
    parser.add_argument("--registry", required=True, help="host:port of the registry")
    parser.add_argument("--listen", required=True, help="host:port; port 0: any free one")
    parser.add_argument("--as", dest="actor", default="rollout", help="actor in the history")
    parser.add_argument("--token-file", type=Path, help="its token [TURNOUT_TOKEN]")
    parser.add_argument("--policies", type=Path, help="a folder of policy files: docs/rollout.md")
    options = parser.parse_args()
    known = POLICIES if options.policies is None else read_policy_folder(options.policies)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    own = read_token(options.token_file) if options.token_file else os.environ.get("TURNOUT_TOKEN")
    asyncio.run(main(options.registry, options.listen, options.actor, own, known))
