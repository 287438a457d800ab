"""What the reader takes from prediction ids: the control group, and what an outcome is about."""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from journal.prediction_id import (
    HOLDOUT_BIT,
    LENGTH,
    SEALED_FORMAT,
    PredictionIdError,
    read_prediction_id,
)
from monitoring.cells.outcome_columns import id_digest
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import OutcomeRecord

log = logging.getLogger(__name__)

NS_PER_MS = 1_000_000


class IdFields:
    """Reads prediction ids with the cluster's key.

    key  returns the 32 bytes; empty while the gateway has none. Without it sealed ids and outcomes
         cannot be read, so the reader waits for it before it counts outcomes.
    """

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key

    @property
    def ready(self) -> bool:
        """Whether there is a key."""
        return bool(self._key())

    def holdout_of(self, prediction_ids: bytes) -> NDArray[np.bool_]:
        """Return (C,) whether each of C joined ids is of the control group.

        An id that is not sealed says so in a byte that everybody can read. A sealed one takes some
        5 us, and one that cannot be read counts as no control group.
        """
        ids = np.frombuffer(prediction_ids, np.uint8).reshape(-1, LENGTH)
        holdout = (ids[:, 1] & HOLDOUT_BIT) > 0
        # Formats of sealed ids are even numbers.
        for call in np.flatnonzero(ids[:, 0] % 2 == SEALED_FORMAT % 2).tolist():
            holdout[call] = self._is_holdout(ids[call].tobytes())
        return holdout

    def _is_holdout(self, prediction_id: bytes) -> bool:
        key = self._key()
        try:
            return bool(key) and read_prediction_id(prediction_id, key).holdout
        except PredictionIdError:
            return False

    def event_of(self, record: OutcomeRecord) -> pb.OutcomeEvent:
        """Return an outcome with what its id says; `forged` if the cluster did not write the id."""
        event = pb.OutcomeEvent(
            row=record.row,
            name=record.name,
            value=record.value,
            event_unix_ms=record.event_time_ms,
            received_unix_ms=record.received_unix_ns // NS_PER_MS,
            model=record.model,
        )
        if not record.prediction_id:
            event.keys.extend(record.keys)
            return event
        event.id_digest = id_digest(record.prediction_id)
        try:
            prediction = read_prediction_id(record.prediction_id, self._key())
        except PredictionIdError:
            event.forged = True
            return event
        event.model_hash = prediction.model_hash
        event.version_digest = int.from_bytes(prediction.version, "little")
        event.role = prediction.role
        event.holdout = prediction.holdout
        event.predicted_unix_ms = prediction.at_ms
        event.key_hash = prediction.key_hash
        if prediction.score is not None:
            event.score = prediction.score
        return event
