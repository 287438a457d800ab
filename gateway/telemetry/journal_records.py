"""What was served, as the journal keeps it: many answers of one version as one record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.key_column import KeyColumn
from gateway.models.executor import NO_FAULT
from gateway.models.routes import LoadedVersion, Routes
from gateway.predict.batch import Answer, Batch, Index
from gateway.telemetry.observations import Observations
from protos.journal_pb2 import ServedBatch
from protos.predict_pb2 import PRODUCTION


@dataclass(slots=True)
class ServedAnswer:
    """One version's answers in one batch."""

    batch: Batch
    answer: Answer
    matrix: NDArray[np.float32]
    """(R, F) exactly as the version saw it."""


class SingleCallRow(NamedTuple):
    """What is known about the row of a lone call."""

    matrix: NDArray[np.float32]
    """(1, W)."""
    flags: int
    """turnout.v1.RowFlag bits."""
    broken: int
    read_failure: str
    """As gateway.predict.feature_lookup.Looked has them."""


class SingleCallAnswer(NamedTuple):
    """What is to be counted and kept of one call of one row, answered by production.

    A tuple: it is made while the caller still waits, and is made in a third of a class's time.
    """

    routes: Routes
    version: LoadedVersion
    key_hash: int
    holdout: bool
    latency_ns: int
    """From arrival to answer."""
    at_unix_ns: int
    read_unix_ns: int
    scores: list[float]
    """(K,), all finite."""
    flags: int
    """The row's, and NOT_STICKY of the call."""
    row: SingleCallRow
    prediction_id: bytes
    ids: list[bytes]
    """The row's entities."""
    matrix: NDArray[np.float32]
    """(1, F) exactly as the version saw it."""


def single_call_observations(answers: Sequence[SingleCallAnswer]) -> Observations:
    """Lay lone answers of one version out as if they had been a batch."""
    held_out = None
    if answers[0].routes.deployment.holdout_bp:
        held_out = np.array([one.holdout for one in answers], dtype=np.bool_)
    return Observations(
        key_hash=np.array([one.key_hash for one in answers], dtype=np.uint64),
        faults=np.full(len(answers), NO_FAULT, dtype=np.uint8),
        holdout=held_out,
        latency_ns=np.array([one.latency_ns for one in answers], dtype=np.int64),
        scores=np.array([one.scores[0] for one in answers], dtype=np.float32),
        expected=None,
        row_offsets=np.arange(len(answers) + 1, dtype=np.uint32),
        flags=np.array([one.flags for one in answers], dtype=np.uint32),
        broken=sum(one.row.broken for one in answers),
    )


def single_call_record(answers: Sequence[SingleCallAnswer]) -> ServedBatch:
    """Lay lone answers of one version, at one revision, out as one record."""
    version, deployment = answers[0].version, answers[0].routes.deployment
    vectors = np.concatenate([one.matrix for one in answers])
    return ServedBatch(
        model=deployment.model,
        version=version.label,
        version_digest=version.digest8,
        revision=deployment.revision,
        at_unix_ns=np.array([one.read_unix_ns for one in answers], dtype="<i8").tobytes(),
        role=bytes([PRODUCTION] * len(answers)),
        row_count=np.ones(len(answers), dtype="<u4").tobytes(),
        prediction_ids=b"".join([one.prediction_id for one in answers]),
        key_hash=np.array([one.key_hash for one in answers], dtype="<u8").tobytes(),
        row_flags=np.array([one.flags for one in answers], dtype="<u4").tobytes(),
        width=vectors.shape[1],
        vectors=vectors.astype("<f4", copy=False).tobytes(),
        outputs=len(answers[0].scores),
        scores=np.array([one.scores for one in answers], dtype="<f4").tobytes(),
        entity_ids=[entity.decode() for one in answers for entity in one.ids],
        model_contract=version.bundle.contract.model_contract,
    )


