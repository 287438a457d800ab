"""Before a rollout: how many keys and how long each step needs, and what it could not see.

Pure. Every call is taken for another key's; where customers call k times, time is k times as long.
"""

import math
from dataclasses import dataclass

from protos import rollout_pb2
from rollout.policy.policy import Policy
from rollout.policy.stages import Place, Stage, share_bp, stay_s
from stats.rate import clean_keys_needed
from stats.tilt import LATENCY, WORSE, Grid, events_to_fire

FAILURE_RATE = 0.001
"""Of production's keys, where nothing was measured."""
BEYOND_P99 = 0.01
LOG_LATE = math.log(2.0)
"""What waiting for a late onset costs."""


@dataclass(frozen=True, slots=True)
class Foretold:
    """One step of the plan."""

    place: Place
    share_bp: int
    bake_s: float
    keys: int
    """The candidate's, all clean, that pass it (pairs, in the shadow)."""
    seconds: float
    """Until it can pass; infinity without traffic."""
    failures_unseen: float
    slow_unseen: float
    failures_min: int


def foretell(
    policy: Policy, calls_a_second: float, failure_rate: float = FAILURE_RATE
) -> list[Foretold]:
    """Return the steps after the preload, in order."""
    places = [Place(Stage.CANARY, step) for step in range(len(policy.canary))]
    places.append(Place(Stage.WATCH))
    steps = [_shadow(policy, calls_a_second)] if policy.shadow is not None else []
    return steps + [_step(policy, place, calls_a_second, failure_rate) for place in places]


def _shadow(policy: Policy, calls_a_second: float) -> Foretold:
    assert policy.shadow is not None
    pairs_a_second = calls_a_second * policy.shadow.sample_bp / 10_000
    wait = policy.shadow.pairs_min / pairs_a_second if pairs_a_second > 0 else math.inf
    return Foretold(
        place=Place(Stage.SHADOW),
        share_bp=0,
        bake_s=policy.shadow.bake_s,
        keys=policy.shadow.pairs_min,
        seconds=max(policy.shadow.bake_s, wait),
        failures_unseen=(policy.shadow.faulty_max + 1) / policy.shadow.pairs_min,
        slow_unseen=1.0,
        failures_min=policy.shadow.faulty_max + 1,
    )


def _step(policy: Policy, place: Place, calls_a_second: float, failure_rate: float) -> Foretold:
    share, bake_s = share_bp(place, policy) / 10_000, stay_s(place, policy)
    keys = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    keys_a_second = calls_a_second * share
    seconds = max(bake_s, keys / keys_a_second) if keys_a_second > 0 else math.inf
    met = int(keys_a_second * seconds) if keys_a_second > 0 else 0
    errors = policy.log_threshold("errors")
    return Foretold(
        place=place,
        share_bp=share_bp(place, policy),
        bake_s=bake_s,
        keys=keys,
        seconds=seconds,
        failures_unseen=smallest_seen(WORSE, failure_rate, met, share, errors),
        slow_unseen=smallest_seen(LATENCY, BEYOND_P99, met, share, policy.log_threshold("p99")),
        failures_min=events_to_fire(WORSE, share, errors + LOG_LATE),
    )


def smallest_seen(grid: Grid, base: float, keys: int, share: float, log_threshold: float) -> float:
    """Return the candidate's event rate that *keys* of its own reveal on average; 1.0: none.

    base  production's event rate.
    """
    if _expected_log_e(grid, 1.0, base, keys, share) < log_threshold + LOG_LATE:
        return 1.0
    low, high = base, 1.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        if _expected_log_e(grid, middle, base, keys, share) < log_threshold + LOG_LATE:
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


def reply(policy: Policy, calls_a_second: float, failure_rate: float) -> rollout_pb2.ForetellReply:
    """Return the steps with their words."""
    rate = failure_rate or FAILURE_RATE
    steps = foretell(policy, calls_a_second, rate)
    return rollout_pb2.ForetellReply(
        calls_a_second=calls_a_second,
        steps=[_told(step, calls_a_second) for step in steps],
        text=words(policy, steps, calls_a_second),
    )


def _told(step: Foretold, calls_a_second: float) -> rollout_pb2.ForetoldStep:
    calls = 0 if math.isinf(step.seconds) else math.ceil(calls_a_second * step.seconds)
    return rollout_pb2.ForetoldStep(
        stage=rollout_pb2.Stage.Name(int(step.place.stage)),
        share_bp=step.share_bp,
        bake_s=step.bake_s,
        keys=step.keys,
        calls=calls,
        seconds=step.seconds,
        failures_unseen=step.failures_unseen,
        slow_unseen=step.slow_unseen,
        failures_min=step.failures_min,
    )


def words(policy: Policy, steps: list[Foretold], calls_a_second: float) -> str:
    """Return the plan as people read it."""
    lines = [
        f"Policy {policy.name} ({policy.digest[:12]}) at {calls_a_second:.1f} calls a second, "
        "every call another key:"
    ]
    for step in steps:
        name = step.place.stage.name.lower()
        if step.place.stage == Stage.SHADOW:
            lines.append(
                f"  {name}: {_time(step.seconds)}, {step.keys:,} pairs; more than "
                f"{step.failures_min - 1} failing rows roll back"
            )
            continue
        unseen = f"fewer than {step.failures_unseen:.2%} failing keys"
        slow = f"fewer than {step.slow_unseen:.1%} of keys beyond production's p99"
        lines.append(
            f"  {name} {step.share_bp / 100:g} %: {_time(step.seconds)}, {step.keys:,} clean keys; "
            f"{step.failures_min} failing keys can roll back; could pass unseen: {unseen}, {slow}"
        )
    total = math.fsum(step.seconds for step in steps)
    lines.append(f"  in all: {_time(total)}, if nothing holds it")
    late = [step for step in steps if step.seconds > policy.stage_s_max]
    lines += [
        f"  {step.place.stage.name.lower()} {step.share_bp / 100:g} % would reach its time "
        f"limit of {policy.stage_s_max:g} s before it could pass: a person will be asked"
        for step in late
    ]
    return "\n".join(lines) + "\n"


def ready_in(
    policy: Policy, place: Place, stayed_s: float, clean: int, failed: int, pairs: int
) -> str:
    """Return when a stage under way could be passed at its own pace so far; empty: not known.

    clean, failed  keys of the candidate in this stage; a failed one costs as many clean ones as
    it takes to outweigh it, which is not foretold.
    """
    if place.stage == Stage.SHADOW and policy.shadow is not None:
        have, need, what = pairs, policy.shadow.pairs_min, "pairs"
    elif place.stage in (Stage.CANARY, Stage.WATCH):
        have, what = clean, "clean keys"
        need = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    else:
        return ""
    bake_s = max(0.0, stay_s(place, policy) - stayed_s)
    if failed or have >= need:
        return f"could pass in {_time(bake_s)}" if have >= need and not failed else ""
    if not have or stayed_s <= 0.0:
        return f"no {what} yet: nothing can be decided"
    wait_s = (need - have) * stayed_s / have
    return f"could pass in {_time(max(bake_s, wait_s))}: {need - have} more {what} at this pace"


def _time(seconds: float) -> str:
    if math.isinf(seconds):
        return "never, without traffic"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
