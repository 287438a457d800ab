"""What every command may be told: where the system is, who asks, and how to print."""

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from registry.types import read_token
from turnout.errors import NotReachableError, UsageError
from turnout.processes.system_file import SystemAddresses, read_system_file

OPTIONS_WITH_VALUE = ("--folder", "--registry", "--gateway", "--as", "--token-file")
"""The common options, which may stand anywhere on the line; each has an environment variable."""
FLAG_OPTIONS = ("--json",)

DEMO_FOLDER = "demo"
"""Where in the state folder a demo runs, so that every command finds it too."""


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The common options of one command, after the environment had its say."""

    folder: Path
    """The state folder; `system.json` in it has the addresses of the running system."""
    registry: str
    """host:port, or empty: the one in system.json."""
    gateway: str
    actor: str
    """Who asks; written into the history."""
    json: bool
    """Print one JSON value and nothing else on stdout."""
    token: str | None = field(default=None, repr=False)
    """Who asks, where the registry has an identities file; None: the name is taken on trust."""

    def registry_address(self) -> str:
        """host:port of the registry (and the rollouts); NotReachableError when none runs."""
        return self.registry or self._running("registry").registry

    def gateway_address(self) -> str:
        """host:port of the gateway; NotReachableError when none runs."""
        return self.gateway or self._running("gateway").gateway

    def store_url(self) -> str:
        """URL of the online store; NotReachableError when no system runs."""
        return self._running("store").store

    def running_folder(self) -> Path:
        """The state folder of the system that runs: our own, or the demo's in it."""
        if (
            read_system_file(self.folder) is None
            and read_system_file(self.folder / DEMO_FOLDER) is not None
        ):
            return self.folder / DEMO_FOLDER
        return self.folder

    def _running(self, part: str) -> SystemAddresses:
        running = read_system_file(self.running_folder())
        if running is None:
            raise NotReachableError(
                f"no system runs in {self.folder}; start one with `turnout up`, or say where it "
                f"is with --folder{'' if part == 'store' else f' or --{part} HOST:PORT'}"
            )
        return running


def context_from_options(
    folder: str,
    registry: str,
    gateway: str,
    actor: str,
    as_json: bool,
    environ: Mapping[str, str],
    token_file: str = "",
) -> CommandContext:
    """Fill in what was left out: the environment's word first, then the login name."""
    chosen = actor or environ.get("TURNOUT_ACTOR", "") or getpass.getuser()
    if not (chosen.isascii() and chosen.isprintable() and 1 <= len(chosen) <= 64):
        raise UsageError(f"--as {chosen!r}: a name has 1 to 64 printable ASCII characters")
    token_file = token_file or environ.get("TURNOUT_TOKEN_FILE", "")
    return CommandContext(
        token=read_token(Path(token_file)) if token_file else environ.get("TURNOUT_TOKEN"),
        folder=Path(folder or environ.get("TURNOUT_FOLDER", "") or ".turnout"),
        registry=registry or environ.get("TURNOUT_REGISTRY", ""),
        gateway=gateway or environ.get("TURNOUT_GATEWAY", ""),
        actor=chosen,
        json=as_json,
    )


def common_options_first(arguments: Sequence[str]) -> list[str]:
    """Return *arguments* with the common options first, wherever they stood.

    `turnout models --json` and `turnout --json models` are then one command. What follows `--`
    is left alone.
    """
    front: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        name, _, _ = argument.partition("=")
        if argument == "--":
            rest.extend(["--", *waiting])
        elif name in FLAG_OPTIONS or (name in OPTIONS_WITH_VALUE and "=" in argument):
            front.append(argument)
        elif name in OPTIONS_WITH_VALUE:
            front.extend([argument, *islice(waiting, 1)])
        else:
            rest.append(argument)
    return [*front, *rest]
