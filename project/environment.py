"""Environments: where the parts of one system are, and what production refuses.

`environments/prod.toml`:

    mode = "production"
    registry = "control-host:7001"
    registry_certificate = "certs/control.crt"
    token = "${file:/run/secrets/turnout-token}"
    store = "redis://127.0.0.1:6379"
    store_password = "${env:STORE_PASSWORD}"
    identities = "identities.json"

    [sources.billing]
    dsn = "${env:BILLING_DSN}"

    [notices.ops]
    url = "https://hooks.example.org/turnout"
    secret = "${file:/run/secrets/hook}"
    severity = "warning"            # and above; format = "alertmanager" posts to its v2 API

A value may be `${env:NAME}`, a variable, or `${file:PATH}`, the content of a file. Paths are below
the project's root unless they are absolute.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from host.addresses import is_loopback
from host.git import tracked_files, uncommitted_files
from host.text import read_fault
from project.errors import Problem, ProjectError
from project.folder import CODE_FOLDERS, ProjectFolder, files_below, read_toml, text_field
from project.notice_targets import NoticeTarget, check_secret, read_notice_targets

FOLDER = "environments"
DEFAULT = "dev"
MODES = ("development", "production")
ADDRESSES = (
    "folder",
    "registry",
    "registry_certificate",
    "gateway",
    "features",
    "features_certificate",
    "store",
    "store_user",
)
SECRETS = ("token", "store_password")
"""Keys with a secret. In production their values are references."""
PATHS = ("identities", "offline")
KEYS = ("mode", *ADDRESSES, *SECRETS, *PATHS, "sources", "notices")

REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
PASSWORD_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@\"']*:[^\s/@$\"']+@", re.IGNORECASE)
"""A URL with a password in it, in any text file."""
TLS_MODES = {"require", "verify-ca", "verify-full"}
"""Values of sslmode with which a PostgreSQL connection is encrypted or fails."""
TEXT_SUFFIXES = (".toml", ".py", ".sql", ".json", ".yml", ".yaml", ".md")
SHOWN_FILES_MAX = 5
DECLARING = (
    *(f"{name}/" for name in (*CODE_FOLDERS, "lib", "policies", FOLDER)),
    "schedules.toml",
)
"""How the paths begin of files that a revision is made of."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One file of `environments/`. Texts are as in the file, so secrets are still references."""

    name: str
    project: ProjectFolder
    mode: str = "development"
    folder: str = ""
    """State folder of a system on this machine; its system.json has the other addresses."""
    registry: str = ""
    registry_certificate: str = ""
    gateway: str = ""
    features: str = ""
    """host:port of the server of pushed rows."""
    features_certificate: str = ""
    """The certificate that it must prove to have; empty: plain text."""
    store: str = ""
    """URL of the online store, without a password."""
    store_user: str = ""
    store_password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """The bearer token that the commands send."""
    identities: str = ""
    """The registry's identities file. Production needs it."""
    offline: str = ""
    """Folder of the offline store; empty: `offline` in the state folder."""
    sources: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name of a connection -> its DSN."""
    notices: tuple[NoticeTarget, ...] = ()

    @property
    def shown(self) -> str:
        """The file below the project's root."""
        return f"{FOLDER}/{self.name}.toml"

    @property
    def is_production(self) -> bool:
        """Whether the rules of production hold."""
        return self.mode == "production"

    def path(self, text: str) -> Path:
        """Return the path that *text* names, from the project's root."""
        return self.project.root / Path(text).expanduser()

    def value(self, key: str) -> str:
        """Return the text of a key of the file with its references replaced; empty: it has none.

        Raises ProjectError for a variable that is not set or a file that cannot be read.
        """
        return self.resolved(getattr(self, key), key)

    def resolved(self, text: str, key: str) -> str:
        """Return *text* with its references replaced.

        Raises ProjectError for a variable that is not set or a file that cannot be read.
        """

        def value_of(found: re.Match[str]) -> str:
            kind, name = found.groups()
            if kind == "env":
                if name in os.environ:
                    return os.environ[name]
                raise ProjectError(
                    f"{self.shown}: {key} is ${{env:{name}}}, and the variable {name} is not set"
                )
            try:
                return self.path(name).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ProjectError(
                    f"{self.shown}: {key} is ${{file:{name}}}, which cannot be read: "
                    f"{read_fault(error)}"
                ) from error

        return REFERENCE.sub(value_of, text)

    def variables_of(self, key: str) -> list[str]:
        """Return the variables that a key of this environment refers to."""
        return [name for kind, name in REFERENCE.findall(getattr(self, key)) if kind == "env"]

    def notice_targets(self) -> tuple[NoticeTarget, ...]:
        """Return the targets of notices with references replaced. Raises ProjectError."""
        targets = []
        for target in self.notices:
            url, secret = (
                self.resolved(text, f"{key} of [notices.{target.name}]")
                for key, text in (("url", target.url), ("secret", target.secret))
            )
            targets.append(replace(target, url=url, secret=secret))
            if target.secret:
                check_secret(targets[-1], self.shown)
        return tuple(targets)

    def connections(self) -> dict[str, str]:
        """Return name -> DSN of every source, with references replaced. Raises ProjectError."""
        return {name: self.connection(name) for name in self.sources}

    def connection(self, name: str) -> str:
        """Return the DSN of one source. Raises ProjectError when there is none."""
        if name not in self.sources:
            known = ", ".join(sorted(self.sources)) or "none"
            raise ProjectError(f"{self.shown} has no [sources.{name}]; there are: {known}")
        return self.resolved(self.sources[name], f"dsn of [sources.{name}]")


