"""The views that the server of pushed rows takes: those that are applied, or that versions read."""

import logging
from dataclasses import dataclass, field

from features.online.store_marker import system_id
from features.push.view_editions import ServedViews
from features.views import View
from project.definitions import parse_definitions
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
            system = system_id((await self.client.serving_keys()).version_public_key)
            deployed, _ = await deployed_views(self.client, self._known)
            views = {**deployed, **{view.view_hash: view for view in await self._read_applied()}}
        except RegistryError as error:
            if self._answers:
                log.warning("the views that were read last stay, because of: %s", error)
            self._answers = False
            return None
        self._answers = True
        if views.keys() != self._known.keys():
            names = sorted(f"{view.name}@{view.view_hash[:16]}" for view in views.values())
            log.info("views: %s", ", ".join(names) or "none")
        self._known = views
        return ServedViews(system, tuple(views.values()))

    async def _read_applied(self) -> list[View]:
        """Return the views of the newest revision of every project."""
        revisions = {item.name: item.revision for item in await self.client.list_projects()}
        for name, revision in revisions.items():
            if self._applied.get(name, (0, ()))[0] != revision:
                found = await self.client.get_project(name, revision)
                if found is not None:
                    definitions = parse_definitions(found.definitions)
                    views = tuple(definitions.view(view) for view in definitions.views)
                    self._applied[name] = (revision, views)
        return [view for name in revisions for view in self._applied.get(name, (0, ()))[1]]
