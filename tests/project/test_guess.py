"""Tests of guessing a view, labels and a recipe from a table."""

import time
import tomllib
from pathlib import Path

import duckdb
import pytest

from features.ingest.load import ingest
from features.offline import OfflineStore
from project.errors import ProjectError
from project.guess.columns import Guess, feature_name, guess_columns
from project.guess.files import guessed_files
from project.guess.table import open_table
from training.label_reader import read_labels

ROWS = 2_000
NOW_MS = time.time_ns() // 1_000_000

TABLE = f"""
    SELECT
        'C' || i AS customer_id,
        now()::TIMESTAMP - INTERVAL 2 DAY AS snapshot_at,
        i % 73 AS "Tenure Months",
        CASE WHEN i % 7 = 0 THEN NULL ELSE (i % 100) / 100.0 END AS share,
        (i % 50) - 25.5 AS balance,
        ['Prepaid', 'postpaid ', 'prepaid'][1 + i % 3] AS plan,
        i % 2 = 0 AS active,
        DATE '2020-01-01' + (i % 900)::INT AS signup,
        'x' AS constant,
        'note ' || i AS note,
        ['Yes', 'No', 'No'][1 + (hash(i) % 3)::INT] AS churned,
        CASE WHEN hash(i) % 3 = 0 THEN 'price' END AS churn_reason,
        CASE WHEN hash(i) % 3 = 0 THEN 1.0 + i / 1e6 ELSE 0 END AS exit_fee,
        CASE WHEN hash(i) % 3 = 0 THEN DATE '2026-01-01' + (i % 90)::INT END AS left_on,
        ['gone', 'here', 'here'][1 + (hash(i) % 3)::INT] AS state,
        'R' || i AS referrer_id,
        i AS "class"
    FROM range({ROWS}) rows(i)
"""


def written(path: Path, sql: str = TABLE) -> Path:
    """Write a table, in the format of its suffix."""
    form = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}[path.suffix]
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({sql}) TO '{path}' (FORMAT {form})")
    return path


def guessed(path: Path, **given: str) -> Guess:
    """Guess from a file what is not given."""
    empty = {"entity": "", "time": "", "label": "", "positive": ""}
    with open_table(path) as table:
        return guess_columns(table, **{**empty, **given}, now_ms=NOW_MS)


@pytest.mark.walk
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_guess_names_each_column_with_its_reason(tmp_path: Path, suffix: str) -> None:
    """Each format gives the same guesses."""
    guess = guessed(written(tmp_path / f"customers{suffix}"), time="snapshot_at")
    assert (guess.table, guess.entity, guess.label) == ("customers", "customer_id", "churned")
    # DuckDB reads Yes and No of a text file as true and false.
    assert guess.positive == (() if suffix == ".csv" else ("Yes",))
    assert "it means yes" in guess.label_reason
    features = {feature.name: feature for feature in guess.features}
    assert set(features) == {"tenure_months", "share", "balance", "plan", "active", "c_class"}
    assert features["tenure_months"].arguments == "default=35.0, bounds=(0.0, 3.4e38)"
    assert "bounds=(0.0, 1.0)" in features["share"].arguments
    assert "286 rows have none" in features["share"].reason
    assert features["balance"].arguments == "default=-1.0"
    assert 'dictionary=("prepaid", "postpaid"), default=0.0' in features["plan"].arguments
    assert "lower(trim" in features["plan"].sql
    left_out = {item.column: item for item in guess.left_out}
    leaks = {name for name, item in left_out.items() if item.leaks}
    assert leaks == {"churn_reason", "exit_fee", "left_on", "state"}
    assert "whether it is missing" in left_out["churn_reason"].reason
    assert "alone it tells the label (AUC 1.000)" in left_out["state"].reason
    assert "date" in left_out["signup"].reason
    assert "the same value" in left_out["constant"].reason
    assert "2,000 different texts" in left_out["note"].reason


@pytest.mark.walk
def test_guessed_files_declare_what_was_guessed(tmp_path: Path) -> None:
    """They are Python and TOML that runs; the reasons stand beside the guesses."""
    from turnout import define

    path = written(tmp_path / "customers.parquet")
    files = guessed_files(guessed(path, time="snapshot_at"), path, tmp_path, "dana")
    assert set(files) == {
        "views/customers.py",
        "labels/churned.py",
        "recipes/churned.py",
        "models/churned.toml",
    }
    view_text = files["views/customers.py"]
    assert "# Left out, because they give the label away:" in view_text
    assert 'Source.files(\n        "customers.parquet",' in view_text
    namespace: dict[str, object] = {}
    exec(view_text, namespace)
    exec(files["labels/churned.py"], namespace)
    view, labels = namespace["customers"], namespace["churned"]
    assert isinstance(view, define.View)
    assert isinstance(labels, define.Labels)
    assert view.entities == labels.entities == ("customer_id",)
    assert labels.positive == ("Yes",)
    assert all(len(line) < 200 for text in files.values() for line in text.splitlines())


