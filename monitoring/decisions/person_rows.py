"""Which decisions are a person's: in blocks that wait in the database, and in Parquet files.

A call is the person's by one of its rows or by its key hash, as in journals (journal/person.py).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from host.files import fsync_folder, replacing_file
from monitoring.cells.decision_rows import (
    ID_BYTES,
    DecisionRows,
    pack_decisions,
    unpack_decisions,
)
from monitoring.cells.outside_rows import ELSEWHERE, is_outside_version
from monitoring.decisions.parquet import copy_sorted
from protos import monitoring_pb2 as pb

PredictionIds = Collection[bytes]


@dataclass(frozen=True, slots=True)
class DecisionPerson:
    """The person whose decisions are looked for.

    ids         entity -> id. A row must have all of them.
    entities    model -> version label -> the entities of its rows, in order.
    key_hashes  model -> key hashes that the person's id makes.
    """

    ids: Mapping[str, str]
    entities: Mapping[str, Mapping[str, tuple[str, ...]]]
    key_hashes: Mapping[str, frozenset[int]]

    @property
    def longest_id(self) -> str:
        """The id that says least often by chance that a row of an unknown version may be theirs."""
        return max(self.ids.values(), key=len)

    def positions(self, model: str, version: str) -> dict[int, str] | None:
        """Return position -> id in the rows of a version; None: its entities are not known.

        Empty where the rows have not all of the named entities. What the keys of models elsewhere
        are is not known, so they may be any one entity.
        """
        if is_outside_version(version):
            return dict(enumerate(self.ids.values())) if len(self.ids) == 1 else {}
        entities = self.entities.get(model, {}).get(version)
        if entities is None:
            return None
        if not self.ids.keys() <= set(entities):
            return {}
        return {place: self.ids[name] for place, name in enumerate(entities) if name in self.ids}

    def all_positions(self) -> dict[str, set[frozenset[tuple[int, str]]]]:
        """Return model -> the (position, id) pairs in rows of each of its versions."""
        found = {
            model: {frozenset((self.positions(model, label) or {}).items()) for label in versions}
            for model, versions in self.entities.items()
        }
        return {model: {pairs for pairs in sets if pairs} for model, sets in found.items()}


@dataclass(slots=True)
class FoundCalls:
    """The calls of a person."""

    prediction_ids: dict[str, set[bytes]] = field(default_factory=dict)
    """Model -> the ids of the person's calls."""
    rows: int = 0
    """The rows of these calls, other people's among them."""
    unknown_rows: int = 0
    """Rows with an id of the person, of a version whose entities are not known. They stay."""

    @property
    def calls(self) -> int:
        """How many calls there are; what shadows scored of a call has the call's id."""
        return sum(len(ids) for ids in self.prediction_ids.values())

    def add_calls(self, model: str, ids: Collection[bytes]) -> None:
        """Add the ids of calls of one model."""
        if ids:
            self.prediction_ids.setdefault(model, set()).update(ids)


def find_in_block(block: pb.DecisionBlock, person: DecisionPerson, found: FoundCalls) -> None:
    """Add the person's calls in a block to *found*."""
    columns = unpack_decisions(block)
    hashes = np.array(sorted(person.key_hashes.get(block.model, ())), dtype=np.uint64)
    taken = np.isin(columns.key_hash, hashes)
    texts = np.array(columns.entity_ids, dtype=object).reshape(len(columns), block.entities)
    positions = person.positions(block.model, block.version)
    if positions is None:
        unknown = (texts == person.longest_id).any(axis=1) & ~taken
        found.unknown_rows += int(np.count_nonzero(unknown))
    elif positions and max(positions) < block.entities:
        named = [texts[:, place] == text for place, text in positions.items()]
        taken |= np.logical_and.reduce(named)
    ids = _ids_of(columns)
    found.add_calls(block.model, {ids[row] for row in np.flatnonzero(taken).tolist()})


def rows_in_block(block: pb.DecisionBlock, ids: PredictionIds) -> NDArray[np.bool_]:
    """Return (R,) which rows of a block have one of these prediction ids."""
    columns = unpack_decisions(block)
    return np.array([item in ids for item in _ids_of(columns)], dtype=np.bool_)


def block_of_rows(block: pb.DecisionBlock, kept: NDArray[np.bool_]) -> pb.DecisionBlock:
    """Return a block with the (R,) *kept* rows of another one."""
    columns = unpack_decisions(block)
    texts = np.array(columns.entity_ids, dtype=object).reshape(len(columns), block.entities)
    arrays = {
        name: getattr(columns, name)[kept]
        for name in DecisionRows.__slots__
        if name != "entity_ids"
    }
    names = pb.DecisionBlock(
        model=block.model,
        version=block.version,
        version_digest=block.version_digest,
        day=block.day,
        entities=block.entities,
    )
    rows = replace(columns, **arrays, entity_ids=tuple(texts[kept].ravel().tolist()))
    return pack_decisions(rows, names)


