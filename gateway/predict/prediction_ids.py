"""Prediction ids: 64 sealed bytes a call, made for a whole answer at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Answer, Batch
from gateway.models.routes import LoadedVersion, Routes
from gateway.native_library import load_native_library
from gateway.worker_identity import WorkerIdentity
from journal.prediction_id import (
    HOLDOUT_BIT,
    hash_model_name,
    masking_key,
    pack_body,
    sealing_key,
    write_prediction_id,
    write_prediction_ids,
)
from journal.score_code import ScoreRule
from protos.predict_pb2 import PRODUCTION

WriteIds = Callable[
    [
        bytes,
        bytes,
        int,
        NDArray[np.uint64],
        bytes | None,
        NDArray[np.float32],
        NDArray[np.uint32],
        ScoreRule,
        bytes,
        bytes | None,
    ],
    bytes,
]
"""The signature of journal.prediction_id.write_prediction_ids and of its native twin."""
WRITE_IDS: WriteIds = getattr(load_native_library(), "prediction_ids", write_prediction_ids)


class PredictionIdWriter:
    """Makes the prediction ids of one worker. An id is unique for the worker's life."""

    def __init__(self, identity: WorkerIdentity) -> None:
        self._identity = identity
        self._sequence = 0

    def write(self, batch: Batch, answer: Answer, at_unix_ms: int) -> bytes:
        """Return the ids of the calls of *answer*, concatenated in order, 64 bytes each."""
        identity, calls = self._identity, answer.batch_slice.call_indexes
        key_hashes, first = batch.assignment.key_hash[calls], self._sequence
        holdout, key = batch.assignment.holdout, identity.prediction_id_key
        sealed = batch.routes.limits.hide_role
        self._sequence += len(key_hashes)
        body = pack_body(
            sealed=sealed,
            role=answer.role,
            slot=identity.slot,
            model_hash=hash_model_name(batch.routes.model),
            version=answer.version.id[:8],
            revision=batch.routes.deployment.revision,
            at_ms=at_unix_ms,
            boot_id=identity.boot_id,
        )
        return WRITE_IDS(
            key,
            body,
            first & 0xFFFF_FFFF,
            key_hashes,
            None if holdout is None else holdout[calls].tobytes(),
            answer.scores,
            answer.batch_slice.row_offsets,
            batch.routes.score_rule(answer.version),
            masking_key(key),
            sealing_key(key) if sealed else None,
        )

    def write_single(
        self,
        routes: Routes,
        version: LoadedVersion,
        key_hash: int,
        score: float,
        *,
        holdout: bool,
        at_unix_ms: int,
    ) -> bytes:
        """Return the 64-byte id of one call of one row that production answers outside any batch.

        score  the first output.
        """
        # Take the next sequence number, which batches share.
        identity = self._identity
        sequence = self._sequence
        self._sequence += 1
        # Write the id of a call of one row.
        return write_prediction_id(
            identity.prediction_id_key,
            sealed=routes.limits.hide_role,
            role=PRODUCTION | HOLDOUT_BIT if holdout else PRODUCTION,
            slot=identity.slot,
            sequence=sequence & 0xFFFF_FFFF,
            model_hash=hash_model_name(routes.model),
            version=version.id[:8],
            revision=routes.deployment.revision,
            at_ms=at_unix_ms,
            key_hash=key_hash,
            boot_id=identity.boot_id,
            rows=1,
            score=score,
            rule=routes.score_rule(version),
        )
