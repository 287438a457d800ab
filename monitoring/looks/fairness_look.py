"""The look at groups of people: who is selected, and for whom the decisions are right.

A look is at the customers of four weeks whose outcomes are decided. Evidence on a group is of
people who count once, so half of all people, by a hash of their ids, belong to the first look of a
version's year, and a twenty-fourth to each of the twelve later ones. Sensitive attributes are read
inside of the look and leave it as verdicts on groups of ten people or more.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.clock import DAY_S
from monitoring.cohorts.customers import SeenCustomers, read_customers
from monitoring.cohorts.labelled_rows import NO_DECISIONS, DayRowSource
from monitoring.cohorts.outcome_cells import maturity_of
from monitoring.cohorts.sensitive_attributes import (
    AttributeSource,
    AttributesUnknownError,
    StoreSilentError,
)
from monitoring.jobs.fairness import (
    FairnessReport,
    GroupFairness,
    PeopleLook,
    group_state_from,
    look_at_groups,
)
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.looks.day_looks import DayOfVersion, SealedFacts
from monitoring.looks.harm_look import ACTED, has_probabilities, is_learned, watched_outcomes
from monitoring.looks.uplift_look import PERIOD_BEGIN, PERIOD_DAYS
from monitoring.store.cohort_store import CohortStore
from monitoring.store.look_store import LookOutcome, StoredFigure
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from stats.alarms.budget import FAIRNESS, Cadence, DetectorSettings, plan_budget
from stats.fairness.groups import DeclaredAttribute
from stats.fairness.verdicts import METRICS
from stats.figure import Figure, no_figure

LOOKS_A_YEAR = 13
FIRST_PART, LATER_PART = 12, 1
"""Parts of 24 that the first look of a year has of all people, and each later one."""
RETRY_DAYS = 7
"""Days on which a look is made again while the online store does not answer."""
NO_STORE = (
    "not enough data: no online store was given (`--online-store` of control), so nobody knows "
    "the groups"
)
NO_OUTCOME = OutcomePolicy(positive_when="any", horizon="1d")
"""Stands for the outcome where a policy has none: decisions are compared, errors are not."""
NAME_MAX = 240
"""Characters of the name of a figure."""
GROUPS_STREAM = "groups of people"
"""The name of all comparisons of groups in the budget of false alarms."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Compared:
    """The four weeks that are looked at, and the outcome by which decisions are right or wrong."""

    day: DayOfVersion
    name: str
    """Empty: the policy has no outcome."""
    outcome: OutcomePolicy
    last: int

    @property
    def first(self) -> int:
        """The first Unix day."""
        return self.last - PERIOD_DAYS + 1

    def figure(self, measured: str, figure: Figure, **details: object) -> StoredFigure:
        """Return a figure that auditors may read."""
        return StoredFigure(
            model=self.day.facts.model,
            version=self.day.facts.version,
            kind="fairness",
            name=measured[:NAME_MAX],
            last_day=self.last,
            days=PERIOD_DAYS,
            figure=figure,
            details={"outcome": self.name, **details},
        )


def fairness_detectors(
    facts: SealedFacts, policy: MonitoringPolicy
) -> tuple[DetectorSettings, ...]:
    """Return the detector of the groups of people, if the policy has some (OtherDetectors).

    It is one for all comparisons, because only the look knows how many groups there are. Their
    evidence holds at every look of a year.
    """
    if not policy.sensitive or not has_probabilities(facts):
        return ()
    return (DetectorSettings(GROUPS_STREAM, FAIRNESS, Cadence.YEARLY),)


