"""Gives the verdict on a candidate. Pure: it depends on policy, evidence and inputs only."""

import math
from dataclasses import dataclass

from rollout.evidence.evidence import Evidence
from rollout.judge.reasons import outcome_hold_reason, rollback_reason
from rollout.policy.policy import JUDGED_METRICS, Policy
from rollout.policy.stages import Stage, StagePosition, Verdict, min_stay_s
from stats.rate import clean_keys_needed


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """What the gateways' workers report about one candidate."""

    workers: int = 0
    """Live workers, spares included."""
    not_ready: tuple[str, ...] = ()
    """Live workers that have not loaded the candidate so far."""
    refused: tuple[str, ...] = ()
    """Live workers that refused to load the candidate, each with its reason."""
    silent: tuple[str, ...] = ()
    """Live serving workers that sent no windows for longer than the policy allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeInputs:
    """Everything that a verdict depends on besides policy and evidence."""

    position: StagePosition
    stayed_s: float
    """Seconds since the rollout entered the position."""
    fleet: FleetView
    guard_reason: str = ""
    """A hard guard of the candidate; empty: there is none."""
    late_windows: int = 0
    """Windows that came too late to be counted; 0 if the newest of them is not recent."""
    lost_batches: int = 0
    """Batches that never came; 0 if the newest of them is not recent."""
    freeze_window: str = ""
    """The freeze window that covers this moment; empty: none does."""
    monitoring_hold: str = ""
    """Why monitoring holds the model or version; empty: it does not."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reason and, for UNDECIDED and HOLD, what the rollout waits for."""

    verdict: Verdict
    reason: str
    waiting_for: tuple[str, ...] = ()


def judge(policy: Policy, inputs: JudgeInputs, evidence: Evidence) -> Judgement:
    """Return the verdict on the candidate at its position.

    FAULTY comes before HOLD, and HOLD before HEALTHY. Without evidence the verdict is never
    HEALTHY, however long the rollout waits.
    """
    # Reasons to roll back.
    fault = _fault_reason(policy, inputs, evidence)
    if fault:
        return Judgement(Verdict.FAULTY, fault)
    # Reasons not to trust the evidence.
    holds = _hold_reasons(policy, inputs, evidence)
    if holds:
        return Judgement(Verdict.HOLD, "; ".join(holds), holds)
    # Evidence that is not complete. After too long a stay a preload fails, and a person decides
    # about any other stage.
    waiting_for = _waiting_for(policy, inputs, evidence)
    stage = inputs.position.stage
    limit = policy.preload_s_max if stage == Stage.PRELOAD else policy.stage_s_max
    if waiting_for and inputs.stayed_s > limit:
        waited = f"{inputs.stayed_s:.0f} s in {stage.name}, of at most {limit:.0f}"
        if stage == Stage.PRELOAD:
            return Judgement(Verdict.FAULTY, f"{waited}: {'; '.join(waiting_for)}")
        return Judgement(
            Verdict.HOLD, f"{waited}; promote, abort or wait: a person decides", waiting_for
        )
    if waiting_for:
        return Judgement(Verdict.UNDECIDED, "; ".join(waiting_for), waiting_for)
    return Judgement(Verdict.HEALTHY, _healthy_reason(policy, inputs, evidence))


def _fault_reason(policy: Policy, inputs: JudgeInputs, evidence: Evidence) -> str:
    """Return why the candidate is FAULTY; empty if it is not."""
    stage = inputs.position.stage
    if inputs.guard_reason:
        return inputs.guard_reason
    if stage == Stage.PRELOAD:
        return f"refused by {'; '.join(inputs.fleet.refused)}" if inputs.fleet.refused else ""
    if stage == Stage.SHADOW and policy.shadow is not None:
        pairs = evidence.stage.shadow
        if pairs.faulty > policy.shadow.faulty_max:
            return (
                f"the shadow failed on {pairs.faulty} of {pairs.pairs} rows that production "
                f"scored; the policy allows {policy.shadow.faulty_max}"
            )
        if pairs.pairs >= policy.shadow.pairs_min:
            swapped = evidence.prediction.swapped_reason(tuple(pairs.outputs))
            if swapped:
                return swapped
    reasons = (rollback_reason(policy, evidence, metric) for metric in JUDGED_METRICS)
    return next((reason for reason in reasons if reason), "")


