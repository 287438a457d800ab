"""Writes a rollout into the message of its checkpoint, and restores a rollout from that message.

Each evidence class writes and restores itself (`to_proto`, `from_proto`). A restored rollout goes
on bit for bit: its own checkpoint equals the one that it was restored from.
"""

from collections.abc import Mapping

from protos import rollout_pb2, window_pb2
from rollout.errors import CheckpointError, PolicyError
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.evidence import CallTotals, Evidence
from rollout.lifecycle.clock import ClockReading
from rollout.lifecycle.deploy import RolloutSpec
from rollout.lifecycle.rollout import PastStage, RollbackTimes, Rollout
from rollout.policy.approved_policy import parse_approved_policy, policy_file_note
from rollout.policy.policy import Policy
from rollout.policy.stages import Stage, StagePosition, Verdict


def to_state(rollout: Rollout) -> rollout_pb2.RolloutState:
    """Return everything that *rollout* needs to go on. Equal rollouts give equal messages."""
    inbox, spec = rollout.inbox, rollout.spec
    open_windows = window_pb2.WindowBatch(windows=inbox.open_windows, guards=rollout.guards)
    state = rollout_pb2.RolloutState(
        status=rollout.status(),
        decisions=rollout.decisions,
        split_salt=spec.split_salt,
        closed_second=inbox.closed_second,
        late_windows=inbox.late_windows,
        duplicate_batches=inbox.duplicate_batches,
        open_windows=open_windows.SerializeToString(deterministic=True),
        policy_json=spec.policy.json,
        evidence=rollout.evidence.to_proto(),
        stages=[stage.to_proto() for stage in rollout.stage_history()],
        sources=[
            rollout_pb2.SourceState(source=source, sequence=sequence)
            for source, sequence in sorted(inbox.sequences.items())
        ],
    )
    if spec.shift is not None:
        state.approved_shift.CopyFrom(spec.shift.to_proto())
    # The note compares the policy with the controller's files, which the next controller may not
    # have.
    state.status.policy_note = ""
    return state


def from_state(
    state: rollout_pb2.RolloutState,
    approval_id: str,
    policies: Mapping[str, Policy],
    now: ClockReading,
) -> Rollout:
    """Restore a rollout that waits for its sources to catch up.

    approval_id  as the deployment names it.
    policies     the controller's policies by name. The rollout goes on under the policy of its
                 checkpoint, whatever the policy of that name says now.
    now          the instant at which the controller restores it.

    Raises CheckpointError if the state has no evidence, and if its policy is damaged or missing.
    """
    status = state.status
    if not state.HasField("evidence"):
        raise CheckpointError(
            f"the checkpoint of rollout {status.rollout_id} has no evidence that this program can "
            "read: another edition of it wrote the checkpoint"
        )
    # The spec: what was fixed when the rollout started.
    policy = _checkpoint_policy(state, policies)
    # A message without bins is the absent one: no shift was approved.
    shift = ApprovedShift.from_proto(state.approved_shift) if state.approved_shift.bins else None
    spec = RolloutSpec(
        rollout_id=status.rollout_id,
        model=status.model,
        version=status.version,
        baseline=status.baseline,
        policy=policy,
        approval_id=approval_id,
        split_salt=state.split_salt,
        shift=shift,
    )
    # Its progress.
    rollout = Rollout(spec=spec, started_unix_ms=status.started_unix_ms)
    rollout.policy_note = policy_file_note(policy, policies)
    _restore_stages(rollout, state)
    rollout.evidence = Evidence.from_proto(
        state.evidence, spec.version, spec.baseline, policy, shift
    )
    rollout.evidence.totals = CallTotals.from_proto(status.calls)
    _restore_inbox(rollout, state, now)
    return rollout


def _checkpoint_policy(state: rollout_pb2.RolloutState, policies: Mapping[str, Policy]) -> Policy:
    """Return the policy in the checkpoint, or the policy with its digest among *policies*."""
    status = state.status
    if state.policy_json:
        try:
            return parse_approved_policy(state.policy_json, status.policy_digest)
        except PolicyError as error:
            raise CheckpointError(f"rollout {status.rollout_id}: {error}") from error
    policy = policies.get(status.policy)
    if policy is None or policy.digest != status.policy_digest:
        raise CheckpointError(
            f"rollout {status.rollout_id} runs under policy {status.policy!r} "
            f"({status.policy_digest[:12]}), which its checkpoint, older than this program, does "
            "not hold, and this controller does not have; start the controller with the policy "
            "file of that digest"
        )
    return policy


def _restore_stages(rollout: Rollout, state: rollout_pb2.RolloutState) -> None:
    """Restore the current stage, the stages before it, and the four times of a rollback."""
    status = state.status
    rollout.position = StagePosition(Stage(int(status.stage)), status.step)
    rollout.revision = status.revision
    rollout.since_unix_ms = status.stage_since_unix_ms
    rollout.paused = status.paused
    rollout.reason = status.reason
    rollout.waiting_for = tuple(status.waiting_for)
    rollout.verdict = Verdict(int(status.verdict))
    rollout.times = RollbackTimes.from_proto(status.times)
    rollout.decisions = list(state.decisions)
    # Each decision began one stage. Before the first decision there is a current stage already,
    # so only then are there more stages than decisions.
    for decision, message in zip(state.decisions, state.stages, strict=bool(state.decisions)):
        stage = PastStage.from_proto(message)
        rollout.positions_by_revision[decision.revision] = stage.position
        rollout.past_stages.append(stage)
    # The last stage is the current one, whose counts are in the evidence.
    if rollout.past_stages:
        rollout.past_stages.pop()


def _restore_inbox(rollout: Rollout, state: rollout_pb2.RolloutState, now: ClockReading) -> None:
    """Restore sequences, open windows and hard guards, and begin to catch up."""
    inbox = rollout.inbox
    inbox.closed_second = state.closed_second
    inbox.late_windows = state.late_windows
    inbox.duplicate_batches = state.duplicate_batches
    for source in state.sources:
        inbox.start_source_at(source.source, source.sequence, now.monotonic_ns)
    open_windows = window_pb2.WindowBatch.FromString(state.open_windows)
    inbox.restore_windows(list(open_windows.windows))
    rollout.guards = list(open_windows.guards)
    inbox.begin_catch_up(now.unix_ns, now.monotonic_ns)
