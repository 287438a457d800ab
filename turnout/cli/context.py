"""The options that every command takes: where the system is, who acts, and how to print.

The help of all commands imports this module. So what reads the running system is imported where it
is needed: with asyncio and the messages of protobuf it takes .07 s.
"""

import getpass
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from features.online.store_url import url_with_credentials
from host.addresses import UrlOptionError, is_address, read_url_option
from turnout.errors import NotReachableError, OperatorError, UsageError

if TYPE_CHECKING:
    from project.environment import Environment
    from project.folder import ProjectFolder
    from turnout.processes.system_file import SystemAddresses

OPTIONS_WITH_VALUE = (
    "--folder",
    "--registry",
    "--gateway",
    "--as",
    "--token-file",
    "--registry-certificate",
    "--store",
    "--project",
    "--env",
)
"""Common options with a value. They may stand anywhere on the command line."""
FLAG_OPTIONS = ("--json",)
"""Common options without a value."""

PART_OPTIONS = {
    "registry": "--registry HOST:PORT",
    "gateway": "--gateway HOST:PORT",
    "store": "--store URL",
    "features": "--server HOST:PORT",
}
"""Part of a system -> the option that says where it is."""

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
    registry_certificate: str = ""
    """PEM file of the certificate that the registry must prove to have.

    When it is empty, the environment or system.json names it, unless *registry* is given.
    """
    store: str = field(default="", repr=False)
    """URL of the online store that --store gives, which a new system uses too."""
    store_default: str = field(default="", repr=False)
    """URL of the online store in TURNOUT_STORE; without both, the environment or system.json."""
    project: "ProjectFolder | None" = None
    """The project of the working directory, or the one that was named; None: there is none."""
    environment: "Environment | None" = None
    """The chosen environment of the project; None: there is none."""

    def required_project(self) -> "ProjectFolder":
        """Return the project. OperatorError when there is none."""
        if self.project is None:
            raise OperatorError(
                f"{Path.cwd()} is in no project: no folder from here upwards has a turnout.toml. "
                "Make a project with `turnout init NAME`, or name one with --project"
            )
        return self.project

    def required_environment(self) -> "Environment":
        """Return the environment. OperatorError when there is none."""
        project = self.required_project()
        if self.environment is None:
            raise OperatorError(
                f"{project.root} has no environments/dev.toml; name an environment with --env"
            )
        return self.environment

    def bearer_token(self) -> str | None:
        """Return the actor's token: that of the options, or else that of the environment."""
        # Another registry, in plain text, is not the one that the environment's token is for.
        if not self.token and self.registry and not self.registry_certificate:
            return None
        return self.token or self._named("token") or None

    def offline_folder(self) -> Path:
        """Return the folder of the offline store: the environment's, or the running system's."""
        if self.environment is not None and self.environment.offline:
            return self.environment.path(self.environment.value("offline"))
        return self.running_folder() / "offline"

    def registry_address(self) -> str:
        """Return host:port of the registry and the rollout controller.

        NotReachableError when no system runs, UsageError for what is no host:port.
        """
        named = self.registry or self._named("registry") or self._running("registry").registry
        return _address(named, "registry")

    def certificate(self) -> Path | None:
        """Return the file of the certificate of registry and controller; None: plain text.

        NotReachableError when no system runs.
        """
        if self.registry_certificate:
            return Path(self.registry_certificate)
        if self.registry:
            return None
        if self.environment is not None and self.environment.registry:
            named = self._named("registry_certificate")
            return self.environment.path(named) if named else None
        return self._running("registry").certificate

    def gateway_address(self) -> str:
        """Return host:port of the gateway.

        NotReachableError when no system runs, UsageError for what is no host:port.
        """
        named = self.gateway or self._named("gateway") or self._running("gateway").gateway
        return _address(named, "gateway")

    def features_server(self) -> tuple[str, Path | None]:
        """Return host:port of the server of pushed rows, and the file of its certificate.

        Without a file it is called in plain text. NotReachableError when no system runs.
        """
        environment = self.environment
        if environment is not None and environment.features:
            address = _address(self._named("features"), "features")
            named = self._named("features_certificate")
            return address, environment.path(named) if named else None
        running = self._running("features")
        return running.features, running.certificate

    def store_url(self, user: str) -> str:
        """Return the URL with which *user* (reader or writer) opens the online store.

        NotReachableError when no system runs.
        """
        if self.store or self.store_default:
            return self.store or self.store_default
        if store := self._named("store"):
            password = self._named("store_password")
            if not password:
                return store
            return url_with_credentials(store, self._named("store_user") or user, password)
        from features.online.store_users import url_for_user

        running = self._running("store")
        return url_for_user(running.store, user, running.store_passwords)

    def running_folder(self) -> Path:
        """Return the state folder of the running system: this one, or that of the demo in it."""
        from turnout.processes.system_file import read_system_file

        if (
            read_system_file(self.folder) is None
            and read_system_file(self.folder / DEMO_FOLDER) is not None
        ):
            return self.folder / DEMO_FOLDER
        return self.folder

    def _named(self, part: str) -> str:
        """Return what the environment names, such as an address; empty when it names none."""
        return "" if self.environment is None else self.environment.value(part)

    def _running(self, part: str) -> "SystemAddresses":
        from turnout.processes.system_file import read_system_file

        running = read_system_file(self.running_folder())
        if running is None:
            raise NotReachableError(
                f"no system runs in {self.folder}; start one with `turnout up`, or say where it "
                f"is with --folder or {PART_OPTIONS[part]}"
            )
        return running


