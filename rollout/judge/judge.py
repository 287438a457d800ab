"""Is the candidate at fault? A pure answer from evidence, facts and one policy."""

import math
from dataclasses import dataclass

from rollout.evidence.evidence import Evidence
from rollout.judge.reasons import rollback_reason
from rollout.policy.policy import JUDGED_METRICS, Policy
from rollout.policy.stages import Stage, StagePosition, Verdict, min_stay_s
from stats.rate import clean_keys_needed


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """What the gateways' workers are known to hold and to send, for one candidate."""

    workers: int = 0
    """Live workers, spares too."""
    not_ready: tuple[str, ...] = ()
    """Live workers that have not loaded the candidate yet."""
    refused: tuple[str, ...] = ()
    """Live workers that refused it, each with its reason."""
    silent: tuple[str, ...] = ()
    """Live serving workers without a heartbeat for longer than the policy allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeInputs:
    """What is known besides the evidence."""

    position: StagePosition
    stayed_s: float
    """Since this place was entered."""
    fleet: FleetView
    guard_reason: str = ""
    """A hard guard of the candidate, in words; empty: none."""
    late_windows: int = 0
    """Windows that came too late to be counted, while that is recent."""
    lost_batches: int = 0
    """Batches that never came, while that is recent."""
    freeze_window: str = ""
    """The freeze window that holds now; empty: none."""
    monitoring_hold: str = ""
    """What monitoring wrote to hold this model; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and why; *missing*: what an UNDECIDED or HOLD waits for."""

    verdict: Verdict
    reason: str
    waiting_for: tuple[str, ...] = ()


def judge(policy: Policy, facts: JudgeInputs, evidence: Evidence) -> Judgement:
    """Return the verdict on the candidate where it stands.

    FAULTY beats HOLD beats HEALTHY. Without evidence nothing is HEALTHY, however long it takes.
    """
    fault = _fault_reason(policy, facts, evidence)
    if fault:
        return Judgement(Verdict.FAULTY, fault)
    holds = _hold_reasons(policy, facts, evidence)
    if holds:
        return Judgement(Verdict.HOLD, "; ".join(holds), holds)
    missing = _waiting_for(policy, facts, evidence)
    stage = facts.position.stage
    limit = policy.preload_s_max if stage == Stage.PRELOAD else policy.stage_s_max
    if missing and facts.stayed_s > limit:
        waited = f"{facts.stayed_s:.0f} s in {stage.name}, of at most {limit:.0f}"
        if stage == Stage.PRELOAD:
            return Judgement(Verdict.FAULTY, f"{waited}: {'; '.join(missing)}")
        return Judgement(
            Verdict.HOLD, f"{waited}; promote, abort or wait: a person decides", missing
        )
    if missing:
        return Judgement(Verdict.UNDECIDED, "; ".join(missing), missing)
    return Judgement(Verdict.HEALTHY, _healthy_reason(policy, facts, evidence))


def _fault_reason(policy: Policy, facts: JudgeInputs, evidence: Evidence) -> str:
    stage = facts.position.stage
    if facts.guard_reason:
        return facts.guard_reason
    if stage == Stage.PRELOAD:
        return f"refused by {'; '.join(facts.fleet.refused)}" if facts.fleet.refused else ""
    if stage == Stage.SHADOW and policy.shadow is not None:
        pairs = evidence.stage.shadow
        if pairs.faulty > policy.shadow.faulty_max:
            return (
                f"the shadow failed on {pairs.faulty} of {pairs.pairs} rows that production "
                f"scored; the policy allows {policy.shadow.faulty_max}"
            )
    return next(
        (words for name in JUDGED_METRICS if (words := rollback_reason(policy, evidence, name))), ""
    )


def _hold_reasons(policy: Policy, facts: JudgeInputs, evidence: Evidence) -> tuple[str, ...]:
    stage = facts.position.stage
    holds = []
    if facts.freeze_window:
        holds.append(f"frozen by the policy's window {facts.freeze_window!r} (UTC)")
    if facts.monitoring_hold:
        holds.append(f"monitoring says: {facts.monitoring_hold}")
    if stage == Stage.PRELOAD:
        return tuple(holds)
    if facts.fleet.silent:
        holds.append(
            f"no windows for over {policy.silence_s_max:g} s from {', '.join(facts.fleet.silent)}"
        )
    if facts.late_windows:
        holds.append(f"{facts.late_windows} windows came too late to be counted")
    if facts.lost_batches:
        holds.append(f"{facts.lost_batches} batches of windows never came")
    if stage == Stage.SHADOW and policy.shadow is not None:
        prediction = evidence.prediction
        holds += evidence.stage.shadow.hold_reasons(
            policy.shadow, prediction.shift, prediction.expectation
        )
    else:
        holds += evidence.validity.hold_reasons()
        if evidence.prediction.unapproved_reason:
            holds.append(evidence.prediction.unapproved_reason)
    return tuple(holds)


def _waiting_for(policy: Policy, facts: JudgeInputs, evidence: Evidence) -> tuple[str, ...]:
    place = facts.position
    missing = []
    if place.stage == Stage.PRELOAD:
        if not facts.fleet.workers:
            missing.append("a live gateway")
        missing += [f"{worker} to load it" for worker in facts.fleet.not_ready]
        return tuple(missing)
    if place.stage == Stage.SHADOW and policy.shadow is not None:
        pairs = evidence.stage.shadow.pairs
        if pairs < policy.shadow.pairs_min:
            missing.append(f"pairs: {pairs} of {policy.shadow.pairs_min}")
    elif evidence.promote_log_e < policy.promote_log_threshold:
        missing.append(_clean_keys_text(policy, evidence))
    stay = min_stay_s(place, policy)
    if facts.stayed_s < stay:
        missing.append(f"{stay - facts.stayed_s:.0f} s of {stay:g} s at this place")
    return tuple(missing)


def _clean_keys_text(policy: Policy, evidence: Evidence) -> str:
    stage = evidence.stage
    needed = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    return (
        f"clean keys: {len(stage.clean_keys)} of {needed}, {stage.failed_in_sample} failed (e = "
        f"{math.exp(min(evidence.promote_log_e, 700.0)):.3g} of {policy.promote_e:g} that fewer "
        f"than {policy.failure_bar:.2%} fail)"
    )


def _healthy_reason(policy: Policy, facts: JudgeInputs, evidence: Evidence) -> str:
    stage = evidence.stage
    if facts.position.stage == Stage.PRELOAD:
        return f"all {facts.fleet.workers} workers hold it ready"
    if facts.position.stage == Stage.SHADOW:
        shadow = stage.shadow
        return f"{shadow.pairs} pairs, {shadow.faulty} failed, {shadow.flips} decisions differ"
    e = math.exp(min(evidence.promote_log_e, 700.0))
    return (
        f"{len(stage.clean_keys)} clean keys and {stage.failed_in_sample} failed since this "
        "share began; "
        f"e = {e:.3g} of {policy.promote_e:g} needed"
    )
