"""The offline store's SQL, as text. No I/O here."""

from collections.abc import Sequence
from pathlib import Path

from features.rows import WORD_BITS
from features.staleness import forgotten_sql, stale_sql
from features.views import View


def feature_columns(view: View) -> list[str]:
    """Names of the stored float32 columns; prefixed, so that no feature can shadow a key."""
    return [f"f_{feature.name}" for feature in view.features]


def valid_columns(view: View) -> list[str]:
    """Names of the stored validity words, UBIGINT; bit f % 64 of word f // 64 is feature f's."""
    return [f"valid_{word}" for word in range(-(-len(view.features) // WORD_BITS))]


def source_sql(source: Path | str) -> str:
    """Let the transform see *source* as the table `source`."""
    return f"CREATE TEMP VIEW source AS SELECT * FROM read_parquet({_text(str(source))})"


def write_sql(path: Path) -> str:
    """Write the registered table `arriving`."""
    return f"COPY arriving TO {_text(str(path))} (FORMAT parquet, COMPRESSION zstd)"


def latest_sql(view: View, files: Sequence[Path], as_of_ms: int | None) -> str:
    """One row an entity, by id: entity_id, event_time_ms, validity words, features."""
    known = "true" if as_of_ms is None else f"known_ms <= {as_of_ms:d}"
    kept = ", ".join([*valid_columns(view), *feature_columns(view)])
    return f"""
        WITH {_stored_sql(files)}
        SELECT entity_id, event_time_ms, {kept} FROM stored WHERE {known}
        QUALIFY row_number() OVER (
            PARTITION BY entity_id
            ORDER BY event_time_ms DESC, created_ms DESC, ingest DESC, file_row_number DESC
        ) = 1
        ORDER BY entity_id"""


def as_of_sql(view: View, files: Sequence[Path]) -> str:
    """For the registered table `spine` (place, entity_id, as_of_ms): what was known then.

    A row is known from the later of its event and created times on. ASOF JOIN takes one
    inequality, and the row known last need not be the newest (late corrections, backfills). So
    `best` carries, at each instant something became known, the rank of the newest row known by
    then; the as-of join finds that instant, the plain join its row.
    """
    kept = ", ".join(f"ranked.{c}" for c in [*valid_columns(view), *feature_columns(view)])
    age = "chosen.as_of_ms - ranked.event_time_ms"
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
            SELECT spine.place, spine.as_of_ms, best.entity_id, best.rank
            FROM spine ASOF JOIN best
              ON spine.entity_id = best.entity_id AND spine.as_of_ms >= best.known_ms
        )
        SELECT chosen.place AS place,
               {stale_sql(age, view.ttl_ms)} AS stale,
               {forgotten_sql(age, view.ttl_ms)} AS forgotten,
               {kept}
        FROM chosen JOIN ranked
          ON chosen.entity_id = ranked.entity_id AND chosen.rank = ranked.rank
        ORDER BY place"""


def _stored_sql(files: Sequence[Path]) -> str:
    listed = ", ".join(_text(str(path)) for path in files)
    return f"""stored AS (
            SELECT *, greatest(event_time_ms, created_ms) AS known_ms,
                   CAST(regexp_extract(filename, '(\\d+)\\.parquet$', 1) AS BIGINT) AS ingest
            FROM read_parquet([{listed}], filename=true, file_row_number=true)
        )"""


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