@dataclass(slots=True)
class ServedColumns:
    """Some answers of one version, at one revision: C calls, R rows."""

    routes: Routes
    version: LoadedVersion
    read_unix_ns: NDArray[np.int64]
    """(C,) when their features were judged for staleness."""
    role: NDArray[np.uint8]
    """(C,)."""
    row_count: NDArray[np.intp]
    """(C,)."""
    prediction_ids: bytes
    key_hash: NDArray[np.uint64]
    """(C,)."""
    row_flags: NDArray[np.uint32]
    """(R,)."""
    vectors: NDArray[np.float32]
    """(R, F) exactly as the version saw them."""
    scores: NDArray[np.float32]
    """(R, K)."""
    entity_ids: bytes
    """On the wire (gateway.key_column.Keys.entity_ids)."""


def served_batch_header(
    routes: Routes, version: LoadedVersion, width: int, outputs: int
) -> ServedBatch:
    """Return what a ServedBatch says of all its answers; *width*: of what the version sees."""
    return ServedBatch(
        model=routes.deployment.model,
        version=version.label,
        version_digest=version.digest8,
        revision=routes.deployment.revision,
        width=width,
        outputs=outputs,
        model_contract=version.bundle.contract.model_contract,
    )


def encode_served_batch(served: ServedColumns) -> bytes:
    """Lay answers out as one ServedBatch's bytes."""
    width, outputs = served.vectors.shape[1], served.scores.shape[1]
    batch = served_batch_header(served.routes, served.version, width, outputs)
    batch.at_unix_ns = served.read_unix_ns.astype("<i8", copy=False).tobytes()
    batch.role = served.role.tobytes()
    batch.row_count = served.row_count.astype("<u4").tobytes()
    batch.prediction_ids = served.prediction_ids
    batch.key_hash = served.key_hash.astype("<u8", copy=False).tobytes()
    batch.row_flags = served.row_flags.astype("<u4", copy=False).tobytes()
    batch.vectors = served.vectors.astype("<f4", copy=False).tobytes()
    batch.scores = served.scores.astype("<f4", copy=False).tobytes()
    return b"".join([batch.SerializeToString(), served.entity_ids])


def encode_served_answers(answers: Sequence[ServedAnswer]) -> bytes:
    """Lay the answers of one version, at one revision, out as one ServedBatch's bytes."""
    first = answers[0]
    calls = [len(one.answer.part) for one in answers]
    return encode_served_batch(
        ServedColumns(
            routes=first.batch.routes,
            version=first.answer.version,
            read_unix_ns=np.repeat([one.batch.read_unix_ns for one in answers], calls),
            role=np.repeat([one.answer.role for one in answers], calls).astype(np.uint8),
            row_count=np.concatenate([one.answer.part.rows_per_call for one in answers]),
            prediction_ids=b"".join([one.answer.prediction_ids for one in answers]),
            key_hash=np.concatenate([_key_hashes(one) for one in answers]),
            row_flags=np.concatenate([one.answer.flags for one in answers]),
            vectors=np.concatenate([one.matrix for one in answers]),
            scores=np.concatenate([one.answer.scores for one in answers]),
            entity_ids=b"".join([_entities(one).to_entity_ids_field() for one in answers]),
        )
    )


def _key_hashes(served: ServedAnswer) -> NDArray[np.uint64]:
    return served.batch.assignment.key_hash[served.answer.part.call_indexes]


def _entities(served: ServedAnswer) -> KeyColumn:
    part = served.answer.part
    return select_entity_ids(
        KeyColumn.from_entity_ids(served.batch.calls), served.batch.routes, part.row_indexes
    )


def select_entity_ids(keys: KeyColumn, routes: Routes, rows: Index) -> KeyColumn:
    """Every id of every row of *rows*, row by row."""
    if isinstance(rows, slice):
        return keys
    entities = routes.shape.entities
    return keys.select((rows[:, None] * entities + np.arange(entities)).ravel())
