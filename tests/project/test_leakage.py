"""Tests of features that give the label away, as far as the project's files show it."""

from dataclasses import replace

import pytest

from features.contract import ViewUse
from features.source import Source
from features.views import Feature, View
from project.definitions import ProjectDefinitions, view_entry
from project.loading.leakage import leaks, source_columns
from training.labels import Labels
from training.learner import Learner
from training.recipe import Recipe

TABLE = Source.files("customers.parquet", time="snapshot_at", zone="UTC")
LABELS = Labels(name="churned", entities=("customer",), source=TABLE, value="churned")


def found(
    expression: str, source: Source = TABLE, labels: Labels = LABELS, transform: str = ""
) -> list[str]:
    """Return the problems of a recipe that reads minutes, made by *expression*."""
    made = transform or f"SELECT customer, event_time_ms, {expression} AS minutes FROM source"
    view = View(
        name="usage",
        entities=("customer",),
        features=(Feature(name="minutes"),),
        ttl_ms=86_400_000,
        transform=made,
        source=source,
    )
    recipe = Recipe(
        model="churn",
        setting="first",
        features=(ViewUse(view=view, features=("minutes",)),),
        label="churned",
        labels=labels,
        learner=Learner(kind="boosting"),
    )
    definitions = ProjectDefinitions(
        name="shop",
        views={"usage": view_entry(view)},
        labels={labels.name: labels.definition()},
        recipes={"churn/first": recipe.definition()},
    )
    place = ("recipes", "churn/first")
    return [str(item) for item in leaks(definitions, {place: "recipes/a.py"}, {place: 6})]


@pytest.mark.parametrize(
    "expression",
    ["churned", "CASE WHEN churned THEN 0 ELSE minutes END", '"Churned"::INTEGER', "NOT churned"],
)
def test_feature_of_the_outcome_is_a_leak_that_is_named(expression: str) -> None:
    """The rows are known at the label's instant, and the outcome is not."""
    (problem,) = found(expression)
    assert problem.startswith(
        "recipes/a.py:6: recipe churn/first: feature usage:minutes is made of column 'churned' of "
        "customers.parquet"
    )
    assert "declare created=" in problem


@pytest.mark.parametrize(
    "transform",
    [
        "SELECT * RENAME (churned AS minutes) FROM source",
        "SELECT * REPLACE (churned::INT AS minutes) FROM source",
        "SELECT * FROM (SELECT customer, event_time_ms, churned AS minutes FROM source)",
        "WITH w AS (SELECT customer, max(churned) AS y FROM source GROUP BY 1) "
        "SELECT s.customer, event_time_ms, w.y AS minutes FROM source AS s JOIN w USING (customer)",
    ],
)
def test_leak_is_found_through_the_query(transform: str) -> None:
    """Whatever the path of the column is."""
    assert len(found("", transform=transform)) == 1


def test_leak_is_found_through_the_transform_of_the_labels() -> None:
    """The outcome may be computed itself; ids and instants may be part of it."""
    sql = (
        "SELECT customer, event_time_ms, closed_at < snapshot_at + INTERVAL 30 DAY AS churned "
        "FROM source"
    )
    labels = replace(LABELS, transform=sql)
    assert len(found("epoch_ms(closed_at)", labels=labels)) == 1
    assert found("event_time_ms - epoch_ms(snapshot_at)", labels=labels) == []


def test_other_columns_and_other_times_are_no_leak() -> None:
    """A history of outcomes is a good feature once it says when each became known."""
    assert found("minutes + seconds") == []
    assert found("churned", Source.files("other.parquet", time="snapshot_at")) == []
    known = replace(TABLE, created="closed_at")
    assert found("churned", known) == []
    assert found("churned", replace(TABLE, created="snapshot_at")) != []
    assert found("churned", replace(TABLE, time="closed_at")) == []
    assert found("", transform="SELECT * FROM source") == []


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT a + b AS x FROM source AS s WHERE c", {"a", "b"}),
        ("SELECT * FROM source", {"x"}),
        ("SELECT *, A AS x FROM source", {"a"}),
        ("SELECT 1 AS x FROM source", set()),
        ("SELECT (((", set()),
    ],
)
def test_source_columns_are_those_that_a_column_is_made_of(sql: str, columns: set[str]) -> None:
    """Conditions of rows are not followed."""
    assert source_columns("x", sql) == columns
