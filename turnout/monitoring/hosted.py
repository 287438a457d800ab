"""Monitoring as the control process hosts it: its options, and its start and end.

Rollouts do not need it. When its database cannot be opened they go on without it, and the log says
why it is not there; the journals of gateways wait.
"""

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import grpc

from access.peer_tls import ServerCertificate
from host.addresses import read_url_option
from monitoring.api.component import MonitoringComponent
from monitoring.api.decision_policy import decisions_option
from monitoring.cohorts.sensitive_attributes import OnlineStoreAddress, given_store
from monitoring.decisions.decision_store import DecisionStore
from monitoring.errors import MonitoringError
from monitoring.metrics.page import MetricsAddress
from registry.types import read_token
from rollout.api.window_sink import OnWindowBatch

log = logging.getLogger("control")


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """Where monitoring keeps what it counts.

    folder  of its database and files.
    store   URL of the database; empty: SQLite in the folder.
    decisions  keys of 65,536 of which scored rows are kept; None: as the policies say.
    metrics  where the metrics page is, and its token; None: there is none.
    online_store  from which looks at fairness read sensitive attributes; None: from none.
    off     monitoring is not served here, because it runs as a process of its own or not at all.
    """

    folder: Path
    store: str = ""
    decisions: int | None = None
    metrics: MetricsAddress | None = None
    online_store: OnlineStoreAddress | None = None
    off: bool = False


def add_monitoring_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where monitoring keeps what it counts."""
    # Its folder and database.
    parser.add_argument(
        "--monitoring",
        type=Path,
        help="folder of monitoring (docs/monitoring.md); default: monitoring beside the registry's",
    )
    parser.add_argument(
        "--monitoring-store",
        type=read_url_option,
        default="",
        help="URL of its database, or file:PATH of a file with it; default: SQLite in the folder",
    )
    parser.add_argument(
        "--decisions",
        type=decisions_option,
        help="keys of 65536 of which scored rows are kept; default: as policies say; 0: none",
    )
    parser.add_argument(
        "--metrics", default="", help="host:port of the /metrics page; default: there is none"
    )
    parser.add_argument(
        "--metrics-token-file", type=Path, help="file with the bearer token that the page needs"
    )
    # Where looks at fairness read sensitive attributes.
    parser.add_argument(
        "--online-store",
        type=read_url_option,
        default="",
        help="URL, or file:PATH of a file with it; looks at fairness read attributes there",
    )
    parser.add_argument(
        "--store-passwords",
        default="",
        help="folder with the passwords of its users, of a store of `turnout up`",
    )
    parser.add_argument(
        "--no-monitoring",
        action="store_true",
        help="it runs as a process of its own, or not at all",
    )


def monitoring_settings(options: argparse.Namespace) -> MonitoringSettings:
    """Return what the command line says. `options.folder` is the registry's.

    Raises MonitoringError for an address of the metrics page that it may not have.
    """
    file = options.metrics_token_file
    token = read_token(file) if file else None
    return MonitoringSettings(
        options.monitoring or options.folder.absolute().parent / "monitoring",
        options.monitoring_store,
        options.decisions,
        MetricsAddress(options.metrics, token) if options.metrics else None,
        given_store(options.online_store, options.store_passwords),
        off=options.no_monitoring,
    )


class HostedMonitoring:
    """Monitoring on the server of the control process, or nothing.

    server   has not started yet.
    address  host:port of the registry on the same server.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        settings: MonitoringSettings,
        address: str,
        token: str | None,
        certificate: ServerCertificate,
    ) -> None:
        self._component: MonitoringComponent | None = None
        if settings.off:
            return
        try:
            self._component = MonitoringComponent(
                settings.folder,
                settings.store,
                address,
                token=token,
                certificate=certificate.certificate,
                decisions=settings.decisions,
                metrics=settings.metrics,
                online_store=settings.online_store,
            )
        except (MonitoringError, OSError) as error:
            log.error("monitoring is not served, and journals wait: %s", error)  # noqa: TRY400
            return
        self._component.add_to(server)

    @property
    def decisions(self) -> DecisionStore | None:
        """The scored rows that are kept; None: monitoring is not served here."""
        return None if self._component is None else self._component.decisions

    @property
    def on_windows(self) -> OnWindowBatch | None:
        """What takes the windows that gateways push; None: nothing does."""
        return None if self._component is None else self._component.note_windows

    async def start(self) -> None:
        """Begin, once the server has started."""
        if self._component is not None:
            await self._component.start()

    async def stop(self) -> None:
        """End, once the server has stopped."""
        if self._component is not None:
            await self._component.stop()
