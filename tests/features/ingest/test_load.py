"""Tests of ingest: sources of each kind, times, types, counts and expectations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from features.contract import ModelContract, ViewUse
from features.errors import EntityIdError, SourceError
from features.expectations import Expect, ExpectRows
from features.ingest.load import ingest
from features.ingest.summary import IngestSummary, UnknownCategories
from features.offline import OfflineStore, Spine
from features.source import Source
from features.views import Feature, View
from tests.features.small_views import DAY_MS

pytestmark = pytest.mark.walk

NOW_MS = 1_795_000_000_000
TIME_MS = 1_794_990_645_000
"""08:30:45 in UTC, which is 09:30:45 in Berlin."""

VIEW = View(
    name="usage",
    entities=("subscriber",),
    features=(
        Feature(name="plan", dtype="category", dictionary=("prepaid", "postpaid"), default=3.0),
        Feature(name="spend", default=-1.0, bounds=(0.0, 1e9)),
    ),
    ttl_ms=DAY_MS,
    transform="SELECT subscriber, event_time_ms, plan, spend FROM source",
    source_schema=(("subscriber", "VARCHAR"), ("plan", "VARCHAR"), ("spend", "DOUBLE")),
)

ROW = "'0012' AS subscriber, 'prepaid' AS plan, 2.5::DOUBLE AS spend"
TIME = f"make_timestamp_ms({TIME_MS}) AS t"


def timed(view: View = VIEW, **times: Any) -> View:  # noqa: ANN401  arguments of a source
    """VIEW over a frame whose column t is the time; without a zone it is UTC."""
    return replace(view, source=Source.frame(**{"time": "t", "zone": "UTC", **times}))


def load(folder: Path, view: View, data: object, **arguments: Any) -> IngestSummary:  # noqa: ANN401
    """Ingest *data*, or the result of SQL, into a store in *folder* at NOW_MS."""
    arguments = {"created_ms": NOW_MS, "now_ms": NOW_MS, **arguments}
    store = OfflineStore(folder / "store")
    if isinstance(data, str) and data.startswith("SELECT"):
        with duckdb.connect() as connection:
            # A relation of DuckDB has the Arrow interface, as tables of polars and Arrow have.
            return ingest(view, store, connection.sql(data), **arguments)
    return ingest(view, store, data, **arguments)


def stored(folder: Path, view: View = VIEW) -> list[tuple[str, int, list[float]]]:
    """The newest row of each entity: id, event time and values."""
    rows = OfflineStore(folder / "store").latest(view)
    return [
        (entity_id.decode(), int(event_ms), values.tolist())
        for entity_id, event_ms, values in zip(
            rows.ids, rows.event_times_ms, rows.values, strict=True
        )
    ]


EXPECTED = [("0012", TIME_MS, [0.0, 2.5])]


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
        (f"{NOW_MS + DAY_MS + 1}::BIGINT", {"unit": "ms"}, "more than a day after they became"),
    ],
)
def test_ingest_refuses_a_time_with_the_way_out(
    tmp_path: Path, time: str, times: dict[str, Any], message: str
) -> None:
    """Nothing is stored. One such row would keep a customer's honest rows out for ever."""
    with pytest.raises(SourceError, match=message):
        load(tmp_path, timed(**times), f"SELECT {ROW}, {time} AS t")
    assert not list((tmp_path / "store").rglob("*"))


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


