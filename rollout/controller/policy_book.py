"""The policies by name: those that the controller was started with, and those of applied projects.

Projects are looked at when a policy is needed, so what was applied counts at once. Only what has
changed is fetched.
"""

import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from registry.types import ProjectRevision
from rollout.errors import PolicyError
from rollout.policy.policy import Policy
from rollout.policy.policy_files import parse_policies


class ProjectReader(Protocol):
    """The part of RegistryClient that reads applied projects."""

    def list_projects(self) -> Awaitable[list[ProjectRevision]]:
        """Return the newest revision of each project, without definitions."""
        ...

    def get_project(self, name: str, revision: int = 0) -> Awaitable[ProjectRevision | None]:
        """Return a revision of a project with its definitions."""
        ...


@dataclass(frozen=True, slots=True)
class UnusablePolicy:
    """A policy of a project that cannot be used here."""

    name: str
    project: str
    problem: str


@dataclass(frozen=True, slots=True)
class _ProjectPolicies:
    """What the controller needs of one revision of a project."""

    digest: str
    policies: Mapping[str, Policy] = field(default_factory=dict)
    unusable: tuple[UnusablePolicy, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Model -> the name of its default policy."""


def _problem(error: Exception) -> str:
    return str(error) if isinstance(error, PolicyError) else f"it cannot be read: {error!r}"


class PolicyBook:
    """The policies by name, with where they come from.

    own  the policies that the controller was started with. Their names stay theirs.
    """

    def __init__(self, own: Mapping[str, Policy]) -> None:
        self._own = own
        self._projects: dict[str, _ProjectPolicies] = {}

    @property
    def policies(self) -> dict[str, Policy]:
        """Every policy by name, as of the last `refresh`."""
        policies = dict(self._own)
        for project in self._projects.values():
            policies |= project.policies
        return policies

    @property
    def unusable(self) -> list[UnusablePolicy]:
        """The policies of projects that cannot be used, each with its problem."""
        return [item for project in self._projects.values() for item in project.unusable]

    def project_of(self, name: str) -> str:
        """Return the project that has the policy *name*; empty: the controller's own."""
        projects = self._projects.items()
        return next((project for project, known in projects if name in known.policies), "")

    @property
    def defaults(self) -> dict[str, str]:
        """Model -> the name of its default policy, if its project names one."""
        projects = self._projects.values()
        return {model: name for known in projects for model, name in known.defaults.items()}

    async def refresh(self, registry: ProjectReader) -> None:
        """Take over what was applied since the last call. Raises RegistryError."""
        listed = await registry.list_projects()
        known: dict[str, _ProjectPolicies] = {}
        for revision in listed:
            project = self._projects.get(revision.name)
            if project is None or project.digest != revision.digest:
                whole = await registry.get_project(revision.name, revision.revision)
                project = self._read(whole) if whole is not None else project
            if project is not None:
                known[revision.name] = project
        self._projects = known

    def _read(self, revision: ProjectRevision) -> _ProjectPolicies:
        """Return the policies of a revision. One that is wrong does not hide the others."""
        definitions = json.loads(revision.definitions)
        policies: dict[str, Policy] = {}
        unusable = []
        for name, tables in definitions.get("policies", {}).items():
            try:
                policies |= self._parse(name, tables)
            except Exception as error:  # noqa: BLE001  what others wrote must not stop the leader
                unusable.append(UnusablePolicy(name, revision.name, _problem(error)))
        defaults = {
            model: settings["default_policy"]
            for model, settings in definitions.get("models", {}).items()
            if isinstance(settings.get("default_policy"), str) and settings["default_policy"]
        }
        return _ProjectPolicies(revision.digest, policies, tuple(unusable), defaults)

    def _parse(self, name: str, tables: Mapping[str, Any]) -> dict[str, Policy]:
        """Return a policy and its editions by name. Raises PolicyError."""
        where = f"policies/{name}"
        if tables.get("name", name) != name:
            raise PolicyError(f"{where}: it has the name {tables['name']!r}")
        if name in self._own:
            raise PolicyError(
                f"{where}: the controller was started with a policy of this name, which stays; "
                "choose another name"
            )
        return parse_policies({**tables, "name": name}, where, self._own)
