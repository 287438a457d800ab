"""Tests of PostgreSQL tables as sources, against a real server."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from features.errors import SourceError
from features.ingest.load import ingest
from features.ingest.postgres import copy_table
from features.offline import OfflineStore
from features.source import Source
from features.storage.database import open_duckdb
from features.views import View
from tests.features.ingest.loads import EXPECTED, NOW_MS, TIME_MS, VIEW
from tests.features.ingest.postgres_server import postgres_server

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a running server."""
    with postgres_server() as address:
        yield address


def execute(address: str, *statements: str) -> None:
    """Run statements in one transaction."""
    with psycopg.connect(address) as database:
        for statement in statements:
            database.execute(statement)


def copied(
    address: str,
    table: str,
    *,
    page_rows: int = 1_000,
    columns: str = "*",
    rows_max: int | None = None,
) -> list[tuple[object, ...]]:
    """The rows of a table after it was copied to DuckDB, in order."""
    with open_duckdb(on_disk=True) as connection:
        copy_table(connection, table, address, "rows", page_rows=page_rows, rows_max=rows_max)
        rows: list[tuple[object, ...]] = connection.execute(
            f"SELECT {columns} FROM rows ORDER BY rowid"
        ).fetchall()
    return rows


def table_view(name: str, **times: str) -> View:
    """VIEW over a table of the connection billing."""
    return replace(VIEW, source=Source.table(name, connection="billing", **{"time": "t", **times}))


def test_postgres_table_becomes_stored_rows(address: str, tmp_path: Path) -> None:
    """Zoned and naive times are read rightly, whatever the zones of database and host are."""
    execute(
        address,
        'CREATE SCHEMA "Cdr"',
        'CREATE TABLE "Cdr"."Usage" (subscriber text, plan text, spend real, t timestamptz, '
        "local timestamp)",
        'INSERT INTO "Cdr"."Usage" VALUES '
        f"('0012', 'prepaid', 2.5, to_timestamp({TIME_MS / 1000}), '2026-11-18 09:30:45')",
        "ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'",
        "ALTER DATABASE postgres SET datestyle = 'SQL, DMY'",
    )
    views = table_view("Cdr.Usage"), table_view("Cdr.Usage", time="local", zone="Europe/Berlin")
    for number, view in enumerate(views):
        store = OfflineStore(tmp_path / str(number))
        connections = {"billing": address}
        summary = ingest(view, store, created_ms=NOW_MS, now_ms=NOW_MS, connections=connections)
        rows = store.latest(view)
        assert (summary.source, summary.rows) == ("Cdr.Usage", 1)
        assert [(rows.ids[0].decode(), int(rows.event_times_ms[0]), rows.values[0].tolist())] == (
            EXPECTED
        )


