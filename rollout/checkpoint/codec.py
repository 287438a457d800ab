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
    shift_of,
)
from rollout.errors import CheckpointError, PolicyError
from rollout.evidence.evidence import RELATIVE, StageCounts, Totals
from rollout.evidence.metric_test import Compared
from rollout.lifecycle.deploy import Terms
from rollout.lifecycle.rollout import Now, PastStage, Times, Trial
from rollout.policy.kept_policy import note_on, read_kept
from rollout.policy.policy import Policy
from rollout.policy.stages import Place, Stage, Verdict
from stats.tilt import TiltState

FAILED, CLEAN, BASELINE_CLEAN = "stage:failed", "stage:clean", "stage:baseline"


def to_state(trial: Trial) -> rollout_pb2.RolloutState:
    """Return all that must be remembered of *trial*; the same trial gives the same bytes."""
    evidence = trial.evidence
    state = rollout_pb2.RolloutState(
        status=trial.status(),
        decisions=trial.decisions,
        split_salt=trial.terms.split_salt,
        closed_second=trial.inbox.closed_second,
        late_windows=trial.inbox.late_windows,
        duplicate_batches=trial.inbox.duplicate_batches,
        open_windows=window_pb2.WindowBatch(
            windows=trial.inbox.open_windows, guards=trial.guards
        ).SerializeToString(deterministic=True),
        policy_json=trial.terms.policy.json,
    )
    state.status.policy_note = ""  # of the controller's files, not of the rollout
    for source, sequence in sorted(trial.inbox.sequences.items()):
        state.sources.add(source=source, sequence=sequence)
    for name, compared in evidence.metrics.items():
        _add_metric(state, name, compared.state, compared.canary_events, compared.baseline_events)
        for share, (canary, baseline) in sorted(compared.by_share.items()):
            state.metrics[-1].shares.add(share_bp=share, canary=canary, baseline=baseline)
        add_keys(state, name, compared.sample)
    _add_metric(state, RELATIVE, evidence.stage.relative, 0, 0)
    state.metrics[-1].canary_keys = evidence.canary_keys
    state.metrics[-1].baseline_keys = evidence.baseline_keys
    for name, keys in (
        (FAILED, evidence.stage.failed),
        (CLEAN, evidence.stage.clean),
        (BASELINE_CLEAN, evidence.stage.baseline_clean),
    ):
        state.seen.add(metric=name, keys=_packed(keys))
    add_shift(state, trial.terms.shift)
    add_evidence(state, evidence)
    for stage in trial.stages():
        shadow = stage.place.stage == Stage.SHADOW
        # A shadow stage has no keys: there, keys are decisions that differ, events are faults.
        state.stages.add(
            step=stage.place.step,
            promote_log_e=stage.promote_log_e,
            keys=stage.flips if shadow else stage.clean,
            events=stage.pairs_faulty if shadow else stage.failed,
            pairs=stage.pairs,
            since_unix_ms=stage.since_unix_ms,
        )
    return state


def from_state(
    state: rollout_pb2.RolloutState,
    approval_id: str,
    policies: Mapping[str, Policy],
    now: Now,
) -> Trial:
    """Rebuild the trial, waiting for its senders to catch up.

    It goes on under the policy kept with it, whatever *policies* call by that name now. Raises
    CheckpointError when that policy is damaged, or was not kept and *policies* have it no more.
    """
    status = state.status
    policy = _policy_of(state, policies)
    terms = Terms(
        rollout_id=status.rollout_id,
        model=status.model,
        version=status.version,
        baseline=status.baseline,
        policy=policy,
        approval_id=approval_id,
        split_salt=state.split_salt,
        shift=shift_of(state),
    )
    trial = Trial(terms=terms, started_unix_ms=status.started_unix_ms)
    trial.policy_note = note_on(policy, policies)
    _restore_course(trial, state)
    _restore_evidence(trial, state)
    inbox = trial.inbox
    inbox.closed_second = state.closed_second
    inbox.late_windows = state.late_windows
    inbox.duplicate_batches = state.duplicate_batches
    for source in state.sources:
        inbox.follow(source.source, source.sequence, now.monotonic_ns)
    kept = window_pb2.WindowBatch.FromString(state.open_windows)
    inbox.restore(list(kept.windows))
    trial.guards = list(kept.guards)
    inbox.resume(now.unix_ns, now.monotonic_ns)
    return trial


