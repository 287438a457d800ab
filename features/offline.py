"""The offline store: all rows of all views, as Parquet files, and point-in-time training sets.

The folder `<root>/<view>@<first 16 hex digits of the view hash>/` has a folder for each ingest
(features.storage.ingests).
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from features.encode import Column, encode_columns
from features.entity_ids import check_entity_id, join_ids
from features.errors import SourceError
from features.pushed import PushedRow, pushed_columns
from features.rows import EVENT_MS_MAX, pack_valid, row_flags
from features.staleness import FORGET_AFTER_TTLS
from features.storage.database import MEMORY_MB, duckdb_reason, fetch_columns, open_duckdb
from features.storage.ingests import (
    StoredIngest,
    delete_replaced,
    new_folder,
    publish,
    publish_compacted,
    reading,
    recent_ingests,
    stored_files,
    stored_ingests,
)
from features.storage.newest_rows import (
    LatestRows,
    NewestRows,
    assemble_rows,
    default_values,
    valid_of,
)
from features.storage.pushed_log import PushedLog
from features.storage.queries import (
    AGE_ORDER,
    NewestPart,
    as_of_tables_sql,
    chosen_rows_sql,
    count_after_sql,
    feature_columns,
    history_sql,
    newest_sql,
    stored_columns,
    stored_sql,
    valid_columns,
)
from features.storage.settle import settle_pushed
from features.storage.unjoined import Unjoined, find_reasons
from features.storage.writing import write_arrays, write_files
from features.views import View

ALL_ROWS = NewestPart()


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
    view_flags: NDArray[np.uint32]
    """(N, V) turnout.v1.RowFlag bits of each view, in the contract's order."""
    names: tuple[str, ...]
    """The F column names, `view:feature`."""
    known: NDArray[np.bool_] | None = None
    """(N, F) True where a value is stored, and False where it is a default. None unless it was
    asked for, because it takes a quarter of the memory of the values."""

    @property
    def flags(self) -> NDArray[np.uint32]:
        """(N,) RowFlag bits over all views, the same as online."""
        flags: NDArray[np.uint32] = np.bitwise_or.reduce(self.view_flags, axis=1)
        return flags


@dataclass(frozen=True, slots=True)
class History:
    """All N stored rows of some entities of a view, by id, and of each from oldest to newest."""

    ids: NDArray[np.object_]
    known_ms: NDArray[np.int64]
    """(N,) the later of event time and created time, Unix ms."""
    values: NDArray[np.float32]
    """(N, F): all features of the view. Invalid features hold the default."""


