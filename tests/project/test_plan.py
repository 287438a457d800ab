"""Tests of comparing definitions, and of what a change touches. No process and no registry."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.expectations import Expect
from features.ingest.load import ingest
from features.offline import OfflineStore
from features.source import Source
from features.views import Feature
from project.definitions import parse_definitions
from project.plan.differences import changes_between, same_sql
from project.plan.fleet import FleetSnapshot
from project.plan.markdown import plan_markdown
from project.plan.plan import make_plan
from tests.project.project_files import USAGE_ROWS, write_rows
from tests.project.small_plans import CHURNED, USAGE, definitions, plan, version


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


REFORMATTED = "select customer, event_time_ms,\n  minutes, topups\nfrom source"


def test_plan_keeps_every_hash_when_only_the_layout_differs() -> None:
    """Reformatting a file must not starve what runs, so the applied text stays."""
    reformatted = replace(USAGE, transform=REFORMATTED)
    assert reformatted.view_hash != USAGE.view_hash
    labels = {"churned": {**CHURNED.definition(), "transform": "select *\nfrom source"}}
    local = definitions(reformatted, labels=labels)
    made = plan(local, FleetSnapshot(versions=(version("7", USAGE, "production"),)))
    assert [(item.change.name, item.change.impact) for item in made.changes] == [
        ("usage", "formatting"),
        ("churned", "formatting"),
    ]
    assert made.changes[0].effects == ()
    assert made.costs == ()
    assert made.definitions.view("usage").view_hash == USAGE.view_hash
    assert made.definitions.recipe("churn").labels == CHURNED


def test_plan_lists_another_layout_only_until_it_is_applied() -> None:
    """The applied revision remembers the text of the file beside the text that has the hash."""
    local = definitions(replace(USAGE, transform=REFORMATTED))
    applied = parse_definitions(plan(local).definitions.json)
    assert plan(local, applied=applied).is_empty
    # The first layout again is a change of layout once more, and then nothing differs.
    back = plan(definitions(), applied=applied)
    assert [item.change.impact for item in back.changes] == ["formatting"]
    assert back.definitions.digest == definitions().digest
    # Another value beside the layout is a new edition with the text of the file.
    changed = replace(USAGE, transform=REFORMATTED, ttl_ms=1_000)
    made = plan(definitions(changed), applied=applied)
    assert made.changes[0].change.impact == "value"
    assert made.definitions.views["usage"] == definitions(changed).views["usage"]
    # A rollback to the revision with the layout changes nothing.
    assert plan(applied, applied=applied).is_empty


def test_plan_after_an_upgrade_leaves_what_lacks_later_fields() -> None:
    """An older release wrote no field that this one has with its default."""
    written = json.loads(definitions().json)
    del written["recipes"]["churn/candidate"]["gate"]["without_row_max"]
    del written["recipes"]["churn/candidate"]["learner"]["scaling"]
    del written["views"]["usage"]["source"]["unit"]
    del written["views"]["usage"]["expect_rows"]["newest_within_ms"]
    del written["labels"]["churned"]["source"]["created"]
    del written["models"]["churn"]["tier"]
    older = parse_definitions(json.dumps(written).encode())
    made = plan(definitions(), applied=older)
    assert made.is_empty
    assert made.definitions.digest == older.digest
    # A later field with another value is a change, and nothing else is.
    written["recipes"]["churn/candidate"]["gate"]["auc_min"] = 0.6
    older = parse_definitions(json.dumps(written).encode())
    (item,) = plan(definitions(), applied=older).changes
    assert item.change.details == ("auc_min of gate: 0.6 -> 0.7",)


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
        "recipe churn/candidate reads the new edition of usage when it is trained next",
        "recipe churn/candidate changed (value)",
    ]


def test_plan_counts_the_rows_and_the_keys_of_a_new_edition(tmp_path: Path) -> None:
    """Rows are those that are stored, or else of the source; online there is a key an entity."""
    changed = definitions(replace(USAGE, ttl_ms=1_000))
    assert plan(changed, root=tmp_path).costs[0].rows is None
    # Without stored rows the source is counted: 60 rows of 50 customers.
    write_rows(tmp_path, USAGE_ROWS.replace("range(20)", "range(60)"), "usage.parquet")
    (cost,) = plan(changed, root=tmp_path).costs
    assert (cost.rows, cost.entities, cost.store_bytes_max) == (60, 50, 50 * cost.bytes_a_row)
    # Stored rows count in all ingests, and what was set aside does not.
    store, odd = OfflineStore(tmp_path / "off"), Expect(low=2.0, on_breach="quarantine")
    for rows in (10, 20):
        write_rows(tmp_path, USAGE_ROWS.replace("20", str(rows)), "usage.parquet")
        summary = ingest(
            replace(USAGE, expect={"minutes": odd}), store, root=tmp_path, created_ms=0
        )
        assert summary.quarantined == 2
    (cost,) = plan(changed, root=tmp_path).costs
    assert (cost.rows, cost.entities, cost.store_bytes_max) == (26, 18, 18 * cost.bytes_a_row)


def test_plan_of_a_source_without_the_ids_counts_rows_only(tmp_path: Path) -> None:
    """The transform makes the ids, so the bytes are those of one key for each row."""
    write_rows(tmp_path, USAGE_ROWS.replace("AS customer", "AS number"), "usage.parquet")
    (cost,) = plan(definitions(replace(USAGE, ttl_ms=1_000)), root=tmp_path).costs
    assert (cost.rows, cost.entities, cost.store_bytes_max) == (20, None, 20 * cost.bytes_a_row)


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
    assert "| `usage` | not counted | not counted | not counted |" in text
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
