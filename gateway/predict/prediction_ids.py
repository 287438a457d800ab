"""Prediction ids: 64 sealed bytes a call, made for a whole answer at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Answer, Batch
from gateway.models.routes import LoadedVersion, Routes
from gateway.native_library import load_native_library
from gateway.worker_identity import WorkerIdentity
from journal.prediction_id import (
    BODY,
    FORMAT,
    HOLDOUT_BIT,
    SEALED_FORMAT,
    hash_model_name,
    sealing_key,
    write_prediction_id,
    write_prediction_ids,
)
from protos.predict_pb2 import PRODUCTION

WriteIds = Callable[[bytes, bytes, int, NDArray[np.uint64], bytes | None, bytes | None], bytes]
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
        return WRITE_IDS(
            key,
            BODY.pack(
                SEALED_FORMAT if sealed else FORMAT,
                answer.role,
                identity.slot,
                0,
                hash_model_name(batch.routes.model),
                answer.version.id[:8],
                batch.routes.deployment.revision,
                at_unix_ms,
                0,
                identity.boot_id,
            ),
            first & 0xFFFF_FFFF,
            key_hashes,
            None if holdout is None else holdout[calls].tobytes(),
            sealing_key(key) if sealed else None,
        )

    def write_single(
        self,
        routes: Routes,
        version: LoadedVersion,
        key_hash: int,
        *,
        holdout: bool,
        at_unix_ms: int,
    ) -> bytes:
        """Return the 64-byte id of one call that production answers outside any batch."""
        identity = self._identity
        sequence = self._sequence
        self._sequence += 1
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
        )
