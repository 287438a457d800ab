"""Tests of sources: files, frames, and columns of other types."""

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from features.errors import SourceError
from features.ingest.summary import UnknownCategories
from features.source import Source
from tests.features.ingest.loads import (
    EXPECTED,
    ROW,
    TIME,
    TIME_MS,
    VIEW,
    load,
    stored,
    timed,
)

pytestmark = pytest.mark.walk


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


def test_ingest_names_the_line_of_a_text_file_and_not_its_content(tmp_path: Path) -> None:
    """The line and the column are named; the rest of the line may be a person's data."""
    rows = "subscriber,plan,spend,t\nS1,prepaid,1.5,2026-11-18\nSECRET,prepaid,abc,2026-11-18\n"
    (tmp_path / "a.csv").write_text(rows)
    view = replace(VIEW, source=Source.files("a.csv", time="t", zone="UTC"))
    with pytest.raises(SourceError, match=r"Line: 3 .*spend") as refused:
        load(tmp_path, view, None, root=tmp_path)
    assert "SECRET" not in str(refused.value)
    assert "\n" not in str(refused.value)


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
