"""Explains each metric: the reason to roll back, and a row of evidence for people and records."""

import math

from protos import rollout_pb2
from rollout.evidence.evidence import OUTCOME, PREDICTION, Evidence
from rollout.evidence.latency import QUANTILES
from rollout.evidence.metric_test import MetricTest
from rollout.policy.policy import JUDGED_METRICS, Policy

EVENT_TEXTS = {
    "errors": "keys failed",
    "schema": "keys got NaN or infinity",
    "timeouts": "keys waited past the budget",
    "p99": "keys saw answers slower than production's p99",
    "p90": "keys saw answers slower than production's p90",
    "p50": "keys saw answers slower than production's p50",
    OUTCOME: "keys had the good outcome",
}
BATCH_WEIGHTED = (*QUANTILES, "timeouts")
"""Metrics of which a slow batch causes many events at once."""


def rollback_reason(policy: Policy, evidence: Evidence, metric: str) -> str:
    """Return why *metric* rolls back; empty if it does not.

    It needs evidence over its threshold and, where it has a gate, an effect that is large enough.
    """
    threshold = policy.log_threshold(metric)
    if metric == PREDICTION:
        return _departure_reason(evidence, threshold)
    metric_test = evidence.metrics[metric]
    log_e_max = metric_test.tilt_state.log_e_max
    if log_e_max < threshold:
        return ""
    text = (
        f"{metric}: {metric_test.canary_events} {EVENT_TEXTS[metric]} on the candidate against "
        f"{metric_test.baseline_events} on the baseline; ln e = {log_e_max:.2f} "
        f"reached {threshold:.2f}"
    )
    if metric in BATCH_WEIGHTED:
        canary, baseline = metric_test.weighted_events
        text += f" (calls of one batch count as one: {canary:.1f} against {baseline:.1f})"
    if metric in QUANTILES:
        gate = evidence.latency.quantile_gate(metric)
        if not gate.is_open:
            return ""
        text += f"; {evidence.latency.gate_text(gate)}"
    if metric == OUTCOME:
        if not _outcome_gate_open(evidence):
            return ""
        text += f"; reported by {evidence.outcome_callers.shares_text}"
    return text


def outcome_hold_reason(evidence: Evidence) -> str:
    """Return why outcomes need a person: one caller decides whether they roll back; else empty."""
    threshold = evidence.policy.log_threshold(OUTCOME)
    whole = evidence.metrics[OUTCOME].tilt_state.log_e_max
    callers = evidence.outcome_callers
    if max(whole, callers.strongest_without()) < threshold:
        return ""
    if whole >= threshold and _outcome_gate_open(evidence):
        return ""
    caller, log_e = callers.weakest_without(_trusted(evidence))
    return (
        f"outcome: ln e = {whole:.2f} of {threshold:.2f} by all reports, {log_e:.2f} without those "
        f"of the caller {caller!r} ({callers.shares_text}): one caller's reports do not move a "
        "verdict. A person decides, or a policy whose [outcome] trusts the caller is approved"
    )


def _trusted(evidence: Evidence) -> frozenset[str]:
    good = evidence.policy.outcome
    return frozenset() if good is None else good.trusted


def _outcome_gate_open(evidence: Evidence) -> bool:
    """Whether outcomes reach the threshold without the reports of any one untrusted caller."""
    _, log_e = evidence.outcome_callers.weakest_without(_trusted(evidence))
    return log_e >= evidence.policy.log_threshold(OUTCOME)


def _departure_reason(evidence: Evidence, threshold: float) -> str:
    prediction = evidence.prediction
    if prediction.log_e_max < threshold or not prediction.may_roll_back:
        return ""
    reached = f"ln e = {prediction.log_e_max:.2f} reached {threshold:.2f}"
    if prediction.expectation is None:
        return f"prediction: {prediction.unapproved_fault}; {reached}"
    difference = prediction.score_difference()
    return (
        f"prediction: scores of {prediction.compared_keys} keys depart from the approved shift "
        f"(PSI {difference.psi:.3f}, acts beyond {difference.bound:.3f}); {reached}"
    )


