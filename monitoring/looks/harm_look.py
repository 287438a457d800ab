"""The detectors of harm of one version: which there are, their budget, and their looks at cohorts.

A final cohort enters each detector once, in the order of its days. An alarm starts its detector
anew, so a change that stays raises another one only after as much evidence again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from host.clock import DAY_S
from monitoring.cohorts.outcome_cells import maturity_of
from monitoring.jobs.detectors import step_detector
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.jobs.harm import ApprovedQuality, harm_streams
from monitoring.jobs.quality import QualitySettings
from monitoring.looks.day_looks import DayOfVersion, SealedFacts
from monitoring.store.look_store import StoredFigure
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from stats.accuracy.area import curve_area
from stats.accuracy.decisions import cost_figure, decisions_at
from stats.accuracy.harm import WEEKS_MAX, area_bound, area_fell
from stats.accuracy.labelled_bins import LabelledBins
from stats.alarms.budget import RISK, Cadence, DetectorBudget, DetectorSettings, plan_budget
from stats.alarms.change_test import ChangeTest
from stats.score_grid import SCORE_BINS, score_grid_values

ACTED = "acted"
"""The outcome by which callers report that somebody acted on a score. It is no quality."""
REPORTS_PART = 0.25
"""Part of the budget of a detector of reports, beside 1 of a detector of harm."""
ALARM_KINDS = {"calibration": "calibration", "brier": "risk", "cost": "risk", "auc": "auc"}
"""First word of a stream -> the kind of its alarms."""
BINARY = ("binary",)


@dataclass(frozen=True, slots=True)
class HarmFound:
    """What the detectors say of a look: alarms with their details, and the state after it."""

    alarms: Mapping[MonitoringAlarm, Mapping[str, Any]]
    state: Mapping[str, Any]


def watched_outcomes(policy: MonitoringPolicy) -> dict[str, OutcomePolicy]:
    """Return the outcomes of a policy that say how good scores are."""
    return {name: outcome for name, outcome in policy.outcomes.items() if name != ACTED}


def harm_detectors(facts: SealedFacts, policy: MonitoringPolicy) -> tuple[DetectorSettings, ...]:
    """Return the detectors of the outcomes of a version, which share the weight of RISK.

    Detectors of all kinds of harm have equal parts, and those of reports a quarter of one. What the
    version was not approved with has no detector. The drift look needs them for the same budget.
    """
    settings = []
    for name in watched_outcomes(policy):
        streams = _streams(facts, policy, name)
        settings += [DetectorSettings(stream, RISK, Cadence.DAILY) for stream in streams]
        if streams and facts.metric("auc") is not None:
            settings.append(DetectorSettings(f"auc {name}", RISK, Cadence.WEEKLY))
        settings += [
            DetectorSettings(f"{stream} {name}", RISK, Cadence.DAILY, REPORTS_PART)
            for stream in ("reports", "delays")
        ]
    return tuple(settings)


def _streams(facts: SealedFacts, policy: MonitoringPolicy, name: str) -> list[str]:
    """Return the daily streams of harm of one outcome."""
    if not is_learned(facts, policy, name) or not has_probabilities(facts):
        return []
    approved = approved_quality(facts, policy.outcomes[name])
    known = {"calibration above": 1.0, "calibration below": 1.0}
    numbers = {**known, "brier": approved.brier, "cost": approved.cost}
    return [f"{stream} {name}" for stream, number in numbers.items() if number is not None]


def budget_of_harm(
    facts: SealedFacts, policy: MonitoringPolicy
) -> dict[tuple[str, Cadence], DetectorBudget]:
    """Return (stream, cadence) -> its budget, which other groups of detectors do not change."""
    return plan_budget(harm_detectors(facts, policy), policy.budget).detectors


def has_probabilities(facts: SealedFacts) -> bool:
    """Whether the version's first output is the probability of one outcome."""
    outputs = facts.bins.outputs
    return bool(facts.task in BINARY and outputs and outputs[0].probability)


def is_learned(facts: SealedFacts, policy: MonitoringPolicy, name: str) -> bool:
    """Whether scores are about an outcome: of several, about the one of the card's label.

    Calibration against another outcome than the learned one would be an alarm for ever.
    """
    names = watched_outcomes(policy)
    label = facts.card.get("label")
    return len(names) == 1 or label not in names or label == name


def quality_settings(facts: SealedFacts, outcome: OutcomePolicy) -> QualitySettings:
    """Return what is asked of the figures of an outcome.

    A wrong act costs the policy's `cost`. A missed one costs the `value` less the cost of the act.
    """
    stated = outcome.value != 0.0
    return QualitySettings(
        policy=maturity_of(outcome),
        threshold=facts.threshold,
        top=(100, 1_000),
        false_positive=outcome.cost if stated else None,
        false_negative=max(abs(outcome.value) - outcome.cost, 0.0) if stated else None,
    )


