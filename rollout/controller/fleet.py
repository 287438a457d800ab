"""The state of the gateways' workers, as the workers report it.

Pure: every instant is an argument, on the controller's monotonic clock.
"""

from dataclasses import dataclass

from protos import registry_pb2
from rollout.judge.judge import FleetView

WorkerKey = tuple[str, int, int]
"""(gateway, slot, boot id)."""


@dataclass(slots=True)
class _WorkerEntry:
    state: registry_pb2.GatewayState
    heard_ns: int
    """When the worker became known, or sent its newest batch of windows."""


class Fleet:
    """The live workers of all gateways."""

    def __init__(self) -> None:
        self._workers: dict[WorkerKey, _WorkerEntry] = {}

    def clear(self) -> None:
        """Forget all workers. The registry sends every state again when the watch begins anew."""
        self._workers.clear()

    def update_worker(self, state: registry_pb2.GatewayState, now_ns: int) -> None:
        """Replace the state of one worker, or forget a worker that has disconnected."""
        worker = (state.gateway, state.slot, state.boot_id)
        if state.disconnected:
            self._workers.pop(worker, None)
            return
        # A spare sends no windows. Its silence is measured from the moment it begins to serve.
        known = self._workers.get(worker)
        served = known is not None and not known.state.spare
        heard_ns = known.heard_ns if known is not None and served else now_ns
        self._workers[worker] = _WorkerEntry(state, heard_ns)

    def knows(self, worker: WorkerKey) -> bool:
        """Whether the registry says that *worker* is live."""
        return worker in self._workers

    def note_heartbeat(self, worker: WorkerKey, now_ns: int) -> None:
        """Note that *worker* sent a batch of windows, which may be empty."""
        entry = self._workers.get(worker)
        if entry is not None:
            entry.heard_ns = now_ns

    def view(self, model: str, version: str, silence_ns_max: float, now_ns: int) -> FleetView:
        """Return the workers' view of one candidate for the judge.

        silence_ns_max  a serving worker without windows for longer than this is silent.
        """
        not_ready, refused, silent = [], [], []
        for (gateway, slot, _), entry in sorted(self._workers.items()):
            name = f"worker {gateway}/{slot}"
            load = _version_load(entry.state, model, version)
            if load is not None and load.state == registry_pb2.VersionLoad.REFUSED:
                refused.append(f"{name}: {load.reason or 'no reason given'}")
            elif load is None or load.state != registry_pb2.VersionLoad.READY:
                not_ready.append(name)
            if not entry.state.spare and now_ns - entry.heard_ns > silence_ns_max:
                silent.append(name)
        return FleetView(
            workers=len(self._workers),
            not_ready=tuple(not_ready),
            refused=tuple(refused),
            silent=tuple(silent),
        )

    def moved_unix_ns(self, model: str, revision: int) -> int:
        """Return when the last serving worker applied *revision*, Unix ns; 0: not all have."""
        serving = [entry.state for entry in self._workers.values() if not entry.state.spare]
        if not serving or any(state.applied.get(model, 0) < revision for state in serving):
            return 0
        return max(state.applied_unix_ns.get(model, 0) for state in serving)


def _version_load(
    state: registry_pb2.GatewayState, model: str, version: str
) -> registry_pb2.VersionLoad | None:
    return next(
        (load for load in state.loads if (load.model, load.version) == (model, version)), None
    )
