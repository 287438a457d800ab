"""Forecasts a rollout: the keys and the time of each step, and the failures it cannot detect.

Pure. Every call is assumed to be of another key. If each customer calls k times, every step takes k
times as long.
"""

import math
from dataclasses import dataclass

from protos import rollout_pb2
from rollout.policy.policy import Policy
from rollout.policy.stages import Stage, StagePosition, min_stay_s, share_bp_at
from stats.rate import clean_keys_needed
from stats.tilt import LATENCY, MORE_EVENTS, Grid, events_to_fire

FAILURE_RATE = 0.001
"""Part of production's keys that fail, if the caller gives no other rate."""
BEYOND_P99 = 0.01
LATE_ONSET_LOG_COST = math.log(2.0)
"""The evidence, as a logarithm, that the tests spend on faults with a late onset."""


@dataclass(frozen=True, slots=True)
class ForecastStep:
    """One position of a policy, with its forecast."""

    position: StagePosition
    share_bp: int
    bake_s: float
    keys: int
    """Clean keys of the candidate (in the shadow stage: pairs) that the step needs."""
    seconds: float
    """Seconds until the step can pass; infinity without traffic."""
    detectable_failure_rate: float
    detectable_slow_rate: float
    failing_keys_min: int


def forecast_steps(
    policy: Policy, calls_a_second: float, failure_rate: float = FAILURE_RATE
) -> list[ForecastStep]:
    """Return a forecast of each step after the preload, in order.

    failure_rate  part of production's keys that fail.
    """
    positions = [StagePosition(Stage.CANARY, step) for step in range(len(policy.canary))]
    positions.append(StagePosition(Stage.WATCH))
    steps = [_shadow_step(policy, calls_a_second)] if policy.shadow is not None else []
    return steps + [
        _split_step(policy, position, calls_a_second, failure_rate) for position in positions
    ]


def _shadow_step(policy: Policy, calls_a_second: float) -> ForecastStep:
    assert policy.shadow is not None
    pairs_a_second = calls_a_second * policy.shadow.sample_bp / 10_000
    wait = policy.shadow.pairs_min / pairs_a_second if pairs_a_second > 0 else math.inf
    return ForecastStep(
        position=StagePosition(Stage.SHADOW),
        share_bp=0,
        bake_s=policy.shadow.bake_s,
        keys=policy.shadow.pairs_min,
        seconds=max(policy.shadow.bake_s, wait),
        detectable_failure_rate=(policy.shadow.faulty_max + 1) / policy.shadow.pairs_min,
        detectable_slow_rate=1.0,
        failing_keys_min=policy.shadow.faulty_max + 1,
    )


def _split_step(
    policy: Policy, position: StagePosition, calls_a_second: float, failure_rate: float
) -> ForecastStep:
    """Return the forecast of a step in which the split gives the candidate a share."""
    share, bake_s = share_bp_at(position, policy) / 10_000, min_stay_s(position, policy)
    # How long until enough clean keys have been seen, and how many are seen in that time.
    keys = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    keys_a_second = calls_a_second * share
    seconds = max(bake_s, keys / keys_a_second) if keys_a_second > 0 else math.inf
    seen = int(keys_a_second * seconds) if keys_a_second > 0 else 0
    # What the rollback tests detect with so many keys.
    errors = policy.log_threshold("errors")
    return ForecastStep(
        position=position,
        share_bp=share_bp_at(position, policy),
        bake_s=bake_s,
        keys=keys,
        seconds=seconds,
        detectable_failure_rate=smallest_detectable_rate(
            MORE_EVENTS, failure_rate, seen, share, errors
        ),
        detectable_slow_rate=smallest_detectable_rate(
            LATENCY, BEYOND_P99, seen, share, policy.log_threshold("p99")
        ),
        failing_keys_min=events_to_fire(MORE_EVENTS, share, errors + LATE_ONSET_LOG_COST),
    )


def smallest_detectable_rate(
    grid: Grid, base: float, keys: int, share: float, log_threshold: float
) -> float:
    """Return the smallest event rate of the candidate that *keys* of its keys reveal on average.

    base  production's event rate.
    Returns 1.0 if no rate is revealed.
    """
    if _expected_log_e(grid, 1.0, base, keys, share) < log_threshold + LATE_ONSET_LOG_COST:
        return 1.0
    low, high = base, 1.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        if _expected_log_e(grid, middle, base, keys, share) < log_threshold + LATE_ONSET_LOG_COST:
            low = middle
        else:
            high = middle
    return high


