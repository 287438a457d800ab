"""Keeps the decisions that readers push, each once, and finds one by its prediction id.

A pushed block is a row of the database, stored in the transaction of its batch. Later its rows
become a Parquet file, and one transaction replaces the blocks by the name of the file. A kill
before leaves a file that no row names, which is written again; so each row is there once.
"""

import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, func, insert, select, update

from host.files import make_private_folder
from monitoring.cells.decision_rows import unpack_decisions
from monitoring.decisions.parquet import (
    Decision,
    decisions_of_rows,
    find_in_blocks,
    find_in_files,
    merge_decisions,
    open_writer,
    using_files,
    write_decisions,
)
from monitoring.decisions.person_rows import (
    DecisionPerson,
    FoundCalls,
    block_of_rows,
    count_in_files,
    find_in_block,
    find_in_model_files,
    rows_in_block,
    write_without_calls,
)
from monitoring.errors import BadDecisionsError
from monitoring.store.database import MonitoringDatabase
from monitoring.store.tables import decision_blocks, decision_files
from protos import monitoring_pb2 as pb
from registry.types import MODEL_NAME

log = logging.getLogger(__name__)

FILE_ROWS = 500_000
"""A file has the blocks of about so many rows."""
MERGE_FILES = 8
"""So many files of one model and day become one, if they are of one size."""
SMALLEST_SIZE_ROWS = 4_096
"""Files are of one size below it, and from there on up to eight times as many rows. So a row is
written again a few times, however many files a day has."""

DayOf = Callable[[bytes], int | None]
"""Returns the Unix day of a prediction id; None: it is sealed, and there is no key."""


