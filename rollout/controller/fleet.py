"""The gateways' workers as they describe themselves. Pure: every instant is an argument."""

from dataclasses import dataclass

from protos import registry_pb2
from rollout.judge.judge import FleetView

WorkerKey = tuple[str, int, int]
"""(gateway, slot, boot id)."""


@dataclass(slots=True)
class _WorkerEntry:
    state: registry_pb2.GatewayState
    heard_ns: int
    """When it was first known, or last sent a batch of windows: monotonic."""


class Fleet:
    """Who is live, what each holds, who has fallen silent."""

    def __init__(self) -> None:
        self._workers: dict[WorkerKey, _WorkerEntry] = {}

    def clear(self) -> None:
        """Forget everybody: the registry is about to say it all again."""
        self._workers.clear()

    def update_worker(self, state: registry_pb2.GatewayState, now_ns: int) -> None:
        """Take one worker's word; it replaces what the worker said before."""
        worker = (state.gateway, state.slot, state.boot_id)
        if state.disconnected:
            self._workers.pop(worker, None)
            return
        known = self._workers.get(worker)
        served = known is not None and not known.state.spare
        heard_ns = known.heard_ns if known is not None and served else now_ns
        self._workers[worker] = _WorkerEntry(state, heard_ns)

    def note_heartbeat(self, worker: WorkerKey, now_ns: int) -> None:
        """Note a batch of windows, empty or not."""
        known = self._workers.get(worker)
        if known is not None:
            known.heard_ns = now_ns

    def view(self, model: str, version: str, silence_ns_max: float, now_ns: int) -> FleetView:
        """Return what the judge must know for one candidate."""
        not_ready, refused, silent = [], [], []
        for (gateway, slot, _), known in sorted(self._workers.items()):
            name = f"worker {gateway}/{slot}"
            held = _version_state(known.state, model, version)
            if held is not None and held.state == registry_pb2.VersionLoad.REFUSED:
                refused.append(f"{name}: {held.reason or 'no reason given'}")
            elif held is None or held.state != registry_pb2.VersionLoad.READY:
                not_ready.append(name)
            if not known.state.spare and now_ns - known.heard_ns > silence_ns_max:
                silent.append(name)
        return FleetView(
            workers=len(self._workers),
            not_ready=tuple(not_ready),
            refused=tuple(refused),
            silent=tuple(silent),
        )

    def moved_unix_ns(self, model: str, revision: int) -> int:
        """Return when the last serving worker obeyed *revision*; 0: not all do yet."""
        serving = [known.state for known in self._workers.values() if not known.state.spare]
        if not serving or any(state.applied.get(model, 0) < revision for state in serving):
            return 0
        return max(state.applied_unix_ns.get(model, 0) for state in serving)


def _version_state(
    state: registry_pb2.GatewayState, model: str, version: str
) -> registry_pb2.VersionLoad | None:
    return next((one for one in state.loads if (one.model, one.version) == (model, version)), None)
