"""`python -m gateway`: one host's supervisor with its workers and spare; SIGTERM drains it."""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from access.certificate_files import CertificateFilesError, check_certificate_files
from gateway.errors import SettingsError
from gateway.ingress_choice import (
    LOG_VARIABLES,
    IngressChoice,
    check_gateway_runs_here,
    is_built,
    reads_log_of_grpc,
)
from gateway.settings import Settings
from gateway.supervision.exposition import Report
from gateway.supervision.supervisor import Supervisor
from host.addresses import UrlOptionError, read_url_option
from host.files import keep_files_private, replace_file
from host.processes import raise_descriptor_limit
from host.text import escape_controls, log_to_stderr

DESCRIPTORS_RESERVED = 512
"""Descriptors of a process besides its connections: journal, store, channels, libraries."""

log = logging.getLogger("gateway")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gateway; return 0 when drained, 1 when killed, 2 when it can never serve."""
    options = _options(argv)
    keep_files_private()
    log_to_stderr("%(asctime)s %(name)s %(message)s")
    try:
        return asyncio.run(_run(_settings(options), options.announce))
    except (SettingsError, CertificateFilesError) as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"the gateway cannot start: {error}\n")
    return 2


def allow_descriptors(connections_max: int) -> None:
    """Raise the soft limit on descriptors, which workers inherit, to what connections_max needs.

    Most systems start a program with 1,024 and allow it to raise that. When the hard limit is too
    low, a warning is logged.
    """
    needed = connections_max + DESCRIPTORS_RESERVED
    allowed = raise_descriptor_limit(needed)
    if allowed < needed:
        log.warning(
            "connections_max=%d needs %d file descriptors a worker and the system allows %d; raise "
            "its limit (ulimit -Hn, LimitNOFILE=) or lower connections_max",
            connections_max,
            needed,
            allowed,
        )


async def _run(settings: Settings, announce: Path | None) -> int:
    allow_descriptors(settings.connections_max)
    if reads_log_of_grpc(settings.ingress, settings.tls_certificate):
        os.environ.update(LOG_VARIABLES | os.environ)  # the workers inherit them
    supervisor = Supervisor(settings, on_change=lambda report: _print_serving_line(report, ports))
    # The supervisor's settings have the ports that were picked for 0.
    bound = supervisor.settings
    ports = {"port": bound.port, "metrics_port": bound.metrics_port}
    if announce is not None:
        replace_file(announce, json.dumps({"host": bound.host, **ports}), durable=False)
    code = await supervisor.run()
    if supervisor.start_failure:
        sys.stderr.write(f"the gateway cannot start: {escape_controls(supervisor.start_failure)}\n")
    return code


def _print_serving_line(report: Report, ports: dict[str, Any]) -> None:
    """Print one JSON line. The supervisor calls it when the number of serving slots changes."""
    line = {"serving": report.serving, "slots": report.slots, **ports}
    with contextlib.suppress(OSError):  # the reader of stdout may be gone; the gateway stays
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument(
        "--settings", type=Path, help="a JSON file; docs/limits.md lists the settings"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one setting, which overrides the file; VALUE is JSON or plain text",
    )
    parser.add_argument(
        "--ingress",
        choices=[choice.value for choice in IngressChoice],
        help="the server implementation (ingress/README.md); short for --set ingress=",
    )
    parser.add_argument(
        "--announce",
        type=Path,
        metavar="FILE",
        help="write host and ports to FILE, as JSON, once they are reserved; /readyz answers 503 "
        "until a worker serves",
    )
    return parser.parse_args(argv)


def _settings(options: argparse.Namespace) -> Settings:
    values: dict[str, Any] = {}
    if options.settings is not None:
        values = json.loads(options.settings.read_text(encoding="utf-8"))
    for assignment in options.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"--set {assignment!r} has no '='; write --set NAME=VALUE")
        try:
            values[name] = _value(name, read_url_option(text) if name == "redis_url" else text)
        except UrlOptionError as error:
            raise SettingsError(f"--set {name}: {error}") from error
    if options.ingress is not None:
        values["ingress"] = options.ingress
    settings = Settings.from_json(json.dumps(values))
    check_gateway_runs_here(settings.ingress, available=is_built())
    # A bad token file or certificate is reported here, once, and not by each worker.
    settings.registry_token, settings.observe_token, settings.certificate_of_registry  # noqa: B018
    if settings.tls_certificate:
        authority = settings.tls_client_authority
        check_certificate_files(
            Path(settings.tls_certificate),
            Path(settings.tls_key),
            Path(authority) if authority else None,
        )
    return settings


def _value(name: str, text: str) -> Any:  # noqa: ANN401  any JSON value
    """Return *text* as JSON, or as it is. A setting that is a text may look like a number."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    is_text = isinstance(getattr(Settings, name, None), str)
    return text if is_text and not isinstance(value, str) else value


if __name__ == "__main__":
    sys.exit(main())
