"""Which served calls and outcomes are a person's, and a record of calls without them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from journal.prediction_id import LENGTH, PredictionIdError, hash_model_name, read_prediction_id
from journal.served import is_shadow_record
from protos.journal_pb2 import OutcomeRecord, ServedBatch


@dataclass(frozen=True)
class Person:
    """The person whose records are looked for.

    ids                entity -> id. A row must have all of them.
    entities           (model, model contract in hex) -> the entities of its rows, in order.
    key_hashes         model -> evidence keys that the id alone makes. Prediction ids have them.
    prediction_id_key  the cluster's 32 bytes.
    """

    ids: Mapping[str, str]
    entities: Mapping[tuple[str, str], tuple[str, ...]]
    key_hashes: Mapping[str, frozenset[int]]
    prediction_id_key: bytes

    @cached_property
    def marks(self) -> list[bytes]:
        """Bytes of which a record has one at least if it has to do with the person."""
        hashes = {item for hashes in self.key_hashes.values() for item in hashes}
        longest = max(self.ids.values(), key=len)
        return [longest.encode(), *(item.to_bytes(8, "little") for item in hashes)]

    @cached_property
    def hashes_by_model(self) -> dict[int, frozenset[int]]:
        """Hash of a model's name, as prediction ids have it -> evidence keys."""
        return {hash_model_name(model): hashes for model, hashes in self.key_hashes.items()}

    @cached_property
    def entities_by_model(self) -> dict[str, set[tuple[str, ...]]]:
        """The entities of each model's contracts; they differ between versions."""
        found: dict[str, set[tuple[str, ...]]] = {}
        for (model, _), entities in self.entities.items():
            found.setdefault(model, set()).add(entities)
        return found

    def positions(self, entities: tuple[str, ...]) -> dict[int, str]:
        """Return position -> id among *entities*; empty unless they have all that is named."""
        if not self.ids.keys() <= set(entities):
            return {}
        return {index: self.ids[name] for index, name in enumerate(entities) if name in self.ids}


class ServedPart(NamedTuple):
    """The calls of a person in one record."""

    rest: bytes | None
    """The record without these calls. The same object if there are none, None if none is left."""
    prediction_ids: tuple[bytes, ...] = ()
    rows: int = 0
    """The rows of these calls."""
    shadow: bool = False
    """Whether a shadow scored them, and another record has their answers."""
    unknown: bool = False
    """Whether the record has the id, and its contract is unknown."""


def take_served(payload: bytes, person: Person) -> ServedPart:
    """Return the calls of *person* in a ServedBatch, and the record without them.

    A record with the id that cannot be parsed is of no use, and nothing is left of it.
    """
    # Most records are not the person's. Bytes are compared a thousand times faster than parsed.
    if not any(mark in payload for mark in person.marks):
        return ServedPart(payload)
    try:
        batch = ServedBatch.FromString(payload)
    except DecodeError:
        return ServedPart(None)
    entities = person.entities.get((batch.model, batch.model_contract))
    if entities is None:
        return ServedPart(payload, unknown=True)
    # A call is the person's by one of its rows, or by the key that stands for it in the split.
    row_count = np.frombuffer(batch.row_count, dtype="<u4")
    call_of_row = np.repeat(np.arange(len(row_count)), row_count)
    keys = np.frombuffer(batch.key_hash, dtype="<u8")
    taken = np.isin(keys, np.array(sorted(person.key_hashes.get(batch.model, ())), dtype="<u8"))
    taken[call_of_row[_rows_of(batch, entities, len(call_of_row), person)]] = True
    if not taken.any():
        return ServedPart(payload)
    # What is left has every column of the other calls.
    ids = [batch.prediction_ids[LENGTH * call :][:LENGTH] for call in np.flatnonzero(taken)]
    rest = None if taken.all() else _selected(batch, ~taken, ~taken[call_of_row])
    rows = int(row_count[taken].sum())
    return ServedPart(rest, tuple(ids), rows, shadow=is_shadow_record(batch))


def is_outcome_of(payload: bytes, person: Person, prediction_ids: Collection[bytes]) -> bool:
    """Whether an OutcomeRecord is about *person*: by keys, or by the id of one of its predictions.

    prediction_ids  of the person's served calls.

    A prediction id has an evidence key, which the person's id makes, so that calls that no journal
    has any more are found. A record with the id that cannot be parsed counts as the person's.
    """
    try:
        record = OutcomeRecord.FromString(payload)
    except DecodeError:
        return any(mark in payload for mark in person.marks)
    prediction_id = record.prediction_id
    if not prediction_id:
        keys = list(record.keys)
        return any(
            len(entities) == len(keys)
            and bool(positions := person.positions(entities))
            and all(keys[position] == text for position, text in positions.items())
            for entities in person.entities_by_model.get(record.model, ())
        )
    if prediction_id in prediction_ids:
        return True
    try:
        prediction = read_prediction_id(prediction_id, person.prediction_id_key)
    except PredictionIdError:
        return False  # of another system
    return prediction.key_hash in person.hashes_by_model.get(prediction.model_hash, ())


def _rows_of(
    batch: ServedBatch, entities: tuple[str, ...], rows: int, person: Person
) -> NDArray[np.bool_]:
    """Return (rows,) bool: the rows with all ids of the person."""
    positions = person.positions(entities)
    if not positions:
        return np.zeros(rows, dtype=np.bool_)
    ids = np.array(batch.entity_ids, dtype=object).reshape(rows, len(entities))
    matches = np.ones(rows, dtype=np.bool_)
    for position, text in positions.items():
        matches &= ids[:, position] == text
    return matches


def _selected(batch: ServedBatch, calls: NDArray[np.bool_], rows: NDArray[np.bool_]) -> bytes:
    """Return the batch with these calls and these rows only, serialised."""
    rest = ServedBatch()
    rest.CopyFrom(batch)
    for name in ("at_unix_ns", "role", "row_count", "prediction_ids", "key_hash"):
        setattr(rest, name, _kept(getattr(batch, name), calls))
    for name in ("row_flags", "vectors", "scores", "production_scores"):
        setattr(rest, name, _kept(getattr(batch, name), rows))
    if batch.entity_ids:
        ids = np.array(batch.entity_ids, dtype=object).reshape(len(rows), -1)
        del rest.entity_ids[:]
        rest.entity_ids.extend(ids[rows].ravel().tolist())
    return rest.SerializeToString()


def _kept(column: bytes, kept: NDArray[np.bool_]) -> bytes:
    """Return the items of a column that are kept; all items have the same number of bytes."""
    items = np.frombuffer(column, dtype=np.uint8).reshape(len(kept), -1)
    return items[kept].tobytes()
