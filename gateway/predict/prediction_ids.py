"""Prediction ids: 64 sealed bytes a call, made for a whole answer at once."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Answer, Batch
from gateway.models.routes import LoadedVersion, Routes
from gateway.native_library import load_native_library
from gateway.worker_identity import WorkerIdentity
from journal.prediction_id import (
    HOLDOUT_BIT,
    complete_prediction_id,
    hash_model_name,
    masking_key,
    pack_body,
    sealing_key,
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
CompleteId = Callable[[bytes, bytes, int, int, int, ScoreRule, bytes, bytes | None, float], bytes]
"""The signature of journal.prediction_id.complete_prediction_id and of its native twin."""
COMPLETE_ID: CompleteId = getattr(load_native_library(), "prediction_id", complete_prediction_id)


class UnscoredId(NamedTuple):
    """The id of a call that is not scored yet: the arguments of COMPLETE_ID before the score.

    It has the keys by which it was begun. The worker may get other keys before it is complete.
    """

    key: bytes
    body: bytes
    sequence: int
    key_hash: int
    rows: int
    rule: ScoreRule
    mask_with: bytes
    seal_with: bytes | None

    def with_score(self, score: float) -> bytes:
        """Return the 64 bytes of the id. *score* is the first output of the call's first row."""
        return COMPLETE_ID(*self, score)


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

    def start_single(
        self,
        routes: Routes,
        version: LoadedVersion,
        key_hash: int,
        *,
        holdout: bool,
        at_unix_ms: int,
    ) -> UnscoredId:
        """Return the id of one call of one row that production answers outside any batch.

        All of it but the score can be made while the features are read.
        """
        key = self._identity.prediction_id_key
        role = PRODUCTION | HOLDOUT_BIT if holdout else PRODUCTION
        return UnscoredId(
            key,
            self.body(routes, version, role, at_unix_ms=at_unix_ms),
            self.reserve(1),
            key_hash,
            1,
            routes.score_rule(version),
            masking_key(key),
            sealing_key(key) if routes.limits.hide_role else None,
        )
