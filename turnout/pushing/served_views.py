"""The views that the server of pushed rows takes: those that are applied, or that versions read."""

import logging
from dataclasses import dataclass, field

from features.online.store_marker import system_id
from features.push.view_editions import ServedViews
from features.views import View
from project.definitions import parse_definitions
from project.errors import ProjectError
from registry.client import RegistryClient
from registry.types import RegistryError
from turnout.cli.known_views import deployed_views

log = logging.getLogger("features")


@dataclass(slots=True)
class RegistryViews:
    """Reads the views from the registry, again and again."""

    client: RegistryClient
    _known: dict[str, View] = field(default_factory=dict)
    """Hash -> view, so that no definition is fetched twice."""
    _applied: dict[str, tuple[int, tuple[View, ...]]] = field(default_factory=dict)
    """Project -> its newest revision and the views in it."""
    _answers: bool = True

    async def read(self) -> ServedViews | None:
        """Return the views that are applied or deployed now; None when the registry is gone."""
        try:
            served = await self.fetch()
        except RegistryError as error:
            if self._answers:
                log.warning("the views that were read last stay, because of: %s", error)
            self._answers = False
            return None
        self._answers = True
        # People see in the log what may be pushed.
        if served.views != tuple(self._known.values()):
            names = sorted(f"{view.name}@{view.view_hash[:16]}" for view in served.views)
            log.info("views: %s", ", ".join(names) or "none")
        self._known = {view.view_hash: view for view in served.views}
        return served

    async def fetch(self) -> ServedViews:
        """Return the views that are applied or deployed now. Raises RegistryError."""
        system = system_id((await self.client.serving_keys()).version_public_key)
        deployed, _ = await deployed_views(self.client, self._known)
        applied = {view.view_hash: view for view in await self._read_applied()}
        return ServedViews(system, tuple({**deployed, **applied}.values()))

    async def _read_applied(self) -> list[View]:
        """Return the views of the newest revision of every project."""
        revisions = {item.name: item.revision for item in await self.client.list_projects()}
        for name, revision in revisions.items():
            if self._applied.get(name, (0, ()))[0] != revision:
                self._applied[name] = (revision, await self._views_of(name, revision))
        return [view for name in revisions for view in self._applied[name][1]]

    async def _views_of(self, name: str, revision: int) -> tuple[View, ...]:
        """Return the views of a revision. One that cannot be read costs no other project."""
        found = await self.client.get_project(name, revision)
        if found is None:
            return ()
        try:
            definitions = parse_definitions(found.definitions)
            return tuple(definitions.view(view) for view in definitions.views)
        except ProjectError as error:
            log.warning("PROJECT NOT READ, its views are not served: %s", error)
            return ()
