"""Looks at a sample of a source: runs the transform and the encoding, counts, and stores nothing.

Time and memory are bounded. The rows come from all parts of the source, but a transform that adds
up rows sees only those of the sample, so the counts are indications.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from features.errors import SourceError
from features.ingest.checks import wrong_times
from features.ingest.files import sliced_sql
from features.ingest.load import NO_CREATED, ExaminedLoad, examine, named_errors
from features.ingest.open_source import open_source
from features.ingest.summary import UnknownCategories
from features.rows import WORD_BITS
from features.storage.database import interrupted_after, open_duckdb
from features.storage.ingests import reading, stored_ingests
from features.storage.queries import feature_columns, valid_columns
from features.views import View

MEMORY_MB = 500
"""Memory of DuckDB, in MB, 10^6 bytes."""


@dataclass(frozen=True, slots=True)
class FeatureSample:
    """What a sample has of one feature. Counts are rows."""

    name: str
    missing: int
    unknown: UnknownCategories | None
    """Categories that the dictionary lacks; None: there are none."""
    out_of_bounds: int
    """Numbers outside the feature's bounds, which count as missing."""
    inexact: int
    """Whole numbers that float32 cannot hold, and so become others."""


@dataclass(frozen=True, slots=True)
class StoredSample:
    """What a sample of the newest ingest of an edition has. Shares lie between 0 and 1."""

    rows: int
    missing: Mapping[str, float]
    """Feature -> share of rows in which it is missing."""
    unknown: Mapping[str, float]
    """Category -> share of rows with a value that the dictionary lacks."""


@dataclass(frozen=True, slots=True)
class SourceSample:
    """What a sample of a view's source has after transform and encoding. Counts are rows."""

    source_rows: int
    """Rows that were read of the source."""
    rows: int
    """Rows that the transform made of them."""
    duplicates: int
    """Rows with the entity and the event time of a later row."""
    future: int
    """Rows that are dated, or became known, more than a day in the future."""
    ancient: int
    """Rows older than two TTLs, which count as missing online."""
    stale: int
    """Rows older than the TTL, not counted in *ancient*."""
    first_event_ms: int | None
    last_event_ms: int | None
    features: tuple[FeatureSample, ...]
    """Every feature of the view, in its order."""
    warnings: tuple[str, ...]
    """What an ingest of these rows would refuse or warn of, one sentence each."""


def sample_source(
    view: View,
    *,
    rows_max: int,
    seconds_max: float,
    root: Path,
    connections: Mapping[str, str],
    now_ms: int | None = None,
) -> SourceSample:
    """Run *view* over about *rows_max* rows of its source, which is not a frame.

    root         the folder that relative paths of the source start from.
    connections  name -> address of a PostgreSQL database.
    now_ms       the present, Unix ms; None: the clock's.

    Raises SourceError or EntityIdError for what an ingest could not read, and TimeoutError when
    DuckDB needs more than *seconds_max*.
    """
    # The database is gone afterwards, with all that was read.
    assert view.source is not None
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    shown = view.source.location
    with open_duckdb(memory_mb=MEMORY_MB) as connection:
        # A query that is too slow is ended, such as a join of everything with everything.
        try:
            with interrupted_after(connection, seconds_max), named_errors(view, shown):
                source_rows = open_source(
                    connection,
                    view.source,
                    schema=view.source_schema,
                    root=root,
                    connections=connections,
                    rows_max=rows_max,
                )
                # Rows without created_ms count as known now, as a later ingest may say.
                load = examine(connection, view, source_rows, now_ms, now_ms)
                return _source_sample(load, shown, now_ms)
        except SourceError as error:
            if isinstance(error.__cause__, duckdb.InterruptException):
                raise TimeoutError(
                    f"its transform took longer than {seconds_max:g} s over {rows_max:,} rows"
                ) from error
            raise


def _source_sample(load: ExaminedLoad, shown: str, now_ms: int) -> SourceSample:
    # Numbers of each feature.
    rows = load.rows
    bounds = _out_of_bounds(load)
    features = tuple(
        FeatureSample(
            name=name,
            missing=counts.missing,
            unknown=load.unknown.get(name),
            out_of_bounds=bounds[name],
            inexact=counts.inexact,
        )
        for name, counts in load.features.items()
    )
    # Sentences for what the numbers alone do not say.
    warnings = [breach.what for breach in load.breaches.found]
    times = wrong_times(rows, now_ms)
    warnings += [times] if times else []
    if not rows.rows:
        warnings.append(f"{shown} gave {load.source_rows:,} rows, and the transform none")
    if not load.has_created:
        warnings.append(NO_CREATED)
    return SourceSample(
        source_rows=load.source_rows,
        rows=rows.rows,
        duplicates=rows.duplicates,
        future=rows.future,
        ancient=rows.forgotten,
        stale=rows.stale,
        first_event_ms=rows.first_event_ms,
        last_event_ms=rows.last_event_ms,
        features=features,
        warnings=tuple(warnings),
    )


def _out_of_bounds(load: ExaminedLoad) -> dict[str, int]:
    """Return feature -> the rows with a number that is missing because it is out of bounds."""
    bounded = [item for item in load.encoded if item.feature.bounds is not None]
    counts = dict.fromkeys((item.feature.name for item in load.encoded), 0)
    if bounded:
        conditions = ", ".join(
            f"count(*) FILTER (isfinite({item.number}) AND NOT {item.present})" for item in bounded
        )
        found = load.connection.execute(f"SELECT {conditions} FROM {load.table}").fetchall()[0]
        counts |= {item.feature.name: n for item, n in zip(bounded, found, strict=True)}
    return counts


def sample_stored(view: View, folder: Path, *, rows_max: int) -> StoredSample | None:
    """Look at about *rows_max* rows of the newest ingest of *view*; None: there is none.

    folder  of the view's edition in the offline store.

    Raises SourceError when the folder cannot be read.
    """
    with reading(folder), open_duckdb(memory_mb=MEMORY_MB) as connection:
        ingests = stored_ingests(folder) if folder.is_dir() else []
        files = [ingests[-1].path / file.name for file in ingests[-1].files] if ingests else []
        if not files:
            return None
        # Bit f % 64 of word f // 64 says that feature f is valid; K stands for unknown.
        words, values = valid_columns(view), feature_columns(view)
        selected = []
        for number, feature in enumerate(view.features):
            bit = 1 << (number % WORD_BITS)
            selected.append(f"avg(CAST({words[number // WORD_BITS]} & {bit}::UBIGINT = 0 AS INT))")
            unknown = f"{values[number]} = {len(feature.dictionary)}" if feature.dictionary else "0"
            selected.append(f"avg(CAST({unknown} AS INT))")
        rows = sliced_sql(connection, files, rows_max)
        count, *shares = connection.execute(
            f"SELECT count(*), {', '.join(selected)} FROM ({rows})"
        ).fetchall()[0]
    # Shares come in pairs, and only categories have an unknown one.
    names = [feature.name for feature in view.features]
    categories = {feature.name for feature in view.features if feature.dictionary}
    unknown_shares = zip(names, shares[1::2], strict=True)
    return StoredSample(
        rows=count,
        missing=dict(zip(names, shares[::2], strict=True)),
        unknown={name: share for name, share in unknown_shares if name in categories},
    )
