"""The approved shift: how a candidate's scores may differ from production's."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import registry_pb2, rollout_pb2
from stats.departure import Expectation


@dataclass(frozen=True, eq=False)
class ApprovedShift:
    """What the candidate's card says will change, accepted by its approver.

    digest     as card and approval name it.
    counts     (J, J) int64 held-out rows: by champion's bin, then by candidate's.
    flip_rate  decisions that differ.
    """

    digest: str
    counts: NDArray[np.int64]
    flip_rate: float

    def with_shadow_pairs(self, joint: NDArray[np.int64]) -> Expectation:
        """Return what is expected after a shadow's (J, J) pairs: live rows, never outweighing.

        The pairs were scored on today's customers, the certificate on held-out ones. Rows of one
        customer repeat, so the pairs count for as much as the certificate at most.
        """
        live, certified = int(joint.sum()), int(self.counts.sum())
        if live > certified:
            joint = np.rint(joint * (certified / live)).astype(np.int64)
        return Expectation(self.counts + joint)

    def to_proto(self) -> rollout_pb2.ApprovedShift:
        """Return the shift for a checkpoint, so that the card need not be read again."""
        return rollout_pb2.ApprovedShift(
            digest=self.digest,
            bins=len(self.counts),
            counts=self.counts.reshape(-1).tolist(),
            flip_rate=self.flip_rate,
        )

    @staticmethod
    def from_proto(message: rollout_pb2.ApprovedShift) -> "ApprovedShift":
        """Restore an approved shift; *message* has at least one bin."""
        counts = np.array(message.counts, dtype=np.int64).reshape(message.bins, message.bins)
        return ApprovedShift(message.digest, counts, message.flip_rate)


def approved_shift(
    version: registry_pb2.Version,
    baseline: registry_pb2.Version,
    approval: registry_pb2.Approval,
) -> ApprovedShift | None:
    """Return the shift *version* may show beside *baseline*; None: no difference was approved.

    The card must tell it against this very baseline, and the approval must have accepted it.
    """
    card = json.loads(version.card_json or "{}")
    told: Any = card.get("expected_shift")
    if not isinstance(told, dict) or not told.get("table"):
        return None
    if not told.get("digest") or told["digest"] != approval.accepted_shift:
        return None
    if told.get("champion") != baseline.digest:
        return None
    counts = np.array(told["table"], dtype=np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.any():
        return None
    return ApprovedShift(str(told["digest"]), counts, float(told.get("flip_rate", 0.0)))
