"""Tests of looking at a sample of a source, in a real DuckDB."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from features.errors import SourceError
from features.expectations import Expect
from features.ingest.files import SAMPLED_FILES, spread
from features.ingest.load import ingest
from features.ingest.sample import SourceSample, sample_source, sample_stored
from features.offline import OfflineStore
from features.source import Source
from features.views import Feature, View
from tests.features.ingest.loads import NOW_MS
from tests.features.small_views import DAY_MS

VIEW = View(
    name="usage",
    entities=("customer",),
    features=(
        Feature(name="plan", dtype="category", dictionary=("basic", "extra")),
        Feature(name="spend", bounds=(0.0, 100.0)),
        Feature(name="calls"),
    ),
    ttl_ms=DAY_MS,
    transform="SELECT customer, event_time_ms, created_ms, plan, spend, calls FROM source",
    source=Source.files("usage.parquet", time="at", created="at", unit="ms"),
)
COLUMNS = (
    f"'C' || i AS customer, {NOW_MS} - i AS at, 'basic' AS plan, 1.0::DOUBLE AS spend, "
    "i::BIGINT AS calls"
)


def write(path: Path, rows: int, columns: str = COLUMNS) -> None:
    """Write a file of *rows* rows, numbered by i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {columns} FROM range({rows}) AS rows(i)) TO '{path}'")


def sample(root: Path, view: View = VIEW, **arguments: Any) -> SourceSample:  # noqa: ANN401
    """Look at a thousand rows at NOW_MS."""
    arguments = {"rows_max": 1_000, "seconds_max": 30.0, "connections": {}, **arguments}
    return sample_source(view, root=root, now_ms=NOW_MS, **arguments)


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 1_000])
def test_spread_has_the_first_and_the_last(count: int) -> None:
    """No number comes twice, and there are as many as there can be."""
    numbers = spread(count, 10)
    assert (numbers[0], numbers[-1]) == (0, count - 1)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(count, 10)


def test_sample_of_a_large_file_comes_from_all_parts_of_it(tmp_path: Path) -> None:
    """From the first row to the last, and no more than was asked for."""
    write(tmp_path / "usage.parquet", 300_000)
    found = sample(tmp_path)
    assert found.source_rows == found.rows == 1_000
    assert (found.last_event_ms, found.first_event_ms) == (NOW_MS, NOW_MS - 299_999)
    assert (found.duplicates, found.future, found.ancient, found.warnings) == (0, 0, 0, ())


@pytest.mark.walk
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_sample_of_many_files_has_rows_of_the_first_and_the_last(
    suffix: str, tmp_path: Path
) -> None:
    """Columns of folders are there too."""
    for day in range(SAMPLED_FILES + 5):
        columns = COLUMNS.replace("- i AS", f"- {day} AS")
        write(tmp_path / f"day={10 + day}" / f"usage.{suffix}", 300, columns)
    source = Source.files(f"day=*/usage.{suffix}", time="at", created="at", unit="ms")
    transform = VIEW.transform.replace("calls FROM", "day AS calls FROM")
    found = sample(tmp_path, replace(VIEW, source=source, transform=transform))
    assert 900 <= found.rows <= 1_100
    last_day = SAMPLED_FILES + 4
    assert (found.last_event_ms, found.first_event_ms) == (NOW_MS, NOW_MS - last_day)


def test_sample_of_a_small_file_has_every_row_once(tmp_path: Path) -> None:
    """Nothing is counted as a duplicate that is none."""
    write(tmp_path / "usage.parquet", 17)
    found = sample(tmp_path)
    assert (found.source_rows, found.duplicates) == (17, 0)


def test_sample_counts_what_is_odd(tmp_path: Path) -> None:
    """Each kind of oddness is planted in a known number of rows."""
    columns = f"""
        'C' || (CASE WHEN i = 1 THEN 0 ELSE i END) AS customer,
        CASE WHEN i < 2 THEN {NOW_MS} WHEN i < 5 THEN {NOW_MS + 3 * DAY_MS}
             WHEN i < 9 THEN {NOW_MS - 3 * DAY_MS} ELSE {NOW_MS - DAY_MS - 1} END AS at,
        CASE WHEN i < 3 THEN 'Gold' WHEN i < 7 THEN NULL ELSE 'basic' END AS plan,
        CASE WHEN i < 6 THEN 101.0 ELSE 1.0 END AS spend,
        CASE WHEN i < 8 THEN 16777217 ELSE 1 END AS calls"""
    write(tmp_path / "usage.parquet", 20, columns)
    expect = {"spend": Expect(missing_max=0.1, on_breach="stop")}
    source = replace(VIEW.source or Source.frame(time=None), created=None)
    transform = VIEW.transform.replace("created_ms, ", "")
    found = sample(tmp_path, replace(VIEW, source=source, transform=transform, expect=expect))
    assert (found.rows, found.duplicates, found.future, found.ancient, found.stale) == (
        20,
        1,
        3,
        4,
        11,
    )
    plan, spend, calls = found.features
    assert (plan.missing, plan.unknown and plan.unknown.newest) == (4, ("Gold",))
    assert (spend.missing, spend.out_of_bounds) == (6, 6)
    assert (calls.inexact, calls.out_of_bounds) == (8, 0)
    # What an ingest would refuse or warn of is said in words.
    texts = " ".join(found.warnings)
    assert "spend: 6 of 20 rows are missing; the view expects at most 10.00%" in texts
    assert "3 of 20 rows are dated, or became known, more than a day in the future" in texts
    assert "the transform returns no created_ms" in texts


