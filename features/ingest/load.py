"""Ingest: runs a view's transform over a source, checks the rows, encodes and stores them.

The result of the transform lies in a table on disk while it is checked, so that neither the source
nor the transform is read twice and a load of any size needs little memory.
"""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from features.errors import SourceError
from features.ingest.checks import (
    Breaches,
    FeatureCounts,
    RowCounts,
    breaches,
    check_entities,
    check_instant_type,
    count_features,
    count_rows,
    reasons_sql,
    refuse_wrong_times,
    unknown_categories,
)
from features.ingest.columns import described
from features.ingest.encoding import EncodedFeature, encoded_features, validity_sql
from features.ingest.open_source import Frame, open_source, source_of
from features.ingest.summary import IngestSummary, UnknownCategories
from features.offline import OfflineStore
from features.rows import WORD_BITS
from features.source import Source
from features.storage.database import (
    MEMORY_MB,
    duckdb_reason,
    identifier,
    open_duckdb,
    quoted,
)
from features.storage.ingests import StoredFile, StoredIngest, new_folder, publish
from features.storage.queries import stored_columns
from features.storage.writing import write_files
from features.transforms import check_transform
from features.views import View

STAGED = "staged"
"""The table of the transform's rows."""

REASON = "turnout_reason"
"""The column that says why a row was set aside."""


NO_CREATED = (
    "the transform returns no created_ms, which says when a row became known: declare created= of "
    "the source, such as the column of time= if a row is known at once, and select created_ms; or "
    "give created_ms= to the function ingest"
)

FEATURES_AT_ONCE = 2 * WORD_BITS
"""Features that one statement encodes. DuckDB plans a statement in the square of their number, so
a view with more of them is encoded by slices, which are joined by position."""


@dataclass(frozen=True, slots=True)
class ExaminedLoad:
    """The staged rows of one load, and what was counted in them."""

    connection: duckdb.DuckDBPyConnection
    view: View
    created: str
    """SQL of the instant at which a row became known."""
    encoded: list[EncodedFeature]
    source_rows: int
    rows: RowCounts
    features: dict[str, FeatureCounts]
    unknown: dict[str, UnknownCategories]
    breaches: Breaches
    has_created: bool
    """Whether the transform says when each row became known."""
    table: str = STAGED
    """The table with the transform's rows."""


def ingest(
    view: View,
    store: OfflineStore,
    data: Path | str | Frame | None = None,
    *,
    created_ms: int | None = None,
    root: Path = Path(),
    connections: Mapping[str, str] | None = None,
    spill: Path | None = None,
    memory_mb: int = MEMORY_MB,
    now_ms: int | None = None,
) -> IngestSummary:
    """Run the view's transform over its source and store the rows that it returns.

    data         a path or glob of files, or a pandas, polars or Arrow table. None: the view's
                 source. If the view has a source, its time, zone and unit count for *data* too.
    created_ms   the instant at which the rows became known, Unix ms. Training sets as of an earlier
                 instant do not have them. A column `created_ms` of the transform, which a backfill
                 should have, takes precedence.
    root         the folder that relative paths of the source start from.
    connections  name -> address of a PostgreSQL database.
    spill        an existing folder for the rows while they are checked. None: the store's folder.
    memory_mb    memory of DuckDB in MB, 10^6 bytes.
    now_ms       the present, Unix ms; None: the clock's.

    Raises SourceError when the source cannot be read or does not fit, a time is wrong, or an
    expectation says stop, and EntityIdError for a bad id. Then no row is stored.
    """
    # What is declared must be usable before anything is read.
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    check_transform(view.transform)
    source, frame = _chosen_source(view, data)
    shown = source.location or "the frame"
    folder = store.folder(view)
    # The folder of the new files is deleted again unless it is published.
    with named_errors(view, shown), new_folder(folder) as part:
        with open_duckdb(spill or folder, memory_mb=memory_mb, on_disk=True) as connection:
            source_rows = open_source(
                connection,
                source,
                schema=view.source_schema,
                frame=frame,
                root=root,
                connections=connections,
            )
            # The rows are checked before the first file is made.
            load = examine(connection, view, source_rows, created_ms, now_ms)
            _refuse(load, now_ms)
            quarantine, count = _set_aside(load, folder, now_ms)
            files = _write(load, part)
        stored = publish(part, files) if files else None
        return _summary(load, shown, stored, quarantine, count)