def environment_names(project: ProjectFolder) -> list[str]:
    """Return the names of the project's environments, sorted."""
    files, _ = files_below(project, (FOLDER,), ".toml")
    return [path.stem for path in files]


def read_environment(project: ProjectFolder, name: str = "") -> Environment:
    """Return the environment called *name*, by default `dev`.

    Raises ProjectError when there is no such file or it contradicts itself.
    """
    # Name the environments that there are, because the name is often a typing error.
    name = name or DEFAULT
    path = project.root / FOLDER / f"{name}.toml"
    if name not in environment_names(project):
        known = ", ".join(environment_names(project)) or "none"
        raise ProjectError(f"{project.root} has no {FOLDER}/{name}.toml; there are: {known}")
    where = f"{FOLDER}/{name}.toml"
    tables = read_toml(path, where)
    # An unknown key is most likely a typing error, and would be without effect.
    unknown = sorted(tables.keys() - set(KEYS))
    if unknown:
        raise ProjectError(f"{where}: {unknown} is not known; the keys are {', '.join(KEYS)}")
    mode = text_field(tables, "mode", where, "development")
    if mode not in MODES:
        raise ProjectError(f'{where}: mode = "{mode}"; it must be one of {", ".join(MODES)}')
    sources = tables.get("sources", {})
    if not isinstance(sources, dict) or not all(
        isinstance(item, dict) for item in sources.values()
    ):
        raise ProjectError(f"{where}: sources must be tables, such as [sources.billing]")
    texts = {key: text_field(tables, key, where) for key in (*ADDRESSES, *SECRETS, *PATHS)}
    return Environment(
        name=name,
        project=project,
        mode=mode,
        sources={
            source: text_field(table, "dsn", f"{where}: [sources.{source}]")
            for source, table in sources.items()
        },
        notices=read_notice_targets(tables.get("notices", {}), where),
        **texts,
    )


def production_problems(environment: Environment) -> list[Problem]:
    """Return what production refuses in this environment; nothing in development."""
    if not environment.is_production:
        return []
    return [
        *_work_tree_problems(environment),
        *_secret_problems(environment),
        *_plain_text_problems(environment),
        *_identity_problems(environment),
    ]


def require_production_rules(environment: Environment) -> None:
    """Raise ProjectError with everything that production refuses; return if there is nothing."""
    problems = production_problems(environment)
    if problems:
        raise ProjectError(
            f"environment {environment.name!r} is in production mode and refuses this", problems
        )


def _work_tree_problems(environment: Environment) -> list[Problem]:
    root = environment.project.root
    changed = uncommitted_files(root)
    if changed is None:
        text = (
            "the project is in no git checkout with a commit, so no revision could be traced to "
            "its files; commit the project first"
        )
        return [Problem(environment.shown, 0, text)]
    # A new file beside the project's own, such as a plan that CI hands on, is no part of it.
    tracked = set(tracked_files(root))
    changed = [name for name in changed if name in tracked or name.startswith(DECLARING)]
    if not changed:
        return []
    named = ", ".join(changed[:SHOWN_FILES_MAX])
    more = f" and {len(changed) - SHOWN_FILES_MAX} more" if len(changed) > SHOWN_FILES_MAX else ""
    text = f"{len(changed)} files differ from the commit ({named}{more}); commit them first"
    return [Problem(environment.shown, 0, text)]


