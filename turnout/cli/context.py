"""The options that every command takes: where the system is, who acts, and how to print."""

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from features.online.store_users import url_for_user
from registry.types import read_token
from turnout.errors import NotReachableError, UsageError
from turnout.processes.system_file import SystemAddresses, read_system_file

OPTIONS_WITH_VALUE = ("--folder", "--registry", "--gateway", "--as", "--token-file")
"""Common options with a value. They may stand anywhere on the command line."""
FLAG_OPTIONS = ("--json",)
"""Common options without a value."""

DEMO_FOLDER = "demo"
"""Subfolder of the state folder in which a demo runs, so that every command finds it too."""


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The common options of one command, with defaults from the environment filled in."""

    folder: Path
    """The state folder; `system.json` in it has the addresses of the running system."""
    registry: str
    """host:port; when it is empty, the address in system.json is used."""
    gateway: str
    """host:port; when it is empty, the address in system.json is used."""
    actor: str
    """The name that the registry writes into the history."""
    json: bool
    """Print one JSON value and nothing else to stdout."""
    token: str | None = field(default=None, repr=False)
    """The actor's token, for a registry with an identities file; None: the actor has none.

    A registry without such a file takes the actor's name on trust.
    """

    def registry_address(self) -> str:
        """Return host:port of the registry and the rollout controller.

        NotReachableError when no system runs.
        """
        return self.registry or self._running("registry").registry

    def gateway_address(self) -> str:
        """Return host:port of the gateway; NotReachableError when no system runs."""
        return self.gateway or self._running("gateway").gateway

    def store_url(self, user: str) -> str:
        """Return the URL with which *user* (reader or writer) opens the online store.

        NotReachableError when no system runs.
        """
        running = self._running("store")
        return url_for_user(running.store, user, running.store_passwords)

    def running_folder(self) -> Path:
        """Return the state folder of the running system: this one, or that of the demo in it."""
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
    """Return the command context; an empty option is taken from *environ*.

    Raises UsageError when the history cannot take the actor's name.
    """
    actor = actor or environ.get("TURNOUT_ACTOR", "") or getpass.getuser()
    if not (actor.isascii() and actor.isprintable() and 1 <= len(actor) <= 64):
        raise UsageError(f"--as {actor!r}: a name has 1 to 64 printable ASCII characters")
    token_file = token_file or environ.get("TURNOUT_TOKEN_FILE", "")
    return CommandContext(
        token=read_token(Path(token_file)) if token_file else environ.get("TURNOUT_TOKEN"),
        folder=Path(folder or environ.get("TURNOUT_FOLDER", "") or ".turnout"),
        registry=registry or environ.get("TURNOUT_REGISTRY", ""),
        gateway=gateway or environ.get("TURNOUT_GATEWAY", ""),
        actor=actor,
        json=as_json,
    )


def common_options_first(arguments: Sequence[str]) -> list[str]:
    """Return *arguments* with the common options moved to the front.

    `turnout models --json` then means the same as `turnout --json models`. Arguments after `--`
    are not moved.
    """
    common: list[str] = []
    others: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, _, _ = argument.partition("=")
        if argument == "--":
            others.extend(["--", *remaining])
        elif name in FLAG_OPTIONS or (name in OPTIONS_WITH_VALUE and "=" in argument):
            common.append(argument)
        elif name in OPTIONS_WITH_VALUE:
            common.extend([argument, *islice(remaining, 1)])
        else:
            others.append(argument)
    return [*common, *others]
