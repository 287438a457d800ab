"""`python -m turnout.control`: registry, rollouts, monitoring and explanations on one server."""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import grpc
import uvloop

from access.certificate_ends import certificate_end, watch_certificates
from access.interceptor import access_interceptor
from access.peer_tls import PeerError, ServerCertificate, add_port, certificate_for
from access.streams import keep_client_connections
from host.files import keep_files_private
from host.processes import fail_fast
from host.text import log_to_stderr
from monitoring.decisions.decision_store import DecisionStore
from monitoring.errors import MonitoringError
from monitoring.explain.retained_rows import FirstDecisions, RetainedDecisions
from monitoring.explain.served_rows import DecisionSource, JournalDecisions
from monitoring.explain.service import ExplainerComponent
from project.environment import read_environment
from project.errors import ProjectError
from project.folder import open_project
from project.notice_targets import NoticeTarget
from registry.api import server as registry_server
from registry.client import RegistryClient
from registry.types import RegistryError, read_token
from rollout.api import server as rollout_server
from rollout.policy.policy import POLICIES, Policy
from rollout.policy.policy_files import read_policy_folder
from turnout.monitoring.hosted import (
    HostedMonitoring,
    MonitoringSettings,
    add_monitoring_options,
    monitoring_settings,
)
from turnout.retraining.scheduler import Scheduler

log = logging.getLogger("control")

STOP_GRACE_S = 2.0
NOTICES_FILE = "notices.json"
"""The position of each target of notices, in the registry's folder."""
TOKEN_VARIABLE = "TURNOUT_TOKEN"  # noqa: S105  the variable's name
"""Environment variable with the controller's own token; --token-file takes precedence.

A registry with an identities file asks for it.
"""


async def serve_control(
    folder: Path,
    address: str,
    identities: Sequence[Path],
    token: str | None,
    certificate: ServerCertificate,
    policies: Mapping[str, Policy],
    monitoring: MonitoringSettings,
    journal: Path | None = None,
    notices: Sequence[NoticeTarget] = (),
) -> None:
    """Serve the registry in *folder*, the rollouts and monitoring until SIGTERM or SIGINT.

    address      host:port to listen on; port 0 takes a free one, which is logged. The parts call
                 the registry over this port too, so each could run as a process of its own.
    identities   files of tokens; without one every name is believed.
    certificate  how this process proves itself to gateways and people.
    journal      folder of gateways whose predictions are explained. notices  of incidents go there.
    """
    # One server for all parts. Its interceptor lets calls in.
    stop_requested = _event_at_end()
    options = {**dict(rollout_server.SERVER_OPTIONS), **dict(registry_server.SERVER_OPTIONS)}
    interceptors = (access_interceptor(identities),)
    server = grpc.aio.server(options=tuple(options.items()), interceptors=interceptors)
    registry = await registry_server.add_registry_to(server, folder)
    # Rollouts call the registry over the port, so they start when it listens, and stop before.
    try:
        port = add_port(server, address, certificate)
        address = f"{address.rpartition(':')[0]}:{port}"
        hosted = HostedMonitoring(server, monitoring, address, token, certificate)
        rollouts = rollout_server.add_rollout_to(
            server,
            address,
            token=token,
            certificate=certificate.certificate,
            policies=policies,
            beside=(_ask_for_due_runs, partial(_send_notices, notices, folder / NOTICES_FILE)),
            on_windows=hosted.on_windows,
        )
        sources = _decision_sources(journal, hosted.decisions)
        explainer = _add_explainer_to(server, address, token, certificate, sources)
        # Parts call the registry, so the server starts first.
        await server.start()
        keeping_connections = keep_client_connections(port)
        await rollouts.start()
        await hosted.start()
        await explainer.start()
        watching = _watch(certificate)
        _log_listening(address, registry.version_public_key, certificate)
        # Everything runs until it is asked to stop. What calls another part stops before it.
        await stop_requested.wait()
        watching.cancel()
        await explainer.stop()
        await rollouts.stop()
        registry.end_watches()
        await server.stop(STOP_GRACE_S)
        await hosted.stop()
        keeping_connections.cancel()
    finally:
        registry.close()


def _watch(certificate: ServerCertificate) -> "asyncio.Task[None]":
    """Warn of the certificate's end from now on."""
    watched = {"control": certificate.certificate}
    return fail_fast(asyncio.create_task(watch_certificates(watched)))


