"""`python -m registry --folder DIR --listen HOST:PORT`: the registry alone in a process."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from registry.api.server import serve_registry
from registry.types import RegistryError


def registry_arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="python -m registry", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="database, versions, keys")
    parser.add_argument("--listen", default="127.0.0.1:7001", help="host:port; port 0: any free")
    parser.add_argument("--identities", type=Path, help="file of tokens, actors and roles")
    return parser


async def run_registry(folder: Path, listen: str, identities: Path | None) -> None:
    """Serve until SIGTERM or SIGINT; the first line printed says where."""
    server = await serve_registry(folder, listen, identities=identities)
    host = listen.rpartition(":")[0]
    sys.stdout.write(f"registry listening on {host}:{server.port}\n")
    sys.stdout.flush()
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    await asked_to_stop.wait()
    await server.stop()


def main() -> int:
    """Run; 3 when the registry cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asked = registry_arguments().parse_args()
    try:
        asyncio.run(run_registry(asked.folder, asked.listen, asked.identities))
    except RegistryError as error:
        sys.stderr.write(f"registry: {error}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