def test_sample_guesses_another_unit(tmp_path: Path) -> None:
    """Microseconds that are declared as milliseconds lie far in the future."""
    write(tmp_path / "usage.parquet", 5, COLUMNS.replace(f"{NOW_MS} - i", f"{NOW_MS}000 - i"))
    assert "they look like microseconds" in " ".join(sample(tmp_path).warnings)
    # An ingest refuses it, although the rows are not dated later than they became known.
    with pytest.raises(SourceError, match=r"look like microseconds.*Nothing was stored"):
        ingest(VIEW, OfflineStore(tmp_path / "offline"), root=tmp_path, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("changes", "columns", "text"),
    [
        ({}, COLUMNS.replace("calls", "called"), "calls"),
        ({}, COLUMNS.replace(" AS at", " AS seen"), "no column 'at'; it has"),
        (
            {"source": Source.files("usage.parquet", time="at")},
            COLUMNS.replace(f"{NOW_MS} - i", "TIMESTAMP '2026-11-01'"),
            "declare the zone of the source",
        ),
        ({"source": Source.files("usage.parquet", time="at")}, COLUMNS, "declare their unit"),
        ({"source": Source.files("none.csv", time="at")}, COLUMNS, "no file matches 'none.csv'"),
        (
            {"source": Source.table("t", time="at", connection="billing")},
            COLUMNS,
            "the environment has no connection 'billing'",
        ),
    ],
)
def test_sample_of_a_source_that_cannot_be_read_is_an_error(
    changes: dict[str, Any], columns: str, text: str, tmp_path: Path
) -> None:
    """The error is that of an ingest, before anything was ingested."""
    write(tmp_path / "usage.parquet", 5, columns)
    with pytest.raises(SourceError, match="view 'usage' over") as caught:
        sample(tmp_path, replace(VIEW, **changes))
    assert text in str(caught.value)


def test_sample_ends_a_transform_that_is_too_slow(tmp_path: Path) -> None:
    """A join of everything with everything would make a million million rows."""
    write(tmp_path / "usage.parquet", 1_000)
    joins = ", ".join(f"source AS s{number}" for number in range(4))
    transform = (
        "SELECT s0.customer, s0.event_time_ms, s0.created_ms, s0.plan, s0.spend, "
        f"sum(s1.calls + s2.calls + s3.calls) AS calls FROM {joins} GROUP BY ALL"
    )
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"longer than 0\.2 s over 1,000 rows"):
        sample(tmp_path, replace(VIEW, transform=transform), seconds_max=0.2)
    assert time.monotonic() - began < 20


def test_sample_of_stored_rows_has_the_shares_of_the_newest_ingest(tmp_path: Path) -> None:
    """Missing comes from the validity bits, and unknown from the code behind the dictionary."""
    store = OfflineStore(tmp_path / "offline")
    folder = store.folder(VIEW)
    assert sample_stored(VIEW, folder, rows_max=100) is None
    write(tmp_path / "usage.parquet", 10)
    ingest(VIEW, store, root=tmp_path, now_ms=NOW_MS)
    odd = COLUMNS.replace("'basic'", "CASE WHEN i < 2 THEN 'Gold' WHEN i < 5 THEN NULL END")
    write(tmp_path / "usage.parquet", 8, odd.replace("1.0::DOUBLE", "(i * 100.0)"))
    ingest(VIEW, store, root=tmp_path, now_ms=NOW_MS)
    found = sample_stored(VIEW, folder, rows_max=100)
    assert found is not None
    assert found.rows == 8
    assert found.missing == {"plan": 0.75, "spend": 0.75, "calls": 0.0}
    assert found.unknown == {"plan": 0.25}
