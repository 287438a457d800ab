"""Serves the registry: on a gRPC server of its own, or on one that other services share."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from access import streams
from access.bounds import MESSAGE_BYTES_MAX
from access.interceptor import access_interceptor
from access.peer_tls import ServerCertificate, add_port
from host.processes import fail_fast
from registry.api.registrations import ProveFiles
from registry.api.rpc import registry_handlers
from registry.api.service import RegistryService
from registry.storage.store import RegistryStore
from registry.types import RegistryUnavailableError

STOP_GRACE_S = 2.0
"""Time for changes in progress when the server stops. Watches end at once."""

SERVER_OPTIONS = (
    *streams.SERVER_OPTIONS,
    # A worker on a lost host is noticed within 15 s. A closed connection is noticed at once.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),  # a second registry must not share the port
)


class RegistryParts:
    """The registry on a shared server.

    To stop: call `end_watches`, stop the server, then call `close`.
    """

    def __init__(self, service: RegistryService, store: RegistryStore) -> None:
        self._service = service
        self._store = store
        self._proving_older = fail_fast(asyncio.create_task(service.prove_older_entries()))

    @property
    def version_public_key(self) -> bytes:
        """The key that gateways pin, 32 bytes."""
        return self._store.keys.version_public_key

    def end_watches(self) -> None:
        """End every watch stream. Call this before the server stops."""
        self._service.close()
        self._proving_older.cancel()

    def close(self) -> None:
        """Close the database. Call this after the server has stopped."""
        self._store.close()


async def add_registry_to(
    server: grpc.aio.Server,
    folder: Path,
    *,
    now_ns: Callable[[], int] = time.time_ns,
    prove: ProveFiles | None = None,
) -> RegistryParts:
    """Add the registry in *folder* to a server that has not started yet.

    The server needs an AccessInterceptor, which gives each call its identity.

    now_ns  clock for history and deployments, Unix nanoseconds.
    prove   as for Registrations.
    """
    store = await asyncio.to_thread(RegistryStore, folder, now_ns)
    service = RegistryService(store, prove=prove)
    server.add_generic_rpc_handlers((registry_handlers(service),))
    return RegistryParts(service, store)


class RegistryServer:
    """A registry with its own gRPC server. `serve_registry` makes it."""

    def __init__(self, server: grpc.aio.Server, registry: RegistryParts, port: int) -> None:
        self._server = server
        self._registry = registry
        self.port = port
        self._keeping_connections = streams.keep_client_connections(port)

    async def stop(self) -> None:
        """Finish the calls in progress within 2 s, refuse others, and close the database."""
        self._registry.end_watches()
        await self._server.stop(STOP_GRACE_S)
        self._keeping_connections.cancel()
        self._registry.close()

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._server.wait_for_termination()


async def serve_registry(
    folder: Path,
    address: str,
    *,
    identities: Sequence[Path] = (),
    certificate: ServerCertificate | None = None,
    now_ns: Callable[[], int] = time.time_ns,
    prove: ProveFiles | None = None,
) -> RegistryServer:
    """Open the registry in *folder* and listen on *address*, host:port. Port 0 takes a free port.

    identities   files of tokens (docs/governance.md). Without one every name is believed.
    certificate  None: plain text, to which no client sends a token.
    now_ns       clock for history and deployments, Unix nanoseconds.

    Raises RegistryUnavailableError when the registry cannot listen there, IdentitiesFileError.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=(access_interceptor(identities),))
    registry = await add_registry_to(server, folder, now_ns=now_ns, prove=prove)
    try:
        port = add_port(server, address, certificate)
    except RuntimeError as error:
        registry.close()
        raise RegistryUnavailableError(f"cannot listen on {address}: {error}") from error
    await server.start()
    return RegistryServer(server, registry, port)
