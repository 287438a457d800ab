"""`python -m rollout --registry HOST:PORT --listen HOST:PORT`: the controller by itself."""

import argparse
import asyncio
import logging
import os
import signal
import sys

from rollout.server import serve


async def main(registry: str, listen: str, actor: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    told = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, told.set)
    server = await serve(registry, listen, actor=actor, token=os.environ.get("TURNOUT_TOKEN"))
    logging.getLogger("rollout").info("listening port=%d", server.port)
    await told.wait()
    await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m rollout", description=__doc__)
    parser.add_argument("--registry", required=True, help="host:port of the registry")
    parser.add_argument("--listen", required=True, help="host:port; port 0: any free one")
    parser.add_argument("--as", dest="actor", default="rollout", help="actor in the history")
    options = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    asyncio.run(main(options.registry, options.listen, options.actor))