class FairnessLook:
    """Compares groups of people (DayLook).

    attributes  where sensitive views are read; None: no online store was given.
    decisions   scored rows; None: none are kept.
    """

    name = "fairness"
    after_service = True

    def __init__(
        self,
        store: CohortStore,
        attributes: AttributeSource | None = None,
        decisions: DayRowSource | None = None,
    ) -> None:
        self._store = store
        self._attributes = attributes
        self._decisions = decisions

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return the verdicts once four weeks are decided (see DayLook).

        While the online store does not answer, the look is made again on each of the next days.
        """
        names = [
            name for name in watched_outcomes(day.policy) if is_learned(day.facts, day.policy, name)
        ]
        name = names[0] if names else ""
        outcome = day.policy.outcomes[name] if name else NO_OUTCOME
        after = {key: item for key, item in state.items() if key != "again"}
        decided = day.day - maturity_of(outcome).days
        last = decided - (decided - PERIOD_BEGIN + 1) % PERIOD_DAYS
        again = state.get("again") == last and decided - last <= RETRY_DAYS
        if not day.policy.sensitive or not (last == decided or again):
            return LookOutcome(state=after)
        compared = _Compared(day, name, outcome, last)
        try:
            return self._compare(compared, after)
        except AttributesUnknownError as error:
            # A retired version may have four weeks before, and a shadow has treated nobody.
            if day.shadow and not isinstance(error, StoreSilentError):
                return LookOutcome(state=after)
            missing = (compared.figure(metric, no_figure(0, str(error))) for metric in METRICS)
            silent = {"again": last} if isinstance(error, StoreSilentError) else {}
            return LookOutcome(figures=tuple(missing), state={**after, **silent})

    def _compare(self, compared: _Compared, state: Mapping[str, Any]) -> LookOutcome:
        """Return the verdicts. Raises AttributesUnknownError with the reason for having none."""
        facts = compared.day.facts
        if not has_probabilities(facts):
            raise AttributesUnknownError(
                f"groups are compared by decisions of two classes, and the task is {facts.task}"
            )
        if self._attributes is None:
            raise AttributesUnknownError(NO_STORE)
        customers = None
        if self._decisions is not None:
            customers = read_customers(
                self._decisions,
                self._store,
                facts.model,
                facts.version,
                (compared.first, compared.last),
                compared.name,
                compared.outcome,
                ACTED,
            )
        if customers is None:
            raise AttributesUnknownError(NO_DECISIONS)
        # The people of this look, and their groups. A person belongs to one look of a year.
        number = int(state.get("looks", 0)) % LOOKS_A_YEAR
        chosen = np.flatnonzero(of_look(customers.names, facts.digest, number))
        people = _people_of(compared, customers, chosen)
        names = [customers.names[row] for row in chosen.tolist()]
        attributes, numbers = self._attributes_of(compared, names)
        # The evidence begins anew with each year, since people may count again.
        saved = state.get("groups", {}) if number else {}
        before = {name: group_state_from(item) for name, item in saved.items()}
        policy = compared.day.policy
        budget = plan_budget(fairness_detectors(facts, policy), policy.budget).detectors
        after, report = look_at_groups(
            before,
            people,
            attributes,
            policy.harm.fairness_ratio,
            budget[GROUPS_STREAM, Cadence.YEARLY].alarms_a_look,
        )
        # Each group and metric is told once a year.
        raised = {tuple(item) for item in state.get("raised", ())} if number else set()
        alarms = _alarms(compared, report, raised)
        figures = [*_figures(compared, report), *_without_groups(compared, numbers)]
        return LookOutcome(
            figures=tuple(figures),
            alarms=tuple(alarms),
            details=alarms,
            state={
                "looks": number + 1,
                "groups": {name: item.definition() for name, item in after.items()},
                "raised": sorted(map(list, raised | set(report.incidents))),
            },
        )

    def _attributes_of(
        self, compared: _Compared, names: list[str]
    ) -> tuple[list[DeclaredAttribute], list[str]]:
        """Return the declared attributes of the people, and what is a number and has no groups."""
        assert self._attributes is not None
        entity = next(iter(compared.day.facts.entities), "")
        attributes: list[DeclaredAttribute] = []
        numbers: list[str] = []
        for view in compared.day.policy.sensitive:
            found = self._attributes.read_view(view, entity, names)
            attributes += found.attributes
            numbers += found.numbers
        return attributes, numbers


def of_look(names: tuple[str, ...], digest: str, number: int) -> Flags:
    """Return which people, by name, belong to look *number* of a version's year, (N,).

    A person belongs to one look of the year only, whatever the other looks have.
    """
    parts = FIRST_PART + LATER_PART * (LOOKS_A_YEAR - 1)
    part_of = np.array(
        [
            int.from_bytes(blake2b(f"{digest}/{name}".encode(), digest_size=8).digest()) % parts
            for name in names
        ],
        dtype=np.int64,
    )
    chosen = part_of < FIRST_PART if number == 0 else part_of == FIRST_PART + number - 1
    return np.asarray(chosen, dtype=np.bool_)


def _people_of(
    compared: _Compared, customers: SeenCustomers, chosen: NDArray[np.int64]
) -> PeopleLook:
    """Return the decisions on the *chosen* people, and their outcomes.

    Where there is a holdout, outcomes are those of the holdout: acting changes those of the others.
    """
    scores, outcomes = customers.scores[chosen], customers.outcomes[chosen]
    labelled = np.isfinite(outcomes) & bool(compared.name)
    if customers.holdout.any():
        labelled &= customers.holdout[chosen]
    return PeopleLook(
        scores >= compared.day.facts.threshold, scores, labelled, labelled & (outcomes > 0)
    )


def _figures(compared: _Compared, report: FairnessReport) -> Iterator[StoredFigure]:
    """Yield the figures of every group with as many people as the policy asks for."""
    if not report.groups:
        reason = "not enough data: no two groups have ten people in this look"
        yield from (compared.figure(metric, no_figure(0, reason)) for metric in METRICS)
    for group in report.groups:
        if group.people >= compared.day.policy.harm.group_people_min:
            yield from _group_figures(compared, group)


def _group_figures(compared: _Compared, group: GroupFairness) -> Iterator[StoredFigure]:
    """Yield the ratio of each rate, the gap of calibration, and the area within the group."""
    for verdict in group.metrics:
        ratio = verdict.metric != METRICS[-1]
        measured = f"{verdict.metric} {'ratio' if ratio else 'gap'} {group.name}"
        yield compared.figure(
            measured,
            verdict.ratio if ratio else verdict.gap,
            group=group.name,
            people=group.people,
            verdict=str(verdict.verdict),
            text=verdict.text,
            rate=verdict.rate.definition(),
            rest_rate=verdict.rest_rate.definition(),
        )
    yield compared.figure(f"auc {group.name}", group.area, group=group.name, people=group.people)


def _without_groups(compared: _Compared, numbers: list[str]) -> Iterator[StoredFigure]:
    reason = "it is a number, and groups are of categories; declare a category of its bands"
    yield from (compared.figure(f"{METRICS[0]} {name}", no_figure(0, reason)) for name in numbers)


def _alarms(
    compared: _Compared, report: FairnessReport, raised: set[tuple[str, ...]]
) -> dict[MonitoringAlarm, Mapping[str, Any]]:
    """Return an alarm for each metric with a group that no alarm of this year was about.

    It names no group, because more people read incidents than figures of fairness.
    """
    alarms: dict[MonitoringAlarm, Mapping[str, Any]] = {}
    for metric in METRICS:
        new = [item for item in report.incidents if item[1] == metric and item not in raised]
        if not new:
            continue
        alarm = MonitoringAlarm(
            model=compared.day.facts.model,
            version=compared.day.facts.version,
            kind="fairness",
            stream=metric,
            at=(compared.day.day + 1) * DAY_S,
            since=compared.first * DAY_S,
        )
        alarms[alarm] = {"outcome": compared.name, "metric": metric, "groups": len(new)}
    return alarms
