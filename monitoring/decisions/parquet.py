"""Decisions as Parquet files, which DuckDB writes and reads. Every function blocks.

A file is sorted by `id_hash`, the xxh3_64 of the prediction id, in small row groups. So a look-up
reads one row group, whose least and largest hash are in the file's footer.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from host.files import fsync_folder, replacing_file
from monitoring.cells.decision_rows import DecisionRows, unpack_decisions
from monitoring.errors import UnreadableDecisionsError
from protos import monitoring_pb2 as pb

ROW_GROUP_ROWS = 8_192
SHADOW_ROLE = 5
"""The journal's role of shadows, whose rows have the ids of the answers that they shadow."""
COLUMNS = (
    "id_hash UBIGINT, prediction_id BLOB, row UINTEGER, version VARCHAR, role UTINYINT, "
    "holdout BOOLEAN, at_unix_ns BIGINT, key_hash UBIGINT, row_flags UINTEGER, vector FLOAT[], "
    "scores FLOAT[], entity_ids VARCHAR[]"
)
"""The columns of a file. vector has the inputs of the row's version in their order."""


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One scored row of a decision."""

    row: int
    row_flags: int
    vector: tuple[float, ...]
    """The model's inputs, exactly as the version got them (float32)."""
    scores: tuple[float, ...]
    entity_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """A call that one version scored: its rows that are kept, in order."""

    prediction_id: bytes
    model: str
    version: str
    role: int
    holdout: bool
    at_unix_ns: int
    key_hash: int
    rows: tuple[DecisionRow, ...]


@contextmanager
def using_files() -> Iterator[None]:
    """Raise UnreadableDecisionsError for what DuckDB refuses, or when it is not there."""
    try:
        import duckdb
    except ImportError as error:
        raise UnreadableDecisionsError(
            "there are files of decisions and no DuckDB to read them; install turnout[training]"
        ) from error
    try:
        yield
    except duckdb.Error as error:
        from features.storage.database import duckdb_reason

        reason = duckdb_reason(error)
        raise UnreadableDecisionsError(
            f"a file of decisions cannot be read or written ({reason}); restore it or make "
            "room, or delete it from the folder and from the table decision_files"
        ) from error


def open_writer() -> Any:  # noqa: ANN401  duckdb has no types
    """Return a connection that writes files, to be closed by its caller.

    Opening one takes twice as long as writing a small file. Raises UnreadableDecisionsError.
    """
    with using_files():
        import duckdb

        connection = duckdb.connect()
    # A file is written beside calls that are answered, and a second thread is not worth it.
    connection.execute("SET threads = 1")
    return connection


