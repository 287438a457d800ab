"""A rollout as it is kept in the registry, and back, bit for bit."""

from collections.abc import Iterable, Mapping

import numpy as np

from protos import rollout_pb2, window_pb2
from rollout.checkpoint.evidence_codec import (
    add_evidence,
    add_keys,
    add_shift,
    fill_evidence,
    fill_keys,
    read_shift,
)
from rollout.errors import CheckpointError, PolicyError
from rollout.evidence.evidence import NON_INFERIORITY, CallTotals, StageCounts
from rollout.evidence.metric_test import MetricTest
from rollout.lifecycle.deploy import RolloutSpec
from rollout.lifecycle.rollout import ClockReading, PastStage, RollbackTimes, Rollout
from rollout.policy.kept_policy import parse_approved_policy, policy_file_note
from rollout.policy.policy import Policy
from rollout.policy.stages import Stage, StagePosition, Verdict
from stats.tilt import TiltState

FAILED_KEYS, CLEAN_KEYS, BASELINE_CLEAN_KEYS = "stage:failed", "stage:clean", "stage:baseline"


def to_state(rollout: Rollout) -> rollout_pb2.RolloutState:
    """Return all that must be remembered of *trial*; the same trial gives the same bytes."""
    evidence = rollout.evidence
    state = rollout_pb2.RolloutState(
        status=rollout.status(),
        decisions=rollout.decisions,
        split_salt=rollout.spec.split_salt,
        closed_second=rollout.inbox.closed_second,
        late_windows=rollout.inbox.late_windows,
        duplicate_batches=rollout.inbox.duplicate_batches,
        open_windows=window_pb2.WindowBatch(
            windows=rollout.inbox.open_windows, guards=rollout.guards
        ).SerializeToString(deterministic=True),
        policy_json=rollout.spec.policy.json,
    )
    state.status.policy_note = ""  # of the controller's files, not of the rollout
    for source, sequence in sorted(rollout.inbox.sequences.items()):
        state.sources.add(source=source, sequence=sequence)
    for name, compared in evidence.metrics.items():
        _add_metric(
            state, name, compared.tilt_state, compared.canary_events, compared.baseline_events
        )
        for share, (canary, baseline) in sorted(compared.events_by_share.items()):
            state.metrics[-1].events_by_share.add(share_bp=share, canary=canary, baseline=baseline)
        add_keys(state, name, compared.counted_keys)
    _add_metric(state, NON_INFERIORITY, evidence.stage.non_inferiority, 0, 0)
    state.metrics[-1].canary_keys = evidence.canary_keys
    state.metrics[-1].baseline_keys = evidence.baseline_keys
    for name, keys in (
        (FAILED_KEYS, evidence.stage.failed_keys),
        (CLEAN_KEYS, evidence.stage.clean_keys),
        (BASELINE_CLEAN_KEYS, evidence.stage.baseline_clean_keys),
    ):
        state.counted_keys.add(metric=name, keys=_pack_keys(keys))
    add_shift(state, rollout.spec.shift)
    add_evidence(state, evidence)
    for stage in rollout.stage_history():
        shadow = stage.position.stage == Stage.SHADOW
        # A shadow stage has no keys: there, keys are decisions that differ, events are faults.
        state.stages.add(
            step=stage.position.step,
            promote_log_e=stage.promote_log_e,
            keys=stage.flips if shadow else stage.clean_keys,
            events=stage.pairs_faulty if shadow else stage.failed_keys,
            pairs=stage.pairs,
            since_unix_ms=stage.since_unix_ms,
        )
    return state


def from_state(
    state: rollout_pb2.RolloutState,
    approval_id: str,
    policies: Mapping[str, Policy],
    now: ClockReading,
) -> Rollout:
    """Rebuild the trial, waiting for its senders to catch up.

    It goes on under the policy kept with it, whatever *policies* call by that name now. Raises
    CheckpointError when that policy is damaged, or was not kept and *policies* have it no more.
    """
    status = state.status
    policy = _checkpoint_policy(state, policies)
    terms = RolloutSpec(
        rollout_id=status.rollout_id,
        model=status.model,
        version=status.version,
        baseline=status.baseline,
        policy=policy,
        approval_id=approval_id,
        split_salt=state.split_salt,
        shift=read_shift(state),
    )
    trial = Rollout(spec=terms, started_unix_ms=status.started_unix_ms)
    trial.policy_note = policy_file_note(policy, policies)
    _restore_stages(trial, state)
    _restore_evidence(trial, state)
    inbox = trial.inbox
    inbox.closed_second = state.closed_second
    inbox.late_windows = state.late_windows
    inbox.duplicate_batches = state.duplicate_batches
    for source in state.sources:
        inbox.start_source_at(source.source, source.sequence, now.monotonic_ns)
    kept = window_pb2.WindowBatch.FromString(state.open_windows)
    inbox.restore_windows(list(kept.windows))
    trial.guards = list(kept.guards)
    inbox.begin_catch_up(now.unix_ns, now.monotonic_ns)
    return trial


