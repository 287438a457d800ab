"""A rollout told in plain words, decision by decision."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from protos import rollout_pb2

STAGE_WORDS = {
    rollout_pb2.PRELOAD: "preloaded",
    rollout_pb2.SHADOW_STAGE: "in the shadow of production",
    rollout_pb2.CANARY_STAGE: "answering as a canary",
    rollout_pb2.WATCH: "production, watched",
    rollout_pb2.DONE: "production",
    rollout_pb2.ROLLED_BACK: "rolled back",
    rollout_pb2.REFUSED_STAGE: "refused",
}


def explain(status: rollout_pb2.RolloutStatus, decisions: list[rollout_pb2.Decision]) -> str:
    """Return the story: where it stands and why, what it waits for, how it came there."""
    verdict = rollout_pb2.Verdict.Name(status.verdict)
    stands = STAGE_WORDS.get(status.stage, "not known")
    lines = [
        f"Version {status.version} of {status.model}, beside {status.baseline}, under policy "
        f"{status.policy} ({status.policy_digest[:12]}): {stands}"
        f"{' (paused)' if status.paused else ''}, with {status.share_bp / 100:g} % of calls.",
        f"{verdict}: {status.reason}.",
    ]
    lines += [f"  waits for {thing}" for thing in status.missing]
    if status.policy_note:
        lines.append(f"  its policy is {status.policy_note}")
    if status.shift:
        lines.append(f"  held to {status.shift}")
    if status.foretold:
        lines.append(f"  {status.foretold}")
    lines += [f"  {evidence_words(one)}" for one in ranked(status.evidence)]
    lines += list(_times(status.times))
    lines.append("What was decided:")
    for decision in decisions:
        at = datetime.fromtimestamp(decision.at_unix_ns / 1e9, tz=UTC)
        lines.append(
            f"  {at:%H:%M:%S.%f}"[:-3]
            + f"Z revision {decision.revision}: {STAGE_WORDS.get(decision.stage, '?')}; "
            + decision.reason
        )
    return "\n".join(lines) + "\n"


def ranked(evidence: Iterable[rollout_pb2.Evidence]) -> list[rollout_pb2.Evidence]:
    """Return the rows, nearest to its threshold first: where to look."""
    return sorted(evidence, key=lambda one: -nearness(one))


def nearness(one: rollout_pb2.Evidence) -> float:
    """Return ln e as a part of what rolls back: 1 is enough. The gate must be open, too."""
    return one.log_e_max / one.log_threshold if one.log_threshold else 0.0


def evidence_words(one: rollout_pb2.Evidence) -> str:
    """Return one metric's evidence: counts, effect with its interval, how near, and its gate."""
    reached = f"ln e to roll back {one.log_e_max:.2f} of {one.log_threshold:.2f}"
    if one.metric == "prediction":
        words = f"prediction: {one.counted} keys of the candidate compared; {reached}"
    else:
        words = (
            f"{one.metric}: {one.canary_events} keys on the candidate, {one.baseline_events} on "
            f"the baseline{effect_words(one)}; {reached}"
        )
    if one.gate:
        words += f"; {one.gate}{'' if one.gate_open else ': not enough to act'}"
    return f"{words}{f' ({one.note})' if one.note else ''}"


def effect_words(one: rollout_pb2.Evidence) -> str:
    """Return the rate ratio with its interval; empty where there are no events."""
    if not one.effect or one.metric == "prediction":
        return ""
    if not one.interval_high:
        return f", {one.effect:.2f} times as often"
    high = "" if math.isinf(one.interval_high) else f" {one.interval_high:.2f}"
    return f", {one.effect:.2f} times as often [{one.interval_low:.2f} to{high or ' any'}]"


def _times(times: rollout_pb2.RollbackTimes) -> list[str]:
    if not times.verdict_unix_ns:
        return []
    first = times.first_bad_unix_ns or times.verdict_unix_ns
    told = [("first bad answer", times.first_bad_unix_ns), ("verdict", times.verdict_unix_ns)]
    told += [("traffic moved", times.moved_unix_ns), ("last bad answer", times.last_bad_unix_ns)]
    return [
        f"  {name}: {f'{(at - first) / 1e6:+,.0f} ms' if at else 'none, or not yet known'}"
        for name, at in told
    ]
