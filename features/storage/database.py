"""Opens DuckDB for the offline store: in UTC, with a bound on its memory, spilling to a folder."""

import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import numpy as np
from numpy.typing import NDArray

Columns: TypeAlias = Mapping[str, NDArray[Any]]

SPILL_PREFIX = "turnout-spill-"
"""How the folders begin in which tables lie that do not fit into the memory."""

CSV_SENTENCES = (
    "Invalid Input Error: CSV Error on Line",
    "Conversion Error: CSV Error on Line",
    "Expected Number of Columns",
    "Value with unterminated quote",
    "Invalid unicode",
    "Maximum line size",
    "Error when converting column",
)
"""How lines of an error of DuckDB's CSV reader begin that say what is wrong."""

INTERRUPT_S = 0.05
"""Time between two interrupts of a query that is too slow."""

MEMORY_MB = 2_000
"""Memory that DuckDB may use. The process needs about 0.5 GB beside it."""


@contextmanager
def open_duckdb(
    spill: Path | None = None, *, memory_mb: int = MEMORY_MB, on_disk: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a new database. It is gone when the block ends, with all that it spilled.

    The time zone is UTC whatever the host's is. No extension is downloaded.

    spill      an existing folder for what does not fit into the memory. None: the system's folder
               for temporary files.
    memory_mb  DuckDB's memory in MB, 10^6 bytes.
    on_disk    True keeps tables in the spill folder as well, compressed. Tables may then be much
               larger than the memory.
    """
    with tempfile.TemporaryDirectory(prefix=SPILL_PREFIX, dir=spill) as folder:
        database = str(Path(folder) / "tables.duckdb") if on_disk else ":memory:"
        config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": folder,
        }
        with duckdb.connect(database, config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")
            yield connection


@contextmanager
def interrupted_after(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """End every query that runs or begins later than *seconds* after the block began.

    Such a query raises duckdb.InterruptException. DuckDB forgets an interrupt when a query begins,
    so interrupts are repeated.
    """
    left = threading.Event()

    def interrupt() -> None:
        pause_s = max(0.0, seconds)
        while not left.wait(pause_s):
            connection.interrupt()
            pause_s = INTERRUPT_S

    thread = threading.Thread(target=interrupt, name="interrupt", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def fetch_columns(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, NDArray[Any]]:
    """Run *sql* and return the columns of its result by name, (N,) each.

    A column with NULLs is a masked array.
    """
    columns = connection.execute(sql).fetchnumpy()
    # With pandas installed, an ENUM column is a pandas Categorical instead of an array.
    return {
        name: column if isinstance(column, np.ndarray) else np.asarray(column, dtype=object)
        for name, column in columns.items()
    }


def duckdb_reason(error: duckdb.Error) -> str:
    """Return what DuckDB says as one line, without the parts that repeat SQL and data.

    DuckDB repeats our SQL and the line of a text file, which may hold a person's data. This line
    may go on over several lines, so of an error of CSV only known sentences are kept.
    """
    if "CSV Error on Line" in str(error):
        known = [line for line in str(error).splitlines() if line.startswith(CSV_SENTENCES)]
        return " ".join(known[:2])
    lines = [
        line
        for line in str(error).splitlines()
        if line.strip(" ^") and not line.startswith(("LINE ", "Original Line"))
    ]
    return " ".join(lines[:2])


def quoted(text: str) -> str:
    """Return *text* as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return *name* as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def glob_escaped(path: Path) -> str:
    """Return *path* as a glob of DuckDB that matches this path only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
