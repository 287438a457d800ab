"""`python -m gateway`: the supervisor, its workers and their spare, until told to stop."""

import argparse
import asyncio
import contextlib
import json
import logging
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.errors import SettingsError
from gateway.ingress_choice import IngressChoice, check_built, is_built
from gateway.settings import Settings
from gateway.supervision.exposition import Report
from gateway.supervision.supervisor import Supervisor

DESCRIPTORS_RESERVED = 512
"""Of a process, beside its connections: journal, store, lines to children, libraries."""

log = logging.getLogger("gateway")


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 drained, 1 killed, 2 settings that cannot be, or a port taken."""
    options = _options(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    try:
        return asyncio.run(_run(_settings(options), options.announce))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"the gateway cannot start: {error}\n")
    return 2


def allow_descriptors(connections_max: int) -> None:
    """Raise the soft limit, which workers inherit, to what connections_max promises.

    Most systems start programs with 1,024, and leave a program the right to more.
    """
    wanted = connections_max + DESCRIPTORS_RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        log.warning(
            "connections_max=%d needs %d file descriptors a worker and the system allows %d; raise "
            "its limit (ulimit -Hn, LimitNOFILE=) or lower connections_max",
            connections_max,
            wanted,
            hard,
        )
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(settings: Settings, announce: Path | None) -> int:
    allow_descriptors(settings.connections_max)
    supervisor = Supervisor(
        settings, on_change=lambda report: _print_serving_line(report, port_line)
    )
    bound = supervisor.settings
    port_line = {"port": bound.port, "metrics_port": bound.metrics_port}
    if announce is not None:
        part = announce.with_suffix(".part")
        part.write_text(json.dumps({"host": bound.host, **port_line}), encoding="utf-8")
        part.replace(announce)
    return await supervisor.run()


def _print_serving_line(report: Report, ports: dict[str, Any]) -> None:
    """One JSON line on stdout each time the number of open slots changes."""
    line = {"serving": report.serving, "slots": report.slots, **ports}
    with contextlib.suppress(OSError):  # whoever read it may have left; the gateway stays
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument("--settings", type=Path, help="a JSON file; docs/limits.md has the names")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one setting, over the file's; the value as in JSON, or plain words",
    )
    parser.add_argument(
        "--ingress",
        choices=[choice.value for choice in IngressChoice],
        help="the front door (ingress/README.md); short for --set ingress=",
    )
    parser.add_argument(
        "--announce", type=Path, metavar="FILE", help="where to write the ports, as JSON"
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
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    if options.ingress is not None:
        values["ingress"] = options.ingress
    settings = Settings.from_json(json.dumps(values))
    check_built(settings.ingress, available=is_built())
    settings.registry_token  # noqa: B018  said now, and not by each worker
    return settings


if __name__ == "__main__":
    sys.exit(main())
