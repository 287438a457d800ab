"""Tests of times: any unit and zone, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.errors import SourceError
from features.offline import OfflineStore
from tests.features.ingest.loads import (
    EXPECTED,
    NOW_MS,
    ROW,
    TIME,
    TIME_MS,
    VIEW,
    load,
    stored,
    timed,
)
from tests.features.small_views import DAY_MS

pytestmark = pytest.mark.walk


@pytest.mark.parametrize(
    ("time", "times"),
    [
        (f"make_timestamp_ms({TIME_MS})", {}),
        (f"make_timestamp_ms({TIME_MS})::TIMESTAMP_S", {}),
        (f"make_timestamp_ms({TIME_MS})::TIMESTAMP_MS", {}),
        (f"make_timestamp_ms({TIME_MS})::TIMESTAMP_NS", {}),
        (f"make_timestamp_ms({TIME_MS} + 3600000)", {"zone": "Europe/Berlin"}),
        (f"make_timestamp_ms({TIME_MS} - 4 * 3600000)", {"zone": "America/Halifax"}),
        (f"to_timestamp({TIME_MS} / 1000)", {"zone": None}),
        (f"to_timestamp({TIME_MS} / 1000)", {"zone": "Europe/Berlin"}),
        ("'2026-11-18T09:30:45+01:00'", {"zone": None}),
        ("'2026-11-18 08:30:45Z'", {"zone": "Europe/Berlin"}),
        ("'2026-11-18 09:30:45'", {"zone": "Europe/Berlin"}),
        (f"({TIME_MS} / 1000)::DOUBLE", {"unit": "s"}),
        (f"({TIME_MS} // 1000)::UINTEGER", {"unit": "s"}),
        (f"{TIME_MS}::BIGINT", {"unit": "ms"}),
        (f"{TIME_MS}999::BIGINT", {"unit": "us"}),
        (f"{TIME_MS}000999::HUGEINT", {"unit": "ns"}),
        (f"{TIME_MS}::DECIMAL(20, 3)", {"unit": "ms"}),
    ],
)
def test_ingest_reads_times_of_any_unit_and_zone(
    tmp_path: Path, time: str, times: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's zone plays no part."""
    monkeypatch.setenv("TZ", "America/New_York")
    load(tmp_path, timed(**times), f"SELECT {ROW}, {time} AS t")
    assert stored(tmp_path) == EXPECTED


def test_ingest_gives_dates_their_midnight_in_the_zone(tmp_path: Path) -> None:
    """A date without a time of day begins at midnight there."""
    view = timed(zone="Europe/Berlin")
    load(tmp_path, view, f"SELECT {ROW}, DATE '2026-11-18' AS t")
    assert stored(tmp_path)[0][1] == TIME_MS - (9 * 3_600 + 30 * 60 + 45) * 1_000


def test_ingest_computes_in_utc_whatever_the_zone_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a zoned timestamp are those in UTC, so one view hash has one meaning."""
    monkeypatch.setenv("TZ", "America/New_York")
    view = replace(
        VIEW,
        transform="SELECT subscriber, epoch_ms(t::TIMESTAMP) AS event_time_ms, plan, "
        "hour(t) AS spend FROM source",
    )
    load(tmp_path, view, f"SELECT {ROW}, to_timestamp({TIME_MS} / 1000) AS t")
    assert stored(tmp_path, view) == [("0012", TIME_MS, [0.0, 8.0])]


@pytest.mark.parametrize(
    ("time", "times", "message"),
    [
        (f"make_timestamp_ms({TIME_MS})", {"zone": None}, "times without a zone; declare the zone"),
        ("'2026-11-18 09:30:45'", {"zone": None}, "a text that names no zone"),
        ("1::BIGINT", {}, "holds numbers .BIGINT.; declare their unit"),
        (f"make_timestamp_ms({TIME_MS})", {"unit": "s"}, "which has a unit of its own"),
        ("true", {}, "is BOOLEAN, which is no time"),
        ("NULL::TIMESTAMP", {}, "'event_time_ms' is NULL in 1 of 1 rows"),
        ("5 AS event_time_ms, 0::BIGINT", {"unit": "s"}, "a column 'event_time_ms' beside"),
        (f"{TIME_MS}::BIGINT", {"unit": "us"}, "in January 1970.*look like seconds"),
        (f"{TIME_MS}::BIGINT", {"unit": "s"}, "they look like microseconds"),
        (f"{TIME_MS}000::BIGINT", {"unit": "s"}, "they look like nanoseconds"),
        (f"{NOW_MS + DAY_MS + 1}::BIGINT", {"unit": "ms"}, "more than a day in the future"),
    ],
)
def test_ingest_refuses_a_time_with_the_way_out(
    tmp_path: Path, time: str, times: dict[str, Any], message: str
) -> None:
    """Nothing is stored. One such row would keep a customer's honest rows out for ever."""
    with pytest.raises(SourceError, match=message):
        load(tmp_path, timed(**times), f"SELECT {ROW}, {time} AS t")
    assert not list((tmp_path / "store").rglob("*"))


@pytest.mark.parametrize("known", ["t", "TIMESTAMP '2026-11-18 09:30:45'"])
def test_row_of_the_future_is_refused_whenever_the_source_says_it_became_known(
    tmp_path: Path, known: str
) -> None:
    """A table with one time has it for both, and one wrong row must not pass by that."""
    view = replace(
        timed(created="known_at"),
        transform="SELECT subscriber, event_time_ms, created_ms, plan, spend FROM source",
    )
    sql = f"SELECT {ROW}, TIMESTAMP '2096-01-01' AS t, {known} AS known_at"
    with pytest.raises(SourceError, match="more than a day in the future, up to 3976214400000"):
        load(tmp_path, view, sql)
    sql = f"SELECT {ROW}, {TIME}, TIMESTAMP '2096-01-01' AS known_at"
    with pytest.raises(SourceError, match="1 of 1 rows are dated, or became known, more than"):
        load(tmp_path, view, sql)


def test_ingest_reads_created_from_the_source(tmp_path: Path) -> None:
    """A backfill says for each row when it became known."""
    view = replace(
        timed(created="known_at"),
        transform="SELECT subscriber, event_time_ms, created_ms, plan, spend FROM source",
    )
    load(
        tmp_path,
        view,
        f"SELECT {ROW}, {TIME}, {TIME} + INTERVAL 1 HOUR AS known_at".replace(
            " AS t + INTERVAL", " + INTERVAL"
        ),
    )
    store = OfflineStore(tmp_path / "store")
    assert len(store.latest(view, as_of_ms=TIME_MS + 3_599_999)) == 0
    assert len(store.latest(view, as_of_ms=TIME_MS + 3_600_000)) == 1
