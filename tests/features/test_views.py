"""Tests of views, features, sources and expectations: what is refused when they are declared."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from features.contract import ViewUse
from features.errors import ContractError, ViewError
from features.expectations import Expect, ExpectRows
from features.source import Source
from features.transforms import check_transform
from features.views import FEATURES_MAX, Feature, View
from tests.features.small_views import plan_view

VIEW = plan_view()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bounds": (0.0, None)}, "for no bound on one side write -3.5e38"),
        ({"bounds": (0.0, float("inf"))}, "both must be plain numbers"),
        ({"bounds": (2.0, 1.0)}, "put the lowest first"),
        ({"default": "3"}, "write a plain number"),
        ({"default": float("nan")}, "None for NaN"),
        ({"dtype": "category", "dictionary": "abc"}, "tuple of strings"),
        ({"dtype": "category", "dictionary": (1, 2)}, "tuple of strings"),
        ({"dtype": "category", "dictionary": ("a", "a")}, "lists a category twice"),
        ({"dtype": "float"}, "'float'"),
    ],
)
def test_feature_is_refused_with_the_way_out(arguments: dict[str, Any], message: str) -> None:
    """Each contradiction inside one feature."""
    with pytest.raises(ViewError, match=f"(?i){message}"):
        Feature(name="x", **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": (Feature(name="created_ms"),)}, r"\['created_ms'\]; these names are"),
        ({"features": (Feature(name="subscriber"),)}, r"\['subscriber'\]; these names are"),
        ({"features": (Feature(name="x"), Feature(name="x"))}, "1 of them distinct"),
        ({"features": tuple(Feature(name=f"x{i}") for i in range(5_000))}, "has 5000 features"),
        ({"features": (Feature(name="x", default=1e39),)}, "float32 cannot hold"),
        ({"entities": ("Kunde 1",)}, "entity name 'Kunde 1'"),
        ({"entities": "subscriber"}, r"write a tuple, such as \('subscriber',\)"),
        ({"features": Feature(name="x")}, "one Feature as its features; write a tuple"),
        ({"transform": None}, "transform=None; write a SELECT as a text"),
        ({"entities": ("event_time_ms",)}, r"\['event_time_ms'\]; these names are"),
        ({"ttl_ms": 1.5}, "whole number of milliseconds"),
        ({"ttl_ms": True}, "whole number of milliseconds"),
        ({"expect": {"nothing": Expect()}}, "'nothing', which is not among"),
        ({"expect": {"spend": Expect(unknown_max=0.1)}}, "'spend' is a number"),
        ({"expect": {"kind": Expect(low=0)}}, "'kind' is a category"),
        ({"transform": "SELECT now() FROM source"}, "view 'plan': the transform"),
    ],
)
def test_view_is_refused_with_the_way_out(changes: dict[str, Any], message: str) -> None:
    """Each contradiction between the parts of a view."""
    with pytest.raises(ViewError, match=message):
        replace(VIEW, **changes)


def test_features_of_a_view_use_are_no_text() -> None:
    """Python takes ("spend") for a text, and a text for its letters."""
    with pytest.raises(ContractError, match=r"features='spend'; write a tuple, such as"):
        ViewUse(view=VIEW, features="spend")  # type: ignore[arg-type]


def test_view_refuses_categories_that_differ_by_blanks_or_capitals() -> None:
    """Such entries overlap: a source would give now the one and now the other."""
    feature = Feature(name="x", dtype="category", dictionary=("prepaid", " Prepaid"))
    with pytest.raises(ViewError, match="'prepaid' and ' Prepaid'"):
        replace(VIEW, features=(feature,))


def test_view_of_an_older_version_is_still_read() -> None:
    """Rules that are younger than a deployed version do not keep a gateway from reading it."""
    definition = VIEW.definition()
    definition["features"][1]["name"] = "created_ms"
    definition["transform"] = "SELECT now() FROM source"
    view = View.from_definition(json.loads(json.dumps(definition)))
    assert view.features[1].name == "created_ms"
    assert FEATURES_MAX < 5_000


def test_view_hash_does_not_depend_on_source_and_expectations() -> None:
    """They change no value. Views that differ in nothing else are equal."""
    other = replace(
        VIEW,
        source=Source.frame(time="t"),
        expect={"spend": Expect(missing_max=0.5)},
        expect_rows=ExpectRows(duplicates_max=0.0),
    )
    assert other.definition() == VIEW.definition()
    assert (other.view_hash, hash(other)) == (VIEW.view_hash, hash(VIEW))
    assert other == VIEW


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("SELECT now() AS a FROM source", "now gives another value"),
        ("SELECT Current_Date AS a FROM source", "current_date gives another value"),
        ("SELECT localtimestamp AS a FROM source", "localtimestamp gives another"),
        ("SELECT age(a) FROM source", "age gives another value"),
        ("SELECT ago(INTERVAL 1 DAY) FROM source", "ago gives another value"),
        ("SELECT a FROM source ORDER BY random()", "random gives another value"),
        ("SELECT uuid() FROM source", "uuid gives another value"),
        ("SELECT getenv('HOME') FROM source", "getenv gives another value"),
        ("SELECT * FROM source USING SAMPLE 10%", "random sample"),
        ("SELECT * FROM source TABLESAMPLE 10%", "random sample"),
        ("SELECT * FROM read_csv('a.csv')", r"table function read_csv\(\)"),
        ("SELECT * FROM glob('*')", r"table function glob\(\)"),
        ("SELECT * FROM query('SELECT 1')", r"table function query\(\)"),
        ("SELECT * FROM 'a.parquet'", "it reads 'a.parquet'"),
        ("SELECT (SELECT max(x) FROM prices) FROM source", "it reads 'prices'"),
        ("SELECT * FROM information_schema.tables", "it reads 'tables'"),
        ("COPY source TO 'a.csv'", "it is no SELECT"),
        ("ATTACH 'a.db'", "it is no SELECT"),
        ("INSTALL httpfs", "it is no SELECT"),
        ("SET TimeZone = 'UTC'", "it is no SELECT"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("", "0 statements"),
        ("SELEC", "syntax error"),
        ("SELECT ? FROM source", "parameter"),
    ],
)
def test_transform_that_depends_on_more_than_its_source_is_refused(
    transform: str, message: str
) -> None:
    """The clock, chance, the host, files, other tables and other statements."""
    with pytest.raises(ViewError, match=message):
        check_transform(transform)


@pytest.mark.parametrize(
    "transform",
    [
        "FROM source SELECT a",
        "WITH c AS (SELECT * FROM source) SELECT * FROM C JOIN Source USING (a)",
        "SELECT age(a, b), json_group_object(a, b), error('no') FROM source GROUP BY ALL",
        "SELECT lag(a) OVER (PARTITION BY b ORDER BY c), 'now()' AS \"random\" FROM source",
        "SELECT * FROM source, range(3) UNION ALL SELECT * FROM source, unnest([1, 2])",
        "SELECT a -- now()\nFROM source /* COPY */",
    ],
)
def test_transform_over_its_source_alone_is_accepted(transform: str) -> None:
    """Words in strings, comments and names are no calls."""
    check_transform(transform)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Source.files("a.xlsx", time="t"), "give format="),
        (lambda: Source.files("s3://a/b.parquet", time="t"), "s3:// is not read"),
        (lambda: Source.files("a.csv", time="t", format="feather"), "give format="),  # type: ignore[arg-type]
        (lambda: Source.files("a.csv", time=""), "give the name of the time column"),
        (lambda: Source.frame(time=None, created="t"), "give the name of the time column"),
        (lambda: Source.files("a.csv", time="t", zone="Europe/Berlim"), "not a time zone"),
        (lambda: Source.files("a.csv", time="t", unit="min"), "one of s, ms, us, ns"),  # type: ignore[arg-type]
        (lambda: Source.table("a.b.c", time="t", connection="x"), "write name or schema.name"),
        (lambda: Source.table("a", time="t", connection=""), "has no connection"),
    ],
)
def test_source_is_refused_with_the_way_out(declare: Callable[[], object], message: str) -> None:
    """Each contradiction inside a source."""
    with pytest.raises(ViewError, match=message):
        declare()


@pytest.mark.parametrize(
    "source",
    [
        Source.files("data/**/*.csv.gz", time="t", zone="Europe/Berlin", created="known_at"),
        Source.files("a[1].bin", time="t", unit="us", format="parquet"),
        Source.table("cdr.calls", time="started_at", connection="billing"),
        Source.frame(time="t", unit="s"),
    ],
)
def test_source_survives_its_definition(source: Source) -> None:
    """The definition is JSON, and is what the project's definitions hold."""
    assert Source.from_definition(json.loads(json.dumps(source.definition()))) == source


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Expect(missing_max=1.5), "between 0 and 1"),
        (lambda: Expect(unknown_max=float("nan")), "between 0 and 1"),
        (lambda: Expect(low=2, high=1), "low=2 is above high=1"),
        (lambda: Expect(high=float("inf")), "not a finite number"),
        (lambda: Expect(on_breach="ignore"), "one of warn, quarantine, stop"),  # type: ignore[arg-type]
        (lambda: ExpectRows(newest_within_ms=0), "positive whole number"),
        (lambda: ExpectRows(duplicates_max=-1), "between 0 and 1"),
        (lambda: Expect.from_definition({"least": 1}), "not an expectation of a feature"),
    ],
)
def test_expectation_is_refused_with_the_way_out(
    declare: Callable[[], object], message: str
) -> None:
    """Each contradiction inside an expectation."""
    with pytest.raises(ViewError, match=message):
        declare()


def test_expectations_survive_their_definitions() -> None:
    """The definitions are JSON."""
    expect = Expect(missing_max=0.1, low=-1.5, on_breach="stop")
    assert Expect.from_definition(json.loads(json.dumps(expect.definition()))) == expect
    rows = ExpectRows(duplicates_max=0.0, newest_within_ms=5, on_breach="quarantine")
    assert ExpectRows.from_definition(json.loads(json.dumps(rows.definition()))) == rows