def approved_quality(facts: SealedFacts, outcome: OutcomePolicy) -> ApprovedQuality:
    """Return the quality of the held-out rows. Its cost needs their labels by score."""
    settings = quality_settings(facts, outcome)
    bins = held_out_bins(facts)
    cost = None
    if bins is not None and settings.false_positive is not None:
        missed = settings.false_negative or 0.0
        if max(settings.false_positive, missed) > 0.0:
            decided = decisions_at(bins, facts.threshold)
            wrong = {"false_positive": settings.false_positive, "false_negative": missed}
            cost = cost_figure(decided, **wrong).value
    return ApprovedQuality(facts.metric("auc"), facts.metric("brier"), cost)


def held_out_bins(facts: SealedFacts) -> LabelledBins | None:
    """Return the labels of the held-out rows by score bin; None: the version has none sealed."""
    sealed = facts.reference.get("held_out_labels")
    if not isinstance(sealed, Mapping) or not has_probabilities(facts):
        return None
    positives, negatives = np.zeros(SCORE_BINS), np.zeros(SCORE_BINS)
    # The file is sealed, and yet anybody may have written it.
    try:
        filled = np.array(sealed["bins"], dtype=np.int64)
        positives[filled], negatives[filled] = sealed["positives"], sealed["negatives"]
        return LabelledBins(score_grid_values(), positives, negatives)
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def look_for_harm(
    day: DayOfVersion,
    name: str,
    cohort_day: int,
    bins: LabelledBins,
    state: Mapping[str, Any],
    figures: Sequence[StoredFigure],
    cluster: float = 1.0,
) -> HarmFound:
    """Look at the labels of one final cohort, on all bins of the grid.

    figures  of the cohort, for the details of an alarm.
    cluster  rows of one customer in a horizon: each row is a part of one fact, so its gain is
             taken to the power 1 / *cluster*.
    """
    approved = approved_quality(day.facts, day.policy.outcomes[name])
    settings = quality_settings(day.facts, day.policy.outcomes[name])
    budget = budget_of_harm(day.facts, day.policy)
    states, alarms = dict(state), {}
    # Each stream has a detector, if it has a part of the budget.
    for stream, found in harm_streams(bins, settings, approved, day.policy.harm).items():
        detector = budget.get((f"{stream} {name}", Cadence.DAILY))
        if detector is None:
            continue
        # All bets of a stream weigh the same.
        weights = np.full(len(found.log_gains), -np.log(len(found.log_gains)))
        test = ChangeTest(found.log_gains / cluster, weights)
        counts = np.rint(found.counts).astype(np.int64)
        after, change = step_detector(
            test, states.get(stream), "approved", counts, cohort_day, detector.log_threshold
        )
        states[stream] = after.to_json()
        if change is not None:
            alarm = outcome_alarm(day, f"{stream} {name}", change)
            alarms[alarm] = alarm_details(name, cohort_day, figures)
    return HarmFound(alarms, states)


def look_for_fallen_area(
    day: DayOfVersion,
    name: str,
    sunday: int,
    bins: LabelledBins,
    state: Mapping[str, Any],
    figures: Sequence[StoredFigure],
    cluster: float = 1.0,
) -> HarmFound:
    """Look at the area under the ROC curve of one final week, beside the weeks before.

    cluster  rows of one customer in a horizon, which make the standard error larger.
    """
    # The weeks since the last alarm.
    area = curve_area(bins)
    weeks = [list(week) for week in state.get("weeks", ())]
    if not np.isnan(area.value) and (not weeks or weeks[-1][0] < sunday):
        weeks = [*weeks, [sunday, area.value, area.error]][-WEEKS_MAX:]
    detector = budget_of_harm(day.facts, day.policy).get((f"auc {name}", Cadence.WEEKLY))
    approved = day.facts.metric("auc")
    if detector is None or approved is None or not weeks:
        return HarmFound({}, {"weeks": weeks})
    # Their mean, with an end that holds at every week.
    _, areas, errors = np.array(weeks).T
    bound = area_bound(areas, errors * math.sqrt(cluster), min(detector.alarms_max, 0.2))
    if not area_fell(bound, approved, day.policy.harm.auc_drop):
        return HarmFound({}, {"weeks": weeks})
    alarm = outcome_alarm(day, f"auc {name}", int(weeks[0][0]) - 6)
    details = {
        **alarm_details(name, sunday, figures),
        "approved": approved,
        "bound": bound.definition(),
    }
    return HarmFound({alarm: details}, {"weeks": []})


def outcome_alarm(day: DayOfVersion, stream: str, since_day: int) -> MonitoringAlarm:
    """Return the alarm of a stream at the end of the day, about predictions since *since_day*."""
    return MonitoringAlarm(
        model=day.facts.model,
        version=day.facts.version,
        kind=ALARM_KINDS.get(stream.partition(" ")[0], "outcomes"),
        stream=stream,
        at=(day.day + 1) * DAY_S,
        since=since_day * DAY_S,
        shadow=day.shadow,
    )


def alarm_details(
    name: str, cohort_day: int, figures: Sequence[StoredFigure], shown: int = 12
) -> dict[str, Any]:
    """Return what the incident of an alarm shows: the outcome and the figures of its cohort."""
    numbers: dict[str, Any] = {
        item.name: item.figure.definition() for item in figures if item.figure.known
    }
    return {
        "outcome": name,
        "cohort_day": cohort_day,
        "figures": dict(list(numbers.items())[:shown]),
    }
