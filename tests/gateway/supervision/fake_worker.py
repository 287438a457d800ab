"""A worker without models, which uses the real channel and answers connections with its pid.

The first line of a connection may be `hang`, which blocks the loop for ever, or `eat`, which
allocates 64 MB.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from gateway.supervision.channel import WorkerChannel
from gateway.telemetry.metrics import Metrics


class FakeWorker:
    """Answers connections and counts them as calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.leaving = False
        self.metrics = Metrics()
        self.memory_hog: list[bytes] = []
        self.server: asyncio.Server | None = None
        self.connections = 0

    async def serve(self, slot: int, port: int) -> None:
        """Listen on the port that all workers share; fail if the folder has a file named `fail`."""
        if (self.folder / "fail").exists():
            raise OSError("the key cannot be read")
        self.metrics.set_gauge("turnout_deployment_revision", slot + 1.0, "churn")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        self.server = await asyncio.start_server(self.answer, sock=listener)

    async def drain(self, _grace_s: float) -> None:
        """Stop listening; connections that are open end with the process."""
        if self.server is not None:
            self.server.close()

    def leave(self) -> None:
        """Note that the host stops soon."""
        self.leaving = True

    def snapshot(self) -> dict[str, Any]:
        """Return the metrics, with statistics as a real worker adds them."""
        statistics = {"pipeline": {"connections": self.connections}}
        return {**self.metrics.snapshot(), "statistics": statistics}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one line and answer with the pid of this process."""
        command = (await reader.readline()).strip()
        if command == b"hang":
            threading.Event().wait()
        if command == b"eat":
            self.memory_hog.append(b"x" * 64 * 1024 * 1024)
        self.connections += 1
        self.metrics.count_calls("churn", "1", "production", "answered", 1)
        writer.write(b"%d%s\n" % (os.getpid(), b" leaving" * self.leaving))
        await writer.drain()
        writer.close()


def main() -> None:
    """Run as a worker does; exit with 3 when the folder has a file named `crash`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--breadcrumbs-fd", type=int, required=True)
    parser.add_argument("--sockets-fd", type=int, required=True)
    options = parser.parse_args()
    settings = json.loads(options.settings.read_text())
    if Path(settings["folder"], "crash").exists():
        sys.exit(3)
    folder = Path(settings["folder"])
    asyncio.run(run_fake_worker(options.channel_fd, settings["heartbeat_ms"], folder))


async def run_fake_worker(fd: int, heartbeat_ms: int, folder: Path) -> None:
    """Open the channel and serve until drained."""
    worker = FakeWorker(folder)
    channel = WorkerChannel(fd, heartbeat_ms=heartbeat_ms, metrics_ms=50)
    await channel.start(
        on_serve=worker.serve,
        on_drain=worker.drain,
        on_leaving=worker.leave,
        gauges=lambda: {"rows_inside": 0.0},
        snapshot=worker.snapshot,
    )
    channel.announce_ready()
    await channel.wait_finished()


if __name__ == "__main__":
    main()
