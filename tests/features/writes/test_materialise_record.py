"""Tests of the record beside the rows: what was materialised, and how old it is."""

import json

import pytest

from features.rows import ViewRows
from features.writes.materialise_record import (
    BegunMaterialise,
    Materialised,
    MaterialiseRecord,
    PushedRows,
    key_of,
    parse_record,
    parse_view_record,
    view_record_keys,
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
    view = parse_view_record(record.to_bytes(), None)
    assert not view.is_old(newest + DAY_MS * 8 // 10)
    assert view.is_old(newest + DAY_MS * 8 // 10 + 1)
    assert record.is_readable(newest + DAY_MS)
    assert not record.is_readable(newest + DAY_MS + 1)
    assert parse_view_record(MaterialiseRecord(DAY_MS).to_bytes(), None).is_old(NOW_MS)
    assert parse_view_record(None, None).is_old(NOW_MS)
    assert not MaterialiseRecord(DAY_MS).is_readable(NOW_MS)


def test_view_that_is_only_pushed_has_the_age_of_its_newest_row() -> None:
    """Once the view is materialised, a push says nothing of the entities without one."""
    pushed = PushedRows(DAY_MS, NOW_MS).to_bytes()
    view = parse_view_record(None, pushed)
    assert (view.newest_event_ms, view.ttl_ms) == (NOW_MS, DAY_MS)
    assert not view.is_old(NOW_MS + DAY_MS * 8 // 10)
    assert view.is_old(NOW_MS + DAY_MS * 8 // 10 + 1)
    begun = parse_view_record(MaterialiseRecord(DAY_MS).to_bytes(), pushed)
    assert begun.newest_event_ms == NOW_MS
    materialised = parse_view_record(MaterialiseRecord(DAY_MS, ROWS).to_bytes(), pushed)
    assert materialised.newest_event_ms == NOW_MS - 5
    assert parse_view_record(None, b"7 x") == parse_view_record(None, None)


@pytest.mark.parametrize("namespace", ["", "shop-prod"])
def test_no_row_has_the_key_of_the_record(namespace: str) -> None:
    """An entity called "turnout" has another key, and the store's users may use both."""
    key = key_of(VIEW, namespace)
    row = ViewRows(VIEW, namespace).store_key(b"turnout")
    assert key == row + b":materialised"
    keys = view_record_keys(VIEW.name, VIEW.view_hash, namespace)
    assert keys == [key, row + b":pushed"]