def _chosen_source(view: View, data: Path | str | Frame | None) -> tuple[Source, Frame]:
    if data is not None:
        return source_of(data, view.source)
    if view.source is None:
        raise SourceError(
            f"view {view.name!r} declares no source; give the data, or declare source=Source.files"
        )
    return view.source, None


@contextmanager
def named_errors(view: View, shown: str) -> Iterator[None]:
    """Name the view and the source in each error, and make one sentence of DuckDB's errors."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"view {view.name!r} over {shown}: {error}") from error
    except duckdb.Error as error:
        raise SourceError(f"view {view.name!r} over {shown}: {duckdb_reason(error)}") from error


def examine(
    connection: duckdb.DuckDBPyConnection,
    view: View,
    source_rows: int,
    created_ms: int | None,
    now_ms: int,
) -> ExaminedLoad:
    """Run the transform over the table `source` and count what is odd in its rows.

    The rows are in the table STAGED. Raises SourceError or EntityIdError for rows that cannot be
    encoded.
    """
    # Run the transform once. A doubled column would hide the one that its author wrote.
    returned = [
        str(row[0]).lower() for row in connection.execute(f"DESCRIBE {view.transform}").fetchall()
    ]
    doubled = sorted({name for name in returned if returned.count(name) > 1})
    if doubled:
        raise SourceError(
            f"the transform returns {doubled} twice; name the columns, or leave the source's out "
            "with SELECT * EXCLUDE (...)"
        )
    connection.execute(f"CREATE TEMP VIEW transformed AS\n{view.transform}").fetchall()
    # Its result is what everything else reads.
    types = _needed(view, described(connection, "SELECT * FROM transformed"))
    names = ", ".join(map(identifier, types))
    connection.execute(f"CREATE TABLE {STAGED} AS SELECT {names} FROM transformed").fetchall()
    # Check entities, instants and types before anything is counted.
    check_entities(connection, view, types, STAGED)
    check_instant_type(types, "event_time_ms")
    created = _created_sql(types, created_ms)
    encoded = encoded_features(connection, view, types, STAGED)
    load_ms = max(now_ms, created_ms or 0)
    rows = count_rows(connection, view, created, now_ms, load_ms, STAGED)
    features = count_features(connection, view, encoded, STAGED)
    unknown = {
        item.feature.name: unknown_categories(connection, item, count, STAGED)
        for item in encoded
        if (count := features[item.feature.name].unknown)
    }
    broken = breaches(view, encoded, features, rows, now_ms)
    has_created = "created_ms" in {name.lower() for name in types}
    return ExaminedLoad(
        connection,
        view,
        created,
        encoded,
        source_rows,
        rows,
        features,
        unknown,
        broken,
        has_created,
    )


def _refuse(load: ExaminedLoad, now_ms: int) -> None:
    """Raise SourceError for wrong times, and for an expectation that says stop."""
    refuse_wrong_times(load.rows, now_ms)
    stops = [breach.what for breach in load.breaches.found if breach.action == "stop"]
    if stops:
        raise SourceError(f"{'; '.join(stops)}. Nothing was stored")


def _needed(view: View, types: dict[str, str]) -> dict[str, str]:
    """Return the columns that are stored or checked. A transform may return others."""
    needed = {"event_time_ms", "created_ms", *view.entities}
    needed |= {feature.name for feature in view.features}
    return {name: kind for name, kind in types.items() if name.lower() in needed}


def _created_sql(types: Mapping[str, str], created_ms: int | None) -> str:
    if "created_ms" in {name.lower() for name in types}:
        check_instant_type(types, "created_ms")
        return "created_ms"
    if created_ms is None:
        raise SourceError(NO_CREATED)
    return f"CAST({created_ms:d} AS BIGINT)"


def _set_aside(load: ExaminedLoad, folder: Path, now_ms: int) -> tuple[Path | None, int]:
    """Write the rows that the view quarantines, and take them out of the staged ones."""
    if not load.breaches.quarantine:
        return None, 0
    # The staged rows stay in order, with the reason beside each.
    connection = load.connection
    connection.execute(
        f"CREATE TABLE judged AS SELECT *, {reasons_sql(load.breaches.quarantine)} AS {REASON} "
        f"FROM {STAGED} ORDER BY rowid"
    ).fetchall()
    # Rows are written as the transform returned them, so that a person sees what was wrong.
    quarantine = folder / "quarantine"
    quarantine.mkdir(exist_ok=True)
    path = quarantine / f"{now_ms}-{secrets.token_hex(4)}.parquet"
    rows = connection.execute(
        f"COPY (SELECT * FROM judged WHERE {REASON} IS NOT NULL) "
        f"TO {quoted(str(path))} (FORMAT parquet)"
    ).fetchall()
    connection.execute(f"DROP TABLE {STAGED}").fetchall()
    connection.execute(
        f"CREATE VIEW {STAGED} AS SELECT * FROM judged WHERE {REASON} IS NULL"
    ).fetchall()
    return path, int(rows[0][0])


def _write(load: ExaminedLoad, part: Path) -> list[StoredFile]:
    """Encode the staged rows into files; none if there are no rows."""
    view = load.view
    ids = ", ".join(f"CAST({identifier(entity)} AS VARCHAR)" for entity in view.entities)
    keys = [
        f"concat_ws(chr(31), {ids})",
        "CAST(event_time_ms AS BIGINT)",
        f"CAST({load.created} AS BIGINT)",
    ]
    words, values = validity_sql(load.encoded), [item.value for item in load.encoded]
    named = [
        f"{value} AS {identifier(name)}"
        for value, name in zip([*keys, *words, *values], stored_columns(view), strict=True)
    ]
    rows = f"SELECT * FROM {STAGED}"
    if len(values) <= FEATURES_AT_ONCE:
        return write_files(load.connection, rows, named, part)
    # A table for the keys, and one for each validity word with its features.
    first = len(keys) + len(words)
    slices = [named[: len(keys)]]
    for number, word in enumerate(named[len(keys) : first]):
        start = first + number * WORD_BITS
        slices.append([word, *named[start : start + WORD_BITS]])
    joined = _staged_slices(load.connection, rows, slices)
    return write_files(load.connection, joined, list(map(identifier, stored_columns(view))), part)


def _staged_slices(
    connection: duckdb.DuckDBPyConnection, rows: str, slices: Sequence[Sequence[str]]
) -> str:
    """Compute the columns of each slice into a table of its own; return SQL of all side by side."""
    tables = [f"slice_{number}" for number in range(len(slices))]
    for table, columns in zip(tables, slices, strict=True):
        connection.execute(
            f"CREATE TABLE {table} AS SELECT {', '.join(columns)} FROM ({rows})"
        ).fetchall()
    return f"SELECT * FROM {' POSITIONAL JOIN '.join(tables)}"


def _summary(
    load: ExaminedLoad, shown: str, stored: StoredIngest | None, quarantine: Path | None, count: int
) -> IngestSummary:
    names = [item.feature.name for item in load.encoded]
    counts = load.features
    return IngestSummary(
        view=load.view.name,
        source=shown,
        path=None if stored is None else stored.path,
        digest="" if stored is None else stored.digests[0],
        source_rows=load.source_rows,
        rows=0 if stored is None else stored.rows,
        missing={name: counts[name].missing for name in names if counts[name].missing},
        unknown=load.unknown,
        inexact={name: counts[name].inexact for name in names if counts[name].inexact},
        duplicates=load.rows.duplicates,
        stale=load.rows.stale,
        forgotten=load.rows.forgotten,
        first_event_ms=load.rows.first_event_ms,
        last_event_ms=load.rows.last_event_ms,
        quarantined=count,
        quarantine=quarantine,
        breaches=load.breaches.found,
    )
