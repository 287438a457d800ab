"""Is the candidate at fault? A pure answer from evidence, facts and one policy."""

import math
from dataclasses import dataclass

from rollout.evidence.evidence import Evidence
from rollout.judge.reasons import accuse
from rollout.policy.policy import JUDGED, Policy
from rollout.policy.stages import Place, Stage, Verdict, stay_s
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
class Facts:
    """What is known besides the evidence."""

    place: Place
    stayed_s: float
    """Since this place was entered."""
    fleet: FleetView
    guard: str = ""
    """A hard guard of the candidate, in words; empty: none."""
    late_windows: int = 0
    """Windows that came too late to be counted, while that is recent."""
    lost_batches: int = 0
    """Batches that never came, while that is recent."""
    frozen: str = ""
    """The freeze window that holds now; empty: none."""
    finding: str = ""
    """What monitoring wrote to hold this model; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and why; *missing*: what an UNDECIDED or HOLD waits for."""

    verdict: Verdict
    reason: str
    missing: tuple[str, ...] = ()


def judge(policy: Policy, facts: Facts, evidence: Evidence) -> Judgement:
    """Return the verdict on the candidate where it stands.

    FAULTY beats HOLD beats HEALTHY. Without evidence nothing is HEALTHY, however long it takes.
    """
    fault = _fault(policy, facts, evidence)
    if fault:
        return Judgement(Verdict.FAULTY, fault)
    holds = _holds(policy, facts, evidence)
    if holds:
        return Judgement(Verdict.HOLD, "; ".join(holds), holds)
    missing = _missing(policy, facts, evidence)
    stage = facts.place.stage
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
    return Judgement(Verdict.HEALTHY, _praise(policy, facts, evidence))


def _fault(policy: Policy, facts: Facts, evidence: Evidence) -> str:
    stage = facts.place.stage
    if facts.guard:
        return facts.guard
    if stage == Stage.PRELOAD:
        return f"refused by {'; '.join(facts.fleet.refused)}" if facts.fleet.refused else ""
    if stage == Stage.SHADOW and policy.shadow is not None:
        pairs = evidence.stage.shadow
        if pairs.faulty > policy.shadow.faulty_max:
            return (
                f"the shadow failed on {pairs.faulty} of {pairs.pairs} rows that production "
                f"scored; the policy allows {policy.shadow.faulty_max}"
            )
    return next((words for name in JUDGED if (words := accuse(policy, evidence, name))), "")


def _holds(policy: Policy, facts: Facts, evidence: Evidence) -> tuple[str, ...]:
    stage = facts.place.stage
    holds = []
    if facts.frozen:
        holds.append(f"frozen by the policy's window {facts.frozen!r} (UTC)")
    if facts.finding:
        holds.append(f"monitoring says: {facts.finding}")
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
        holds += evidence.stage.shadow.doubts(policy.shadow, prediction.shift, prediction.expected)
    else:
        holds += evidence.doubts.reasons()
        if evidence.prediction.unapproved:
            holds.append(evidence.prediction.unapproved)
    return tuple(holds)


def _missing(policy: Policy, facts: Facts, evidence: Evidence) -> tuple[str, ...]:
    place = facts.place
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
        missing.append(_missing_keys(policy, evidence))
    stay = stay_s(place, policy)
    if facts.stayed_s < stay:
        missing.append(f"{stay - facts.stayed_s:.0f} s of {stay:g} s at this place")
    return tuple(missing)


def _missing_keys(policy: Policy, evidence: Evidence) -> str:
    stage = evidence.stage
    needed = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    return (
        f"clean keys: {len(stage.clean)} of {needed}, {stage.failed_kept} failed (e = "
        f"{math.exp(min(evidence.promote_log_e, 700.0)):.3g} of {policy.promote_e:g} that fewer "
        f"than {policy.failure_bar:.2%} fail)"
    )


def _praise(policy: Policy, facts: Facts, evidence: Evidence) -> str:
    stage = evidence.stage
    if facts.place.stage == Stage.PRELOAD:
        return f"all {facts.fleet.workers} workers hold it ready"
    if facts.place.stage == Stage.SHADOW:
        shadow = stage.shadow
        return f"{shadow.pairs} pairs, {shadow.faulty} failed, {shadow.flips} decisions differ"
    e = math.exp(min(evidence.promote_log_e, 700.0))
    return (
        f"{len(stage.clean)} clean keys and {stage.failed_kept} failed since this share began; "
        f"e = {e:.3g} of {policy.promote_e:g} needed"
    )
