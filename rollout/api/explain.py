"""Explains a rollout to people: its position, its evidence and its decisions."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from protos import rollout_pb2

STAGE_TEXTS = {
    rollout_pb2.PRELOAD: "preloaded",
    rollout_pb2.SHADOW_STAGE: "in the shadow of production",
    rollout_pb2.CANARY_STAGE: "answering as a canary",
    rollout_pb2.WATCH: "production, watched",
    rollout_pb2.DONE: "production",
    rollout_pb2.ROLLED_BACK: "rolled back",
    rollout_pb2.REFUSED_STAGE: "refused",
}


def explanation_text(
    status: rollout_pb2.RolloutStatus, decisions: list[rollout_pb2.Decision]
) -> str:
    """Return a text of several lines: position, reason, evidence, rollback times, decisions."""
    # Where the rollout stands, and why.
    verdict = rollout_pb2.Verdict.Name(status.verdict)
    stage = STAGE_TEXTS.get(status.stage, "not known")
    lines = [
        f"Version {status.version} of {status.model}, beside {status.baseline}, under policy "
        f"{status.policy} ({status.policy_digest[:12]}): {stage}"
        f"{' (paused)' if status.paused else ''}, with {status.share_bp / 100:g} % of calls.",
        f"{verdict}: {status.reason}.",
    ]
    lines += [f"  waits for {condition}" for condition in status.waiting_for]
    if status.policy_note:
        lines.append(f"  its policy is {status.policy_note}")
    if status.approved_shift_text:
        lines.append(f"  held to {status.approved_shift_text}")
    lines += [f"  {difference}" for difference in status.score_differences]
    if status.forecast:
        lines.append(f"  {status.forecast}")
    lines += [f"  {evidence_text(row)}" for row in ranked_evidence(status.evidence)]
    lines += list(_rollback_times_lines(status.times))
    # The history.
    lines.append("What was decided:")
    for decision in decisions:
        at = datetime.fromtimestamp(decision.at_unix_ns / 1e9, tz=UTC)
        lines.append(
            f"  {at:%H:%M:%S.%f}"[:-3]
            + f"Z revision {decision.revision}: {STAGE_TEXTS.get(decision.stage, '?')}; "
            + decision.reason
        )
    return "\n".join(lines) + "\n"


def ranked_evidence(evidence: Iterable[rollout_pb2.Evidence]) -> list[rollout_pb2.Evidence]:
    """Return the rows of evidence, the nearest to its threshold first."""
    return sorted(evidence, key=lambda row: -nearness(row))


def nearness(row: rollout_pb2.Evidence) -> float:
    """Return ln e as a part of the threshold. From 1 on it rolls back, if the gate is open."""
    return row.log_e_max / row.log_threshold if row.log_threshold else 0.0


def evidence_text(row: rollout_pb2.Evidence) -> str:
    """Return a line about one metric: counts, effect with its interval, ln e, and the gate."""
    reached = f"ln e to roll back {row.log_e_max:.2f} of {row.log_threshold:.2f}"
    if row.metric == "prediction":
        text = f"prediction: {row.compared_keys} keys of the candidate compared; {reached}"
    else:
        text = (
            f"{row.metric}: {row.canary_events} keys on the candidate, {row.baseline_events} on "
            f"the baseline{effect_text(row)}; {reached}"
        )
    if row.gate:
        text += f"; {row.gate}{'' if row.gate_open else ': not enough to act'}"
    return f"{text}{f' ({row.note})' if row.note else ''}"


def effect_text(row: rollout_pb2.Evidence) -> str:
    """Return the rate ratio with its interval; empty without events."""
    if not row.effect or row.metric == "prediction":
        return ""
    if not row.interval_high:
        return f", {row.effect:.2f} times as often"
    high = "" if math.isinf(row.interval_high) else f" {row.interval_high:.2f}"
    return f", {row.effect:.2f} times as often [{row.interval_low:.2f} to{high or ' any'}]"


def _rollback_times_lines(times: rollout_pb2.RollbackTimes) -> list[str]:
    if not times.verdict_unix_ns:
        return []
    first = times.first_bad_unix_ns or times.verdict_unix_ns
    moments = (
        ("first bad answer", times.first_bad_unix_ns),
        ("verdict", times.verdict_unix_ns),
        ("traffic moved", times.moved_unix_ns),
        ("last bad answer", times.last_bad_unix_ns),
    )
    return [
        f"  {name}: {f'{(at - first) / 1e6:+,.0f} ms' if at else 'none, or not yet known'}"
        for name, at in moments
    ]