def write_decisions(connection: Any, path: Path, blocks: Iterable[pb.DecisionBlock]) -> int:  # noqa: ANN401
    """Write the rows of blocks of one model and day to a new file; return how many there are.

    connection  of open_writer.

    The file is durable and whole, or not there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    rows = 0
    with replacing_file(path) as beside:
        connection.execute(f"CREATE OR REPLACE TABLE decisions ({COLUMNS})")
        for block in blocks:
            columns = unpack_decisions(block)
            rows += len(columns)
            _insert(connection, block.version, columns, block.entities)
        beside.touch(mode=0o600)
        copy_sorted(connection, "SELECT * FROM decisions", beside)
        connection.execute("DROP TABLE decisions")
    fsync_folder(path.parent)
    return rows


def merge_decisions(connection: Any, path: Path, parts: Sequence[Path]) -> None:  # noqa: ANN401
    """Write the rows of several files to one new file, sorted again."""
    with replacing_file(path) as beside:
        beside.touch(mode=0o600)
        names = ", ".join(f"'{part}'" for part in parts)
        copy_sorted(connection, f"SELECT * FROM read_parquet([{names}])", beside)
    fsync_folder(path.parent)


def copy_sorted(connection: Any, query: str, path: Path) -> None:  # noqa: ANN401  duckdb has no types
    """Write the rows of a query to a file, in the order of decisions."""
    connection.execute(
        f"COPY ({query} ORDER BY id_hash, version, row) TO '{path}' "
        f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
    )


def _insert(connection: Any, version: str, columns: DecisionRows, entities: int) -> None:  # noqa: ANN401
    ids = [identity.tobytes() for identity in columns.prediction_id]
    # DuckDB reads a dictionary of arrays as a table; each input is a column until it is a list.
    table: dict[str, Any] = {
        "id_hash": np.array([xxh3_64_intdigest(identity) for identity in ids], dtype=np.uint64),
        "prediction_id": np.array(ids, dtype=object),
        "row": columns.row,
        "role": columns.role,
        "holdout": columns.holdout.astype(bool),
        "at_unix_ns": columns.at_unix_ns,
        "key_hash": columns.key_hash,
        "row_flags": columns.row_flags,
    }
    lists = {}
    texts = np.array(columns.entity_ids, dtype=object).reshape(len(ids), entities)
    for name, matrix in (("v", columns.vectors), ("s", columns.scores), ("e", texts)):
        for number in range(matrix.shape[1]):
            table[f"{name}{number}"] = np.ascontiguousarray(matrix[:, number])
        names = [f"{name}{number}" for number in range(matrix.shape[1])]
        # DuckDB takes NaN in an array for NULL, and readers would take NULL for 0.
        lists[name] = ", ".join(names if name == "e" else [f"ifnull({n}, 'NaN')" for n in names])
    connection.register("block", table)
    connection.execute(
        "INSERT INTO decisions SELECT id_hash, prediction_id, row, $1, role, holdout, at_unix_ns, "
        f"key_hash, row_flags, [{lists['v']}], [{lists['s']}], [{lists['e']}]::VARCHAR[] "
        "FROM block",
        [version],
    )
    connection.unregister("block")


def find_in_files(connection: Any, paths: Sequence[Path], prediction_id: bytes) -> list[Any]:  # noqa: ANN401
    """Return the rows (version, role, ..., as COLUMNS without id_hash) with this prediction id."""
    if not paths:
        return []
    found: list[Any] = connection.execute(
        "SELECT * EXCLUDE (id_hash, prediction_id) FROM read_parquet($1) "
        "WHERE id_hash = $2 AND prediction_id = $3",
        [[str(path) for path in paths], xxh3_64_intdigest(prediction_id), prediction_id],
    ).fetchall()
    return found


def find_in_blocks(blocks: Iterable[pb.DecisionBlock], prediction_id: bytes) -> list[Any]:
    """Return what `find_in_files` does, of blocks that are in no file so far."""
    found = []
    for block in blocks:
        columns = unpack_decisions(block)
        ids = columns.prediction_id.tobytes()
        if prediction_id not in ids:
            continue
        for number in range(len(columns)):
            if ids[64 * number : 64 * number + 64] != prediction_id:
                continue
            first = number * block.entities
            found.append(
                (
                    int(columns.row[number]),
                    block.version,
                    int(columns.role[number]),
                    bool(columns.holdout[number]),
                    int(columns.at_unix_ns[number]),
                    int(columns.key_hash[number]),
                    int(columns.row_flags[number]),
                    columns.vectors[number].tolist(),
                    columns.scores[number].tolist(),
                    list(columns.entity_ids[first : first + block.entities]),
                )
            )
    return found


def decisions_of_rows(model: str, prediction_id: bytes, found: Iterable[Any]) -> list[Decision]:
    """Return rows with one prediction id as decisions: the answer first, then shadows."""
    calls: dict[tuple[Any, ...], list[DecisionRow]] = {}
    for row, version, role, holdout, at_unix_ns, key_hash, flags, vector, scores, ids in found:
        call = role, version, holdout, at_unix_ns, key_hash
        calls.setdefault(call, []).append(
            DecisionRow(row, flags, tuple(vector), tuple(scores), tuple(ids))
        )
    ordered = sorted(calls.items(), key=lambda item: (item[0][0] == SHADOW_ROLE, item[0]))
    return [
        Decision(
            prediction_id,
            model,
            version,
            role,
            holdout,
            at_unix_ns,
            key_hash,
            tuple(sorted(rows, key=lambda row: row.row)),
        )
        for (role, version, holdout, at_unix_ns, key_hash), rows in ordered
    ]
