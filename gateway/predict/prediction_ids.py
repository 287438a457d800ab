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
    """Makes the prediction ids of one worker. An id is unique for the worker's life.

    reserve  returns the first of so many sequence numbers, if the I/O thread takes numbers, too.
    """

    def __init__(
        self, identity: WorkerIdentity, reserve: Callable[[int], int] | None = None
    ) -> None:
        self._identity = identity
        self._sequence = 0
        self.reserve = reserve or self._reserve
        """Returns the first of the next so many sequence numbers, modulo 2^32."""

    @property
    def slot(self) -> int:
        """The worker's slot, which each id has."""
        return self._identity.slot

    @property
    def keys(self) -> tuple[bytes, bytes, bytes]:
        """The cluster's key, and the keys that mask scores and seal ids."""
        key = self._identity.prediction_id_key
        return key, masking_key(key), sealing_key(key)

    def _reserve(self, calls: int) -> int:
        first = self._sequence
        self._sequence += calls
        return first & 0xFFFF_FFFF

    def body(self, routes: Routes, version: LoadedVersion, role: int, *, at_unix_ms: int) -> bytes:
        """Return what the ids of one answer share (journal.prediction_id.pack_body)."""
        return pack_body(
            sealed=routes.limits.hide_role,
            role=role,
            slot=self._identity.slot,
            model_hash=hash_model_name(routes.model),
            version=version.id[:8],
            revision=routes.deployment.revision,
            at_ms=at_unix_ms,
            boot_id=self._identity.boot_id,
        )

    def write(self, batch: Batch, answer: Answer, at_unix_ms: int) -> bytes:
        """Return the ids of the calls of *answer*, concatenated in order, 64 bytes each."""
        calls, routes = answer.batch_slice.call_indexes, batch.routes
        key_hashes = batch.assignment.key_hash[calls]
        holdout, key = batch.assignment.holdout, self._identity.prediction_id_key
        return WRITE_IDS(
            key,
            self.body(routes, answer.version, answer.role, at_unix_ms=at_unix_ms),
            self.reserve(len(key_hashes)),
            key_hashes,
            None if holdout is None else holdout[calls].tobytes(),
            answer.scores,
            answer.batch_slice.row_offsets,
            routes.score_rule(answer.version),
            masking_key(key),
            sealing_key(key) if routes.limits.hide_role else None,
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
        sequence = self.reserve(1)
        # Write the id of a call of one row.
        return write_prediction_id(
            identity.prediction_id_key,
            sealed=routes.limits.hide_role,
            role=PRODUCTION | HOLDOUT_BIT if holdout else PRODUCTION,
            slot=identity.slot,
            sequence=sequence,
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