def write_file(path: Path, select: str, options: str = "") -> Path:
    """Write the result of *select* to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        name = str(path).replace("'", "''")
        connection.execute(f"COPY ({select}) TO '{name}' {options}").fetchall()
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.parquet", "(FORMAT parquet)"),
        ("a [1] 'x' {y} *?.parquet", "(FORMAT parquet)"),
        ("a.csv", "(FORMAT csv, HEADER)"),
        ("a.csv.gz", "(FORMAT csv, HEADER, COMPRESSION gzip)"),
        ("a [1] 'x'.jsonl", "(FORMAT json)"),
        ("a.ndjson", "(FORMAT json)"),
    ],
)
def test_ingest_reads_files_of_each_format(tmp_path: Path, name: str, options: str) -> None:
    """Ids keep their leading zeros, and an empty quoted text is no NULL."""
    select = f"SELECT {ROW}, {TIME} UNION ALL SELECT '0013', '', NULL, make_timestamp_ms({TIME_MS})"
    path = write_file(tmp_path / name, select, options)
    view = replace(VIEW, source=Source.files(path.name, time="t", zone="UTC"))
    summary = load(tmp_path, view, None, root=tmp_path)
    assert stored(tmp_path) == [*EXPECTED, ("0013", TIME_MS, [2.0, -1.0])]
    assert summary.missing == {"spend": 1}
    assert summary.unknown == {"plan": UnknownCategories(1, ("",))}


def test_ingest_reads_globs_and_partitions(tmp_path: Path) -> None:
    """Folders such as plan=prepaid give a column. Files without a column give NULL."""
    for number, plan in enumerate(("prepaid", "postpaid")):
        row = f"SELECT 'S{number}' AS subscriber, {TIME}" + (", 2.5 AS spend" if number else "")
        write_file(tmp_path / f"in'x[1]/plan={plan}/{number}.parquet", row, "(FORMAT parquet)")
    source = Source.files("in'x[[]1]/*/*.parquet", time="t", zone="UTC")
    load(tmp_path, replace(VIEW, source=source), None, root=tmp_path)
    assert stored(tmp_path) == [("S0", TIME_MS, [0.0, -1.0]), ("S1", TIME_MS, [1.0, 2.5])]


@pytest.mark.parametrize("garbage", [b"", b"PAR1 and nothing else", b"\x00" * 40])
def test_ingest_names_a_file_that_it_cannot_read(tmp_path: Path, garbage: bytes) -> None:
    """A truncated file is an error of one sentence, and nothing is stored."""
    (tmp_path / "a.parquet").write_bytes(garbage)
    with pytest.raises(SourceError, match=r"view 'usage' over .*a\.parquet: "):
        load(tmp_path, VIEW, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="no file matches"):
        load(tmp_path, VIEW, tmp_path / "b.parquet")
    assert not list((tmp_path / "store").rglob("*"))


def test_ingest_reads_pandas_as_it_is(tmp_path: Path) -> None:
    """Zoned and naive times, whole numbers with gaps, categoricals and objects."""
    when = pd.Timestamp(TIME_MS, unit="ms")
    frame = pd.DataFrame(
        {
            "subscriber": ["0012", "0013", "0014"],
            "t": [when] * 3,
            "plan": pd.Categorical(["prepaid", None, "postpaid"]),
            "spend": pd.array([2, None, 3], dtype="Int64"),
        }
    )
    expected = [("0012", [0.0, 2.0]), ("0013", [3.0, -1.0]), ("0014", [1.0, 3.0])]
    frames = [
        frame,
        frame.assign(t=frame["t"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")),
        frame.assign(spend=[2.0, np.nan, 3.0], plan=["prepaid", None, "postpaid"]),
    ]
    for number, each in enumerate(frames):
        folder = tmp_path / str(number)
        load(folder, timed(), each)
        assert [(name, values) for name, _, values in stored(folder)] == expected
    # All-NULL objects fit every type.
    load(tmp_path / "none", timed(), frame.assign(plan=None, spend=None))
    assert {tuple(values) for _, _, values in stored(tmp_path / "none")} == {(3.0, -1.0)}


@pytest.mark.parametrize(
    ("declared", "given", "value"),
    [
        ("DOUBLE", "2::INTEGER", 2.0),
        ("DOUBLE", "2.5::FLOAT", 2.5),
        ("DOUBLE", "2.5::DECIMAL(9, 3)", 2.5),
        ("FLOAT8", "2.5::DOUBLE", 2.5),
        ("INTEGER", "2::BIGINT", 2.0),
        ("INTEGER", "2::UBIGINT", 2.0),
        ("INT4", "2.0::DOUBLE", 2.0),
        ("INTEGER", "'nan'::DOUBLE", -1.0),
        ("INTEGER", "NULL::VARCHAR", -1.0),
        ("DECIMAL(10, 2)", "2.5::DOUBLE", 2.5),
        ("SMALLINT", "2::TINYINT", 2.0),
    ],
)
def test_ingest_accepts_columns_that_fit_without_loss(
    tmp_path: Path, declared: str, given: str, value: float
) -> None:
    """Names are compared without regard to case."""
    view = timed(replace(VIEW, source_schema=(("Subscriber", "TEXT"), ("SPEND", declared))))
    load(tmp_path, view, f"SELECT '0012' AS SUBSCRIBER, {given} AS Spend, 'x' AS Plan, {TIME}")
    assert stored(tmp_path, view) == [("0012", TIME_MS, [2.0, value])]


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        ("INTEGER", "3000000000::BIGINT", "3000000000 does not fit INTEGER"),
        ("INTEGER", "2.5::DOUBLE", "2.5 does not fit INTEGER"),
        ("FLOAT", "0.1::DOUBLE", "0.1 does not fit FLOAT"),
        ("DOUBLE", "9007199254740993::BIGINT", "9007199254740993 does not fit DOUBLE"),
        ("DOUBLE", "'2.5'", r"spend is VARCHAR \(declared DOUBLE\)"),
        ("VARCHAR", "2.5::DOUBLE", r"spend is DOUBLE \(declared VARCHAR\)"),
        ("NUMBER", "2.5::DOUBLE", "'NUMBER', which is no type of DuckDB"),
    ],
)
def test_ingest_refuses_columns_that_do_not_fit(
    tmp_path: Path, declared: str, given: str, message: str
) -> None:
    """A value that would change is named."""
    view = timed(replace(VIEW, source_schema=(("spend", declared),)))
    with pytest.raises(SourceError, match=message):
        load(tmp_path, view, f"SELECT '0012' AS subscriber, {given} AS spend, 'x' AS plan, {TIME}")


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
    """Of rows with equal entity and time only the last is used."""
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
        ("spend", Expect(high=100), "S1 S2 S4", "spend: 1 of 4 rows are outside None to 100"),
        ("spend", Expect(low=2, high=900), "S2 S3 S4", "1 of 4 rows are outside 2 to 900"),
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
    """Of duplicates the last row is stored. Old rows cannot be mended, so quarantine stops."""
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
