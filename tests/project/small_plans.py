"""Small definitions and plans, for tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from features.contract import ModelContract, ViewUse
from features.source import Source
from features.views import Feature, View
from project.definitions import ProjectDefinitions, parse_definitions, view_entry
from project.plan.fleet import FleetSnapshot, FleetVersion
from project.plan.plan import Plan, make_plan
from registry.types import Deployment
from training.labels import Labels
from training.learner import Learner
from training.recipe import Recipe

USAGE = View(
    name="usage",
    entities=("customer",),
    features=(Feature(name="minutes"), Feature(name="topups", default=1.0)),
    ttl_ms=86_400_000,
    transform="SELECT customer, event_time_ms, minutes, topups FROM source",
    source=Source.files("usage.parquet", time="at"),
)
CHURNED = Labels(
    name="churned",
    entities=("customer",),
    source=Source.files("churned.parquet", time="at"),
    value="churned",
)


def recipe_entry(view: View) -> dict[str, Any]:
    """Return a recipe that reads *view*."""
    return Recipe(
        model="churn",
        setting="candidate",
        features=(ViewUse(view=view, features=("minutes",)),),
        label="churned",
        labels=replace(CHURNED, entities=view.entities),
        learner=Learner(kind="boosting"),
    ).definition()


def definitions(view: View = USAGE, **sections: Any) -> ProjectDefinitions:  # noqa: ANN401  JSON values
    """Return the definitions of a small project, as they come back from the registry."""
    made = ProjectDefinitions(
        **{
            "name": "shop",
            "views": {view.name: view_entry(view)},
            "labels": {"churned": CHURNED.definition()},
            "recipes": {"churn/candidate": recipe_entry(view)},
            "models": {
                "churn": {
                    "owner": "network-ds",
                    "purpose": "Calls.",
                    "tier": "standard",
                    "score_meaning": "P(leaves)",
                    "holdout_bp": 500,
                    "default_policy": "careful",
                    "serving": {"default_score": 0.1},
                }
            },
            "policies": {"careful": {"name": "careful", "base": "standard", "watch_s": 7200.0}},
            **sections,
        }
    )
    return parse_definitions(made.json)


def version(label: str, view: View, role: str = "", *, rolling: bool = False) -> FleetVersion:
    """Return a version of churn that reads *view*."""
    return FleetVersion("churn", label, "staging", role, rolling, ((view.name, view.view_hash),))


def plan(
    local: ProjectDefinitions,
    fleet: FleetSnapshot | None = None,
    *,
    applied: ProjectDefinitions | None = None,
    root: Path = Path("nowhere"),
) -> Plan:
    """Compare *local* with the small project, or with *applied*."""
    return make_plan(
        "dev",
        applied or definitions(),
        3,
        local,
        fleet or FleetSnapshot(),
        root=root,
        offline=root / "off",
    )


def live(**parts: Any) -> FleetSnapshot:  # noqa: ANN401  fields of ModelContract
    """Return a fleet in which production answers calls of this contract."""
    contract = ModelContract(
        **{
            "entities": ("customer",),
            "views": (ViewUse(view=USAGE, features=("minutes",)),),
            "outputs": ("churned",),
            **parts,
        }
    )
    deployment = Deployment(model="churn", production="7")
    return FleetSnapshot(deployments={"churn": deployment}, live_contracts={"churn": contract})
