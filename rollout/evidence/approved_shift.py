"""The approved shift: how a candidate's scores may differ from those of production."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import registry_pb2, rollout_pb2
from stats.departure import Expectation


@dataclass(frozen=True, eq=False)
class ApprovedShift:
    """The change of scores that the candidate's card predicts and its approver accepted.

    digest     names the shift in the card and in the approval.
    counts     (J, J) int64: held-out rows by the champion's bin, then by the candidate's bin.
    flip_rate  part of the rows whose decision differs, 0 to 1.
    """

    digest: str
    counts: NDArray[np.int64]
    flip_rate: float

    def with_shadow_pairs(self, joint: NDArray[np.int64]) -> Expectation:
        """Return the expectation from the held-out rows and a shadow's (J, J) *joint* pairs.

        The pairs are rows of today's customers. Rows of one customer repeat, so the pairs weigh at
        most as much as the held-out rows.
        """
        pairs, held_out_rows = int(joint.sum()), int(self.counts.sum())
        if pairs > held_out_rows:
            joint = np.rint(joint * (held_out_rows / pairs)).astype(np.int64)
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
    """Return the shift of *version* from *baseline*; None: no difference was approved.

    The card must have measured the shift against this baseline, and the approval must have
    accepted it by its digest.
    """
    card = json.loads(version.card_json or "{}")
    shift: Any = card.get("expected_shift")
    if not isinstance(shift, dict) or not shift.get("table"):
        return None
    if not shift.get("digest") or shift["digest"] != approval.accepted_shift:
        return None
    if shift.get("champion") != baseline.digest:
        return None
    counts = np.array(shift["table"], dtype=np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.any():
        return None
    return ApprovedShift(str(shift["digest"]), counts, float(shift.get("flip_rate", 0.0)))
