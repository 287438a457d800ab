"""Starts the process of a worker, and keeps what the supervisor shares with it."""

import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.isolation.breadcrumbs import create_breadcrumb_page
from gateway.supervision.channel import ControlConnection
from gateway.supervision.exposition import Snapshot
from gateway.supervision.slots import WorkerRecord
from gateway.supervision.sockets import create_socket_channel


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """A worker's operating system process, its connections and its newest snapshot."""

    process: subprocess.Popen[bytes]
    worker: WorkerRecord
    breadcrumbs_fd: int
    """Descriptor of the worker's breadcrumb page."""
    socket_channel: socket.socket
    """The slot's listening socket is sent to the worker over this."""
    connection: ControlConnection | None = None
    snapshot: Snapshot = field(default_factory=dict)
    failure: str = ""
    """Why it ends, in its own words; empty if it said nothing."""
    disconnected_s: float | None = None
    """When the control connection ended, in monotonic seconds."""

    def row(self, now_ns: int) -> dict[str, Any]:
        """Return the worker's row on the page /workers, at a monotonic time."""
        worker = self.worker
        return {
            "pid": worker.pid,
            "slot": worker.slot,
            "state": worker.state.value,
            "open": worker.opened_ns is not None,
            "age_s": round((now_ns - worker.started_ns) / 1e9, 3),
            "rss_bytes": worker.rss_bytes,
            **worker.gauges,
        }

    def statistics_row(self) -> dict[str, Any]:
        """Return the worker's row on the page /statistics."""
        statistics = self.snapshot["statistics"]
        return {"slot": self.worker.slot, "pid": self.worker.pid, "statistics": statistics}

    def close(self) -> None:
        """Close what was shared with the process, which has ended."""
        os.close(self.breadcrumbs_fd)
        self.socket_channel.close()


def start_worker_process(
    command: Sequence[str], settings_file: Path, register: Callable[[int], WorkerRecord]
) -> tuple[WorkerProcess, socket.socket]:
    """Start a worker; return it with the supervisor's end of its control connection.

    command   starts a worker; the options are appended.
    register  called with the process id; returns the worker's record.
    """
    # What the worker inherits: its end of both channels, and its breadcrumb page.
    parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    socket_channel, child_socket_channel = create_socket_channel()
    breadcrumbs_fd = create_breadcrumb_page()
    with child_end, child_socket_channel:
        inherited = (child_end.fileno(), breadcrumbs_fd, child_socket_channel.fileno())
        # A session of its own: Ctrl-C reaches the supervisor alone, which then drains.
        process = subprocess.Popen(
            [
                *command,
                f"--channel-fd={inherited[0]}",
                f"--settings={settings_file}",
                f"--breadcrumbs-fd={inherited[1]}",
                f"--sockets-fd={inherited[2]}",
            ],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    worker = register(process.pid)
    return WorkerProcess(process, worker, breadcrumbs_fd, socket_channel), parent_end
