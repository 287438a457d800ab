"""What one version did with a slice of a batch: the reference path after a reply.

Batches without a fault take the native path (native_observations.py), to the same bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gateway.batch import Batch, BatchSlice
from gateway.models.executor import Scored
from gateway.models.routes import LoadedVersion, Participant, Routes
from gateway.telemetry.folding import FoldedReplies
from gateway.telemetry.observations import Observations, count_observations, evidence_sampled
from protos.window_pb2 import ARM_PRODUCTION


class SliceObservations(NamedTuple):
    """A reply record: the observations of one version in one arm."""

    routes: Routes
    version: LoadedVersion
    arm: int
    """turnout.v1.Arm."""
    at_unix_ns: int
    observations: Observations

    @property
    def group(self) -> tuple[str, int]:
        """Observations of one version in one arm are counted together."""
        return self.version.label, self.arm

    @property
    def rows(self) -> int:
        """How many rows were scored."""
        return len(self.observations.scores)

    @staticmethod
    def fold(records: "Sequence[SliceObservations]") -> FoldedReplies:
        """Count the observations of several batches at once."""
        first = records[0]
        observations = Observations.concatenated([record.observations for record in records])
        sampled = evidence_sampled(first.routes, first.arm)
        counts = count_observations(observations, first.routes.scale, sampled)
        return FoldedReplies(counts=[(first.version, first.arm, counts)])


def observe_slice(
    batch: Batch,
    participant: Participant,
    arm: int,
    batch_slice: BatchSlice,
    scored: Scored,
    *,
    production_scored: Scored | None,
    fallbacks: int,
    now_ns: int,
    unix_ns: int,
) -> SliceObservations:
    """Return what one version did with a slice, whichever version answered its calls in the end.

    production_scored  production's result for the same slice, if production scored it, too.
    fallbacks          calls that this version was to answer and another version did.
    """
    # What the version did for each call of the slice.
    calls, routes = batch_slice.call_indexes, batch.routes
    assignment, arrived_ns = batch.assignment, batch.calls.arrived_ns[batch_slice.call_indexes]
    observations = Observations(
        key_hash=assignment.key_hash[calls],
        faults=scored.faults,
        holdout=None if assignment.holdout is None else assignment.holdout[calls],
        latency_ns=now_ns - arrived_ns,
        scores=scored.scores,
        expected=None if production_scored is None else production_scored.scores,
        row_offsets=batch_slice.row_offsets,
        flags=batch.flags(batch_slice),
        fallbacks=fallbacks,
        broken=batch.features.broken if arm == ARM_PRODUCTION else 0,
    )
    # What comparing arms needs: the calls of the batch, lateness, and latency by processor time.
    if routes.compared:
        observations.batch_calls = np.full(len(batch_slice), batch.calls.calls)
        if scored.overdue(routes.limits.canary_ns):
            observations.overdue = np.full(len(batch_slice), fill_value=True)
    if scored.elapsed_ns:
        waited_ns = batch.scoring_started_ns - arrived_ns
        observations.compared_latency_ns = waited_ns + scored.cpu_ns
    return SliceObservations(routes, participant.version, arm, unix_ns, observations)
