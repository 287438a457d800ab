"""Monitoring on a real server of its own, with people who have tokens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from access.peer_tls import certificate_for
from monitoring.api.component import MonitoringComponent, database_url
from monitoring.api.server import serve_monitoring
from monitoring.client import MonitoringClient
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import LookStore
from tests.access.identity_files import write_identities

PEOPLE = {"rita": ["reader"], "aud": ["auditor"], "olga": ["operator"], "pia": ["pusher"]}


@dataclass(frozen=True)
class ServedMonitoring:
    """A running server, and a second connection to its database for what looks store."""

    address: str
    certificate: Path
    looks: LookStore

    def client(self, person: str) -> MonitoringClient:
        """Return a client with the token of a person of PEOPLE."""
        token = f"{person}-token"
        return MonitoringClient(self.address, person, token, certificate=self.certificate)


@asynccontextmanager
async def monitoring_server(folder: Path) -> AsyncIterator[ServedMonitoring]:
    """Serve monitoring of *folder* while the block lasts. Its registry is not there."""
    certificate = certificate_for(folder / "keys", "127.0.0.1:0", None, None, tokens=True)
    assert certificate is not None
    component = MonitoringComponent(folder / "monitoring", "", "127.0.0.1:1")
    people = write_identities(folder / "people.json", **PEOPLE)
    server = await serve_monitoring(
        component, "127.0.0.1:0", certificate=certificate, identities=[people]
    )
    database = MonitoringDatabase(database_url(folder / "monitoring", ""))
    try:
        yield ServedMonitoring(
            f"127.0.0.1:{server.port}", certificate.certificate, LookStore(database)
        )
    finally:
        database.close()
        await server.stop()
