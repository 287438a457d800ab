"""Makes an ingest of the pushed rows in a view's log, exactly once, whatever process is killed."""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import duckdb
import numpy as np

from features.errors import SourceError
from features.rows import ViewRows
from features.storage.ingests import (
    ingest_digest,
    new_folder,
    publish,
    stored_ingests,
)
from features.storage.pushed_log import FOLDER, PushedLog, has_logged_rows
from features.storage.writing import write_arrays
from features.views import View
from host.files import folder_lock

ROWS_AT_ONCE = 200_000
"""Rows of one ingest."""

OpenDatabase = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


def settle_pushed(folder: Path, view: View, open_database: OpenDatabase) -> int:
    """Make ingests of all pushed rows that are in none, and return the number of rows.

    Rows that are pushed meanwhile may be left for the next call. Pushes go on.

    folder         the folder of the view's edition.
    open_database  gives a new database of DuckDB.

    Raises SourceError when the log cannot be read or written.
    """
    count = 0
    try:
        while has_logged_rows(folder):
            # One process at a time makes an ingest; others find its rows settled.
            with folder_lock(folder / FOLDER), new_folder(folder) as part:
                rows = _settle_part(folder, view, open_database, part)
            count += rows
            if rows < ROWS_AT_ONCE:
                break
    except (sqlite3.Error, OSError) as error:
        raise SourceError(
            f"the pushed rows in {folder / FOLDER} cannot be stored ({error}); a reader of "
            "the view must be able to write there"
        ) from error
    return count


def finish_settling(folder: Path, log: PushedLog) -> None:
    """Delete the logged rows of an ingest that appeared before its process was killed."""
    digests = {digest for ingest in stored_ingests(folder) for digest in ingest.digests}
    log.end_settling(digests.__contains__)


def _settle_part(folder: Path, view: View, open_database: OpenDatabase, part: Path) -> int:
    with closing(PushedLog(folder)) as log:
        # Another process may have been killed after its ingest appeared.
        finish_settling(folder, log)
        rows = log.logged_rows(ROWS_AT_ONCE)
        if not rows:
            return 0
        # The rows keep their order, which decides among equal event times.
        event_times_ms, words, values = ViewRows(view).unpack([row.packed for row in rows])
        created_ms = np.array([row.instant_ms for row in rows], dtype=np.int64)
        ids = np.array([row.entity_id.decode() for row in rows], dtype=object)
        with open_database() as connection:
            instants = (event_times_ms, created_ms)
            files = write_arrays(connection, view, ids, instants, values, words, part)
        # The log knows the ingest before it appears, so that its rows are never stored twice.
        log.begin_settling(ingest_digest(files), rows[-1].number)
        publish(part, files)
        log.end_settling(lambda _digest: True)
    return len(rows)