def _expected_log_e(grid: Grid, rate: float, base: float, keys: int, share: float) -> float:
    canary = keys * rate
    events = canary + keys * base * (1.0 - share) / share
    best = max(
        canary * delta - events * math.log1p(share * math.expm1(delta)) for delta in grid.deltas
    )
    return best - math.log(len(grid.deltas))


def forecast_reply(
    policy: Policy, calls_a_second: float, failure_rate: float
) -> rollout_pb2.ForecastReply:
    """Return the steps as a message, with a text for people.

    failure_rate  part of production's keys that fail; 0: FAILURE_RATE.
    """
    rate = failure_rate or FAILURE_RATE
    steps = forecast_steps(policy, calls_a_second, rate)
    return rollout_pb2.ForecastReply(
        calls_a_second=calls_a_second,
        steps=[_step_to_proto(step, calls_a_second) for step in steps],
        text=forecast_text(policy, steps, calls_a_second),
    )


def _step_to_proto(step: ForecastStep, calls_a_second: float) -> rollout_pb2.ForecastStep:
    calls = 0 if math.isinf(step.seconds) else math.ceil(calls_a_second * step.seconds)
    return rollout_pb2.ForecastStep(
        stage=rollout_pb2.Stage.Name(int(step.position.stage)),
        share_bp=step.share_bp,
        bake_s=step.bake_s,
        keys=step.keys,
        calls=calls,
        seconds=step.seconds,
        detectable_failure_rate=step.detectable_failure_rate,
        detectable_slow_rate=step.detectable_slow_rate,
        failing_keys_min=step.failing_keys_min,
    )


def forecast_text(policy: Policy, steps: list[ForecastStep], calls_a_second: float) -> str:
    """Return the forecast as a text with one line for each step."""
    lines = [
        f"Policy {policy.name} ({policy.digest[:12]}) at {calls_a_second:.1f} calls a second, "
        "every call another key:"
    ]
    # The shadow step has pairs, the others have keys.
    for step in steps:
        name = step.position.stage.name.lower()
        if step.position.stage == Stage.SHADOW:
            lines.append(
                f"  {name}: {_duration_text(step.seconds)}, {step.keys:,} pairs; more than "
                f"{step.failing_keys_min - 1} failing rows roll back"
            )
            continue
        unseen_failures = f"fewer than {step.detectable_failure_rate:.2%} failing keys"
        unseen_slow = f"fewer than {step.detectable_slow_rate:.1%} of keys beyond production's p99"
        lines.append(
            f"  {name} {step.share_bp / 100:g} %: {_duration_text(step.seconds)}, {step.keys:,} "
            f"clean keys; {step.failing_keys_min} failing keys can roll back; could pass unseen: "
            f"{unseen_failures}, {unseen_slow}"
        )
    total = math.fsum(step.seconds for step in steps)
    lines.append(f"  in all: {_duration_text(total)}, if nothing holds it")
    # Steps that need longer than the policy lets them stay.
    too_slow = [step for step in steps if step.seconds > policy.stage_s_max]
    lines += [
        f"  {step.position.stage.name.lower()} {step.share_bp / 100:g} % would reach its time "
        f"limit of {policy.stage_s_max:g} s before it could pass: a person will have to decide"
        for step in too_slow
    ]
    return "\n".join(lines) + "\n"


def stage_forecast(
    policy: Policy, position: StagePosition, stayed_s: float, clean: int, failed: int, pairs: int
) -> str:
    """Return when the current stage could pass at its pace so far; empty if that is not known.

    clean, failed  keys of the candidate in this stage. How many clean keys outweigh a failed key
                   is not forecast, so with a failed key the text is empty.
    pairs          rows that the shadow and production scored.
    """
    if position.stage == Stage.SHADOW and policy.shadow is not None:
        have, need, what = pairs, policy.shadow.pairs_min, "pairs"
    elif position.stage in (Stage.CANARY, Stage.WATCH):
        have, what = clean, "clean keys"
        need = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    else:
        return ""
    bake_s = max(0.0, min_stay_s(position, policy) - stayed_s)
    if failed or have >= need:
        return f"could pass in {_duration_text(bake_s)}" if have >= need and not failed else ""
    if not have or stayed_s <= 0.0:
        return f"no {what} yet: nothing can be decided"
    wait_s = (need - have) * stayed_s / have
    time_text = _duration_text(max(bake_s, wait_s))
    return f"could pass in {time_text}: {need - have} more {what} at this pace"


def _duration_text(seconds: float) -> str:
    if math.isinf(seconds):
        return "never, without traffic"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