def evidence_rows(evidence: Evidence, *, intervals: bool = False) -> list[rollout_pb2.Evidence]:
    """Return one row for each of JUDGED_METRICS.

    intervals  also compute the interval of each rate ratio, which costs a bisection each.
    """
    return [_evidence_row(evidence, name, intervals=intervals) for name in JUDGED_METRICS]


def log_e_maxima(evidence: Evidence) -> list[float]:
    """Return the running maximum of ln E of each of JUDGED_METRICS."""
    of_prediction = evidence.prediction.log_e_max
    return [
        of_prediction if name == PREDICTION else evidence.metrics[name].tilt_state.log_e_max
        for name in JUDGED_METRICS
    ]


def _evidence_row(evidence: Evidence, name: str, *, intervals: bool) -> rollout_pb2.Evidence:
    # What all metrics have.
    policy = evidence.policy
    row = rollout_pb2.Evidence(
        metric=name,
        canary_keys=evidence.canary_keys,
        baseline_keys=evidence.baseline_keys,
        log_threshold=policy.log_threshold(name),
        promote_log_e=evidence.promote_log_e,
        promote_log_threshold=policy.promote_log_threshold,
        note=_note(evidence, name),
    )
    if name == PREDICTION:
        _fill_prediction(row, evidence)
        return row
    # The test, and its gate if it has one.
    metric_test = evidence.metrics[name]
    row.canary_events = metric_test.canary_events
    row.baseline_events = metric_test.baseline_events
    tilt_state = metric_test.tilt_state
    row.log_e, row.log_e_max, row.looks = tilt_state.log_e, tilt_state.log_e_max, tilt_state.looks
    row.gate_open = True
    if name in QUANTILES:
        gate = evidence.latency.quantile_gate(name)
        row.gate_open, row.gate = gate.is_open, evidence.latency.gate_text(gate)
        row.compared_keys = int(evidence.latency.rollout_counts[0].sum())
    if name == OUTCOME and evidence.outcome_callers.by_name:
        caller, log_e = evidence.outcome_callers.weakest_without(_trusted(evidence))
        row.gate_open = _outcome_gate_open(evidence)
        row.gate = f"reported by {evidence.outcome_callers.shares_text}; " + (
            f"ln e {log_e:.2f} without {caller}" if caller else "all of them trusted"
        )
    _fill_effect(row, metric_test, intervals=intervals)
    return row


def _fill_effect(row: rollout_pb2.Evidence, metric_test: MetricTest, *, intervals: bool) -> None:
    if not math.isnan(metric_test.rate_ratio):
        row.effect = metric_test.rate_ratio
    if intervals:
        interval = metric_test.ratio_interval
        row.interval_low, row.interval_high = interval.low, interval.high


def _fill_prediction(row: rollout_pb2.Evidence, evidence: Evidence) -> None:
    prediction = evidence.prediction
    difference = prediction.score_difference()
    row.log_e_max = prediction.log_e_max
    row.log_e = (
        prediction.log_e_max if prediction.expectation is None else prediction.departure_state.log_e
    )
    row.looks, row.compared_keys = prediction.departure_state.looks, prediction.compared_keys
    row.gate_open = prediction.may_roll_back
    if not math.isnan(difference.psi):
        row.effect = difference.psi
        approved = prediction.expectation is not None
        reference, action = ("the approved shift", "acts") if approved else ("production", "held")
        row.gate = (
            f"PSI {difference.psi:.4f} from {reference}; {action} beyond {difference.bound:.4f}"
        )


def _note(evidence: Evidence, name: str) -> str:
    if name in QUANTILES and not evidence.latency.edges:
        return "waits for production's records to fix its edge"
    if name == PREDICTION and evidence.prediction.shift is None:
        return "no approved shift: a difference holds, constant or swapped outputs roll back"
    if name == OUTCOME:
        good = evidence.policy.outcome
        if good is None:
            return "the policy names no good outcome"
        reported = evidence.metrics[OUTCOME].tilt_state.looks
        return good.description if reported else f"{good.description}: none reported yet"
    full = evidence.canary_keys >= evidence.policy.keys_max
    return f"keys counted up to {evidence.policy.keys_max}" if full else ""