def _policy_of(state: rollout_pb2.RolloutState, policies: Mapping[str, Policy]) -> Policy:
    """Return the kept policy; of a checkpoint from before policies were kept, the very same one."""
    status = state.status
    if state.policy_json:
        try:
            return read_kept(state.policy_json, status.policy_digest)
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


def _restore_course(trial: Trial, state: rollout_pb2.RolloutState) -> None:
    """Where it stands, how it came there, and the four times."""
    status = state.status
    trial.place = Place(Stage(int(status.stage)), status.step)
    trial.revision = status.revision
    trial.since_unix_ms = status.stage_since_unix_ms
    trial.paused = status.paused
    trial.reason = status.reason
    trial.missing = tuple(status.missing)
    trial.verdict = Verdict(int(status.verdict))
    times = status.times
    trial.times = Times(
        first_bad=times.first_bad_unix_ns,
        verdict=times.verdict_unix_ns,
        moved=times.moved_unix_ns,
        last_bad=times.last_bad_unix_ns,
    )
    trial.decisions = list(state.decisions)
    # Each decision began one entry of stages, the last of which is where it stands now; before the
    # first there is one entry all the same.
    for decision, stage in zip(state.decisions, state.stages, strict=bool(state.decisions)):
        place = Place(Stage(int(decision.stage)), stage.step)
        trial.places[decision.revision] = place
        shadow = place.stage == Stage.SHADOW
        trial.past.append(
            PastStage(
                place=place,
                since_unix_ms=stage.since_unix_ms,
                promote_log_e=stage.promote_log_e,
                clean=0 if shadow else stage.keys,
                failed=0 if shadow else stage.events,
                pairs=stage.pairs,
                flips=stage.keys if shadow else 0,
                pairs_faulty=stage.events if shadow else 0,
            )
        )
    if trial.past:
        trial.past.pop()


def _restore_evidence(trial: Trial, state: rollout_pb2.RolloutState) -> None:
    evidence = trial.evidence
    metrics = {metric.metric: metric for metric in state.metrics}
    for name, compared in evidence.metrics.items():
        _fill_metric(compared, metrics[name])
        fill_keys(state, name, compared.sample)
    evidence.canary_keys = metrics[RELATIVE].canary_keys
    evidence.baseline_keys = metrics[RELATIVE].baseline_keys
    seen = {keys.metric: _unpacked(keys.keys) for keys in state.seen}
    stage, newest = StageCounts(_tilt(metrics[RELATIVE])), state.stages[-1]
    stage.failed, stage.clean = seen[FAILED], seen[CLEAN]
    stage.baseline_clean = seen[BASELINE_CLEAN]
    if trial.place.stage != Stage.SHADOW:
        stage.failed_kept = newest.events
    evidence.stage = stage
    fill_evidence(state, evidence)
    calls = state.status.calls
    evidence.totals = Totals(
        canary=calls.canary,
        production=calls.production,
        shadow_pairs=calls.shadow_pairs,
        fallen_back=calls.fallen_back,
        failed=calls.failed,
    )


def _fill_metric(compared: Compared, metric: rollout_pb2.MetricState) -> None:
    compared.state = _tilt(metric)
    compared.canary_events = metric.canary_events
    compared.baseline_events = metric.baseline_events
    compared.by_share = {one.share_bp: (one.canary, one.baseline) for one in metric.shares}


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


def _tilt(metric: rollout_pb2.MetricState) -> TiltState:
    return TiltState(
        log_s=tuple(metric.log_s),
        prior_spent=metric.prior_spent,
        log_e=metric.log_e,
        log_e_max=metric.log_e_max,
        looks=metric.looks,
    )


def _packed(keys: Iterable[int]) -> bytes:
    """8 bytes a key, little-endian, sorted."""
    return np.sort(np.fromiter(keys, dtype="<u8")).tobytes()


def _unpacked(keys: bytes) -> set[int]:
    return set(np.frombuffer(keys, dtype="<u8").tolist())
