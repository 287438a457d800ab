"""The offline store: all rows of all views, as Parquet files, and point-in-time training sets.

The folder `<root>/<view>@<first 16 hex digits of the view hash>/` has one file for each ingest,
numbered in order. A file never changes.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from features.encode import Column, encode_columns
from features.entity_ids import check_entity_id, join_ids
from features.errors import SourceError
from features.offline_sql import (
    as_of_sql,
    count_after_sql,
    feature_columns,
    history_sql,
    latest_sql,
    source_sql,
    valid_columns,
    write_sql,
)
from features.pushed import PushedRow, pushed_columns
from features.rows import EVENT_MS_MAX, pack_valid, row_flags, unpack_valid
from features.views import View

EVENT_TIME = "event_time_ms"
CREATED = "created_ms"


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """The file that one ingest added."""

    path: Path
    rows: int
    missing: Mapping[str, int]
    """Feature -> number of rows in which it is missing. Features without such rows are left out."""


@dataclass(frozen=True, kw_only=True)
class Spine:
    """The N rows of a training set: for each, the entity ids and the instant of the values.

    ids        entity -> its N ids. Every entity by which the model's views are keyed is needed.
    as_of_ms   (N,) int64, Unix ms.
    """

    ids: Mapping[str, Sequence[str]]
    as_of_ms: NDArray[np.int64]

    def joined(self, view: View) -> list[bytes]:
        """Return the N joined ids for *view*.

        Raises EntityIdError for a bad id, SourceError for an absent entity or unequal lengths.
        """
        absent = [name for name in view.entities if name not in self.ids]
        if absent:
            raise SourceError(
                f"view {view.name!r} is keyed by {absent}; the spine names {sorted(self.ids)}"
            )
        columns = [[check_entity_id(item) for item in self.ids[name]] for name in view.entities]
        if {len(column) for column in columns} != {len(self.as_of_ms)}:
            raise SourceError(
                f"the spine has {len(self.as_of_ms)} instants, but ids of lengths "
                f"{[len(column) for column in columns]}"
            )
        return [join_ids(ids) for ids in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The stored features that the model would have been given at each instant of a spine."""

    values: NDArray[np.float32]
    """(N, F) in C order: the used features of all views, in the contract's order. Request inputs
    are not among them; the recipe gives those."""
    flags: NDArray[np.uint32]
    """(N,) turnout.v1.RowFlag bits, the same as online."""
    names: tuple[str, ...]
    """The F column names, `view:feature`."""


@dataclass(frozen=True, slots=True)
class LatestRows:
    """The newest row of each entity of one view, ordered by id."""

    ids: list[bytes]
    event_times_ms: NDArray[np.int64]
    values: NDArray[np.float32]
    """(N, F): all features of the view. Invalid features hold the default."""
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class History:
    """All N stored rows of some entities of a view, by id, and of each from oldest to newest."""

    ids: NDArray[np.object_]
    known_ms: NDArray[np.int64]
    """(N,) the later of event time and created time, Unix ms."""
    values: NDArray[np.float32]
    """(N, F): all features of the view. Invalid features hold the default."""


