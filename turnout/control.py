"""`python -m turnout.control`: registry and rollouts on one gRPC server, in one process."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import grpc
import uvloop

from registry import server as registry_server

STOP_GRACE_S = 2.0


async def serve(folder: Path, address: str, identities: Path | None) -> None:
    """Serve the registry kept in *folder* until SIGTERM or SIGINT."""
    told = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, told.set)
    server = grpc.aio.server(options=registry_server.OPTIONS)
    registry = await registry_server.add_to(server, folder, identities=identities)
    try:
        server.add_insecure_port(address)
        await server.start()
        await told.wait()
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
    options = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    uvloop.run(serve(options.folder, options.listen, options.identities))


if __name__ == "__main__":
    main()
