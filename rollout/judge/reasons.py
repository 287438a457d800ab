"""What each metric says against the candidate, in words and as a row for the record."""

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
"""Metrics of which a slow batch makes many events at once."""


def rollback_reason(policy: Policy, evidence: Evidence, metric: str) -> str:
    """Return why *metric* rolls back: enough evidence and an effect that matters; empty: not."""
    threshold = policy.log_threshold(metric)
    if metric == PREDICTION:
        return _departure_reason(evidence, threshold)
    compared = evidence.metrics[metric]
    if compared.tilt_state.log_e_max < threshold:
        return ""
    words = (
        f"{metric}: {compared.canary_events} {EVENT_TEXTS[metric]} on the candidate against "
        f"{compared.baseline_events} on the baseline; ln e = {compared.tilt_state.log_e_max:.2f} "
        f"reached {threshold:.2f}"
    )
    if metric in BATCH_WEIGHTED:
        mine, theirs = compared.weighted_events
        words += f" (calls of one batch count as one: {mine:.1f} against {theirs:.1f})"
    if metric in QUANTILES:
        found = evidence.latency.quantile_gate(metric)
        if not found.is_open:
            return ""
        words += f"; {evidence.latency.gate_text(found)}"
    return words


def _departure_reason(evidence: Evidence, threshold: float) -> str:
    prediction = evidence.prediction
    if prediction.log_e_max < threshold or not prediction.may_roll_back:
        return ""
    reached = f"ln e = {prediction.log_e_max:.2f} reached {threshold:.2f}"
    if prediction.expectation is None:
        return f"prediction: the candidate says the same whatever production says; {reached}"
    found = prediction.score_difference()
    return (
        f"prediction: scores of {prediction.compared_keys} keys depart from the approved shift "
        "(PSI "
        f"{found.psi:.3f}, acts beyond {found.bound:.3f}); {reached}"
    )


def evidence_rows(evidence: Evidence, *, intervals: bool = False) -> list[rollout_pb2.Evidence]:
    """Return one row a judged metric, for people and for the record.

    intervals  also the interval of each rate ratio: a bisection each, for when people look.
    """
    return [_evidence_row(evidence, name, intervals=intervals) for name in JUDGED_METRICS]


def log_e_maxima(evidence: Evidence) -> list[float]:
    """Return the running maximum of ln E of each judged metric, in the rows' order."""
    predicted = evidence.prediction.log_e_max
    return [
        predicted if name == PREDICTION else evidence.metrics[name].tilt_state.log_e_max
        for name in JUDGED_METRICS
    ]


def _evidence_row(evidence: Evidence, name: str, *, intervals: bool) -> rollout_pb2.Evidence:
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
    compared = evidence.metrics[name]
    row.canary_events, row.baseline_events = compared.canary_events, compared.baseline_events
    row.log_e, row.log_e_max = compared.tilt_state.log_e, compared.tilt_state.log_e_max
    row.looks, row.gate_open = compared.tilt_state.looks, True
    if name in QUANTILES:
        found = evidence.latency.quantile_gate(name)
        row.gate_open, row.gate = found.is_open, evidence.latency.gate_text(found)
        row.compared_keys = int(evidence.latency.rollout_counts[0].sum())
    _fill_effect(row, compared, intervals=intervals)
    return row


def _fill_effect(row: rollout_pb2.Evidence, compared: MetricTest, *, intervals: bool) -> None:
    if not math.isnan(compared.rate_ratio):
        row.effect = compared.rate_ratio
    if intervals:
        found = compared.ratio_interval
        row.interval_low, row.interval_high = found.low, found.high


def _fill_prediction(row: rollout_pb2.Evidence, evidence: Evidence) -> None:
    prediction = evidence.prediction
    found = prediction.score_difference()
    row.log_e_max = prediction.log_e_max
    row.log_e = (
        prediction.log_e_max if prediction.expectation is None else prediction.departure_state.log_e
    )
    row.looks, row.compared_keys = prediction.departure_state.looks, prediction.compared_keys
    row.gate_open = prediction.may_roll_back
    if not math.isnan(found.psi):
        row.effect = found.psi
        of = "the approved shift" if prediction.expectation is not None else "production"
        act = "acts" if prediction.expectation is not None else "held"
        row.gate = f"PSI {found.psi:.4f} from {of}; {act} beyond {found.bound:.4f}"


def _note(evidence: Evidence, name: str) -> str:
    if name in QUANTILES and not evidence.latency.edges:
        return "waits for production's records to fix its edge"
    if name == PREDICTION and evidence.prediction.shift is None:
        return "no approved shift: a difference holds, a constant output rolls back"
    if name == OUTCOME:
        good = evidence.policy.outcome
        if good is None:
            return "the policy names no good outcome"
        some = evidence.metrics[OUTCOME].tilt_state.looks
        return good.description if some else f"{good.description}: none reported yet"
    full = evidence.canary_keys >= evidence.policy.keys_max
    return f"keys counted up to {evidence.policy.keys_max}" if full else ""