class OfflineStore:
    """Reads and writes the Parquet files below *root*. Several processes may ingest at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def ingest(
        self, view: View, source: Path | str, *, created_ms: int | None = None
    ) -> IngestSummary:
        """Run the view's transform over *source* and store the rows that it returns.

        source      a Parquet file, or a glob of several. The transform reads it as table `source`.
        created_ms  the instant at which the rows became known, Unix ms. Training sets as of an
                    earlier instant do not have them. A column `created_ms` of the transform, which
                    a backfill should have, takes precedence.

        Raises SourceError when a column is absent or has another type, or the SQL fails, and
        EntityIdError for a bad id. Then no row is stored.
        """
        with _connect() as connection:
            try:
                connection.execute(source_sql(source))
                _check_schema(view, connection.execute("DESCRIBE source").fetchall())
                columns = _fetch(connection, view.transform)
            except duckdb.Error as error:
                raise SourceError(f"view {view.name!r} over {source}: {error}") from error
        return self._write_part(view, columns, created_ms)

    def append_pushed(
        self, view: View, rows: Sequence[PushedRow], *, created_ms: int
    ) -> IngestSummary:
        """Store rows that were pushed online, so that training sets have them as well.

        created_ms  the instant at which the rows became known, Unix ms.

        Raises as `ingest` does.
        """
        return self._write_part(view, pushed_columns(view, rows), created_ms)

    def training_set(self, contract: ModelContract, spine: Spine) -> TrainingSet:
        """Return the features as they were known at each instant of *spine*.

        The rows with event time and created time at or before the instant count. Of an entity's
        such rows, the one with the newest event is taken; among equal events the one created
        last, then the one ingested last. A stale row gives the defaults.

        Raises SourceError or EntityIdError for a spine that does not fit the contract.
        """
        count = len(spine.as_of_ms)
        flags = np.zeros(count, dtype=np.uint32)
        blocks: list[NDArray[np.float32]] = [np.empty((count, 0), dtype=np.float32)]
        for use in contract.views:
            values, view_flags = self._as_of(use.view, spine)
            blocks.append(values[:, use.columns])
            flags |= view_flags
        width = sum(len(use.features) for use in contract.views)
        return TrainingSet(np.concatenate(blocks, axis=1), flags, contract.names[:width])

    def latest(self, view: View, *, as_of_ms: int | None = None) -> LatestRows:
        """Return the newest row of each entity as known at *as_of_ms*, Unix ms; None takes all."""
        files = self._files(view)
        if not files:
            columns: dict[str, Column] = {}
            ids: list[bytes] = []
        else:
            with _connect() as connection:
                columns = _fetch(connection, latest_sql(view, files, as_of_ms))
            ids = [text.encode() for text in columns["entity_id"]]
        values, valid = _assemble_rows(view, columns, len(ids))
        event_times = np.asarray(columns.get(EVENT_TIME, np.empty(0)), dtype=np.int64)
        return LatestRows(ids, event_times, values, valid)

    def history(self, view: View, ids: Sequence[str]) -> History:
        """Return all rows of the entities with these joined ids."""
        files, columns = self._files(view), dict[str, Column]()
        if files and ids:
            with _connect() as connection:
                connection.register("wanted", {"entity_id": np.array(ids, dtype=object)})
                columns = _fetch(connection, history_sql(view, files))
        known_ms = np.asarray(columns.get("known_ms", np.empty(0)), dtype=np.int64)
        stored = np.asarray(columns.get("entity_id", np.empty(0)), dtype=object)
        return History(stored, known_ms, _assemble_rows(view, columns, len(stored))[0])

    def count_after(self, view: View, instant_ms: int) -> int:
        """Return the number of rows whose event or created time is after *instant_ms*, Unix ms."""
        files = self._files(view)
        if not files:
            return 0
        with _connect() as connection:
            row = connection.execute(count_after_sql(files, instant_ms)).fetchone()
        return 0 if row is None else int(row[0])

    def digest(self, views: Sequence[View]) -> str:
        """Return the SHA-256 (hex) over the files of *views*, which identifies training data."""
        digest = hashlib.sha256()
        for path in sorted(path for view in views for path in self._files(view)):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.parent.name}/{path.name} {content}\n".encode())
        return digest.hexdigest()

    def _folder(self, view: View) -> Path:
        return self._root / f"{view.name}@{view.view_hash[:16]}"

    def _files(self, view: View) -> list[Path]:
        return sorted(self._folder(view).glob("*.parquet"))

    def _write_part(
        self, view: View, columns: Mapping[str, Column], created_ms: int | None
    ) -> IngestSummary:
        # Encode and check everything before a file is made.
        values, valid = encode_columns(view, columns)
        bitmap = pack_valid(valid)
        table: dict[str, Column] = {
            "entity_id": _entity_ids(view, columns),
            EVENT_TIME: _instants(view, columns, EVENT_TIME),
            CREATED: _created(view, columns, created_ms, len(values)),
            **dict(zip(valid_columns(view), bitmap.T, strict=True)),
            **dict(zip(feature_columns(view), values.T, strict=True)),
        }
        # Write a temporary file, then give it its number.
        folder = self._folder(view)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{secrets.token_hex(8)}.part"
        try:
            with _connect() as connection:
                contiguous = {name: np.ascontiguousarray(column) for name, column in table.items()}
                connection.register("arriving", contiguous)
                connection.execute(write_sql(part))
            path = _publish(part)
        finally:
            part.unlink(missing_ok=True)
        # Count the missing values of each feature.
        counts = (~valid).sum(axis=0).tolist()
        names = [feature.name for feature in view.features]
        missing = {name: count for name, count in zip(names, counts, strict=True) if count}
        return IngestSummary(path, len(values), missing)

    def _as_of(self, view: View, spine: Spine) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        """Return values (N, all F features of the view) and RowFlag bits (N,) for *spine*."""
        # Join in DuckDB. The result has one row for each row of the spine that had a stored row.
        ids = spine.joined(view)
        count, files = len(ids), self._files(view)
        columns: dict[str, Column] = {}
        positions = np.empty(0, dtype=np.int64)
        if files and count:
            spine_columns = {
                "position": np.arange(count, dtype=np.int64),
                "entity_id": np.array([item.decode() for item in ids], dtype=object),
                "as_of_ms": np.ascontiguousarray(spine.as_of_ms, dtype=np.int64),
            }
            with _connect() as connection:
                connection.register("spine", spine_columns)
                columns = _fetch(connection, as_of_sql(view, files))
            positions = np.asarray(columns["position"])
        joined_values, joined_valid = _assemble_rows(view, columns, len(positions))
        # Spread the joined rows over the spine, and find why the others have none.
        stale = _scatter(count, positions, columns.get("stale"))
        forgotten = _scatter(count, positions, columns.get("forgotten"))
        missing = forgotten | ~_scatter(count, positions, np.ones(len(positions), dtype=np.bool_))
        stale &= ~missing
        all_valid = np.asarray(joined_valid.all(axis=1))
        defaulted = _scatter(count, positions, ~all_valid)
        # Rows that may not be used have the defaults.
        values = np.empty((count, len(view.features)), dtype=np.float32)
        values[positions] = joined_values
        values[missing | stale] = _default_values(view)
        return values, row_flags(missing, stale, defaulted)


def _connect() -> duckdb.DuckDBPyConnection:
    # DuckDB must not download extensions. Parquet is built in.
    return duckdb.connect(config={"autoinstall_known_extensions": "false"})


def _fetch(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Column]:
    """Run *sql* and return the columns of its result by name."""
    columns = connection.execute(sql).fetchnumpy()
    # With pandas installed, an ENUM column is a pandas Categorical instead of an array.
    return {
        name: column if isinstance(column, np.ndarray) else np.asarray(column, dtype=object)
        for name, column in columns.items()
    }


def _default_values(view: View) -> NDArray[np.float32]:
    return np.array([feature.default_value for feature in view.features], dtype=np.float32)


def _assemble_rows(
    view: View, columns: Mapping[str, Column], count: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return values and validity, each (*count*, F), from the columns of stored rows."""
    shape = (count, len(view.features))
    if count == 0:
        return np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.bool_)
    words = np.stack([np.ma.getdata(columns[name]) for name in valid_columns(view)], axis=1)
    valid = unpack_valid(words, len(view.features))
    # DuckDB may return NULL for NaN, so the defaults come from the view, not from the file.
    raw = np.stack([np.ma.getdata(columns[name]) for name in feature_columns(view)], axis=1)
    return np.where(valid, raw, _default_values(view)).astype(np.float32, copy=False), valid


