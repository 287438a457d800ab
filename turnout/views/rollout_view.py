"""Tables of rollout statuses and policies."""

import json
import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from protos import rollout_pb2
from rollout.api.explain import nearness, ranked_evidence
from turnout.views.json_values import message_to_json
from turnout.views.terminal import named_values, text_table

FINAL_STAGE_VALUES = frozenset(
    {rollout_pb2.DONE, rollout_pb2.ROLLED_BACK, rollout_pb2.REFUSED_STAGE}
)
"""The stages in which a rollout has ended."""

VERDICT_STYLES = {
    rollout_pb2.HEALTHY: "green",
    rollout_pb2.FAULTY: "bold red",
    rollout_pb2.HOLD: "yellow",
    rollout_pb2.UNDECIDED: "cyan",
    rollout_pb2.VERDICT_UNSPECIFIED: "dim",
}


def status_view(status: rollout_pb2.RolloutStatus) -> RenderableType:
    """Return tables of a rollout's stage, verdict, reason, evidence and times."""
    # What is rolled out, and where it stands.
    verdict = rollout_pb2.Verdict.Name(status.verdict)
    summary = {
        "rollout": f"{status.rollout_id}: {status.model} {status.version} beside {status.baseline}",
        "policy": f"{status.policy} ({status.policy_digest[:12]})"
        f"{f', {status.policy_note}' if status.policy_note else ''}",
        "stage": f"{stage_name(status)}{', paused' if status.paused else ''}",
        "revision": status.revision,
        "calls": ", ".join(
            f"{n.replace('_', ' ')} {calls}" for n, calls in message_to_json(status.calls).items()
        ),
    }
    parts: list[RenderableType] = [
        named_values(summary),
        Text.assemble((verdict, VERDICT_STYLES[status.verdict]), f"  {status.reason}"),
        *(Text(f"waiting for {item}", style="dim") for item in status.waiting_for),
    ]
    parts += [
        Text(f"windows are not counted: {sender}", style="bold yellow")
        for sender in status.refused_senders
    ]
    if status.forecast:
        parts.append(Text(status.forecast, style="dim"))
    # Evidence, and after a rollback its times.
    if status.evidence:
        first = status.evidence[0]
        to_promote = _value_of_threshold(first.promote_log_e, first.promote_log_threshold)
        parts.append(Text(f"ln e to promote {to_promote}", style="dim"))
        parts.append(evidence_table(status))
    if status.times.verdict_unix_ns:
        parts.append(named_values(dict(four_times(status.times))))
    return Group(*parts)


def stage_name(status: rollout_pb2.RolloutStatus) -> str:
    """Return the stage for display, with the candidate's share where it has one."""
    names = {
        rollout_pb2.PRELOAD: "preload",
        rollout_pb2.SHADOW_STAGE: "shadow",
        rollout_pb2.CANARY_STAGE: f"canary {status.share_bp / 100:g} %",
        rollout_pb2.WATCH: "production, watched",
        rollout_pb2.DONE: "done",
        rollout_pb2.ROLLED_BACK: "rolled back",
        rollout_pb2.REFUSED_STAGE: "refused",
    }
    return names.get(status.stage, "not known")


def evidence_table(status: rollout_pb2.RolloutStatus) -> RenderableType:
    """Return one row for each metric, the nearest to its rollback threshold first."""
    rows = [
        (
            evidence.metric,
            _bar(nearness(evidence)),
            f"{evidence.canary_events}/{evidence.compared_keys or evidence.canary_keys}",
            f"{evidence.baseline_events}/{evidence.baseline_keys}",
            _ratio(evidence),
            _value_of_threshold(evidence.log_e_max, evidence.log_threshold),
            evidence.gate or evidence.note,
        )
        for evidence in ranked_evidence(status.evidence)
    ]
    columns = ("metric", "nearness", "canary", "baseline", "ratio", "ln e to roll back", "effect")
    return text_table(columns, rows)


def _bar(fraction: float) -> str:
    """Return a bar of ten cells; 1 fills it, which means that the rollout is rolled back."""
    cells = round(10 * min(max(fraction, 0.0), 1.0)) if math.isfinite(fraction) else 10
    return "#" * cells + "." * (10 - cells)


def _ratio(evidence: rollout_pb2.Evidence) -> str:
    if evidence.metric == "prediction" or not evidence.effect:
        return "-"
    high = "any" if math.isinf(evidence.interval_high) else f"{evidence.interval_high:.2f}"
    return f"{evidence.effect:.2f} [{evidence.interval_low:.2f}, {high}]"


def policies_table(policies: Sequence[rollout_pb2.Policy]) -> RenderableType:
    """Return one row for each policy: its stages, their shortest times, and its thresholds."""
    rows = []
    for policy in policies:
        fields = json.loads(policy.json)
        shadow = fields["shadow"]
        rows.append(
            (
                policy.name,
                policy.digest[:12],
                f"{shadow['pairs_min']:,} pairs, {shadow['bake_s']:g} s" if shadow else "-",
                ", ".join(f"{s['share_bp'] / 100:g} % {s['bake_s']:g} s" for s in fields["canary"]),
                f"{fields['watch_s']:g} s beside {fields['standby_bp'] / 100:g} %",
                f"{fields['failure_bar']:.1%}, e {fields['promote_e']:g}",
                f"alpha {fields['alpha']:g}",
                policy.project or "-",
            )
        )
    columns = (
        "policy",
        "digest",
        "shadow",
        "canary",
        "watch",
        "promotes below",
        "rolls back at",
        "project",
    )
    return text_table(columns, rows)


def four_times(times: rollout_pb2.RollbackTimes) -> Iterator[tuple[str, str]]:
    """Yield the four times of a rollback as (name, ms after the first bad answer).

    A rollback by hand, or after a hold, may have no bad answer. Then the verdict counts as 0 ms.
    """
    first = times.first_bad_unix_ns or times.verdict_unix_ns
    yield "first bad answer", "0 ms" if times.first_bad_unix_ns else "none"
    for name, at in (
        ("verdict", times.verdict_unix_ns),
        ("traffic moved", times.moved_unix_ns),
        ("last bad answer", times.last_bad_unix_ns),
    ):
        if at:
            yield name, f"{(at - first) / 1e6:+,.0f} ms"
        elif name == "last bad answer" and not times.first_bad_unix_ns:
            yield name, "none"
        else:
            yield name, "not yet"


def _value_of_threshold(value: float, threshold: float) -> str:
    if not math.isfinite(value) or not threshold:
        return "-"
    return f"{value:.1f} of {threshold:.1f}"
