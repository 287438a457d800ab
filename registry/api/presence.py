"""The gateway workers that are live, with the newest state of each.

Everything is in memory and used by one event loop.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from protos import registry_pb2 as pb

REPORT_VALID_S = 5.0
FORGOTTEN_S = 60.0
WORKERS_MAX = 10_000
"""Bound on the workers in memory, in case a broken client reports under many names."""

WorkerKey = tuple[str, int, int]
"""(gateway, slot, boot id)."""


@dataclass(slots=True)
class _LiveWorker:
    state: pb.GatewayState
    streams: int = 0
    sequence: int = 0
    reported_s: float = float("-inf")
    left_s: float = float("-inf")


@dataclass(slots=True)
class WatcherPosition:
    """What one watcher has been sent. The watcher owns it, and Presence updates it."""

    sequences: dict[WorkerKey, int] = field(default_factory=dict)


class Presence:
    """Keeps the workers' states. A worker is live while its watch stream is open.

    A worker without a stream is live for 5 s after each report.
    """

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._workers: dict[WorkerKey, _LiveWorker] = {}
        self._sequence = 0

    def stream_opened(self, key: WorkerKey) -> None:
        """Note that a watch stream of the worker was opened."""
        self._worker(key).streams += 1

    def stream_closed(self, key: WorkerKey) -> None:
        """Note that a watch stream of the worker ended. Without a stream it is no longer live."""
        worker = self._worker(key)
        worker.streams = max(0, worker.streams - 1)
        worker.left_s = self._monotonic_s()

    def record_state(self, state: pb.GatewayState) -> None:
        """Keep the newest state that a worker reported."""
        worker = self._worker((state.gateway, state.slot, state.boot_id))
        self._sequence += 1
        worker.state, worker.sequence = state, self._sequence
        worker.reported_s = self._monotonic_s()

    def live_states(self) -> list[pb.GatewayState]:
        """Return the newest state of every live worker that has reported."""
        now = self._monotonic_s()
        return [
            worker.state
            for worker in self._workers.values()
            if worker.sequence and self._is_live(worker, now)
        ]

    def changes_since(self, position: WatcherPosition) -> list[pb.GatewayState]:
        """Return the states that are new for a watcher, and move its position past them.

        A worker that is no longer live gives one state with `disconnected` set.
        """
        now = self._monotonic_s()
        self._forget(now)
        changes: list[pb.GatewayState] = []
        for key, worker in self._workers.items():
            if worker.sequence > position.sequences.get(key, 0) and self._is_live(worker, now):
                position.sequences[key] = worker.sequence
                changes.append(worker.state)
        gone = [key for key in position.sequences if not self._is_live(self._workers.get(key), now)]
        for key in gone:
            del position.sequences[key]
            gateway, slot, boot_id = key
            changes.append(
                pb.GatewayState(gateway=gateway, slot=slot, boot_id=boot_id, disconnected=True)
            )
        return changes

    def _worker(self, key: WorkerKey) -> _LiveWorker:
        if key not in self._workers and len(self._workers) >= WORKERS_MAX:
            self._forget(self._monotonic_s())
            oldest = min(self._workers, key=lambda known: self._workers[known].reported_s)
            del self._workers[oldest]
        gateway, slot, boot_id = key
        empty = pb.GatewayState(gateway=gateway, slot=slot, boot_id=boot_id)
        return self._workers.setdefault(key, _LiveWorker(empty))

    @staticmethod
    def _is_live(worker: _LiveWorker | None, now: float) -> bool:
        if worker is None:
            return False
        reported_since = worker.reported_s > worker.left_s
        return worker.streams > 0 or (reported_since and now - worker.reported_s < REPORT_VALID_S)

    def _forget(self, now: float) -> None:
        for key, worker in list(self._workers.items()):
            silent_s = now - max(worker.reported_s, worker.left_s)
            if worker.streams == 0 and silent_s > FORGOTTEN_S:
                del self._workers[key]