def test_postgres_values_survive_the_copy(address: str) -> None:
    """NULL and the empty text, quotes, line ends, numbers and times of each type."""
    execute(
        address,
        "CREATE TABLE typed (id int PRIMARY KEY, a text, b boolean, c numeric(10, 2), d numeric, "
        "e double precision, f real, g timestamptz, h date, i bigint, j jsonb, k smallint)",
        "INSERT INTO typed VALUES "
        "(1, '', true, 12.50, 1e20, 'NaN', 'Infinity', '2026-07-01 12:00+02', '2026-07-01', "
        "9007199254740993, '{\"x\": [1, 2]}', -3), "
        "(2, E'a\"b,\\n\\\\.\\té ', false, -0.01, 0.1, 0.1, -1.5, NULL, NULL, -1, NULL, NULL), "
        "(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    columns = "* REPLACE (epoch_ms(g) AS g)"
    first, second, third = copied(address, "typed", columns=columns)
    assert first[:5] == (1, "", True, Decimal("12.50"), 1e20)
    assert str(first[5:7]) == "(nan, inf)"
    assert first[7] == datetime(2026, 7, 1, 10, tzinfo=UTC).timestamp() * 1_000
    assert first[8:] == (date(2026, 7, 1), 9007199254740993, '{"x": [1, 2]}', -3)
    assert second[:7] == (2, 'a"b,\n\\.\té ', False, Decimal("-0.01"), 0.1, 0.1, -1.5)
    assert third == (3, *[None] * 11)


@pytest.mark.parametrize("page_rows", [1, 3, 7, 20, 21, 1_000])
def test_postgres_table_is_read_by_pages_of_its_key(address: str, page_rows: int) -> None:
    """Each row is read once, in the order of a composite key, whatever the size of a page."""
    execute(
        address,
        "CREATE TABLE IF NOT EXISTS paged (b text, a int, value int, PRIMARY KEY (a, b))",
        "INSERT INTO paged SELECT 'x''' || i % 4, i / 4, i FROM generate_series(0, 20) g(i) "
        "ON CONFLICT DO NOTHING",
    )
    assert [row[2] for row in copied(address, "paged", page_rows=page_rows)] == list(range(21))


def test_postgres_view_and_empty_table_are_read(address: str) -> None:
    """What has no key is one page."""
    execute(
        address,
        "CREATE TABLE empty (id int PRIMARY KEY, a text)",
        "CREATE VIEW numbers AS SELECT i, i::text AS t FROM generate_series(1, 5) g(i)",
    )
    assert copied(address, "empty") == []
    assert copied(address, "numbers") == [(i, str(i)) for i in range(1, 6)]


def test_postgres_pages_see_one_snapshot(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are committed while pages are read belong to the next ingest."""
    execute(
        address,
        "CREATE TABLE growing (id int PRIMARY KEY)",
        "INSERT INTO growing SELECT i FROM generate_series(1, 10) g(i)",
    )
    from features.ingest import postgres

    pages: list[int] = []
    insert = postgres._insert_sql

    def grow(target: str, page: Path, types: dict[str, str]) -> str:
        pages.append(len(pages))
        execute(address, f"INSERT INTO growing VALUES ({100 + len(pages)})")
        return insert(target, page, types)

    monkeypatch.setattr(postgres, "_insert_sql", grow)
    assert copied(address, "growing", page_rows=4) == [(i,) for i in range(1, 11)]
    assert len(pages) == 3


def test_postgres_errors_say_the_way_out_without_the_address(address: str, tmp_path: Path) -> None:
    """An absent table or connection, a timeout, a closed port and a refused write."""
    execute(
        address,
        "CREATE VIEW slow AS SELECT 1 AS x, pg_sleep(30)::text AS y",
        "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS "
        "'CREATE TABLE sneaky (x int); SELECT 1'",
        "CREATE VIEW writing AS SELECT writes() AS x",
    )
    for table, options, message in (
        ("nothing", "", "no table 'nothing'"),
        ("slow", "&options=-c%20statement_timeout%3D200", "longer than the statement timeout"),
        ("writing", "", "read-only"),
    ):
        with pytest.raises(SourceError, match=message):
            copied(address + options, table)
    with pytest.raises(SourceError, match="cannot be read") as refused:
        copied("postgresql://u:secret@127.0.0.1:9/d", "nothing")
    assert "secret" not in str(refused.value)
    with pytest.raises(SourceError, match=r"no connection 'billing'; it has \['crm'\]"):
        ingest(
            table_view("usage"), OfflineStore(tmp_path), created_ms=1, connections={"crm": address}
        )


def test_postgres_sample_has_the_lowest_and_the_highest_keys(address: str) -> None:
    """A small table comes whole, and one without a key gives its first rows."""
    execute(
        address,
        "CREATE TABLE sampled (a int, b text, PRIMARY KEY (a, b))",
        "INSERT INTO sampled SELECT i / 10, chr(97 + i % 10) FROM generate_series(0, 999) AS i",
        "CREATE VIEW unkeyed AS SELECT * FROM sampled",
    )
    rows = copied(address, "sampled", rows_max=11)
    assert sorted(rows) == [
        *((0, letter) for letter in "abcde"),
        *((99, letter) for letter in "efghij"),
    ]
    assert len(set(copied(address, "sampled", rows_max=5_000))) == 1_000
    assert len(copied(address, "sampled", rows_max=1_999)) == 1_000
    assert len(copied(address, "unkeyed", rows_max=7)) == 7
