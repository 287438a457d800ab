"""Writes the SQL that reads stored rows: as of an instant, and the newest of each entity.

Nothing is executed here. Ranking takes the narrow columns only, and the features of the chosen rows
are read at the end. So a join needs memory for the keys of the rows and not for their features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.rows import WORD_BITS
from features.staleness import forgotten_sql, stale_sql
from features.storage.database import glob_escaped, quoted
from features.views import View

KEYS = "entity_id, event_time_ms, created_ms, known_ms, ingest, slice, file_row_number"
"""What ranking needs of a stored row. The last three say where the row is."""

AGE_ORDER = "event_time_ms, created_ms, ingest, file_row_number"
"""The order of an entity's rows from oldest to newest. Rows of one ingest with equal event times
are in one file, so the row's number in the file decides last."""


@dataclass(frozen=True, slots=True)
class NewestPart:
    """The part of the newest rows that a query gives. By default it is all of them.

    since     (ingest, instant in Unix ms): only rows that came in a later ingest, or became known
              later.
    after_id  only entities whose joined id comes after this one.
    """

    since: tuple[int, int] | None = None
    after_id: str = ""


def feature_columns(view: View) -> list[str]:
    """Return the names of the stored float32 columns, with a prefix that no key column has."""
    return [f"f_{feature.name}" for feature in view.features]


def valid_columns(view: View) -> list[str]:
    """Return the names of the stored validity words, UBIGINT.

    Bit f % 64 of word f // 64 says that feature f is valid.
    """
    return [f"valid_{word}" for word in range(-(-len(view.features) // WORD_BITS))]


def stored_columns(view: View) -> list[str]:
    """Return the names of all columns of a stored file, in order."""
    keys = ["entity_id", "event_time_ms", "created_ms"]
    return [*keys, *valid_columns(view), *feature_columns(view)]


def stored_sql(files: Sequence[Path]) -> str:
    """Return SQL for all rows of *files*, with known_ms and where each row is.

    A row is known from the later of its event time and its created time.
    """
    paths = ", ".join(quoted(glob_escaped(path)) for path in files)
    return f"""
        SELECT *, greatest(event_time_ms, created_ms) AS known_ms,
               CAST(regexp_extract(filename, '(\\d+)/\\d+\\.parquet$', 1) AS INTEGER) AS ingest,
               CAST(regexp_extract(filename, '(\\d+)\\.parquet$', 1) AS INTEGER) AS slice
        FROM read_parquet([{paths}], filename = true, file_row_number = true,
                          hive_partitioning = false)"""


def newest_sql(view: View, files: Sequence[Path], known_by_ms: int | None, part: NewestPart) -> str:
    """Return SQL for the newest row of each entity in *part*, ordered by id.

    Its columns are entity_id, event_time_ms, the validity words and the features.
    """
    known = "true" if known_by_ms is None else f"known_ms <= {known_by_ms:d}"
    after = f"entity_id > {quoted(part.after_id)}" if part.after_id else "true"
    descending = ", ".join(f"{column} DESC" for column in AGE_ORDER.split(", "))
    values = ", ".join(f"stored.{column}" for column in stored_columns(view)[3:])
    # Entities without a new row are not ranked. The others are ranked among all of their rows,
    # because a row that arrived late may be older than one that was there before.
    entities, new = "", "true"
    if part.since is not None:
        ingest, known_ms = part.since
        new = f"(ingest > {ingest:d} OR known_ms > {known_ms:d})"
        entities = f"WHERE entity_id IN (SELECT entity_id FROM stored WHERE {new})"
    return f"""
        WITH stored AS (SELECT * FROM ({stored_sql(files)}) WHERE {known} AND {after}),
        newest AS (
            SELECT {KEYS} FROM stored {entities}
            QUALIFY row_number() OVER (PARTITION BY entity_id ORDER BY {descending}) = 1
        ),
        wanted AS (SELECT * FROM newest WHERE {new})
        SELECT wanted.entity_id, wanted.event_time_ms, {values}
        FROM stored JOIN wanted USING (ingest, slice, file_row_number)
        ORDER BY wanted.entity_id"""


def history_sql(view: View, files: Sequence[Path]) -> str:
    """Return SQL for all rows of the entities in the registered table `wanted`.

    They are ordered by id (as bytes), and of each entity from oldest to newest. The columns are
    entity_id, known_ms, the validity words and the features.
    """
    values = ", ".join(stored_columns(view)[3:])
    return f"""
        SELECT entity_id, known_ms, {values} FROM ({stored_sql(files)})
        WHERE entity_id IN (SELECT entity_id FROM wanted)
        ORDER BY entity_id, {AGE_ORDER}"""


def count_after_sql(files: Sequence[Path], instant_ms: int) -> str:
    """Return SQL for the number of rows that are not known by *instant_ms*, Unix ms."""
    return f"SELECT count(*) FROM ({stored_sql(files)}) WHERE known_ms > {instant_ms:d}"


def as_of_tables_sql(files: Sequence[Path]) -> list[str]:
    """Return the statements that find the newest row at each instant of the table `spine`.

    `spine` has the columns position, entity_id and as_of_ms. The result is the table `chosen`:
    position, age_ms, ingest, slice and file_row_number, for each position whose entity had a row.

    The row known last need not be the newest, because of late corrections and backfills, and ASOF
    JOIN takes one inequality only. So `best` has, for each instant at which a row became known, the
    rank of the newest row known by then. ASOF JOIN finds that instant, and a plain join finds the
    row of that rank. Numbers stand for ids, since they are narrower.
    """
    return [
        # Number the ids of the spine.
        """
        CREATE TEMP TABLE numbered AS
        SELECT entity_id, CAST(row_number() OVER () AS INTEGER) AS entity
        FROM (SELECT DISTINCT entity_id FROM spine)""",
        # Rank the stored rows of these ids by age.
        f"""
        CREATE TEMP TABLE ranked AS
        SELECT entity, event_time_ms, known_ms, ingest, slice, file_row_number,
               row_number() OVER (PARTITION BY entity ORDER BY {AGE_ORDER}) AS rank
        FROM (SELECT {KEYS} FROM ({stored_sql(files)})) JOIN numbered USING (entity_id)""",
        # Find the rank at each instant, and the row of that rank.
        """
        CREATE TEMP TABLE chosen AS
        WITH best AS (
            SELECT entity, known_ms,
                   max(rank) OVER (PARTITION BY entity ORDER BY known_ms) AS rank
            FROM ranked
        ),
        asked AS (SELECT position, entity, as_of_ms FROM spine JOIN numbered USING (entity_id)),
        matched AS (
            SELECT position, as_of_ms, best.entity, best.rank
            FROM asked ASOF JOIN best
              ON asked.entity = best.entity AND asked.as_of_ms >= best.known_ms
        )
        SELECT position, as_of_ms - event_time_ms AS age_ms, ingest, slice, file_row_number
        FROM matched JOIN ranked USING (entity, rank)""",
    ]


def chosen_rows_sql(view: View, files: Sequence[Path], columns: Sequence[str]) -> str:
    """Return SQL for *columns* of the rows in the table `chosen`, with position and staleness."""
    return f"""
        SELECT position,
               {stale_sql("age_ms", view.ttl_ms)} AS stale,
               {forgotten_sql("age_ms", view.ttl_ms)} AS forgotten,
               {", ".join(columns)}
        FROM ({stored_sql(files)}) JOIN chosen USING (ingest, slice, file_row_number)"""
