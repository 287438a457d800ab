"""Databases for offline work: a query that is too slow is ended, whenever it begins."""

import duckdb
import pytest

from features.storage.database import interrupted_after, open_duckdb

ENDLESS = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"


def test_query_that_begins_after_its_time_is_ended() -> None:
    """An interrupt that came before the query would be forgotten; queries after it run."""
    with open_duckdb() as connection:
        with pytest.raises(duckdb.InterruptException), interrupted_after(connection, 0.0):
            connection.execute(ENDLESS)
        assert connection.execute("SELECT 7").fetchone() == (7,)


def test_query_within_its_time_is_not_ended() -> None:
    """The thread that would end it is gone when the block ends."""
    with open_duckdb() as connection, interrupted_after(connection, 60.0):
        assert connection.execute("SELECT 7").fetchone() == (7,)