class OfflineStore:
    """Reads and writes the files below *root*. Several processes may ingest at once.

    spill      an existing folder for what does not fit into the memory; None: the system's folder
               for temporary files.
    memory_mb  memory of DuckDB in MB, 10^6 bytes. Joins of any size keep within it.
    until      edition (`<view>@<hash>`) -> the last ingest that training sets and digests read, so
               that a former training set is made again. A compacted ingest is read as a whole.
    """

    def __init__(
        self,
        root: Path,
        *,
        spill: Path | None = None,
        memory_mb: int = MEMORY_MB,
        until: Mapping[str, int] | None = None,
    ) -> None:
        self._root = root
        self._spill = spill
        self._memory_mb = memory_mb
        self._until = until or {}

    def folder(self, view: View) -> Path:
        """Return the folder of a view's ingests. It need not exist."""
        return self._root / f"{view.name}@{view.view_hash[:16]}"

    def append_pushed(
        self, view: View, rows: Sequence[PushedRow], *, created_ms: int
    ) -> StoredIngest:
        """Store rows that were pushed online, so that training sets have them as well.

        created_ms  the instant at which the rows became known, Unix ms.

        Raises SourceError or EntityIdError for a row that does not fit. Then no row is stored.
        """
        # Encode and check everything before a file is made.
        columns = pushed_columns(view, rows)
        values, valid = encode_columns(view, columns)
        ids = _joined_ids(view, columns)
        known_ms = np.full(len(rows), created_ms, dtype=np.int64)
        instants_ms = (_event_times(view, columns["event_time_ms"]), known_ms)
        # Write the files, then give the folder its number.
        with new_folder(self.folder(view)) as part, self._duckdb() as connection:
            words = pack_valid(valid)
            files = write_arrays(connection, view, ids, instants_ms, values, words, part)
            return publish(part, files)

    def open_log(self, view: View) -> PushedLog:
        """Open the log of the view's pushed rows (features.push.writer). Close it after use."""
        return PushedLog(self.folder(view))

    def settle(self, view: View) -> int:
        """Store the rows of the view's log as ingests, and return their number.

        Every method that reads the view does this first, so it has every row that was pushed.
        Raises SourceError.
        """
        return settle_pushed(self.folder(view), view, self._duckdb)

    def training_set(
        self, contract: ModelContract, spine: Spine, *, with_known: bool = False
    ) -> TrainingSet:
        """Return the features as they were known at each instant of *spine*.

        with_known  also say which values are stored ones (`TrainingSet.known`).

        The rows with event time and created time at or before the instant count. Of an entity's
        such rows, the one with the newest event is taken; among equal events the one created
        last, then the one ingested last. A stale row gives the defaults.

        Raises SourceError or EntityIdError for a spine that does not fit the contract.
        """
        # Each view writes its part of one array, so that no part is copied.
        count = len(spine.as_of_ms)
        width = sum(len(use.features) for use in contract.views)
        flags = np.zeros((count, len(contract.views)), dtype=np.uint32)
        values = np.empty((count, width), dtype=np.float32)
        known = np.zeros((count, width), dtype=np.bool_) if with_known else None
        start = 0
        for number, use in enumerate(contract.views):
            end = start + len(use.features)
            self.settle(use.view)
            with reading(self.folder(use.view)):
                # A file that is read now is not deleted meanwhile.
                flags[:, number] = self._as_of(
                    use.view,
                    use.columns,
                    spine,
                    values[:, start:end],
                    None if known is None else known[:, start:end],
                )
            start = end
        return TrainingSet(values, flags, contract.names[:width], known)

    def unjoined(self, view: View, spine: Spine) -> Unjoined:
        """Return why the rows of *spine* found no fresh row: give only rows that found none."""
        self.settle(view)
        with reading(self.folder(view)), self._duckdb() as connection:
            ids = np.array([item.decode() for item in spine.joined(view)], dtype=object)
            connection.register("wanted", {"entity_id": ids, "as_of_ms": spine.as_of_ms})
            return find_reasons(connection, view, self._files(view))

    @contextmanager
    def open_newest(
        self, view: View, *, as_of_ms: int | None = None, part: NewestPart = ALL_ROWS
    ) -> Iterator[NewestRows]:
        """Give the newest row of each entity as known at *as_of_ms*, Unix ms; None takes all.

        part  gives only some of these rows.
        """
        self.settle(view)
        with reading(self.folder(view)), self._duckdb() as connection:
            files, count = self._files(view), 0
            if files:
                sql = newest_sql(view, files, as_of_ms, part)
                connection.execute(f"CREATE TEMP TABLE newest AS {sql}").fetchall()
                count = connection.execute("SELECT count(*) FROM newest").fetchall()[0][0]
            yield NewestRows(view, connection, count)

    def latest(self, view: View, *, as_of_ms: int | None = None) -> LatestRows:
        """Return the newest rows at once, for few entities. `open_newest` gives them in batches."""
        with self.open_newest(view, as_of_ms=as_of_ms) as newest:
            for batch in newest.batches(max(1, len(newest))):
                return batch
        values, valid = assemble_rows(view, {}, 0)
        return LatestRows([], np.empty(0, dtype=np.int64), values, valid)

    def history(self, view: View, ids: Sequence[str]) -> History:
        """Return all rows of the entities with these joined ids."""
        self.settle(view)
        columns = dict[str, NDArray[Any]]()
        with reading(self.folder(view)):
            files = self._files(view)
            if files and ids:
                with self._duckdb() as connection:
                    connection.register("wanted", {"entity_id": np.array(ids, dtype=object)})
                    columns = fetch_columns(connection, history_sql(view, files))
        known_ms = np.asarray(columns.get("known_ms", np.empty(0)), dtype=np.int64)
        stored = np.asarray(columns.get("entity_id", np.empty(0)), dtype=object)
        return History(stored, known_ms, assemble_rows(view, columns, len(stored))[0])

    def count_after(self, view: View, instant_ms: int) -> int:
        """Return the number of rows whose event or created time is after *instant_ms*, Unix ms."""
        self.settle(view)
        with reading(self.folder(view)):
            files = self._files(view)
            if not files:
                return 0
            with self._duckdb() as connection:
                rows = connection.execute(count_after_sql(files, instant_ms)).fetchall()
        return int(rows[0][0])

    def digest(self, views: Sequence[View]) -> str:
        """Return the SHA-256 (hex) over the ingests of *views*, which identifies training data.

        The files are not read: each ingest's digest is in its manifest. Compaction keeps it.
        """
        digest = hashlib.sha256()
        for view in views:
            self.settle(view)
        for folder in sorted({self.folder(view) for view in views}):
            for number, content in _numbered_digests(folder, self._until.get(folder.name)):
                digest.update(f"{folder.name}/{number:06d} {content}\n".encode())
        return digest.hexdigest()

    def ingested(self, view: View, until: int | None = None) -> tuple[int, str]:
        """Return the number of the view's last ingest, 0 without one, and the SHA-256 of all.

        until  looks at the ingests up to this number only. A store of the same history gives the
               same digest then, whatever was ingested or compacted since.
        """
        self.settle(view)
        digest, last = hashlib.sha256(), 0
        folder = self.folder(view)
        last_read = self._until.get(folder.name) if until is None else until
        for number, content in _numbered_digests(folder, last_read):
            digest.update(f"{number:06d} {content}\n".encode())
            last = number
        return last, digest.hexdigest()

    def compact(self, view: View, *, recent: bool = False) -> int:
        """Join the view's ingests to one, so that many small files become few large ones.

        recent  joins only the newest ingests of like size, and only if there are RECENT_MIN of
                them. After each ingest this is cheap: a row is rewritten a few times in all, and
                a few dozen ingests are left.

        Returns the number of ingests that were joined. Rows, their order and the digest stay. The
        former files stay until the next call, for those who read them now.
        """
        folder = self.folder(view)
        if not folder.is_dir():
            return 0
        self.settle(view)
        with reading(folder):
            delete_replaced(folder)
            ingests = stored_ingests(folder)
            if recent:
                ingests = recent_ingests(ingests)
            if len(ingests) < 2:
                return 0
            # Sorted by entity, the files are smaller; ties keep their order.
            rows = stored_sql(stored_files(ingests))
            ordered = f"SELECT * FROM ({rows}) ORDER BY entity_id, {AGE_ORDER}"
            with new_folder(folder) as part, self._duckdb() as connection:
                files = write_files(connection, ordered, stored_columns(view), part)
                publish_compacted(part, files, ingests)
        return len(ingests)

    @contextmanager
    def _duckdb(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a new database, and make one sentence of an error in it."""
        with open_duckdb(self._spill, memory_mb=self._memory_mb) as connection:
            try:
                yield connection
            except duckdb.Error as error:
                raise SourceError(
                    f"the offline store in {self._root} cannot be used: {duckdb_reason(error)}; "
                    "restore the file from a copy, or ingest its rows again"
                ) from error

    def _files(self, view: View, from_ms: int = 0, to_ms: int = EVENT_MS_MAX) -> list[Path]:
        """Return the files with rows that are known by *to_ms* and not older than *from_ms*."""
        folder = self.folder(view)
        until = self._until.get(folder.name)
        ingests = [item for item in stored_ingests(folder) if until is None or item.first <= until]
        return stored_files(ingests, from_ms, to_ms)

    def _as_of(
        self,
        view: View,
        used: Sequence[int],
        spine: Spine,
        values: NDArray[np.float32],
        known: NDArray[np.bool_] | None,
    ) -> NDArray[np.uint32]:
        """Write the features *used* into *values* (N, len(used)) and return RowFlag bits (N,).

        known  None, or zeros of the same shape, in which stored values are marked.
        """
        # Rows that are forgotten at every instant, or known after every instant, are not read.
        ids, instants = spine.joined(view), np.ascontiguousarray(spine.as_of_ms, dtype=np.int64)
        count = len(ids)
        files: list[Path] = []
        if count:
            oldest_ms = int(instants.min()) - FORGET_AFTER_TTLS * view.ttl_ms
            files = self._files(view, oldest_ms, int(instants.max()))
        missing, stale = np.ones(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
        defaulted = np.zeros(count, dtype=np.bool_)
        values[:] = default_values(view)[list(used)]
        if not files:
            return row_flags(missing, stale, defaulted)
        # Join in DuckDB. The result has a row for each row of the spine that had a stored row.
        spine_columns = {
            "position": np.arange(count, dtype=np.int64),
            "entity_id": np.array([item.decode() for item in ids], dtype=object),
            "as_of_ms": instants,
        }
        stored = feature_columns(view)
        wanted = [*valid_columns(view), *(stored[column] for column in used)]
        with self._duckdb() as connection:
            connection.register("spine_arrays", spine_columns)
            connection.execute("CREATE TEMP TABLE spine AS SELECT * FROM spine_arrays").fetchall()
            for statement in as_of_tables_sql(files):
                connection.execute(statement).fetchall()
            columns = fetch_columns(connection, chosen_rows_sql(view, files, wanted))
        # Spread the joined rows over the spine. Rows that may not be used keep the defaults.
        positions = np.asarray(columns["position"])
        valid = valid_of(view, columns)
        missing[positions] = columns["forgotten"]
        stale[positions] = columns["stale"]
        stale &= ~missing
        defaulted[positions] = ~valid.all(axis=1)
        usable = ~(missing | stale)[positions]
        for index, column in enumerate(used):
            written = usable & valid[:, column]
            values[positions[written], index] = np.ma.getdata(columns[stored[column]])[written]
            if known is not None:
                known[positions[written], index] = True
        return row_flags(missing, stale, defaulted)


def _numbered_digests(folder: Path, until: int | None = None) -> Iterator[tuple[int, str]]:
    """Yield the number and the digest of each ingest in a view's folder, in order.

    until  ends with the ingest of this number; None takes all.
    """
    for ingest in stored_ingests(folder):
        for number, digest in enumerate(ingest.digests, start=ingest.first):
            if until is None or number <= until:
                yield number, digest


def _joined_ids(view: View, columns: Mapping[str, Column]) -> NDArray[np.object_]:
    checked = [[check_entity_id(text) for text in columns[name]] for name in view.entities]
    return np.array([join_ids(ids).decode() for ids in zip(*checked, strict=True)], dtype=object)


def _event_times(view: View, instants: Column) -> NDArray[np.int64]:
    if len(instants) and not 0 <= instants.min() <= instants.max() < EVENT_MS_MAX:
        raise SourceError(
            f"view {view.name!r}: event times run from {instants.min()} to {instants.max()}; Unix "
            f"milliseconds lie in 0 to {EVENT_MS_MAX}"
        )
    return instants.astype(np.int64)