@pytest.mark.walk
def test_guessed_files_write_odd_names_as_they_are(tmp_path: Path) -> None:
    """Quotes, commas and backslashes in names and values survive SQL and Python."""
    from turnout import define

    sql = (
        'SELECT i AS "cust ""id""", DATE \'2026-01-01\' AS at, '
        '(hash(i) % 97)::INT AS "we ird, col", '
        "['a\\b', 'it''s', '\"'][1 + (hash(i + 5) % 3)::INT] AS \"back\\slash\", "
        '[\'it\'\'s """\', \'no\'][1 + (hash(i + 9) % 2)::INT] AS "la""""""bel" '
        "FROM range(400) t(i)"
    )
    path = written(tmp_path / "odd.parquet", sql)
    given = {"entity": 'cust "id"', "label": 'la"""bel', "positive": 'it\'s """'}
    files = guessed_files(guessed(path, **given), path, tmp_path, 'dana "d"')
    namespace: dict[str, object] = {}
    exec(files["views/odd.py"], namespace)
    exec(files["labels/la_bel.py"], namespace)
    view, labels = namespace["odd"], namespace["la_bel"]
    assert isinstance(view, define.View)
    assert isinstance(labels, define.Labels)
    assert set(view.features[1].dictionary) == {"a\\b", "it's", '"'}
    # What they declare reads the table.
    rows = read_labels(labels, root=tmp_path)
    assert 100 < rows.positive.sum() < 300
    summary = ingest(view, OfflineStore(tmp_path / "offline"), root=tmp_path)
    assert (summary.rows, dict(summary.missing), dict(summary.unknown)) == (400, {}, {})
    assert tomllib.loads(files["models/la_bel.toml"])["owner"] == 'dana "d"'


@pytest.mark.walk
def test_guess_reads_instants_that_are_numbers(tmp_path: Path) -> None:
    """The unit is the one in which the number lies near the present."""
    for unit, factor in (("s", 1e-3), ("ms", 1), ("us", 1e3), ("ns", 1e6)):
        sql = f"SELECT i AS id, ({NOW_MS} * {factor:.3f})::BIGINT AS at, i % 9 AS x, i % 2 AS label"
        path = written(tmp_path / "t.parquet", f"{sql} FROM range(300) rows(i)")
        guess = guessed(path, time="at")
        assert guess.time_arguments == f'unit="{unit}"'
        assert (guess.positive, guess.ttl_days) == ((), 30)
    old = "SELECT i AS id, DATE '2001-01-01' AS at, i % 9 AS x, i % 2 AS label FROM range(99) r(i)"
    guess = guessed(written(tmp_path / "old.parquet", old))
    assert guess.ttl_days > 2 * 25 * 365
    assert "is stale in a shorter time" in guess.ttl_reason


def test_guessed_ttl_leaves_the_newest_row_of_each_entity_fresh(tmp_path: Path) -> None:
    """Rows of 15 to 55 days, and older ones of the same entities, which no gateway reads."""
    rows = "SELECT i AS id, now()::TIMESTAMP - to_hours(363 + 24 * (i % 41)::INT) AS at, i % 9 AS x"
    older = "SELECT i AS id, now()::TIMESTAMP - to_days(900) AS at, i % 9 AS x"
    both = f"{rows} FROM range(500) r(i) UNION ALL {older} FROM range(500) r(i)"
    sql = f"SELECT *, id % 2 AS label FROM ({both})"
    guess = guessed(written(tmp_path / "t.parquet", sql))
    assert guess.ttl_days == 2 * 56
    assert "up to 55 days old" in guess.ttl_reason


