"""What was served, as the journal keeps it: many batches of one version as one record."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Answer, Batch
from protos.journal_pb2 import ServedBatch


@dataclass(slots=True)
class Served:
    """One version's answers in one batch."""

    batch: Batch
    answer: Answer
    matrix: NDArray[np.float32]
    """(R, F) exactly as the version saw it."""


def record_of(several: Sequence[Served]) -> ServedBatch:
    """Lay the answers of one version, at one revision, out as one record."""
    first = several[0]
    version, deployment = first.answer.version, first.batch.routes.deployment
    scores = np.concatenate([one.answer.scores for one in several])
    vectors = np.concatenate([one.matrix for one in several])
    calls = [len(one.answer.part) for one in several]
    return ServedBatch(
        model=deployment.model,
        version=version.label,
        version_digest=version.digest8,
        revision=deployment.revision,
        at_unix_ns=np.repeat([one.batch.read_unix_ns for one in several], calls)
        .astype("<i8")
        .tobytes(),
        role=np.repeat([one.answer.role for one in several], calls).astype(np.uint8).tobytes(),
        row_count=np.concatenate([one.answer.part.rows_per_call for one in several])
        .astype("<u4")
        .tobytes(),
        prediction_ids=b"".join([one.answer.prediction_ids for one in several]),
        key_hash=np.concatenate([_key_hashes(one) for one in several]).astype("<u8").tobytes(),
        row_flags=np.concatenate([one.answer.flags for one in several]).astype("<u4").tobytes(),
        width=vectors.shape[1],
        vectors=vectors.astype("<f4", copy=False).tobytes(),
        outputs=scores.shape[1],
        scores=scores.astype("<f4", copy=False).tobytes(),
        entity_ids=[one_id for one in several for one_id in _entity_ids(one)],
        model_contract=version.bundle.contract.model_contract,
    )


def _key_hashes(one: Served) -> NDArray[np.uint64]:
    return one.batch.assignment.key_hash[one.answer.part.calls]


def _entity_ids(one: Served) -> list[str]:
    """Every id of every row, row by row."""
    calls, entities = one.batch.calls, one.batch.routes.shape.entities
    if isinstance(one.answer.part.rows, slice):
        offsets = calls.entity_offsets.tolist()
        return [calls.entity_ids[a:b].decode() for a, b in pairwise(offsets)]
    items = (one.answer.part.rows[:, None] * entities + np.arange(entities)).ravel()
    starts = calls.entity_offsets[items].tolist()
    ends = calls.entity_offsets[items + 1].tolist()
    buffer = calls.entity_ids
    return [buffer[start:end].decode() for start, end in zip(starts, ends, strict=True)]