class DecisionStore:
    """The decisions in one folder.

    folder    for the files. It is made if need be.
    database  that of the store, so that blocks come with their batch.
    day_of    reads the day from a prediction id.
    """

    def __init__(self, folder: Path, database: MonitoringDatabase, day_of: DayOf) -> None:
        make_private_folder(folder)
        self._folder = folder
        self._database = database
        self._day_of = day_of
        self._reader: Any = None
        self._lock = Lock()
        """A file is deleted while no look-up reads it."""

    def add_batch(self, connection: Connection, batch: pb.CellBatch) -> None:
        """Store the blocks of a batch in its transaction. Raises BadDecisionsError."""
        for block in batch.decisions:
            # The model's name becomes a folder.
            if not MODEL_NAME.fullmatch(block.model) or len(unpack_decisions(block)) != block.rows:
                raise BadDecisionsError(
                    f"a block of decisions names the model {block.model!r} and {block.rows} rows; "
                    "one of both cannot be"
                )
            connection.execute(
                insert(decision_blocks).values(
                    model=block.model,
                    day=block.day,
                    rows=block.rows,
                    block=block.SerializeToString(),
                )
            )

    def rows(self) -> int:
        """Return how many rows are kept."""
        with self._database.read_transaction() as connection:
            counts = [
                connection.execute(select(func.sum(table.c.rows))).scalar_one() or 0
                for table in (decision_blocks, decision_files)
            ]
            return int(sum(counts))

    def compact(self, *, rows_min: int = 1) -> int:
        """Write the waiting blocks to files, and merge many files of a day; return the rows.

        rows_min  a model and day with fewer waiting rows gets no file yet, because every file costs
                  some milliseconds, however few rows it has.

        Raises UnreadableDecisionsError; then each row is where it was.
        """
        written = 0
        with ExitStack() as stack:
            writer = None
            while (found := self._waiting_longest(rows_min)) is not None:
                writer = writer or stack.enter_context(open_writer())
                written += self._write_file(writer, *found)
            if writer is not None:
                self._merge(writer)
        return written

    def _waiting_longest(self, rows_min: int) -> tuple[str, int] | None:
        """Return the model and day that wait longest with *rows_min* or more rows; None: none."""
        with self._database.read_transaction() as connection:
            found = connection.execute(
                select(decision_blocks.c.model, decision_blocks.c.day)
                .group_by(decision_blocks.c.model, decision_blocks.c.day)
                .having(func.sum(decision_blocks.c.rows) >= rows_min)
                .order_by(func.min(decision_blocks.c.id))
                .limit(1)
            ).first()
        return None if found is None else (found.model, found.day)

    def delete_before(self, day: int) -> int:
        """Delete the files of days before *day*; return how many."""
        with self._database.write_transaction() as connection:
            names = connection.execute(
                select(decision_files.c.name).where(decision_files.c.day < day)
            ).scalars()
            expired = list(names)
            connection.execute(delete(decision_files).where(decision_files.c.day < day))
        self._unlink(expired)
        return len(expired)

    def delete_blocks_before(self, day: int) -> None:
        """Delete the rows of days before *day* that are in no file."""
        with self._database.write_transaction() as connection:
            connection.execute(delete(decision_blocks).where(decision_blocks.c.day < day))

    def delete_unnamed_files(self) -> None:
        """Delete files that a killed process left and no row names. For the start only.

        Unfinished files are among them: they may have rows of persons who were removed since.
        """
        with self._database.read_transaction() as connection:
            named = set(connection.execute(select(decision_files.c.name)).scalars())
        for path in self._folder.rglob("*part-*"):
            if path.relative_to(self._folder).as_posix() not in named:
                path.unlink()

    def find_calls(self, person: DecisionPerson) -> FoundCalls:
        """Return the calls of a person in blocks and files, and how many rows they have.

        Raises UnreadableDecisionsError when a file cannot be searched.
        """
        found = FoundCalls()
        for _, block in self._blocks():
            find_in_block(block, person, found)
        for model, paths in self._files_by_model().items():
            with using_files():
                find_in_model_files(paths, model, person, found)
                found.rows += count_in_files(paths, found.prediction_ids.get(model, ()))
        for _, block in self._blocks():
            ids = found.prediction_ids.get(block.model, ())
            found.rows += int(rows_in_block(block, ids).sum()) if ids else 0
        return found

    def remove_calls_from_blocks(self, calls: FoundCalls) -> None:
        """Remove the rows of calls from the blocks that are in no file yet."""
        for number, block in self._blocks():
            ids = calls.prediction_ids.get(block.model, ())
            removed = rows_in_block(block, ids) if ids else np.zeros(0, np.bool_)
            if not removed.any():
                continue
            where = decision_blocks.c.id == number
            with self._database.write_transaction() as connection:
                if removed.all():
                    connection.execute(delete(decision_blocks).where(where))
                else:
                    rest = block_of_rows(block, ~removed)
                    values = {"rows": rest.rows, "block": rest.SerializeToString()}
                    connection.execute(update(decision_blocks).where(where).values(**values))

    def remove_calls_from_next_file(self, calls: FoundCalls, searched: set[str]) -> bool | None:
        """Remove the rows of calls from one file that is not among *searched*, and add it there.

        Return whether the file had such rows; None: every file is searched. Compaction may run
        between two calls. Raises UnreadableDecisionsError.
        """
        # Compaction may have made files since the last call.
        with self._database.read_transaction() as connection:
            files = connection.execute(select(decision_files).order_by(decision_files.c.name)).all()
        row = next((item for item in files if item.name not in searched), None)
        if row is None:
            return None
        searched.add(row.name)
        ids = calls.prediction_ids.get(row.model, ())
        if not ids:
            return False
        # A new file takes the place of the old one in one transaction, as in a merge.
        name = _new_name(row.model, row.day)
        with using_files():
            rows = write_without_calls(self._folder / row.name, self._folder / name, ids)
        if rows is None:
            return False
        searched.add(name)
        with self._database.write_transaction() as connection:
            connection.execute(delete(decision_files).where(decision_files.c.name == row.name))
            if rows:
                connection.execute(
                    insert(decision_files).values(
                        name=name, model=row.model, day=row.day, rows=rows
                    )
                )
        self._unlink([row.name])
        return True

    def _blocks(self) -> Iterator[tuple[int, pb.DecisionBlock]]:
        """Yield the number and the content of each block, read one by one."""
        with self._database.read_transaction() as connection:
            numbers = list(
                connection.execute(
                    select(decision_blocks.c.id).order_by(decision_blocks.c.id)
                ).scalars()
            )
        for number in numbers:
            with self._database.read_transaction() as connection:
                content = connection.execute(
                    select(decision_blocks.c.block).where(decision_blocks.c.id == number)
                ).scalar_one()
            yield number, pb.DecisionBlock.FromString(content)

    def _files_by_model(self) -> dict[str, list[Path]]:
        with self._database.read_transaction() as connection:
            rows = connection.execute(select(decision_files.c.model, decision_files.c.name)).all()
        files: dict[str, list[Path]] = {}
        for row in rows:
            files.setdefault(row.model, []).append(self._folder / row.name)
        return files

    def find_decisions(self, prediction_id: bytes) -> list[Decision]:
        """Return what was scored under a prediction id: the answer, then shadows.

        Empty if the id's key is not in the sample, or its day is over. A sealed id without the
        cluster's key is looked for in every day.
        """
        day = self._day_of(prediction_id)
        where_file = [] if day is None else [decision_files.c.day.in_((day - 1, day, day + 1))]
        where_block = [] if day is None else [decision_blocks.c.day.in_((day - 1, day, day + 1))]
        with self._lock:
            with self._database.read_transaction() as connection:
                files = connection.execute(select(decision_files).where(*where_file)).all()
                blocks = connection.execute(
                    select(decision_blocks.c.block).where(*where_block)
                ).scalars()
                waiting = [pb.DecisionBlock.FromString(block) for block in blocks]
            # A prediction id is of one model, so the first model that has it is the one.
            for model in sorted({row.model for row in files} | {item.model for item in waiting}):
                paths = [self._folder / row.name for row in files if row.model == model]
                found = find_in_files(self._connection(), paths, prediction_id)
                of_model = [block for block in waiting if block.model == model]
                found += find_in_blocks(of_model, prediction_id)
                if found:
                    return decisions_of_rows(model, prediction_id, found)
        return []

    def _connection(self) -> Any:  # noqa: ANN401  duckdb has no types
        """Return the connection of look-ups, which remembers the footers of files."""
        if self._reader is None:
            import duckdb

            self._reader = duckdb.connect()
            self._reader.execute("SET parquet_metadata_cache = true")
            # A look-up reads one row group, for which a second thread is a detour.
            self._reader.execute("SET threads = 1")
        return self._reader

    def _write_file(self, writer: Any, model: str, day: int) -> int:  # noqa: ANN401
        """Write the oldest blocks of one model and day to a file; return the rows."""
        with self._database.read_transaction() as connection:
            waiting = connection.execute(
                select(decision_blocks)
                .where(decision_blocks.c.model == model, decision_blocks.c.day == day)
                .order_by(decision_blocks.c.id)
            )
            ids, blocks, rows = [], [], 0
            for row in waiting:
                if rows >= FILE_ROWS:
                    break
                ids.append(row.id)
                blocks.append(pb.DecisionBlock.FromString(row.block))
                rows += row.rows
        name = _new_name(model, day)
        with using_files():
            rows = write_decisions(writer, self._folder / name, blocks)
        # From here on the file counts, and its blocks do not.
        with self._database.write_transaction() as connection:
            connection.execute(
                insert(decision_files).values(name=name, model=model, day=day, rows=rows)
            )
            connection.execute(delete(decision_blocks).where(decision_blocks.c.id.in_(ids)))
        return rows

    def _merge(self, writer: Any) -> None:  # noqa: ANN401
        """Merge files of one model, day and size where there are many."""
        with self._database.read_transaction() as connection:
            many = connection.execute(
                select(decision_files.c.model, decision_files.c.day)
                .group_by(decision_files.c.model, decision_files.c.day)
                .having(func.count() >= MERGE_FILES)
            ).all()
        for model, day in many:
            with self._database.read_transaction() as connection:
                same = (decision_files.c.model == model, decision_files.c.day == day)
                of_day = connection.execute(select(decision_files).where(*same)).all()
            by_size = defaultdict(list)
            for part in of_day:
                by_size[_size_class(part.rows)].append(part)
            for parts in by_size.values():
                if len(parts) >= MERGE_FILES:
                    rows = sum(part.rows for part in parts)
                    names = [part.name for part in parts]
                    self._merge_files(writer, {"model": model, "day": day, "rows": rows}, names)

    def _merge_files(self, writer: Any, values: dict[str, Any], names: list[str]) -> None:  # noqa: ANN401
        """Merge files into one. *values* of its row are all but its name."""
        name = _new_name(values["model"], values["day"])
        with using_files():
            merge_decisions(writer, self._folder / name, [self._folder / part for part in names])
        with self._database.write_transaction() as connection:
            connection.execute(delete(decision_files).where(decision_files.c.name.in_(names)))
            connection.execute(insert(decision_files).values(name=name, **values))
        self._unlink(names)

    def _unlink(self, names: list[str]) -> None:
        with self._lock:
            for name in names:
                (self._folder / name).unlink(missing_ok=True)


def _size_class(rows: int) -> int:
    """Return a number that files of one size have in common."""
    return ((rows // SMALLEST_SIZE_ROWS).bit_length() + 2) // 3


def _new_name(model: str, day: int) -> str:
    return f"{model}/{day}/part-{secrets.token_hex(8)}.parquet"