def _scatter(count: int, positions: NDArray[np.int64], column: Column | None) -> NDArray[np.bool_]:
    scattered = np.zeros(count, dtype=np.bool_)
    if column is not None:
        scattered[positions] = column
    return scattered


def _check_schema(view: View, described: list[tuple[str, ...]]) -> None:
    present = {row[0]: row[1] for row in described}
    wrong = [
        f"{name} is {present.get(name, 'absent')} (declared {kind})"
        for name, kind in view.source_schema
        if present.get(name, "").upper() != kind.upper()
    ]
    if wrong:
        raise SourceError(f"view {view.name!r}: the source does not fit: {'; '.join(wrong)}")


def _entity_ids(view: View, columns: Mapping[str, Column]) -> NDArray[np.object_]:
    checked: list[list[bytes]] = []
    for name in view.entities:
        if name not in columns:
            raise SourceError(f"view {view.name!r}: its transform returns no {name!r} column")
        column = columns[name]
        texts = np.ma.getdata(column)
        absent = np.ma.getmaskarray(column)
        if absent.any() or not all(isinstance(text, str) for text in texts):
            raise SourceError(
                f"view {view.name!r}: entity {name!r} must be VARCHAR and never NULL; "
                f"{int(absent.sum())} of {len(texts)} rows are NULL, the column is {texts.dtype}"
            )
        checked.append([check_entity_id(text) for text in texts])
    joined = [join_ids(ids).decode() for ids in zip(*checked, strict=True)]
    return np.array(joined, dtype=object)


def _instants(view: View, columns: Mapping[str, Column], name: str) -> NDArray[np.int64]:
    column = columns.get(name)
    if column is None or column.dtype.kind not in "iu" or np.ma.getmaskarray(column).any():
        problem = "absent" if column is None else f"{column.dtype}, or has NULLs"
        raise SourceError(
            f"view {view.name!r}: {name!r} is {problem}; the transform must return it as BIGINT, "
            "Unix milliseconds, in every row (epoch_ms(...) makes it from a timestamp)"
        )
    instants = np.ma.getdata(column).astype(np.int64)
    if len(instants) and not 0 <= instants.min() <= instants.max() < EVENT_MS_MAX:
        raise SourceError(
            f"view {view.name!r}: {name!r} runs from {instants.min()} to {instants.max()}; Unix "
            f"milliseconds lie in 0 to {EVENT_MS_MAX}"
        )
    return instants


def _created(
    view: View, columns: Mapping[str, Column], created_ms: int | None, count: int
) -> NDArray[np.int64]:
    if CREATED in columns:
        return _instants(view, columns, CREATED)
    if created_ms is None:
        raise SourceError(
            f"view {view.name!r}: give created_ms, or let the transform return a {CREATED!r} column"
        )
    return np.full(count, created_ms, dtype=np.int64)


def _publish(part: Path) -> Path:
    """Link a finished file under the next free number, and return its path."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    published = sorted(part.parent.glob("*.parquet"))
    number = int(published[-1].stem) + 1 if published else 1
    # A link never replaces a file, so two processes cannot take the same number.
    while True:
        path = part.parent / f"{number:06d}.parquet"
        try:
            path.hardlink_to(part)
        except FileExistsError:
            number += 1
        else:
            return path