@pytest.mark.parametrize(
    ("sql", "given", "reason"),
    [
        (TABLE, {"entity": "customer"}, "has no column 'customer'; it has customer_id, snap"),
        (TABLE, {}, r"has 3 columns with dates or times \(snapshot_at, signup, left_on\)"),
        (TABLE, {"time": "note"}, "is VARCHAR and holds no instant"),
        (TABLE, {"time": "snapshot_at", "label": "plan"}, "has 3 different values"),
        (TABLE, {"time": "snapshot_at", "positive": "Maybe"}, "is never 'Maybe'; its values are"),
        (TABLE, {"time": "snapshot_at", "label": "customer_id"}, "the label and the entity"),
        (
            "SELECT i AS id, CASE WHEN i < 4 THEN 'NaN'::DOUBLE ELSE i - 50.5 END AS f1, "
            "i % 2 AS label, i % 9 AS x FROM range(300) r(i)",
            {"time": "f1"},
            "300 of 300 rows of t.parquet have a 'f1' that is no time between 1990 and 2100",
        ),
        (
            "SELECT i AS id, CASE WHEN i < 7 THEN DATE '1900-01-01' ELSE DATE '2026-01-01' END "
            "AS at, i % 2 AS label, i % 9 AS x FROM range(300) r(i)",
            {},
            "7 of 300 rows of t.parquet have a 'at' that is no time",
        ),
        ("SELECT 1 AS a, DATE '2026-01-01' AS at", {}, "looks like an id"),
        ("SELECT i AS id, DATE '2026-01-01' AS at FROM range(9) r(i)", {}, "name the label"),
        ("SELECT 1 AS id WHERE false", {}, "has no rows"),
        (
            "SELECT i AS id, DATE '2026-01-01' AS at, i % 2 AS label, 1 AS x FROM range(9) r(i)",
            {},
            "no column of t.parquet can be a feature: x: it has the same value",
        ),
    ],
)
def test_guess_says_what_it_needs(
    sql: str, given: dict[str, str], reason: str, tmp_path: Path
) -> None:
    """An arbitrary guess would be worse than a question."""
    with pytest.raises(ProjectError, match=reason):
        guessed(written(tmp_path / "t.parquet", sql), **given)


def test_guess_leaves_out_lists_and_structs(tmp_path: Path) -> None:
    """A list of numbers or instants is no number and no instant."""
    sql = (
        "SELECT i AS id, DATE '2026-01-01' AS at, i % 9 AS x, i % 2 AS label, [i, i % 3] AS items,"
        " [DATE '2026-01-01'] AS days, {'a': i} AS pair, array_value(i, i) AS fixed"
        " FROM range(300) r(i)"
    )
    guess = guessed(written(tmp_path / "t.parquet", sql))
    assert [feature.name for feature in guess.features] == ["x"]
    reasons = {item.column: item.reason for item in guess.left_out}
    assert reasons["items"] == "its type BIGINT[] is no number and no text"
    assert set(reasons) == {"items", "days", "pair", "fixed"}


def test_guess_reads_a_file_as_an_ingest_does(tmp_path: Path) -> None:
    """Brackets in a name match themselves, and the first line of a text file is its header."""
    path = written(
        tmp_path / "rows[1].csv", "SELECT i AS id, DATE '2026-01-01' AS at FROM range(3) r(i)"
    )
    with open_table(path) as table:
        assert (table.rows, list(table.columns)) == (3, ["id", "at"])
    path.write_text("id,at\n")
    with pytest.raises(ProjectError, match="has no rows"), open_table(path):
        pass


def test_error_of_a_text_file_repeats_none_of_its_lines(tmp_path: Path) -> None:
    """A line may hold a person's data, and DuckDB's options are of no use to the reader."""
    path = tmp_path / "t.csv"
    path.write_bytes("id,at\nMüller,2026\n".encode("latin-1"))
    with pytest.raises(ProjectError, match="This file is not utf-8 encoded") as raised:
        guessed(path)
    assert "M" not in str(raised.value).partition("CSV Error")[2]
    assert "\n" not in str(raised.value)


def test_guess_refuses_what_is_no_table(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "t.xlsx").write_text("")
    (tmp_path / "t.parquet").write_text("no Parquet")
    with pytest.raises(ProjectError, match=r"t\.xlsx is no table: its name must end in"):
        guessed(tmp_path / "t.xlsx")
    with pytest.raises(ProjectError, match=r"t\.parquet cannot be read"):
        guessed(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("Customer ID", "customer_id"),
        ("tenureMonths", "tenure_months"),
        ("2nd", "c_2nd"),
        ("Größe (cm)", "grosse_cm"),
        ("Numéro d_abonné", "numero_d_abonne"),
        ("İl kodu", "il_kodu"),
        ("class", "c_class"),
        ("---", "c_"),
    ],
)
def test_feature_name_is_a_name_of_turnout(column: str, name: str) -> None:
    """Names in Turnout are small letters, digits and underscores."""
    assert feature_name(column) == name.rstrip("_")
