"""Tests of what ingest checks and counts before rows are stored."""

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from features.contract import ModelContract, ViewUse
from features.errors import EntityIdError, SourceError
from features.expectations import Expect, ExpectRows
from features.ingest.summary import UnknownCategories
from features.offline import OfflineStore, Spine
from features.source import Source
from tests.features.ingest.loads import (
    NOW_MS,
    ROW,
    TIME,
    VIEW,
    load,
    stored,
    timed,
)
from tests.features.small_views import DAY_MS

pytestmark = pytest.mark.walk


@pytest.mark.parametrize(
    ("select", "transform", "error", "message"),
    [
        ("'' AS subscriber", "*", EntityIdError, r"row 2 of .* 0 bytes .*\. 1 rows"),
        ("chr(7) AS subscriber", "*", EntityIdError, r"U\+0007"),
        (f"'{'x' * 129}' AS subscriber", "*", EntityIdError, "129 bytes"),
        ("NULL AS subscriber", "*", SourceError, "never NULL; 1 of 2"),
        ("'a' AS subscriber", "* REPLACE (12 AS subscriber)", SourceError, "column is INTEGER"),
        ("'a' AS subscriber", "* REPLACE ('x' AS spend)", SourceError, "cast it to a number"),
        ("'a' AS subscriber", "* REPLACE (5 AS plan)", SourceError, "cast it to VARCHAR"),
        ("'a' AS subscriber", "*, 'x' AS plan", SourceError, r"returns \['plan'\] twice"),
        ("'a' AS subscriber", "* EXCLUDE plan", SourceError, r"declares \['plan'\]"),
    ],
)
def test_ingest_refuses_rows_that_cannot_be_stored(
    tmp_path: Path, select: str, transform: str, error: type[Exception], message: str
) -> None:
    """The message counts the rows. It never repeats an id."""
    view = timed(replace(VIEW, transform=f"SELECT {transform} FROM source"))
    rows = f"SELECT {ROW}, {TIME} UNION ALL SELECT {select}, 'prepaid', 1.0, {TIME}"
    with pytest.raises(error, match=message):
        load(tmp_path, view, rows)
    assert not list((tmp_path / "store").rglob("*"))


def rows_of(*rows: tuple[str, str | None, float | None], age_ms: int = 60_000) -> str:
    """SQL of (subscriber, plan, spend), each row 1 ms after the one before it."""
    values = ", ".join(
        "({}, {}, {}, {})".format(
            repr(subscriber),
            "NULL" if plan is None else repr(plan),
            "NULL::DOUBLE" if spend is None else f"{spend!r}::DOUBLE",
            f"make_timestamp_ms({NOW_MS - age_ms + number})",
        )
        for number, (subscriber, plan, spend) in enumerate(rows)
    )
    return f"SELECT * FROM (VALUES {values}) AS rows(subscriber, plan, spend, t)"


def test_ingest_counts_what_is_odd(tmp_path: Path) -> None:
    """Unknown categories with their newest spellings, inexact whole numbers, and the rest."""
    plans = ["prepaid", "PREPAID", "x1", "x2", "x3", "x4", "x5", "PREPAID", None]
    rows = [(f"S{number}", plan, 2.0**24 + number) for number, plan in enumerate(plans)]
    summary = load(tmp_path, timed(), rows_of(*rows, ("S9", "prepaid", 2e9)))
    assert (summary.source_rows, summary.rows, summary.duplicates) == (10, 10, 0)
    assert summary.missing == {"plan": 1, "spend": 1}
    assert summary.unknown == {"plan": UnknownCategories(7, ("PREPAID", "x5", "x4", "x3", "x2"))}
    assert summary.inexact == {"spend": 4}
    assert (summary.stale, summary.forgotten) == (0, 0)
    assert (summary.first_event_ms, summary.last_event_ms) == (NOW_MS - 60_000, NOW_MS - 59_991)
    # The summary is JSON, and says in sentences what a person should read.
    value = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert value["unknown"] == {"plan": {"rows": 7, "newest": ["PREPAID", "x5", "x4", "x3", "x2"]}}
    assert len(value["warnings"]) == 2
    assert "7 rows have categories" in value["warnings"][0]
    assert "4 rows have whole numbers" in value["warnings"][1]


@pytest.mark.parametrize(
    ("age_ms", "counts"),
    [(DAY_MS, (0, 0)), (DAY_MS + 2, (2, 0)), (2 * DAY_MS + 1, (1, 1)), (9 * DAY_MS, (0, 2))],
)
def test_ingest_counts_rows_past_their_ttl(
    tmp_path: Path, age_ms: int, counts: tuple[int, int]
) -> None:
    """Rows older than one and than two TTLs are told from each other, to the millisecond."""
    rows = rows_of(("S1", "prepaid", 1.0), ("S2", "prepaid", 1.0), age_ms=age_ms)
    summary = load(tmp_path, timed(), rows)
    assert (summary.stale, summary.forgotten) == counts
    assert any("older than the view's TTL" in line for line in summary.warnings) == any(counts)


def test_ingest_notices_a_transform_that_doubles_rows(tmp_path: Path) -> None:
    """Only the last of several rows with equal entity and time is used."""
    view = timed(
        replace(
            VIEW,
            transform="SELECT a.subscriber, a.event_time_ms, a.plan, b.spend "
            "FROM source a JOIN source b ON a.plan = b.plan",
        )
    )
    summary = load(tmp_path, view, rows_of(("S1", "prepaid", 1.0), ("S2", "prepaid", 2.0)))
    assert (summary.rows, summary.duplicates) == (4, 2)
    assert "made 4 rows of 2; a join in it doubles rows" in summary.warnings[0]


