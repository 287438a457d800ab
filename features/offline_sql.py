"""Writes the SQL of the offline store. Nothing is executed here."""

from collections.abc import Sequence
from pathlib import Path

from features.rows import WORD_BITS
from features.staleness import forgotten_sql, stale_sql
from features.views import View


def feature_columns(view: View) -> list[str]:
    """Return the names of the stored float32 columns, with a prefix that no key column has."""
    return [f"f_{feature.name}" for feature in view.features]


def valid_columns(view: View) -> list[str]:
    """Return the names of the stored validity words, UBIGINT.

    Bit f % 64 of word f // 64 says that feature f is valid.
    """
    return [f"valid_{word}" for word in range(-(-len(view.features) // WORD_BITS))]


def source_sql(source: Path | str) -> str:
    """Return SQL that gives the transform the Parquet files *source* as the table `source`."""
    return f"CREATE TEMP VIEW source AS SELECT * FROM read_parquet({_text(str(source))})"


def write_sql(path: Path) -> str:
    """Return SQL that writes the registered table `arriving` to a Parquet file."""
    return f"COPY arriving TO {_text(str(path))} (FORMAT parquet, COMPRESSION zstd)"


def latest_sql(view: View, files: Sequence[Path], as_of_ms: int | None) -> str:
    """Return SQL for the newest row of each entity, ordered by id.

    Its columns are entity_id, event_time_ms, the validity words and the features.
    """
    known = "true" if as_of_ms is None else f"known_ms <= {as_of_ms:d}"
    value_columns = ", ".join([*valid_columns(view), *feature_columns(view)])
    return f"""
        WITH {_stored_sql(files)}
        SELECT entity_id, event_time_ms, {value_columns} FROM stored WHERE {known}
        QUALIFY row_number() OVER (
            PARTITION BY entity_id
            ORDER BY event_time_ms DESC, created_ms DESC, ingest DESC, file_row_number DESC
        ) = 1
        ORDER BY entity_id"""


def history_sql(view: View, files: Sequence[Path]) -> str:
    """Return SQL for all rows of the entities in the registered table `wanted`.

    They are ordered by id (as bytes), and of each entity from oldest to newest. The columns are
    entity_id, known_ms, the validity words and the features.
    """
    value_columns = ", ".join([*valid_columns(view), *feature_columns(view)])
    return f"""
        WITH {_stored_sql(files)}
        SELECT entity_id, known_ms, {value_columns} FROM stored
        WHERE entity_id IN (SELECT entity_id FROM wanted)
        ORDER BY entity_id, event_time_ms, created_ms, ingest, file_row_number"""


def count_after_sql(files: Sequence[Path], instant_ms: int) -> str:
    """Return SQL for the number of rows that are not known by *instant_ms*, Unix ms."""
    return f"WITH {_stored_sql(files)} SELECT count(*) FROM stored WHERE known_ms > {instant_ms:d}"


def as_of_sql(view: View, files: Sequence[Path]) -> str:
    """Return SQL for the row that was newest at each instant of the registered table `spine`.

    The table has the columns position, entity_id and as_of_ms. The result has a row for each
    position whose entity had a row by then: position, stale, forgotten, validity words, features.

    A row is known from the later of its event and created times. The row known last need not be
    the newest, because of late corrections and backfills, and ASOF JOIN takes one inequality only.
    So `best` has, for each instant at which a row became known, the rank of the newest row known
    by then. ASOF JOIN finds that instant, and a plain join finds the row of that rank.
    """
    value_columns = ", ".join(
        f"ranked.{column}" for column in [*valid_columns(view), *feature_columns(view)]
    )
    # Both conditions compare the age at the instant of the spine's row.
    age = "chosen.as_of_ms - ranked.event_time_ms"
    # `ranked` numbers the rows of each entity from oldest to newest.
    return f"""
        WITH {_stored_sql(files)},
        ranked AS (
            SELECT *, row_number() OVER (
                PARTITION BY entity_id
                ORDER BY event_time_ms, created_ms, ingest, file_row_number
            ) AS rank
            FROM stored WHERE entity_id IN (SELECT entity_id FROM spine)
        ),
        best AS (
            SELECT entity_id, known_ms,
                   max(rank) OVER (PARTITION BY entity_id ORDER BY known_ms) AS rank
            FROM ranked
        ),
        chosen AS (
            SELECT spine.position, spine.as_of_ms, best.entity_id, best.rank
            FROM spine ASOF JOIN best
              ON spine.entity_id = best.entity_id AND spine.as_of_ms >= best.known_ms
        )
        SELECT chosen.position AS position,
               {stale_sql(age, view.ttl_ms)} AS stale,
               {forgotten_sql(age, view.ttl_ms)} AS forgotten,
               {value_columns}
        FROM chosen JOIN ranked
          ON chosen.entity_id = ranked.entity_id AND chosen.rank = ranked.rank
        ORDER BY position"""


def _stored_sql(files: Sequence[Path]) -> str:
    paths = ", ".join(_text(str(path)) for path in files)
    return f"""stored AS (
            SELECT *, greatest(event_time_ms, created_ms) AS known_ms,
                   CAST(regexp_extract(filename, '(\\d+)\\.parquet$', 1) AS BIGINT) AS ingest
            FROM read_parquet([{paths}], filename=true, file_row_number=true)
        )"""


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