def _hold_reasons(policy: Policy, inputs: JudgeInputs, evidence: Evidence) -> tuple[str, ...]:
    stage = inputs.position.stage
    holds = []
    # From outside.
    if inputs.freeze_window:
        holds.append(f"frozen by the policy's window {inputs.freeze_window!r} (UTC)")
    if inputs.monitoring_hold:
        holds.append(f"monitoring says: {inputs.monitoring_hold}")
    if stage == Stage.PRELOAD:
        return tuple(holds)
    # Windows that are missing.
    if inputs.fleet.silent:
        holds.append(
            f"no windows for over {policy.silence_s_max:g} s from {', '.join(inputs.fleet.silent)}"
        )
    if inputs.late_windows:
        holds.append(f"{inputs.late_windows} windows came too late to be counted")
    if inputs.lost_batches:
        holds.append(f"{inputs.lost_batches} batches of windows never came")
    # The evidence itself.
    if stage == Stage.SHADOW and policy.shadow is not None:
        prediction = evidence.prediction
        holds += evidence.stage.shadow.hold_reasons(
            policy.shadow, prediction.shift, prediction.expectation
        )
    else:
        holds += evidence.validity.hold_reasons()
        if evidence.prediction.unapproved_reason:
            holds.append(evidence.prediction.unapproved_reason)
        outcome_reason = outcome_hold_reason(evidence)
        if outcome_reason:
            holds.append(outcome_reason)
    return tuple(holds)


def _waiting_for(policy: Policy, inputs: JudgeInputs, evidence: Evidence) -> tuple[str, ...]:
    """Return what is missing before the verdict can be HEALTHY."""
    position = inputs.position
    waiting_for = []
    # A preload waits for the workers.
    if position.stage == Stage.PRELOAD:
        if not inputs.fleet.workers:
            waiting_for.append("a live gateway")
        waiting_for += [f"{worker} to load it" for worker in inputs.fleet.not_ready]
        return tuple(waiting_for)
    # Other stages wait for evidence, and for the minimum stay.
    if position.stage == Stage.SHADOW and policy.shadow is not None:
        pairs = evidence.stage.shadow.pairs
        if pairs < policy.shadow.pairs_min:
            waiting_for.append(f"pairs: {pairs} of {policy.shadow.pairs_min}")
    elif evidence.promote_log_e < policy.promote_log_threshold:
        waiting_for.append(_clean_keys_text(policy, evidence))
    stay_s = min_stay_s(position, policy)
    if inputs.stayed_s < stay_s:
        remaining_s = stay_s - inputs.stayed_s
        waiting_for.append(f"{remaining_s:.0f} s more of the minimum stay of {stay_s:g} s")
    return tuple(waiting_for)


def _clean_keys_text(policy: Policy, evidence: Evidence) -> str:
    stage = evidence.stage
    needed = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    return (
        f"clean keys: {len(stage.clean_keys)} of {needed}, {stage.failed_in_sample} failed (e = "
        f"{_e_value(evidence.promote_log_e):.3g} of {policy.promote_e:g} that fewer than "
        f"{policy.failure_bar:.2%} fail)"
    )


def _healthy_reason(policy: Policy, inputs: JudgeInputs, evidence: Evidence) -> str:
    stage = evidence.stage
    if inputs.position.stage == Stage.PRELOAD:
        return f"all {inputs.fleet.workers} workers hold it ready"
    if inputs.position.stage == Stage.SHADOW:
        shadow = stage.shadow
        return f"{shadow.pairs} pairs, {shadow.faulty} failed, {shadow.flips} {shadow.flips_text}"
    return (
        f"{len(stage.clean_keys)} clean keys and {stage.failed_in_sample} failed since this share "
        f"began; e = {_e_value(evidence.promote_log_e):.3g} of {policy.promote_e:g} needed"
    )


def _e_value(log_e: float) -> float:
    """Return e to the power of *log_e*, at most e^700, which a float can hold."""
    return math.exp(min(log_e, 700.0))
