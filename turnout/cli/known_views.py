"""The views that commands know: those of the project, and those that deployed versions read.

A version's contract.json has its views whole, so no project is needed for what is deployed.
"""

import json
from dataclasses import dataclass

from features.contract import ModelContract
from features.views import View
from project.plan.fleet import FleetVersion, read_fleet
from registry.client import RegistryClient
from registry.types import RegistryUnavailableError
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.cli.projects import usable_definitions
from turnout.errors import NotReachableError, OperatorError

ROLES = ("production", "canary", "standby", "shadow", "preloaded")
"""Roles of versions that gateways run, the most important first."""


@dataclass(frozen=True, slots=True)
class KnownView:
    """One edition of a view."""

    view: View
    in_project: bool
    """Whether it is the edition of the project's files."""
    read_by: tuple[str, ...]
    """The deployed versions that read it, those of production first."""


async def known_views(context: CommandContext) -> list[KnownView]:
    """Return every edition: deployed ones first, by name.

    Raises NotReachableError when there is no project and the registry does not answer.
    """
    project: dict[str, View] = {}
    if context.project is not None:
        definitions = await usable_definitions(context)
        views = [definitions.view(name) for name in definitions.views]
        project = {view.view_hash: view for view in views}
    # Without a registry the project's own views are all that is known.
    try:
        async with clients.open_registry(context) as client:
            deployed, readers = await deployed_views(client, project)
    except (NotReachableError, RegistryUnavailableError):
        if context.project is None:
            raise
        deployed, readers = {}, {}
    editions = {**deployed, **project}
    known = [
        KnownView(view, view_hash in project, tuple(readers.get(view_hash, ())))
        for view_hash, view in editions.items()
    ]
    return sorted(known, key=lambda item: (item.view.name, not item.read_by, item.view.view_hash))


async def editions_of(context: CommandContext, name: str) -> list[KnownView]:
    """Return the editions of one view. OperatorError when there is none."""
    known = await known_views(context)
    found = [item for item in known if item.view.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(item.view.name for item in known)) or "none"
        raise OperatorError(f"no view is called {name!r}; there are {names}")
    return found


async def deployed_views(
    client: RegistryClient, known: dict[str, View]
) -> tuple[dict[str, View], dict[str, list[str]]]:
    """Return hash -> view of deployed versions, and hash -> the versions that read it.

    known  views by hash whose definition need not be fetched.
    """
    versions = [item for item in (await read_fleet(client)).versions if item.role in ROLES]
    versions.sort(key=lambda item: (ROLES.index(item.role), item.model, item.label))
    views: dict[str, View] = {}
    readers: dict[str, list[str]] = {}
    for version in versions:
        for view in await _views_of(client, version, {**known, **views}):
            views[view.view_hash] = view
            readers.setdefault(view.view_hash, []).append(version.shown)
    return views, readers


async def _views_of(
    client: RegistryClient, version: FleetVersion, known: dict[str, View]
) -> list[View]:
    hashes = [view_hash for _, view_hash in version.views or ()]
    if version.views is not None and all(view_hash in known for view_hash in hashes):
        return [known[view_hash] for view_hash in hashes]
    # The registry lists names and hashes; the definitions are in the version's own file.
    files = await client.fetch(version.model, version.label)
    contract = ModelContract.from_definition(json.loads(files["contract.json"]))
    return [use.view for use in contract.views]
