"""Tests of reading declared labels from a table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from features.errors import SourceError
from features.source import Source
from training.errors import LabelsError
from training.label_reader import read_labels
from training.labels import Labels

LABELS = Labels(
    name="left",
    entities=("customer",),
    source=Source.files("labels.parquet", time="at", zone="Europe/Berlin"),
    value="status",
    positive=("gone",),
)


def write(folder: Path, status: str, rows: int = 4, customer: str = "i") -> None:
    """Write a table whose column `status` is the SQL *status* of the row number `i`."""
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT {customer} AS customer, TIMESTAMP '2026-07-01 12:00:00' AS at, "
            f"{status} AS status FROM range({rows}) t(i)) TO '{folder / 'labels.parquet'}'"
        )


def test_labels_are_read_with_their_instant(tmp_path: Path) -> None:
    """Ids become texts, the zone counts, and rows without an outcome are left out."""
    write(tmp_path, "['gone', 'here', NULL, 'gone'][i + 1]")
    rows = read_labels(LABELS, root=tmp_path)
    assert rows.ids == {"customer": ["0", "1", "3"]}
    assert rows.positive.tolist() == [True, False, True]
    assert set(rows.as_of_ms.tolist()) == {1_782_900_000_000}


@pytest.mark.parametrize(
    ("status", "positive", "expected"),
    [
        ("i = 1", (), [False, True, False, False]),
        ("(i % 2)::INT", (), [False, True, False, True]),
        ("(i % 2)::DOUBLE", (), [False, True, False, True]),
        ("i", (1, 3), [False, True, False, True]),
        ("i::VARCHAR", ("1", "2"), [False, True, True, False]),
        ("i = 1", (False,), [True, False, True, True]),
        ("CASE WHEN i > 2 THEN 'nan'::DOUBLE ELSE i % 2 END", (), [False, True, False]),
        ("CASE WHEN i > 2 THEN 'nan'::FLOAT ELSE i END", (2,), [False, False, True]),
    ],
)
def test_labels_take_their_positive_values(
    status: str, positive: tuple[Any, ...], expected: list[bool], tmp_path: Path
) -> None:
    """Each value is compared as what it is."""
    write(tmp_path, status)
    rows = read_labels(replace(LABELS, positive=positive), root=tmp_path)
    assert rows.positive.tolist() == expected


@pytest.mark.parametrize(
    ("status", "customer", "changes", "reason"),
    [
        ("i", "i", {"positive": ()}, "have the value 2; without positive="),
        ("'a'", "i", {"positive": ()}, "have VARCHAR in column 'status'"),
        ("i", "CASE WHEN i > 1 THEN i END", {}, "have 2 rows without 'customer'"),
        ("'gone'", "i", {}, "all 4 labels are True"),
        ("['here', 'left'][i % 2 + 1]", "i", {}, r"all 4 labels are False.*\['here', 'left'\]"),
        ("NULL::VARCHAR", "i", {}, "have no row with an outcome"),
        ("i", "i", {"value": "state"}, r"returns no \['state'\]"),
        ("i", "i", {"transform": "SELECT nothing FROM source"}, "labels 'left': Binder Error"),
        ("i", "i", {"source": Source.files("none.csv", time="at")}, r"no file matches 'none\.csv'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    status: str, customer: str, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """The message names the labels and the way out."""
    write(tmp_path, status, customer=customer)
    with pytest.raises((LabelsError, SourceError), match=reason):
        read_labels(replace(LABELS, **changes), root=tmp_path)


NUMBERS = replace(LABELS, kind="number", positive=())
CLASSES = replace(LABELS, kind="class", positive=())


@pytest.mark.parametrize(
    ("labels", "status", "expected"),
    [
        (NUMBERS, "i * 2.5::DECIMAL(9, 1)", [0.0, 2.5, 5.0, 7.5]),
        (NUMBERS, "CASE WHEN i > 1 THEN i END", [2.0, 3.0]),
        (NUMBERS, "CASE WHEN i > 1 THEN 'nan'::DOUBLE ELSE i END", [0.0, 1.0]),
        (CLASSES, "['gone', 'here', NULL, '3'][i + 1]", ["gone", "here", "3"]),
        (CLASSES, "i", [0.0, 1.0, 2.0, 3.0]),
        (CLASSES, "i > 1", ["false", "false", "true", "true"]),
    ],
)
def test_numbers_and_classes_are_read_as_what_they_are(
    labels: Labels, status: str, expected: list[Any], tmp_path: Path
) -> None:
    """Rows whose outcome is not known are left out and counted."""
    write(tmp_path, status)
    rows = read_labels(labels, root=tmp_path)
    assert rows.positive is None
    assert rows.values is not None
    assert rows.values.tolist() == expected
    assert rows.left_out == 4 - len(expected)
    assert len(rows.ids["customer"]) == len(expected)


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"kind": "number"}, "'a'", "have VARCHAR in column 'status', and their outcome is a num"),
        ({"kind": "number"}, "CASE WHEN i > 1 THEN 'inf'::DOUBLE ELSE i END", "have 2 infinite"),
        ({"group": "call"}, "i", r"returns no \['call'\]"),
        (
            {"group": "call", "transform": "SELECT *, CASE WHEN i > 1 THEN i END call FROM source"},
            "i",
            "Binder Error",
        ),
        (
            {"group": "c", "transform": "SELECT *, nullif(status, 2) AS c FROM source"},
            "i",
            "have 1 rows without 'c'",
        ),
    ],
)
def test_numbers_and_groups_that_do_not_fit_are_refused(
    changes: dict[str, Any], status: str, reason: str, tmp_path: Path
) -> None:
    """The message names the labels and the column."""
    write(tmp_path, status)
    with pytest.raises((LabelsError, SourceError), match=reason):
        read_labels(replace(NUMBERS, **changes), root=tmp_path)


def test_labels_have_groups_or_no_outcome_at_all(tmp_path: Path) -> None:
    """A group is a text, and rows without an outcome are rows of an anomaly model."""
    write(tmp_path, "i")
    grouped = read_labels(
        replace(
            NUMBERS,
            group="c",
            transform="SELECT *, i % 2 AS c FROM (SELECT *, status AS i FROM source)",
        ),
        root=tmp_path,
    )
    assert grouped.groups is not None
    assert grouped.groups.tolist() == ["0", "1", "0", "1"]
    assert grouped.by_group().ids["customer"] == ["0", "2", "1", "3"]
    bare = read_labels(replace(LABELS, value="", positive=()), root=tmp_path)
    assert (bare.positive, bare.values, len(bare), bare.left_out) == (None, None, 4, 0)


HORIZON = replace(LABELS, horizon_days=30.0)


def write_dated(folder: Path, days: list[int], known: list[int]) -> None:
    """Write rows with an instant and an instant of knowledge, in days from 2026-07-01."""
    values = ", ".join(
        f"({i}, {day}, {late}, {'TRUE' if i % 2 else 'FALSE'})"
        for i, (day, late) in enumerate(zip(days, known, strict=True))
    )
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT i::VARCHAR AS customer, TIMESTAMP '2026-07-01' + INTERVAL (d) DAY AS at, "
            "TIMESTAMP '2026-07-01' + INTERVAL (k) DAY AS written, "
            "CASE WHEN gone THEN 'gone' ELSE 'here' END AS status "
            f"FROM (VALUES {values}) t(i, d, k, gone)) TO '{folder / 'labels.parquet'}'"
        )


def dated(horizon_days: float = 30.0) -> Labels:
    """Labels whose rows say when they became known."""
    source = Source.files("labels.parquet", time="at", created="written", zone="UTC")
    return replace(LABELS, source=source, horizon_days=horizon_days)


def test_labels_before_the_end_of_their_horizon_are_left_out(tmp_path: Path) -> None:
    """Also the early outcomes: without the others of their days they would be too many."""
    write_dated(tmp_path, [0, 0, 10, 10, 11, 11], [35, 30, 40, 12, 12, 12])
    rows = read_labels(dated(), root=tmp_path)
    assert rows.ids == {"customer": ["0", "1", "2", "3"]}
    assert rows.immature == 2
    day_40_ms = 1_782_864_000_000 + 40 * 86_400_000
    assert rows.known_until_ms == day_40_ms
    assert read_labels(dated(0.0), root=tmp_path).immature == 0


def test_labels_are_read_as_they_were_known(tmp_path: Path) -> None:
    """A table that has grown since gives the rows of a former training."""
    write_dated(tmp_path, [0, 0, 9, 9], [30, 31, 40, 40])
    at_31 = 1_782_864_000_000 + 31 * 86_400_000
    rows = read_labels(dated(), root=tmp_path, known_until_ms=at_31)
    assert rows.ids == {"customer": ["0", "1"]}
    assert (rows.immature, rows.known_until_ms) == (0, at_31)
    assert len(read_labels(dated(), root=tmp_path)) == 4


def test_horizon_without_knowledge_is_refused(tmp_path: Path) -> None:
    """Without known times no outcome is known to be final, and a horizon may leave none."""
    write(tmp_path, "['gone', 'here', 'here', 'gone'][i + 1]")
    with pytest.raises(LabelsError, match=r"Source\(created=...\), or return created_ms"):
        read_labels(HORIZON, root=tmp_path)
    write_dated(tmp_path, [0, 1, 2], [10, 10, 11])
    with pytest.raises(LabelsError, match=r"none of the 3 outcomes is final.*2026-07-12 00:00 UTC"):
        read_labels(dated(), root=tmp_path)


def test_horizon_is_in_a_definition_only_where_it_is_used() -> None:
    """So the digests of labels from before stay."""
    assert "horizon_days" not in LABELS.definition()
    assert Labels.from_definition(HORIZON.definition()) == HORIZON
    with pytest.raises(LabelsError, match="from 0 on"):
        replace(LABELS, horizon_days=-1.0)


@pytest.mark.walk
def test_error_of_a_text_file_shows_no_line_of_it(tmp_path: Path) -> None:
    """DuckDB repeats the line, which has a person's data."""
    lines = [f"{number},2026-07-01 12:00:00,1" for number in range(300_000)]
    lines.append("7,2026-07-01 12:00:00,Ada Lovelace")
    (tmp_path / "labels.csv").write_text("\n".join(["customer,at,status", *lines]))
    source = Source.files("labels.csv", time="at", zone="UTC")
    with pytest.raises(SourceError, match=r"^labels 'left': .*CSV Error on Line: 300002") as caught:
        read_labels(replace(LABELS, source=source, positive=()), root=tmp_path)
    assert "Original Line" not in str(caught.value)
