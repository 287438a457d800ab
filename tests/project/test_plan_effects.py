"""Tests of what a plan says that a change touches. No process and no registry."""

import json
from dataclasses import replace
from typing import Any

import pytest

from features.contract import RequestInput
from features.source import Source
from features.views import Feature
from project.plan.fleet import FleetApproval, FleetSnapshot, FleetVersion
from project.policies import policy_digests
from registry.types import Deployment
from tests.project.small_plans import USAGE, definitions, live, plan, version


def test_plan_of_a_changed_default_names_the_versions_that_read_it() -> None:
    """Exactly by hash: neither an older edition nor another view is named."""
    topups = Feature(name="topups", default=0.0)
    changed = replace(USAGE, features=(USAGE.features[0], topups))
    older = replace(USAGE, ttl_ms=1_000)
    other = replace(USAGE, name="other")
    fleet = FleetSnapshot(
        versions=(
            version("5", older, "standby"),
            version("6", other),
            version("7", USAGE, "production"),
            version("8", USAGE, "canary", rolling=True),
            version("9", USAGE),
        )
    )
    made = plan(definitions(changed), fleet)
    view = made.changes[0]
    assert (view.change.name, view.change.impact) == ("usage", "value")
    assert view.change.details == ("default of topups: 1 -> 0",)
    assert (view.change.old_hash, view.change.new_hash) == (USAGE.view_hash, changed.view_hash)
    assert [(effect.kind, effect.name) for effect in view.effects] == [
        ("version", "churn 7"),
        ("version", "churn 8"),
        ("version", "churn 9"),
        ("recipe", "churn/candidate"),
    ]
    assert "churn 8 (canary, in a rollout) reads edition" in view.effects[1].text
    recipe = made.changes[1].change
    assert (recipe.section, recipe.details) == ("recipes", ("it reads another edition of a view",))
    assert not made.blocking


def test_plan_of_another_source_names_who_gets_its_rows() -> None:
    """The edition stays, and the deployed version reads whatever comes from the new place."""
    moved = replace(USAGE, source=Source.files("new.parquet", time="at"))
    made = plan(definitions(moved), FleetSnapshot(versions=(version("7", USAGE, "production"),)))
    (item,) = made.changes
    assert item.change.old_hash == item.change.new_hash
    assert [effect.name for effect in item.effects] == ["churn 7"]
    assert "the new source" in item.effects[0].text
    assert made.costs == ()


def test_plan_says_that_a_view_cannot_be_removed() -> None:
    """The registry would refuse it: a version that gateways may run reads the view."""
    empty = definitions(views={}, recipes={})
    made = plan(empty, FleetSnapshot(versions=(version("7", USAGE, "production"),)))
    (view,) = [item for item in made.changes if item.change.section == "views"]
    assert (view.change.kind, view.change.impact) == ("removed", "breaking")
    assert [effect.name for effect in made.blocking] == ["churn 7"]
    assert not plan(empty).blocking
    # A version whose contract cannot be read may read anything.
    unknown = FleetVersion("churn", "1", "staging", "", False, None)
    assert plan(empty, FleetSnapshot(versions=(unknown,))).blocking


def test_plan_names_the_approvals_that_a_policy_loses() -> None:
    """Approvals name the digest of a policy, so another number ends them for new rollouts."""
    old = {"careful": {"name": "careful", "base": "standard", "watch_s": 7200.0}}
    new = {"careful": {"name": "careful", "base": "standard", "watch_s": 60.0}}
    fleet = FleetSnapshot(
        approvals=(
            FleetApproval("churn", "7", "careful", policy_digests(old)["careful"], "bob"),
            FleetApproval("churn", "8", "careful", policy_digests(new)["careful"], "bob"),
        )
    )
    made = plan(definitions(policies=new), fleet)
    (item,) = made.changes
    assert (item.change.section, item.change.impact) == ("policies", "value")
    assert [(effect.kind, effect.name) for effect in item.effects] == [("approval", "churn 7")]


def test_plan_names_the_settings_that_another_person_approves() -> None:
    """Texts of a model change nothing; its holdout and serving policy do."""
    models = json.loads(definitions().json)["models"]
    models["churn"]["purpose"] = "Letters."
    described = plan(definitions(models=models)).changes[0]
    assert (described.change.impact, described.effects) == ("descriptive", ())
    models["churn"]["holdout_bp"] = 300
    deployment = Deployment(model="churn", production="7", holdout_bp=500)
    deployment.policy.default_score = 0.1
    fleet = FleetSnapshot(deployments={"churn": deployment})
    (effect,) = plan(definitions(models=models), fleet).changes[0].effects
    assert effect.kind == "settings"
    assert "holdout_bp 500 -> 300" in effect.text
    assert "default_score" not in effect.text
    assert "another person approves" in effect.text


def test_plan_says_what_callers_would_have_to_send() -> None:
    """A recipe whose versions need other calls than production answers breaks callers."""
    plan_input = RequestInput(name="plan", dictionary=("basic", "extra"), default=0.0)
    recipes = json.loads(definitions().json)["recipes"]
    recipes["churn/candidate"]["inputs"] = [plan_input.definition()]
    made = plan(definitions(recipes=recipes), live())
    (item,) = made.changes
    assert item.change.impact == "breaking"
    (effect,) = item.effects
    assert (effect.kind, effect.name, effect.blocking) == ("callers", "churn 7", False)
    assert (
        "churn 7 (production) takes keys: customer; inputs: none; outputs: churned; a version of "
        "recipe churn/candidate would take keys: customer; inputs: plan (one of basic/extra, "
        "else 0); outputs: churned."
    ) in effect.text
    # Production that takes the same inputs breaks nothing, though the applied recipe did not.
    same = plan(definitions(recipes=recipes), live(inputs=(plan_input,)))
    assert [(item.change.impact, item.effects) for item in same.changes] == [("value", ())]


@pytest.mark.parametrize(
    "parts",
    [
        {"inputs": (RequestInput(name="amount"),)},
        {"entities": ("customer", "offer")},
        {"outputs": ("score",)},
    ],
)
def test_plan_of_a_first_recipe_is_compared_with_production_too(parts: dict[str, Any]) -> None:
    """A version that a hand registered is called as well."""
    made = plan(definitions(), live(**parts), applied=definitions(recipes={}))
    (item,) = made.changes
    assert (item.change.kind, item.change.impact) == ("added", "breaking")
    assert [effect.kind for effect in item.effects] == ["callers"]
    # Removing a recipe asks callers for nothing.
    assert plan(definitions(recipes={}), live(**parts)).changes[0].effects == ()
