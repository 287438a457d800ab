"""A worker's connection to the registry: it receives deployments and reports the worker's state.

The registry may be unreachable for days. No call waits for anything in this module.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from access.peer_tls import PeerError
from gateway.models.loader import Loader
from gateway.models.registry_trust import RegistryTrust
from gateway.worker_identity import WorkerIdentity
from host.clock import Clock
from host.processes import fail_fast
from host.retry import Backoff
from protos import registry_pb2
from registry.client import RegistryClient
from registry.types import RegistryError

log = logging.getLogger(__name__)

RETRY_S_MIN = 0.1
RETRY_S_MAX = 1.0
"""A registry that comes back is found within this time."""
REPORT_S = 2.0
"""Period of reports when nothing changes, so that a restarted registry learns the state."""


class RegistryWatch:
    """Watches deployments for one worker and gives them to its loader.

    token        the gateway's bearer token; None where the registry has no identities file.
    certificate  file of the certificate that the registry must prove to have; None: plain text.
    trust        decides what is accepted of what the registry sends.
    on_keys      called with the cluster's keys when the registry has sent them.
    """

    def __init__(
        self,
        address: str,
        token: str | None,
        certificate: Path | None,
        worker: WorkerIdentity,
        trust: RegistryTrust,
        clock: Clock,
        on_keys: Callable[[registry_pb2.ServingKeys], None],
    ) -> None:
        self._worker = worker
        self._trust = trust
        self._clock = clock
        self._on_keys = on_keys
        self._client = RegistryClient(
            address, f"gateway:{worker.gateway}", token, certificate=certificate
        )
        self._backoff = Backoff(2 * RETRY_S_MIN, RETRY_S_MAX)
        self._logged_error: type[BaseException | None] | None = None
        """What ended the last stream, until one has brought a snapshot."""
        self._changed = asyncio.Event()
        self._restart = asyncio.Event()
        self.snapshot_seen = asyncio.Event()
        """Set once the registry has sent the deployment of every model."""
        self.connected = False
        """Whether the stream of deployments stands."""
        self.spare = True

    async def fetch(self, model: str, version: str) -> dict[str, bytes]:
        """Download a version's files; RegistryError when the registry cannot send them."""
        return await self._client.fetch(model, version)

    def report_soon(self) -> None:
        """Report the state at once instead of at the next period: it has changed."""
        self._changed.set()

    def announce_serving(self) -> None:
        """Reopen the stream under this worker's slot, which it has from now on."""
        self.spare = False
        self._restart.set()

    async def run(self, loader: Loader) -> None:
        """Watch and report until cancelled."""
        async with self._client:
            reporting = fail_fast(asyncio.create_task(self._report(loader)))
            try:
                await self._watch(loader)
            finally:
                reporting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reporting

    async def _watch(self, loader: Loader) -> None:
        # The pause after a stream that ended well is RETRY_S_MIN; with each failure it doubles.
        while True:
            self._restart.clear()
            stream = asyncio.create_task(self._watch_stream(loader))
            restart = asyncio.create_task(self._restart.wait())
            try:
                await asyncio.wait({stream, restart}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                restart.cancel()
                stream.cancel()
                self.connected = False
            if self._restart.is_set():
                continue
            pause_s = RETRY_S_MIN
            with contextlib.suppress(asyncio.CancelledError):
                error = stream.exception()
                if error is not None or not self.snapshot_seen.is_set():
                    pause_s = self._backoff.next_s()
                self._trust.note_stream_error(error)
                # A registry that refuses for a day is one line in the log.
                if type(error) is not self._logged_error:
                    log.info("registry_stream_ended error=%s", error)
                self._logged_error = type(error)
            # The registry may have a new certificate, which was put into the file.
            try:
                await self._client.reopen_with_new_certificate()
            except PeerError as certificate_error:
                log.warning("registry_certificate_unusable error=%s", certificate_error)
            await asyncio.sleep(pause_s)

    async def _watch_stream(self, loader: Loader) -> None:
        worker = self._worker
        events = self._client.watch_deployments(worker.gateway, worker.slot, worker.boot_id)
        keys_accepted = False
        async for event in events:
            if event.HasField("keys"):
                keys_accepted = self._trust.accept_keys(event.keys)
                if keys_accepted:
                    self._on_keys(event.keys)
            # Another registry's deployments are signed by its own key, so none is looked at.
            if keys_accepted:
                for signed in self._trust.open_received(
                    event.deployments, loader.targets, snapshot=event.snapshot_end
                ):
                    loader.deploy(signed)
            if event.snapshot_end:
                self._backoff.reset()
                self._logged_error = None
                self.connected = True
                self.snapshot_seen.set()
                self._changed.set()

    async def _report(self, loader: Loader) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_S):
                    await self._changed.wait()
            self._changed.clear()
            with contextlib.suppress(RegistryError):
                await self._client.report_state(self.build_state(loader))

    def build_state(self, loader: Loader) -> registry_pb2.GatewayState:
        """Return the report on this worker: its versions' load states and applied revisions."""
        worker = self._worker
        state = registry_pb2.GatewayState(
            gateway=worker.gateway,
            slot=worker.slot,
            boot_id=worker.boot_id,
            spare=self.spare,
            at_unix_ns=self._clock.unix_ns(),
        )
        for load in loader.load_states.values():
            state.loads.add(
                model=load.model,
                version=load.label,
                digest=load.digest,
                state=load.state,
                reason=load.reason,
            )
        state.alarms.extend(self._trust.alarms)
        for model, (revision, unix_ns) in loader.applied.items():
            state.applied[model] = revision
            state.applied_unix_ns[model] = unix_ns
        return state
