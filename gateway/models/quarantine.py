"""Quarantined versions: no worker of this host runs them as a canary, shadow, preload or pin."""

from collections.abc import Callable, Mapping

from gateway.models.loader import LoadState
from gateway.models.routes import RouteTable
from host.clock import Clock
from protos import window_pb2


class Quarantine:
    """The versions that workers of this host died of, as one worker knows them.

    load_states  digest -> load state of every version that this worker loads.
    on_guard     is called with the hard guard that tells the controller.
    """

    def __init__(
        self,
        route_table: RouteTable,
        load_states: Mapping[str, LoadState],
        clock: Clock,
        on_guard: Callable[[window_pb2.HardGuard], None],
    ) -> None:
        self._route_table = route_table
        self._load_states = load_states
        self._clock = clock
        self._on_guard = on_guard
        self._causes = route_table.quarantined

    def add(self, digest: str, reason: str, first_unix_ns: int) -> None:
        """Quarantine a version. Its breaker opens at once, whether or not a controller is there."""
        self._causes[digest] = (reason, first_unix_ns)
        self.open_breakers()

    def open_breakers(self) -> None:
        """Open the breaker of every quarantined canary. Called after routes were replaced, too."""
        for routes in self._route_table.all():
            canary = routes.canary
            if canary is not None and canary.version.bundle.digest in self._causes:
                routes.breaker.open = True

    def report_all(self) -> None:
        """Report every quarantined version to the controller."""
        for digest in self._causes:
            self.report(digest)

    def report(self, digest: str) -> None:
        """Report a quarantined version, if a deployment names it at this moment."""
        reason, first_unix_ns = self._causes[digest]
        state = self._load_states.get(digest)
        routes = self._route_table.get(state.model) if state is not None else None
        if state is None or routes is None:
            return
        self._on_guard(
            window_pb2.HardGuard(
                model=state.model,
                version=state.label,
                revision=routes.deployment.revision,
                kind=window_pb2.HardGuard.PROCESS_DIED,
                reason=reason,
                at_unix_ns=self._clock.unix_ns(),
                first_bad_unix_ns=first_unix_ns,
            )
        )
