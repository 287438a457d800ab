"""The reader of a gateway host's journal: `python -m monitoring.fold --journal FOLDER ...`.

It runs beside the gateway at the lowest priority, and ends at SIGTERM or SIGINT. It may be killed
at any moment: what it had not pushed is counted again from the journal.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from google.protobuf.message import DecodeError

from access.peer_tls import PeerError
from host.files import keep_files_private
from host.text import log_to_stderr
from monitoring.fold.id_fields import IdFields
from monitoring.fold.sink_client import CellSinkClient, JournalReaderLoop
from protos import monitoring_pb2 as pb
from protos.registry_pb2 import ServingKeys
from registry.types import read_token

NICE = 19
"""The lowest priority: the gateway's workers come first."""


def read_key(file: Path) -> bytes:
    """Return the cluster's prediction-id key from a gateway's keys.pb; empty while it has none."""
    try:
        return ServingKeys.FromString(file.read_bytes()).prediction_id_key
    except (OSError, DecodeError):
        return b""


async def read_journal(options: argparse.Namespace, token: str | None) -> None:
    """Read and push until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    # The key is read when it is needed, because a gateway gets it from the registry.
    found = b""

    def key() -> bytes:
        nonlocal found
        found = found or read_key(options.keys)
        return found

    name = pb.JournalName(gateway=options.gateway, journal=options.name)
    client = CellSinkClient(options.monitoring, name, token, options.certificate)
    try:
        reading = JournalReaderLoop(options.journal, client, IdFields(key))
        await reading.run(stop, once=options.once)
    finally:
        await client.close()


def main() -> None:
    """Parse the command line and read until a signal."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.fold", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True, help="the journal's folder")
    parser.add_argument("--gateway", required=True, help="name of the gateway, as in its settings")
    parser.add_argument("--name", default="", help="of the journal, where a host has several")
    parser.add_argument("--monitoring", required=True, help="host:port of monitoring")
    parser.add_argument("--keys", type=Path, required=True, help="keys.pb in the gateway's folder")
    parser.add_argument("--certificate", type=Path, help="PEM file of monitoring's certificate")
    parser.add_argument("--token-file", type=Path, help="file with the gateway's token")
    parser.add_argument("--once", action="store_true", help="end when nothing is new")
    options = parser.parse_args()
    os.nice(NICE - os.nice(0))
    keep_files_private()
    log_to_stderr("%(asctime)s %(name)s %(message)s")
    logging.getLogger("monitoring").info("reading %s", options.journal)
    token = read_token(options.token_file) if options.token_file else None
    try:
        asyncio.run(read_journal(options, token))
    except PeerError as error:
        sys.exit(f"journal reader: {error}")


if __name__ == "__main__":
    main()
