"""Served vectors and scores as the journal keeps them: many answers of one version in one record.

C is the number of calls in a record, R the number of their rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Answer, Batch, BatchSlice
from gateway.key_column import KEY_SAMPLE_ALL, KeyColumn, in_key_sample
from gateway.models.executor import Scored
from gateway.models.routes import LoadedVersion, Routes
from gateway.telemetry.folding import FoldedReplies
from gateway.telemetry.shadow_copies import ShadowCopies, select_entity_ids
from journal.prediction_id import LENGTH
from protos.journal_pb2 import UNSEEN_SHADOW, ServedBatch

NO_ANSWER_ID = np.zeros((), dtype=f"V{LENGTH}")
"""Stands for the prediction id of a call that got no answer."""


@dataclass(slots=True)
class ServedColumns:
    """Answers of one version at one revision, as columns: C calls with R rows."""

    routes: Routes
    version: LoadedVersion
    read_unix_ns: NDArray[np.int64]
    """(C,) when the age of the call's features was judged."""
    role: NDArray[np.uint8]
    """(C,) turnout.v1.Role."""
    row_count: NDArray[np.intp]
    """(C,) rows of each call."""
    prediction_ids: bytes
    """64 bytes a call."""
    key_hash: NDArray[np.uint64]
    """(C,) evidence keys."""
    row_flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits."""
    vectors: NDArray[np.float32]
    """(R, F) the inputs exactly as the version got them."""
    scores: NDArray[np.float32]
    """(R, K) scores of the version."""
    entity_ids: bytes
    """The encoded field ServedBatch.entity_ids (KeyColumn.to_entity_ids_field)."""
    production_scores: NDArray[np.float32] | None = None
    """(R, K) what production scored the same rows; None where no other version scored them."""


def served_batch_header(
    routes: Routes, version: LoadedVersion, width: int, outputs: int
) -> ServedBatch:
    """Return the fields of a ServedBatch that hold for all its answers.

    width  F, the number of inputs of the version.
    """
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
    """Return the bytes of a ServedBatch."""
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
    if served.production_scores is not None:
        batch.production_scores = served.production_scores.astype("<f4", copy=False).tobytes()
    return b"".join([batch.SerializeToString(), served.entity_ids])


class ServedAnswer(NamedTuple):
    """A reply record: the answers of one version in one batch, for the journal."""

    batch: Batch
    answer: Answer
    vectors: NDArray[np.float32]
    """(rows, F) the inputs exactly as the version got them."""
    at_unix_ns: int

    @property
    def routes(self) -> Routes:
        """The routes under which the calls were answered."""
        return self.batch.routes

    @property
    def group(self) -> tuple[str, bool]:
        """Answers of one version are kept together, those with production's scores apart."""
        return self.answer.version.label, self.answer.production_scores is not None

    @property
    def rows(self) -> int:
        """How many rows were served."""
        return len(self.vectors)

    @staticmethod
    def fold(records: "Sequence[ServedAnswer]") -> FoldedReplies:
        """Encode the answers of several batches as one journal record."""
        first = records[0]
        calls = [len(record.answer.batch_slice) for record in records]
        slices = [record.answer.batch_slice for record in records]
        paired = [record.answer.production_scores for record in records]
        production_scores = [scores for scores in paired if scores is not None]
        served = ServedColumns(
            routes=first.routes,
            version=first.answer.version,
            read_unix_ns=np.repeat([record.batch.read_unix_ns for record in records], calls),
            role=np.repeat([record.answer.role for record in records], calls).astype(np.uint8),
            row_count=np.concatenate([part.rows_per_call for part in slices]),
            prediction_ids=b"".join([record.answer.prediction_ids for record in records]),
            key_hash=np.concatenate([_key_hashes(record) for record in records]),
            row_flags=np.concatenate([record.answer.flags for record in records]),
            vectors=np.concatenate([record.vectors for record in records]),
            scores=np.concatenate([record.answer.scores for record in records]),
            entity_ids=b"".join([_entity_ids(record) for record in records]),
            production_scores=np.concatenate(production_scores) if production_scores else None,
        )
        return FoldedReplies(journal_records=[encode_served_batch(served)])


def sample_served(
    batch: Batch, answer: Answer, vectors: NDArray[np.float32], at_unix_ns: int
) -> ServedAnswer | None:
    """Return what the journal keeps of an answer: the calls of sampled keys. None: no call."""
    sampled = batch.routes.limits.journal_sampled
    if sampled >= KEY_SAMPLE_ALL:
        return ServedAnswer(batch, answer, vectors, at_unix_ns)
    batch_slice = answer.batch_slice
    key_hash = batch.assignment.key_hash[batch_slice.call_indexes]
    calls = np.flatnonzero(in_key_sample(key_hash, sampled))
    if not len(calls):
        return None
    rows = BatchSlice.from_calls(calls, batch_slice.row_offsets).row_indexes
    kept = Answer(
        batch_slice.subset(calls),
        answer.version,
        answer.role,
        answer.scores[rows],
        answer.flags[rows],
        np.frombuffer(answer.prediction_ids, dtype="V64")[calls].tobytes(),
        None if answer.production_scores is None else answer.production_scores[rows],
    )
    return ServedAnswer(batch, kept, vectors[rows], at_unix_ns)


def encode_shadow_scores(copies: ShadowCopies, scored: Scored) -> tuple[bytes, int] | None:
    """Return the ServedBatch of what a shadow scored, and its number of calls. None: no call.

    It has the calls of keys in the journal's sample that the shadow scored with finite numbers and
    whose caller got an answer, with the prediction ids of these answers.

    scored  the shadow's result for *copies*.
    """
    # The calls that are kept, and their rows.
    ids = np.frombuffer(copies.prediction_ids, dtype=f"V{LENGTH}")
    sampled = in_key_sample(copies.key_hash, copies.routes.limits.journal_sampled)
    calls = np.flatnonzero(sampled & scored.answered & (ids != NO_ANSWER_ID))
    if not len(calls):
        return None
    kept = BatchSlice.from_calls(calls, copies.row_offsets)
    rows = kept.row_indexes
    # As columns, with the role that no caller sees.
    served = ServedColumns(
        routes=copies.routes,
        version=copies.version,
        read_unix_ns=copies.read_unix_ns[calls],
        role=np.full(len(calls), UNSEEN_SHADOW, dtype=np.uint8),
        row_count=kept.rows_per_call,
        prediction_ids=ids[calls].tobytes(),
        key_hash=copies.key_hash[calls],
        row_flags=copies.flags[rows],
        vectors=copies.matrix[rows],
        scores=scored.scores[rows],
        entity_ids=select_entity_ids(copies.entity_ids, copies.routes, rows).to_entity_ids_field(),
        production_scores=copies.production_scores[rows],
    )
    return encode_served_batch(served), len(calls)


def _key_hashes(record: ServedAnswer) -> NDArray[np.uint64]:
    return record.batch.assignment.key_hash[record.answer.batch_slice.call_indexes]


def _entity_ids(record: ServedAnswer) -> bytes:
    ids = KeyColumn.from_entity_ids(record.batch.calls)
    rows = record.answer.batch_slice.row_indexes
    return select_entity_ids(ids, record.routes, rows).to_entity_ids_field()