def _checkpoint_policy(state: rollout_pb2.RolloutState, policies: Mapping[str, Policy]) -> Policy:
    """Return the kept policy; of a checkpoint from before policies were kept, the very same one."""
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
    """Where it stands, how it came there, and the four times."""
    status = state.status
    rollout.position = StagePosition(Stage(int(status.stage)), status.step)
    rollout.revision = status.revision
    rollout.since_unix_ms = status.stage_since_unix_ms
    rollout.paused = status.paused
    rollout.reason = status.reason
    rollout.waiting_for = tuple(status.waiting_for)
    rollout.verdict = Verdict(int(status.verdict))
    times = status.times
    rollout.times = RollbackTimes(
        first_bad_answer_ns=times.first_bad_unix_ns,
        verdict_ns=times.verdict_unix_ns,
        traffic_moved_ns=times.moved_unix_ns,
        last_bad_answer_ns=times.last_bad_unix_ns,
    )
    rollout.decisions = list(state.decisions)
    # Each decision began one entry of stages, the last of which is where it stands now; before the
    # first there is one entry all the same.
    for decision, stage in zip(state.decisions, state.stages, strict=bool(state.decisions)):
        place = StagePosition(Stage(int(decision.stage)), stage.step)
        rollout.positions_by_revision[decision.revision] = place
        shadow = place.stage == Stage.SHADOW
        rollout.past_stages.append(
            PastStage(
                position=place,
                since_unix_ms=stage.since_unix_ms,
                promote_log_e=stage.promote_log_e,
                clean_keys=0 if shadow else stage.keys,
                failed_keys=0 if shadow else stage.events,
                pairs=stage.pairs,
                flips=stage.keys if shadow else 0,
                pairs_faulty=stage.events if shadow else 0,
            )
        )
    if rollout.past_stages:
        rollout.past_stages.pop()


def _restore_evidence(rollout: Rollout, state: rollout_pb2.RolloutState) -> None:
    evidence = rollout.evidence
    metrics = {metric.metric: metric for metric in state.metrics}
    for name, compared in evidence.metrics.items():
        _fill_metric(compared, metrics[name])
        fill_keys(state, name, compared.counted_keys)
    evidence.canary_keys = metrics[NON_INFERIORITY].canary_keys
    evidence.baseline_keys = metrics[NON_INFERIORITY].baseline_keys
    seen = {keys.metric: _unpack_keys(keys.keys) for keys in state.counted_keys}
    stage, newest = StageCounts(_tilt_state(metrics[NON_INFERIORITY])), state.stages[-1]
    stage.failed_keys, stage.clean_keys = seen[FAILED_KEYS], seen[CLEAN_KEYS]
    stage.baseline_clean_keys = seen[BASELINE_CLEAN_KEYS]
    if rollout.position.stage != Stage.SHADOW:
        stage.failed_in_sample = newest.events
    evidence.stage = stage
    fill_evidence(state, evidence)
    calls = state.status.calls
    evidence.totals = CallTotals(
        canary=calls.canary,
        production=calls.production,
        shadow_pairs=calls.shadow_pairs,
        fallbacks=calls.fallbacks,
        failed=calls.failed,
    )


def _fill_metric(compared: MetricTest, metric: rollout_pb2.MetricState) -> None:
    compared.tilt_state = _tilt_state(metric)
    compared.canary_events = metric.canary_events
    compared.baseline_events = metric.baseline_events
    compared.events_by_share = {
        one.share_bp: (one.canary, one.baseline) for one in metric.events_by_share
    }


def _add_metric(
    state: rollout_pb2.RolloutState,
    name: str,
    tilt: TiltState,
    canary_events: int,
    baseline_events: int,
) -> None:
    state.metrics.add(
        metric=name,
        log_s=tilt.log_s,
        prior_spent=tilt.prior_spent,
        log_e=tilt.log_e,
        log_e_max=tilt.log_e_max,
        looks=tilt.looks,
        canary_events=canary_events,
        baseline_events=baseline_events,
    )


def _tilt_state(metric: rollout_pb2.MetricState) -> TiltState:
    return TiltState(
        log_s=tuple(metric.log_s),
        prior_spent=metric.prior_spent,
        log_e=metric.log_e,
        log_e_max=metric.log_e_max,
        looks=metric.looks,
    )


def _pack_keys(keys: Iterable[int]) -> bytes:
    """8 bytes a key, little-endian, sorted."""
    return np.sort(np.fromiter(keys, dtype="<u8")).tobytes()


def _unpack_keys(keys: bytes) -> set[int]:
    return set(np.frombuffer(keys, dtype="<u8").tolist())
