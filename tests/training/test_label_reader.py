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
        ("NULL::VARCHAR", "i", {}, "all 0 labels are False"),
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
