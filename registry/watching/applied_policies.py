"""The monitoring policies that are applied now, for rooms that watch models."""

import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from features.views import View
from registry.types import ProjectRevision
from registry.watching.policy import MonitoringPolicy
from registry.watching.policy_reader import MonitoringPolicyError, read_monitoring_policy

log = logging.getLogger(__name__)


class ProjectsReader(Protocol):
    """The part of RegistryClient that reads projects."""

    async def list_projects(self, name: str = "", limit: int = 0) -> list[ProjectRevision]:
        """Return the newest revision of each project, without definitions."""
        ...

    async def get_project(self, name: str, revision: int = 0) -> ProjectRevision | None:
        """Return a revision of a project with its definitions, or None."""
        ...


class AppliedPolicies:
    """Model -> its policy, read from the registry when a project was applied anew.

    A model of a project without [monitoring] has the defaults, which have no outcomes.
    """

    def __init__(self) -> None:
        self._revisions: dict[str, int] = {}
        self._of_project: dict[str, dict[str, MonitoringPolicy]] = {}
        self._views: dict[str, View] = {}

    @property
    def policies(self) -> Mapping[str, MonitoringPolicy]:
        """The policies by model, as of the last refresh."""
        return {
            model: policy
            for models in self._of_project.values()
            for model, policy in models.items()
        }

    def view(self, name: str) -> View | None:
        """Return a view of the applied projects, as of the last refresh; None: there is none."""
        return self._views.get(name)

    async def refresh(self, registry: ProjectsReader) -> Mapping[str, MonitoringPolicy]:
        """Read the projects that changed, and return all policies. Raises RegistryError."""
        listed = await registry.list_projects()
        for revision in listed:
            if self._revisions.get(revision.name) == revision.revision:
                continue
            whole = await registry.get_project(revision.name, revision.revision)
            if whole is not None:
                definitions = json.loads(whole.definitions)
                self._of_project[revision.name] = _policies_in(whole.name, definitions)
                for name, view in definitions.get("views", {}).items():
                    self._views[name] = View.from_definition(view["canonical"])
                self._revisions[revision.name] = revision.revision
        return self.policies


def _policies_in(project: str, definitions: Mapping[str, Any]) -> dict[str, MonitoringPolicy]:
    policies = {}
    for model, settings in definitions.get("models", {}).items():
        try:
            policies[model] = read_monitoring_policy(settings.get("monitoring") or {})
        except MonitoringPolicyError as error:
            # A newer release may know more than this one.
            log.warning("monitoring of %r in project %r: %s", model, project, error)
    return policies
