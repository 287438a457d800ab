"""Tests of comparing definitions, and of what a change touches. No process and no registry."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.contract import ViewUse
from features.source import Source
from features.views import Feature, View
from project.definitions import ProjectDefinitions, parse_definitions
from project.plan.differences import changes_between, same_sql
from project.plan.fleet import FleetApproval, FleetSnapshot, FleetVersion
from project.plan.markdown import plan_markdown
from project.plan.plan import Plan, make_plan
from project.policies import policy_digests
from registry.types import Deployment
from training.labels import Labels
from training.recipe import Learner, Recipe

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


def view_entry(view: View) -> dict[str, Any]:
    """Return the view as the loading child reports it."""
    return {
        "canonical": view.definition(),
        "hash": view.view_hash,
        "source": None if view.source is None else view.source.definition(),
        "expect": {},
        "expect_rows": view.expect_rows.definition(),
    }


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


def test_plan_of_equal_definitions_is_empty() -> None:
    """The files were loaded anew, and the applied text has been through JSON."""
    made = plan(definitions())
    assert made.changes == ()
    assert made.is_empty


def test_plan_of_the_first_apply_adds_everything() -> None:
    """With revision 0, which the registry compares."""
    made = make_plan(
        "dev",
        None,
        0,
        definitions(),
        FleetSnapshot(),
        root=Path("nowhere"),
        offline=Path("nowhere"),
    )
    assert [(item.change.section, item.change.kind) for item in made.changes] == [
        (section, "added") for section in ("views", "labels", "recipes", "models", "policies")
    ]
    assert not made.is_empty
    assert made.definitions.digest == definitions().digest


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("SELECT a FROM source", "select\n  a -- the first\nfrom source", True),
        ("SELECT a FROM source", "SELECT A FROM source", False),
        ("SELECT 'x' FROM source", "SELECT 'X' FROM source", False),
        ("SELECT 1.0 FROM source", "SELECT 1.00 FROM source", False),
        ("SELECT a, b FROM source", "SELECT b, a FROM source", False),
        ("SELECT a::INT FROM source", "SELECT CAST(a AS INT) FROM source", True),
        ("SELECT a FROM source", "SELECT a FROM source WHERE a > 0", False),
        ("SELECT 'a  b' FROM source", "SELECT 'a b' FROM source", False),
        ("SELECT (((", "SELECT ((((", False),
        ("SELECT a // b FROM source", "SELECT a / b FROM source", False),
    ],
)
def test_same_sql_compares_queries_and_not_texts(one: str, other: str, same: bool) -> None:
    """What SQLGlot cannot parse counts as different."""
    assert same_sql(one, other) is same
    assert same_sql(other, one) is same


def test_plan_keeps_every_hash_when_only_the_layout_differs() -> None:
    """Reformatting a file must not starve what runs, so the applied text stays."""
    reformatted = replace(
        USAGE, transform="select customer, event_time_ms,\n  minutes, topups\nfrom source"
    )
    assert reformatted.view_hash != USAGE.view_hash
    made = plan(
        definitions(reformatted), FleetSnapshot(versions=(version("7", USAGE, "production"),))
    )
    (change,) = [item.change for item in made.changes if item.change.section == "views"]
    assert change.impact == "formatting"
    assert made.is_empty
    assert made.definitions.digest == definitions().digest
    assert made.costs == ()


def test_plan_shows_long_sql_around_its_first_difference() -> None:
    """The texts begin alike, so their beginnings would say nothing."""
    columns = ", ".join(f"minutes AS minutes_{number}" for number in range(20))
    texts = [
        f"SELECT customer, event_time_ms, minutes, topups, {columns} FROM source WHERE {condition}"
        for condition in ("topups > 1", "topups >= 1")
    ]
    old, new = (definitions(replace(USAGE, transform=text)) for text in texts)
    (change,) = [item for item in changes_between(old, new) if item.section == "views"]
    (line,) = [text for text in change.details if text.startswith("transform")]
    assert line.endswith(" source WHERE topups > 1 -> ... _19 FROM source WHERE topups >= 1")
    assert len(line) < 160


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


@pytest.mark.parametrize(
    ("change", "impact", "detail"),
    [
        ({"ttl_ms": 1_000}, "value", "ttl_ms: 86400000 -> 1000"),
        ({"entities": ("household",)}, "breaking", "entities: ['customer'] -> ['household']"),
        (
            {"features": (*USAGE.features, Feature(name="calls"))},
            "value",
            "calls is added",
        ),
        ({"features": USAGE.features[::-1]}, "value", "the order of features differs"),
        (
            {"source": Source.files("new.parquet", time="at")},
            "value",
            "location of source: usage.parquet -> new.parquet",
        ),
    ],
)
def test_plan_classes_a_changed_view(change: dict[str, Any], impact: str, detail: str) -> None:
    """The line says which field differs, from what to what."""
    found = plan(definitions(replace(USAGE, **change))).changes[0].change
    assert (found.section, found.impact) == ("views", impact)
    assert found.details[0] == detail


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


def test_plan_digest_is_that_of_what_people_saw() -> None:
    """Another version that reads the view makes another plan, and so does another revision."""
    changed = definitions(replace(USAGE, ttl_ms=1_000))
    first = plan(changed)
    assert first.digest == plan(changed).digest
    fleet = FleetSnapshot(versions=(version("7", USAGE, "production"),))
    assert first.digest != plan(changed, fleet).digest
    later = make_plan(
        "dev",
        definitions(),
        4,
        changed,
        FleetSnapshot(),
        root=Path("nowhere"),
        offline=Path("nowhere"),
    )
    assert first.digest != later.digest
    assert first.effect_texts() == [
        "view usage changed (value)",
        "recipe churn/candidate reads the new edition when it is trained next",
        "recipe churn/candidate changed (value)",
    ]


def test_plan_counts_the_rows_of_a_new_edition(tmp_path: Path) -> None:
    """By the footers of the stored rows, or else of the source."""
    import duckdb

    with duckdb.connect() as connection:
        folder = tmp_path / "off" / f"usage@{USAGE.view_hash[:16]}"
        folder.mkdir(parents=True)
        for path, rows in ((folder / "000001.parquet", 30), (tmp_path / "usage.parquet", 50)):
            connection.execute(f"COPY (SELECT * FROM range({rows})) TO '{path}' (FORMAT parquet)")
    changed = definitions(replace(USAGE, ttl_ms=1_000))
    (cost,) = plan(changed, root=tmp_path).costs
    assert cost.rows == 30
    assert cost.store_bytes_max == 30 * cost.bytes_a_row
    first = make_plan(
        "dev", None, 0, changed, FleetSnapshot(), root=tmp_path, offline=tmp_path / "none"
    )
    assert first.costs[0].rows == 50
    assert plan(changed).costs[0].rows is None


def test_plan_as_markdown_breaks_no_table() -> None:
    """A merge request shows each change, what it touches, and the digest to apply."""
    piped = replace(
        USAGE, transform="SELECT customer, event_time_ms, a || b AS minutes, topups FROM source"
    )
    fleet = FleetSnapshot(versions=(version("7", USAGE, "production"),))
    made = plan(definitions(piped), fleet)
    text = plan_markdown(made)
    assert text.startswith("### Plan of project `shop` for `dev`\n")
    (row,) = [line for line in text.splitlines() if line.startswith("| view `usage` |")]
    assert row.replace("\\|", "").count("|") == 5
    assert "| changed | value |" in row
    assert "- churn 7 (production) reads edition" in text
    assert "| `usage` | not counted | not counted |" in text
    assert f"plan `{made.digest[:12]}`. `turnout apply` writes it." in text
    assert "Nothing to do: revision 3" in plan_markdown(plan(definitions()))


def test_plan_as_markdown_says_what_would_be_refused() -> None:
    """A reviewer must not have to apply it to see that."""
    empty = definitions(views={}, recipes={})
    made = plan(empty, FleetSnapshot(versions=(version("7", USAGE, "production"),)))
    assert "- **refused:** churn 7 (production) reads usage" in plan_markdown(made)


def test_effects_of_a_plan_are_sentences_for_the_history() -> None:
    """The change that is no more than layout is not among them."""
    made = make_plan(
        "dev", None, 0, definitions(), FleetSnapshot(), root=Path("no"), offline=Path("no")
    )
    assert made.effect_texts() == [
        "view usage added",
        "labels churned added",
        "recipe churn/candidate added",
        "model churn added",
        "policy careful added",
    ]