def _secret_problems(environment: Environment) -> list[Problem]:
    """Return secrets that stand in files of the project."""
    # Keys that are secrets by their name.
    named = {key: getattr(environment, key) for key in SECRETS}
    problems = [
        Problem(
            environment.shown,
            0,
            f"{key} stands in the file; write ${{env:NAME}} or ${{file:PATH}} instead",
        )
        for key, value in named.items()
        if value and not REFERENCE.fullmatch(value)
    ]
    problems += [
        Problem(
            environment.shown,
            0,
            f"dsn of [sources.{name}] has its password in the file; write ${{env:NAME}} instead",
        )
        for name, dsn in environment.sources.items()
        if re.search(r"password\s*=\s*[^\s$]", dsn, re.IGNORECASE)
    ]
    problems += [
        Problem(
            environment.shown,
            0,
            f"secret of [notices.{target.name}] stands in the file; write ${{file:PATH}} instead",
        )
        for target in environment.notices
        if target.secret and not REFERENCE.fullmatch(target.secret)
    ]
    # URLs with a password, wherever they stand.
    for shown in tracked_files(environment.project.root):
        path = environment.project.root / shown
        if path.suffix not in TEXT_SUFFIXES or not path.is_file():
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        problems += [
            Problem(shown, number, "a URL here has a password in it; write ${env:NAME}")
            for number, line in enumerate(lines, 1)
            if PASSWORD_IN_URL.search(line)
        ]
    return problems


def _plain_text_problems(environment: Environment) -> list[Problem]:
    """Return connections that leave this machine unencrypted."""
    problems = []
    # Registry and controller have TLS with a certificate that the caller knows.
    registry = _known_value(environment, "registry")
    if registry and not is_loopback(registry) and not environment.registry_certificate:
        problems.append(
            f"registry {registry} is beyond loopback, and no registry_certificate is named; copy "
            "keys/control.crt from its folder"
        )
    features = _known_value(environment, "features")
    if features and not is_loopback(features) and not environment.features_certificate:
        problems.append(
            f"features {features} is beyond loopback, and no features_certificate is named; copy "
            "its certificate from its host"
        )
    # The online store speaks no TLS in this release.
    store = urlsplit(_known_value(environment, "store"))
    if store.scheme.startswith("redis") and not is_loopback(f"{store.hostname}:0"):
        problems.append(
            f"store {store.hostname} is beyond loopback in plain text; use unix://, or a TLS "
            "tunnel that listens on loopback"
        )
    # Notices name models and people.
    for target in environment.notices:
        parts = urlsplit(_resolved_or_empty(environment, target.url))
        if parts.scheme == "http" and not is_loopback(f"{parts.hostname}:0"):
            problems.append(
                f"[notices.{target.name}] sends to {parts.hostname} in plain text; write https://"
            )
    # PostgreSQL encrypts only if it is asked to.
    for name, dsn in environment.sources.items():
        parts = urlsplit(dsn)
        if parts.hostname is None or is_loopback(f"{parts.hostname}:0"):
            continue
        if not TLS_MODES.intersection(parse_qs(parts.query).get("sslmode", [])):
            problems.append(
                f"[sources.{name}] connects to {parts.hostname} without TLS; add "
                "?sslmode=verify-full"
            )
    return [Problem(environment.shown, 0, text) for text in problems]


def _known_value(environment: Environment, key: str) -> str:
    """Return the text of a key; empty where what it refers to is not there, as on another host."""
    return _resolved_or_empty(environment, getattr(environment, key))


def _resolved_or_empty(environment: Environment, text: str) -> str:
    try:
        return environment.resolved(text, "value")
    except ProjectError:
        return ""


def _identity_problems(environment: Environment) -> list[Problem]:
    named = _known_value(environment, "identities")
    if named and environment.path(named).is_file():
        return []
    found = f"identities = {environment.identities!r} is no file" if named else "no identities"
    text = (
        f"{found}; production needs the registry's identities file (docs/governance.md), or every "
        "name would be taken on trust"
    )
    return [Problem(environment.shown, 0, text)]