def _event_at_end() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, event.set)
    return event


def _log_listening(address: str, version_key: bytes, certificate: ServerCertificate) -> None:
    log.info(
        "listening address=%s version_public_key=%s certificate=%s ends=%s",
        address,
        version_key.hex(),
        certificate.certificate,
        certificate_end(certificate.certificate).isoformat(),
    )


def _decision_sources(journal: Path | None, retained: DecisionStore | None) -> list[DecisionSource]:
    """Return where rows of predictions are: decisions of all hosts, journals of this host."""
    sources: list[DecisionSource] = []
    if retained is not None:
        sources.append(RetainedDecisions(retained))
    if journal is not None:
        sources.append(JournalDecisions(journal))
    return sources


def _add_explainer_to(
    server: grpc.aio.Server,
    address: str,
    token: str | None,
    certificate: ServerCertificate,
    sources: Sequence[DecisionSource],
) -> ExplainerComponent:
    """Serve explanations on *server*. The arguments are those of `serve_control`.

    sources  where the rows of predictions are found.
    """
    decisions = FirstDecisions(sources) if sources else None
    explainer = ExplainerComponent(
        address, decisions, token=token, certificate=certificate.certificate
    )
    explainer.add_to(server)
    return explainer


async def _ask_for_due_runs(registry: RegistryClient, lease_token: int) -> None:
    """Ask for the runs that schedules make due, while the controller leads."""
    await Scheduler(registry, lease_token, lambda: time.time_ns() // 1_000_000).run()


async def _send_notices(
    targets: Sequence[NoticeTarget], file: Path, registry: RegistryClient, _lease_token: int
) -> None:
    """Send notices while the controller leads, so that two control processes send none twice."""
    if targets:
        from turnout.notices.delivery import deliver_notices  # it imports rich

        await deliver_notices(targets, registry, file)
    await asyncio.Event().wait()  # a loop that ends would end the lead


def notice_targets(file: Path | None) -> tuple[NoticeTarget, ...]:
    """Return the targets in an environment's file, with secrets. Raises ProjectError."""
    if file is None:
        return ()
    project = open_project(file.resolve().parent.parent)
    return read_environment(project, file.stem).notice_targets()


def _control_options() -> argparse.ArgumentParser:
    """Return the options of the control process."""
    parser = argparse.ArgumentParser(prog="python -m turnout.control", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the registry's folder")
    parser.add_argument("--listen", required=True, help="host:port; port 0 takes a free port")
    parser.add_argument(
        "--identities",
        type=Path,
        action="append",
        default=[],
        help="file of tokens and roles (docs/governance.md); may be given more than once",
    )
    parser.add_argument(
        "--token-file", type=Path, help="file with the rollout controller's own token"
    )
    parser.add_argument("--policies", type=Path, help="folder of policy files (docs/rollout.md)")
    add_monitoring_options(parser)
    parser.add_argument(
        "--journal",
        type=Path,
        help="folder of gateways on this host, whose predictions are explained by their ids",
    )
    parser.add_argument(
        "--notices",
        type=Path,
        help="file of an environment with [notices.NAME] (docs/incidents.md)",
    )
    parser.add_argument("--tls-certificate", type=Path, help="PEM file; else one is made in keys/")
    parser.add_argument("--tls-key", type=Path, help="PEM file with the certificate's key")
    return parser


def main() -> None:
    """Parse the command line and serve until a signal."""
    # What the options name is read before anything is served.
    options = _control_options().parse_args()
    policies = POLICIES if options.policies is None else read_policy_folder(options.policies)
    keep_files_private()
    log_to_stderr("%(asctime)s %(name)s %(message)s")
    token = read_token(options.token_file) if options.token_file else os.environ.get(TOKEN_VARIABLE)
    # Callers send tokens and windows here, so this server always proves itself.
    try:
        certificate = certificate_for(
            options.folder / "keys",
            options.listen,
            options.tls_certificate,
            options.tls_key,
            tokens=True,
        )
        assert certificate is not None  # only a server without tokens may do without it
        uvloop.run(
            serve_control(
                options.folder,
                options.listen,
                options.identities,
                token,
                certificate,
                policies,
                monitoring_settings(options),
                options.journal,
                notice_targets(options.notices),
            )
        )
    except (MonitoringError, PeerError, ProjectError, RegistryError) as error:
        sys.exit(f"control: {error}")


if __name__ == "__main__":
    main()