def monitoring_address(context: CommandContext, named: str) -> str:
    """Return *named*, or the registry's address, on which control serves monitoring.

    NotReachableError when no system runs, UsageError for what is no host:port.
    """
    return _address(named, "monitoring") if named else context.registry_address()


def _address(named: str, part: str) -> str:
    """Return *named*. UsageError when it is no address: gRPC would call port 443 of it.

    The child of a runner calls a socket, "unix:PATH" (turnout/retraining/registry_door.py).
    """
    if not named.startswith("unix:") and not is_address(named):
        raise UsageError(
            f"the address of the {part} is {named!r}; it needs host and port, such as "
            "127.0.0.1:7001"
        )
    return named


def context_from_options(
    folder: str,
    registry: str,
    gateway: str,
    actor: str,
    as_json: bool,
    environ: Mapping[str, str],
    token_file: str = "",
    registry_certificate: str = "",
    *,
    store: str = "",
    project: str = "",
    env: str = "",
) -> CommandContext:
    """Return the command context; an empty option is taken from *environ*, or the environment.

    Raises UsageError when the history cannot take the actor's name or *store* has a password, and
    ProjectError when the project of the working directory cannot be read.
    """
    # Who acts.
    actor = actor or environ.get("TURNOUT_ACTOR", "") or _login_name()
    if not _is_actor_name(actor):
        raise UsageError(f"--as {actor!r}: a name has 1 to 64 printable ASCII characters")
    token_file = token_file or environ.get("TURNOUT_TOKEN_FILE", "")
    try:
        store = read_url_option(store)
    except UrlOptionError as error:
        raise UsageError(f"--store: {error}") from error
    # Where the system is. An environment of a project says it when no option does.
    found, environment = _find_environment(
        project or environ.get("TURNOUT_PROJECT", ""), env or environ.get("TURNOUT_ENV", "")
    )
    folder = folder or environ.get("TURNOUT_FOLDER", "")
    if environment is not None and not folder:
        folder = str(environment.path(environment.value("folder") or ".turnout"))
    # What is still empty is looked up when a command needs it.
    return CommandContext(
        token=_read_token(token_file) if token_file else environ.get("TURNOUT_TOKEN"),
        folder=Path(folder or ".turnout"),
        registry=registry or environ.get("TURNOUT_REGISTRY", ""),
        gateway=gateway or environ.get("TURNOUT_GATEWAY", ""),
        actor=actor,
        json=as_json,
        registry_certificate=registry_certificate
        or environ.get("TURNOUT_REGISTRY_CERTIFICATE", ""),
        store=store,
        store_default=environ.get("TURNOUT_STORE", ""),
        project=found,
        environment=environment,
    )


def _read_token(file: str) -> str:
    from registry.types import read_token

    return read_token(Path(file))


def _is_actor_name(name: str) -> bool:
    return name.isascii() and name.isprintable() and 1 <= len(name) <= 64


def _login_name() -> str:
    """Return the login name, or `uid-` and the user id where the history cannot take the name.

    In a container the user id often has no name.
    """
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        name = ""
    return name if _is_actor_name(name) else f"uid-{os.getuid()}"


def _find_environment(project: str, env: str) -> "tuple[ProjectFolder | None, Environment | None]":
    """Return the project that is named or that the working directory is in, and its environment.

    Without a name it is `dev`, if the project has that.
    """
    from project.environment import DEFAULT, environment_names, read_environment
    from project.folder import find_project

    found = find_project(Path.cwd(), project)
    if found is None:
        if env:
            raise UsageError(f"--env {env} belongs to a project, and there is none here")
        return None, None
    if not env and DEFAULT not in environment_names(found):
        return found, None
    return found, read_environment(found, env)


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
