"""Tests that a load larger than its memory is ingested and joined within it."""

from pathlib import Path

import pytest

from benchmarks.offline.store import in_process, make_source, run_ingest, run_turnout

pytestmark = pytest.mark.walk

ROWS = 1_200_000
DUCKDB_MB = 150
PROCESS_MB_MAX = 400
"""DuckDB's memory, what it needs beside that for writing Parquet, and Python with numpy."""


def test_ingest_and_join_keep_within_their_memory(tmp_path: Path) -> None:
    """1.2 million rows of 20 columns have 200 MB, which is more than DuckDB may use."""
    make_source(tmp_path, ROWS)
    shown, _, _, ingest_mb = in_process(run_ingest, tmp_path, DUCKDB_MB)
    values, _, _, join_mb = in_process(run_turnout, tmp_path, 50_000, DUCKDB_MB)
    assert (shown, len(values)) == (f"{ROWS:,} rows", 50_000)
    assert max(ingest_mb, join_mb) < PROCESS_MB_MAX
