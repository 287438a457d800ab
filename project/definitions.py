"""The definitions of a project as one canonical JSON text, of which a revision is made.

    {"format": 1, "name": "shop",
     "views": {"usage": {"canonical": {...}, "hash": "...", "source": {...}, "expect": {...}}},
     "labels": {"churned": {...}}, "recipes": {"churn/candidate": {...}},
     "models": {"churn": {...}}, "policies": {"careful": {...}},
     "schedules": {"weekly": {...}}}

`canonical` is what View.definition returns, and `hash` its SHA-256. Views and labels whose files
have the applied transform in another layout have that text as `layout`. A project without schedules
has no such section, so that its digest is that of an earlier release. The registry keeps this text
and checks the parts by which it acts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from features.canonical import canonical_json, sha256_hex
from features.errors import ViewError
from features.expectations import Expect, ExpectRows
from features.source import Source
from features.views import View
from project.errors import ProjectError
from project.model_settings import checked_settings
from training.errors import LabelsError, RecipeError
from training.labels import Labels
from training.recipe import Recipe

FORMAT = 1
SECTIONS = ("views", "labels", "recipes", "models", "policies", "schedules")
NOUNS = {
    "views": "view",
    "labels": "labels",
    "recipes": "recipe",
    "models": "model",
    "policies": "policy",
    "schedules": "schedule",
}
"""Section -> what one of its items is called in a sentence."""

Section = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ProjectDefinitions:
    """Everything that a project declares, as JSON values."""

    name: str
    views: Section = field(default_factory=dict)
    labels: Section = field(default_factory=dict)
    recipes: Section = field(default_factory=dict)
    """Keyed by model and setting, such as "churn/candidate"."""
    models: Section = field(default_factory=dict)
    policies: Section = field(default_factory=dict)
    schedules: Section = field(default_factory=dict)

    @cached_property
    def json(self) -> bytes:
        """The canonical JSON."""
        sections = {name: self.section(name) for name in SECTIONS}
        if not self.schedules:
            del sections["schedules"]
        return canonical_json({"format": FORMAT, "name": self.name, **sections})

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        return sha256_hex(self.json)

    def section(self, name: str) -> Section:
        """Return one of SECTIONS."""
        section: Section = getattr(self, name)
        return section

    def view(self, name: str) -> View:
        """Return the view called *name*. Raises ProjectError when there is none."""
        if name not in self.views:
            known = ", ".join(sorted(self.views)) or "none"
            raise ProjectError(f"project {self.name!r} has no view {name!r}; there are: {known}")
        try:
            return view_of(self.views[name])
        except (KeyError, ViewError) as error:
            raise ProjectError(f"view {name!r} of project {self.name!r}: {error}") from error

    def recipe(self, model: str, setting: str = "") -> Recipe:
        """Return the recipe of *model*; *setting* is needed when it has several.

        Raises ProjectError when there is no such recipe, or it is not clear which one is meant.
        """
        settings = sorted(
            recipe["setting"] for recipe in self.recipes.values() if recipe["model"] == model
        )
        if not setting and len(settings) == 1:
            setting = settings[0]
        if setting not in settings:
            known = ", ".join(sorted(self.recipes)) or "none"
            raise ProjectError(
                f"project {self.name!r} has no recipe {model}/{setting or '...'}; there are: "
                f"{known}" + ("; name one with --setting" if settings else "")
            )
        definition = self.recipes[f"{model}/{setting}"]
        used = {use["view"] for use in [*definition["features"], *definition["audit"]]}
        views = [self.view(name) for name in sorted(used)]
        try:
            return Recipe.from_definition(
                definition,
                {view.view_hash: view for view in views},
                {name: Labels.from_definition(item) for name, item in self.labels.items()},
            )
        except (LabelsError, RecipeError) as error:
            raise ProjectError(f"recipe {model}/{setting}: {error}") from error

    def rewritten(self, section: str, name: str) -> Mapping[str, Any]:
        """Return an item as this release writes it, with the fields that were added since.

        An item that this release cannot read, and a policy, is returned as it is.
        """
        item = self.section(section)[name]
        try:
            if section == "views":
                written = view_entry(view_of(item))
            elif section == "labels":
                written = Labels.from_definition(item).definition()
            elif section == "recipes":
                written = self.recipe(item["model"], item["setting"]).definition()
            elif section == "models":
                written = checked_settings(
                    {key: value for key, value in item.items() if value is not None}
                )
            else:
                return item
        except (KeyError, TypeError, LabelsError, ProjectError, ViewError):
            return item
        return {**written, **({"layout": item["layout"]} if "layout" in item else {})}


def view_entry(view: View) -> dict[str, Any]:
    """Return the entry of *view* in the section `views`."""
    return {
        "canonical": view.definition(),
        "hash": view.view_hash,
        "source": None if view.source is None else view.source.definition(),
        "expect": {name: expect.definition() for name, expect in view.expect.items()},
        "expect_rows": view.expect_rows.definition(),
    }


def view_of(definition: Mapping[str, Any]) -> View:
    """Return the view of one entry of the section `views`, with its source and expectations.

    Raises ViewError or KeyError when it is none.
    """
    source = definition["source"]
    return replace(
        View.from_definition(dict(definition["canonical"])),
        source=None if source is None else Source.from_definition(dict(source)),
        expect={
            name: Expect.from_definition(dict(item)) for name, item in definition["expect"].items()
        },
        expect_rows=ExpectRows.from_definition(dict(definition["expect_rows"])),
        is_new=False,
    )


def parse_definitions(content: bytes) -> ProjectDefinitions:
    """Rebuild definitions from their JSON. Raises ProjectError when it is none."""
    try:
        value = json.loads(content)
        if value["format"] != FORMAT:
            raise ProjectError(
                f"the applied definitions have format {value['format']}; this release reads "
                f"{FORMAT}: use the newer turnout command"
            )
        return ProjectDefinitions(
            name=value["name"], **{name: value.get(name, {}) for name in SECTIONS}
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"not the definitions of a project: {error!r}") from error