def test_ingest_of_no_rows_stores_nothing_and_says_so(tmp_path: Path) -> None:
    """An empty source is no error, since some hours are quiet."""
    summary = load(tmp_path, timed(), rows_of(("S1", "prepaid", 1.0)) + " WHERE false")
    assert (summary.rows, summary.path) == (0, None)
    assert summary.warnings == ("the frame gave no rows; nothing was stored",)
    assert not list((tmp_path / "store").rglob("*"))


ODD = rows_of(("S1", "prepaid", 1.0), ("S2", None, 2.0), ("S3", "x", 900.0), ("S4", "x", 4.0))


@pytest.mark.parametrize(
    ("name", "expect", "ids", "sentence"),
    [
        ("plan", Expect(missing_max=0.2), "S1 S3 S4", "plan: 1 of 4 rows are missing; .* 20.00%"),
        ("plan", Expect(missing_max=0.25), "S1 S2 S3 S4", ""),
        ("plan", Expect(unknown_max=0.0), "S1 S2", "plan: 2 of 4 rows are unknown; .* none"),
        ("plan", Expect(missing_max=0.0, unknown_max=0.0), "S1", "missing"),
        ("spend", Expect(high=100), "S1 S2 S4", "spend: 1 of 4 rows are above 100"),
        ("spend", Expect(low=2, high=900), "S2 S3 S4", "1 of 4 rows are below 2 or above 900"),
    ],
)
def test_ingest_warns_quarantines_or_stops_as_the_view_says(
    tmp_path: Path, name: str, expect: Expect, ids: str, sentence: str
) -> None:
    """Quarantined rows lie in a file as the transform returned them, with the reason."""
    for action in ("warn", "quarantine", "stop"):
        folder = tmp_path / action
        view = timed(replace(VIEW, expect={name: replace(expect, on_breach=action)}))
        if action == "stop" and sentence:
            with pytest.raises(SourceError, match=sentence):
                load(folder, view, ODD)
            assert not list((folder / "store").rglob("*"))
            continue
        summary = load(folder, view, ODD)
        assert bool(summary.breaches) == bool(sentence)
        expected = ids.split() if action == "quarantine" else ["S1", "S2", "S3", "S4"]
        assert [row[0] for row in stored(folder, view)] == expected
        assert summary.quarantined == 4 - len(expected)
        if summary.quarantined:
            assert summary.quarantine is not None
            with duckdb.connect() as connection:
                rows = connection.execute(
                    f"SELECT subscriber, turnout_reason FROM '{summary.quarantine}'"
                ).fetchall()
            assert {row[0] for row in rows} == {"S1", "S2", "S3", "S4"} - set(expected)
            assert all(row[1].startswith(f"{name} is ") for row in rows)


def test_ingest_checks_duplicates_and_freshness(tmp_path: Path) -> None:
    """The last of several duplicates is stored. Old rows cannot be mended, so quarantine stops."""
    doubled = ODD + " UNION ALL " + ODD.replace("1.0::DOUBLE", "7.0::DOUBLE")
    expect_rows = ExpectRows(duplicates_max=0.1, on_breach="quarantine")
    view = timed(replace(VIEW, expect_rows=expect_rows))
    summary = load(tmp_path, view, doubled)
    assert (summary.rows, summary.duplicates, summary.quarantined) == (4, 4, 4)
    assert stored(tmp_path, view)[0][2] == [0.0, 7.0]
    late = replace(view, expect_rows=ExpectRows(newest_within_ms=50_000, on_breach="quarantine"))
    with pytest.raises(SourceError, match="the newest row is 59,997 ms old"):
        load(tmp_path, late, ODD)


def test_ingest_of_many_periods_makes_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files hold neighbouring periods, and the join reads those of its instants only."""
    monkeypatch.setattr("features.storage.writing.FILE_ROWS_MIN", 20)
    view = replace(VIEW, source=Source.frame(time="t", zone="UTC", created="t"), ttl_ms=DAY_MS)
    view = replace(
        view, transform="SELECT subscriber, event_time_ms, created_ms, plan, spend FROM source"
    )
    rows = (
        "SELECT 'S' || i % 5 AS subscriber, 'prepaid' AS plan, i::DOUBLE AS spend, "
        f"make_timestamp_ms({NOW_MS} - i * 3 * {DAY_MS}) AS t FROM range(100) r(i)"
    )
    summary = load(tmp_path, view, rows, created_ms=None)
    assert summary.path is not None
    files = sorted(path.name for path in summary.path.glob("*.parquet"))
    assert 3 <= len(files) <= 6
    store = OfflineStore(tmp_path / "store")
    contract = ModelContract(
        entities=("subscriber",), views=(ViewUse(view=view, features=("spend",)),)
    )
    instants = np.array([NOW_MS, NOW_MS - 3 * DAY_MS], dtype=np.int64)
    spine = Spine(ids={"subscriber": ["S0", "S1"]}, as_of_ms=instants)
    for name in files[:-1]:
        (summary.path / name).unlink()
    assert store.training_set(contract, spine).values.tolist() == [[0.0], [1.0]]
