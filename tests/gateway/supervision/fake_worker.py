"""A worker without models: it speaks the channel, and answers each TCP connection with its pid.

A connection may send one word first: `hang` stops its loop for good, `eat` takes 64 MB.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import threading
from pathlib import Path

from gateway.supervision.channel import WorkerChannel
from gateway.telemetry.metrics import Metrics


class FakeWorker:
    """Counts its connections as calls."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.memory_hog: list[bytes] = []
        self.server: asyncio.Server | None = None

    async def serve(self, slot: int, port: int) -> None:
        """Listen beside the other workers."""
        self.metrics.set_gauge("turnout_deployment_revision", slot + 1.0, "churn")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        self.server = await asyncio.start_server(self.answer, sock=listener)

    async def drain(self, _grace_s: float) -> None:
        """Leave the port; what is in flight ends with it."""
        if self.server is not None:
            self.server.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One line in, our pid out."""
        word = (await reader.readline()).strip()
        if word == b"hang":
            threading.Event().wait()
        if word == b"eat":
            self.memory_hog.append(b"x" * 64 * 1024 * 1024)
        self.metrics.count_calls("churn", "1", "production", "answered", 1)
        writer.write(b"%d\n" % os.getpid())
        await writer.drain()
        writer.close()


def main() -> None:
    """Live as a worker does, unless a file named `crash` says otherwise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--breadcrumbs-fd", type=int, required=True)
    parser.add_argument("--sockets-fd", type=int, required=True)
    options = parser.parse_args()
    settings = json.loads(options.settings.read_text())
    if Path(settings["folder"], "crash").exists():
        sys.exit(3)
    asyncio.run(run_fake_worker(options.channel_fd, settings["heartbeat_ms"]))


async def run_fake_worker(fd: int, heartbeat_ms: int) -> None:
    """Hello, ready, serve, drain, gone."""
    worker = FakeWorker()
    channel = WorkerChannel(fd, heartbeat_ms=heartbeat_ms, metrics_ms=50)
    await channel.start(
        on_serve=worker.serve,
        on_drain=worker.drain,
        gauges=lambda: {"rows_inside": 0.0},
        snapshot=worker.metrics.snapshot,
    )
    channel.announce_ready()
    await channel.wait_finished()


if __name__ == "__main__":
    main()
