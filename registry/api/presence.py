"""Which gateway workers are alive, and what each said last. In memory, on one event loop."""

from collections.abc import Callable
from dataclasses import dataclass, field

from protos import registry_pb2 as pb

REPORT_VALID_S = 5.0
FORGOTTEN_S = 60.0
WORKERS_MAX = 10_000
"""Bounds what a broken client can make us remember."""

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
    """What one watcher was told: worker -> sequence. Its own; the presence only reads it."""

    sequences: dict[WorkerKey, int] = field(default_factory=dict)


class Presence:
    """A worker is live while its watch stream is open, or 5 s from a report sent without one."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._workers: dict[WorkerKey, _LiveWorker] = {}
        self._sequence = 0

    def stream_opened(self, key: WorkerKey) -> None:
        """The worker's watch stream stands."""
        self._worker(key).streams += 1

    def stream_closed(self, key: WorkerKey) -> None:
        """One of its streams ended; with the last one the worker is gone at once."""
        worker = self._worker(key)
        worker.streams = max(0, worker.streams - 1)
        worker.left_s = self._monotonic_s()

    def record_state(self, state: pb.GatewayState) -> None:
        """Keep a worker's newest word."""
        worker = self._worker((state.gateway, state.slot, state.boot_id))
        self._sequence += 1
        worker.state, worker.sequence = state, self._sequence
        worker.reported_s = self._monotonic_s()

    def live_states(self) -> list[pb.GatewayState]:
        """The newest word of every live worker."""
        now = self._monotonic_s()
        return [w.state for w in self._workers.values() if w.sequence and self._is_live(w, now)]

    def changes_since(self, position: WatcherPosition) -> list[pb.GatewayState]:
        """What a watcher was not told yet, and remember that it was; `gone` for who left."""
        now = self._monotonic_s()
        self._forget(now)
        told: list[pb.GatewayState] = []
        for key, worker in self._workers.items():
            if worker.sequence > position.sequences.get(key, 0) and self._is_live(worker, now):
                position.sequences[key] = worker.sequence
                told.append(worker.state)
        for key in [k for k in position.sequences if not self._is_live(self._workers.get(k), now)]:
            del position.sequences[key]
            gateway, slot, boot_id = key
            told.append(
                pb.GatewayState(gateway=gateway, slot=slot, boot_id=boot_id, disconnected=True)
            )
        return told

    def _worker(self, key: WorkerKey) -> _LiveWorker:
        if key not in self._workers and len(self._workers) >= WORKERS_MAX:
            self._forget(self._monotonic_s())
            stale = min(self._workers, key=lambda k: self._workers[k].reported_s)
            del self._workers[stale]
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
            quiet_s = now - max(worker.reported_s, worker.left_s)
            if worker.streams == 0 and quiet_s > FORGOTTEN_S:
                del self._workers[key]