def find_in_model_files(
    paths: Sequence[Path], model: str, person: DecisionPerson, found: FoundCalls
) -> None:
    """Add the person's calls in files of one model to *found*. Raises duckdb.Error."""
    import duckdb

    if not paths:
        return
    mine, unknown, values = _conditions(model, person)
    names = [str(path) for path in paths]
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT prediction_id, bool_or(mine), count(*) FILTER (unknown) FROM (SELECT "
            f"prediction_id, coalesce({mine}, false) AS mine, coalesce({unknown}, false) AS "
            "unknown FROM read_parquet($names)) WHERE mine OR unknown GROUP BY prediction_id",
            {"names": names, **values},
        ).fetchall()
    found.add_calls(model, {row[0] for row in rows if row[1]})
    found.unknown_rows += sum(row[2] for row in rows if not row[1])


def count_in_files(paths: Sequence[Path], ids: PredictionIds) -> int:
    """Return how many rows of files have one of these prediction ids. Raises duckdb.Error."""
    if not paths or not ids:
        return 0
    with connection_with(ids) as connection:
        return _count(connection, [str(path) for path in paths])


def write_without_calls(path: Path, new: Path, ids: PredictionIds) -> int | None:
    """Write the rows of a file that have none of these prediction ids to the file *new*.

    Return how many rows are left; 0: no file was written. None: the file has no such row, and
    nothing was written. Raises duckdb.Error.
    """
    with connection_with(ids) as connection:
        removed = _count(connection, [str(path)])
        if not removed:
            return None
        (rows,) = connection.execute(
            "SELECT count(*) FROM read_parquet($1)", [[str(path)]]
        ).fetchone()
        if removed < rows:
            with replacing_file(new) as beside:
                beside.touch(mode=0o600)
                left = "ANTI JOIN gone USING (id_hash, prediction_id)"
                copy_sorted(connection, f"SELECT * FROM read_parquet('{path}') {left}", beside)
            fsync_folder(new.parent)
    return int(rows - removed)


def _conditions(model: str, person: DecisionPerson) -> tuple[str, str, dict[str, Any]]:
    """Return two conditions in SQL, and their values.

    The first is that a row is the person's, the second that it may be and its version is unknown.
    """
    versions: dict[tuple[tuple[int, str], ...], list[str]] = {}
    known = sorted(person.entities.get(model, {}))
    for version in known:
        positions = person.positions(model, version) or {}
        versions.setdefault(tuple(positions.items()), []).append(version)
    # Each combination of positions has versions of its own.
    values: dict[str, Any] = {
        "hashes": sorted(person.key_hashes.get(model, ())),
        "known": known,
        "longest": person.longest_id,
    }
    mine = ["list_contains($hashes::UBIGINT[], key_hash)"]
    for number, (positions_of, labels) in enumerate(versions.items()):
        if not positions_of:
            continue
        values[f"labels{number}"] = labels
        parts = [f"list_contains($labels{number}::VARCHAR[], version)"]
        for place, text in positions_of:
            values[f"id{number}_{place}"] = text
            parts.append(f"entity_ids[{place + 1}] = $id{number}_{place}")
        mine.append(f"({' AND '.join(parts)})")
    # The key of a model elsewhere may be any one entity.
    outside = f"(version = '{ELSEWHERE}' OR starts_with(version, '{ELSEWHERE}:'))"
    if len(person.ids) == 1:
        mine.append(f"({outside} AND entity_ids[1] = $longest)")
    unknown = (
        f"NOT list_contains($known::VARCHAR[], version) AND NOT {outside} "
        "AND list_contains(entity_ids, $longest)"
    )
    return " OR ".join(mine), unknown, values


def _ids_of(columns: DecisionRows) -> list[bytes]:
    """Return the prediction id of each row."""
    joined = columns.prediction_id.tobytes()
    return [joined[start : start + ID_BYTES] for start in range(0, len(joined), ID_BYTES)]


def connection_with(ids: PredictionIds) -> Any:  # noqa: ANN401  duckdb has no types
    """Return a connection whose table `gone` has these prediction ids."""
    import duckdb

    connection = duckdb.connect()
    table = {
        "id_hash": np.array([xxh3_64_intdigest(item) for item in ids], dtype=np.uint64),
        "prediction_id": np.array(list(ids), dtype=object),
    }
    connection.execute("CREATE TABLE gone (id_hash UBIGINT, prediction_id BLOB)")
    connection.register("ids", table)
    connection.execute("INSERT INTO gone SELECT id_hash, prediction_id FROM ids")
    connection.unregister("ids")
    return connection


def _count(connection: Any, names: list[str]) -> int:  # noqa: ANN401  duckdb has no types
    query = "SELECT count(*) FROM read_parquet($1) SEMI JOIN gone USING (id_hash, prediction_id)"
    return int(connection.execute(query, [names]).fetchone()[0])
