"""The registry in a process: alone, or on a grpc.aio server that others share."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from registry.api.access import Access, read_identities
from registry.api.rpc import registry_handlers
from registry.api.service import RegistryService
from registry.storage.store import RegistryStore
from registry.types import RegistryUnavailableError

STOP_GRACE_S = 2.0
"""For changes that were begun; watches end at once."""

SERVER_OPTIONS = (
    # A worker whose host vanished is noticed in 15 s; a closed socket at once.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", 40 * 2**20),  # a checkpoint; chunks are 1 MiB
    ("grpc.so_reuseport", 0),  # two registries on one port would be two truths
)


class RegistryParts:
    """The registry's half of a server: end its watches, then stop the server, then close it."""

    def __init__(self, service: RegistryService, store: RegistryStore) -> None:
        self._service = service
        self._store = store

    def end_watches(self) -> None:
        """Send every watcher away; call it before the server stops."""
        self._service.close()

    def close(self) -> None:
        """Close the database; call it after the server stopped."""
        self._store.close()


async def add_registry_to(
    server: grpc.aio.Server,
    folder: Path,
    *,
    identities: Path | None = None,
    now_ns: Callable[[], int] = time.time_ns,
) -> RegistryParts:
    """Serve the registry kept in *folder* on a server that is not started yet.

    identities  the file of tokens (docs/governance.md); None: names are taken on trust.
    """
    access = Access(read_identities(identities) if identities is not None else None)
    store = await asyncio.to_thread(RegistryStore, folder, now_ns)
    service = RegistryService(store)
    server.add_generic_rpc_handlers((registry_handlers(service, access),))
    return RegistryParts(service, store)


class RegistryServer:
    """A registry on a port of its own; made by `serve`."""

    def __init__(self, server: grpc.aio.Server, registry: RegistryParts, port: int) -> None:
        self._server = server
        self._registry = registry
        self.port = port

    async def stop(self) -> None:
        """Finish what was begun, refuse the rest, close the database."""
        self._registry.end_watches()
        await self._server.stop(STOP_GRACE_S)
        self._registry.close()

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._server.wait_for_termination()


async def serve_registry(
    folder: Path,
    address: str,
    *,
    identities: Path | None = None,
    now_ns: Callable[[], int] = time.time_ns,
) -> RegistryServer:
    """Open the registry in *folder* and listen on *address* (host:port; port 0: any free one).

    Raises RegistryUnavailableError when the address cannot be had.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS)
    registry = await add_registry_to(server, folder, identities=identities, now_ns=now_ns)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        registry.close()
        raise RegistryUnavailableError(f"cannot listen on {address}: {error}") from error
    await server.start()
    return RegistryServer(server, registry, port)
