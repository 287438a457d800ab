"""Tests of the record beside the rows: what was materialised, and how old it is."""

import json

import pytest

from features.rows import ViewRows
from features.writes.materialise_record import (
    BegunMaterialise,
    Materialised,
    MaterialiseRecord,
    key_of,
    parse_record,
)
from tests.features.small_views import DAY_MS, NOW_MS, plan_view

VIEW = plan_view()
ROWS = Materialised(
    ingests=3, digest="ab", known_ms=NOW_MS, at_ms=NOW_MS, newest_event_ms=NOW_MS - 5
)


@pytest.mark.parametrize(
    "record",
    [
        MaterialiseRecord(DAY_MS),
        MaterialiseRecord(DAY_MS, ROWS),
        MaterialiseRecord(DAY_MS, ROWS, BegunMaterialise(ROWS, (2, NOW_MS), "S1\x1fé", "t")),
        MaterialiseRecord(DAY_MS, None, BegunMaterialise(ROWS, None, "", "t")),
    ],
)
def test_record_is_read_as_it_was_written(record: MaterialiseRecord) -> None:
    """Every field comes back."""
    assert parse_record(record.to_bytes()) == record


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 2}',
        json.dumps({"format": 1, "ttl_ms": 1, "complete": {"x": 1}, "begun": None}).encode(),
        json.dumps({"format": 1, "ttl_ms": 1, "complete": None, "begun": 7}).encode(),
    ],
)
def test_value_that_is_no_record_says_nothing(value: bytes | None) -> None:
    """Then all rows are written."""
    assert parse_record(value) is None


def test_view_is_old_near_the_end_of_its_ttl() -> None:
    """At four fifths of the TTL it is not old yet. Without rows it is."""
    record = MaterialiseRecord(DAY_MS, ROWS)
    newest = NOW_MS - 5
    assert not record.is_old(newest + DAY_MS * 8 // 10)
    assert record.is_old(newest + DAY_MS * 8 // 10 + 1)
    assert record.is_readable(newest + DAY_MS)
    assert not record.is_readable(newest + DAY_MS + 1)
    assert MaterialiseRecord(DAY_MS).is_old(NOW_MS)
    assert not MaterialiseRecord(DAY_MS).is_readable(NOW_MS)


@pytest.mark.parametrize("namespace", ["", "shop-prod"])
def test_no_row_has_the_key_of_the_record(namespace: str) -> None:
    """An entity called "turnout" has another key, and the store's users may use both."""
    key = key_of(VIEW, namespace)
    row = ViewRows(VIEW, namespace).store_key(b"turnout")
    assert key == row + b":materialised"
