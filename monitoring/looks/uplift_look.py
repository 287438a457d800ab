"""The look at business: what acting on a version's scores changes, against the holdout.

Customers count once in a period of four weeks, at their first look. Each Sunday the period up to it
is looked at, once its outcomes are decided. The integrity of the holdout comes first: a broken one
has a sentence in place of every number. The figures need decisions, which know the customer.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.clock import DAY_S
from monitoring.cohorts.customers import SeenCustomers, read_customers
from monitoring.cohorts.labelled_rows import NO_DECISIONS, DayRowSource, segment_masks
from monitoring.cohorts.outcome_cells import DAYS_A_WEEK, maturity_of
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.jobs.uplift import (
    BusinessSettings,
    ModelUplift,
    SegmentCustomers,
    SegmentUplift,
    model_uplift,
)
from monitoring.looks.day_looks import DayOfVersion, SealedFacts
from monitoring.looks.harm_look import ACTED, watched_outcomes
from monitoring.store.cohort_store import CohortStore
from monitoring.store.look_store import LookOutcome, StoredFigure
from protos import registry_pb2 as pb
from registry.watching.incidents import FIGURES
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from stats.alarms.budget import (
    UPLIFT,
    Cadence,
    DetectorBudget,
    DetectorSettings,
    plan_budget,
)
from stats.figure import Figure, no_figure
from stats.uplift.effect import EffectLook, bins_of_customers, effect_sequence, planned_spread
from stats.uplift.holdout import HoldoutCounts

PERIOD_DAYS = 28
PERIOD_BEGIN = 4
"""Unix day modulo 28 of the Monday on which a period begins."""
SEQUENCE_ALPHA = 0.01
"""Probability that the shown interval of a period ever misses its effect. An alarm compares two
other intervals, which miss as rarely as the budget asks for."""
HOLDOUT_PART = 0.25
"""Importance of the detector of the holdout's share in the budget; that of an effect is 1."""
SECOND_MOMENT = 0.1
"""Mean of squared outcomes that the first period is planned with; later ones take the last."""
NO_HOLDOUT = (
    "no holdout is configured, so nothing tells what acting changes; "
    "`turnout splits set MODEL --holdout 5` draws one"
)


@dataclass(frozen=True, slots=True)
class ConfiguredHoldout:
    """What was configured of a holdout in a period.

    share  of customers, 0 to 1. draws  different salts or shares in the period: 1 if nothing was
    drawn anew.
    """

    share: float
    draws: int = 1


HoldoutOf = Callable[[str, int, int], ConfiguredHoldout | None]
"""Returns the holdout of (model, first day, last day); None: there was none."""


def days_after_service(policy: MonitoringPolicy) -> int:
    """Return for how many days after its last answer a version still has to be looked at.

    Then its last cohort is final, and so is its last period of four weeks.
    """
    days = [maturity_of(outcome).days for outcome in watched_outcomes(policy).values()]
    return max(days, default=0) + PERIOD_DAYS


def uplift_detectors(_facts: SealedFacts, policy: MonitoringPolicy) -> tuple[DetectorSettings, ...]:
    """Return the detectors of the effect on each outcome, and of the holdout's share.

    Their evidence holds at every look of a period of four weeks. Acts on the holdout and customers
    who moved are counted and not tested, so they raise no alarm by chance.
    """
    return tuple(
        DetectorSettings(f"{stream} {name}", UPLIFT, Cadence.FOUR_WEEKS, part)
        for name in watched_outcomes(policy)
        for stream, part in (("uplift", 1.0), ("holdout", HOLDOUT_PART))
    )


class UpliftLook:
    """Looks at the effect of acting on a version's scores (DayLook).

    holdout_of  what the deployments of a period say of the holdout.
    decisions   scored rows; None: none are kept.
    """

    name = "uplift"
    after_service = True

    def __init__(
        self, store: CohortStore, holdout_of: HoldoutOf, decisions: DayRowSource | None = None
    ) -> None:
        self._store = store
        self._holdout_of = holdout_of
        self._decisions = decisions

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return the figures of each outcome whose week is decided on this day (see DayLook)."""
        states = dict(state)
        figures: list[StoredFigure] = []
        alarms: dict[MonitoringAlarm, Mapping[str, Any]] = {}
        for name, outcome in watched_outcomes(day.policy).items():
            last = day.day - maturity_of(outcome).days
            days = (last - PERIOD_BEGIN) % PERIOD_DAYS + 1
            if days % DAYS_A_WEEK:
                continue
            period = _Period(day, name, outcome, last - days + 1, last)
            found = self._look_at_period(period, states.get(name, {}))
            figures += found.figures
            alarms |= found.details
            states[name] = found.state
        return LookOutcome(
            figures=tuple(figures), alarms=tuple(alarms), state=states, details=alarms
        )

    def _look_at_period(self, period: "_Period", state: Mapping[str, Any]) -> LookOutcome:
        model, version = period.day.facts.model, period.day.facts.version
        # Without a holdout or without decisions there is nothing to compare.
        holdout = self._holdout_of(model, period.first, period.last)
        customers = None
        if holdout is not None and self._decisions is not None:
            customers = read_customers(
                self._decisions,
                self._store,
                model,
                version,
                (period.first, period.last),
                period.name,
                period.outcome,
                ACTED,
            )
        if holdout is None or customers is None:
            # Nobody acts on the scores of a shadow. A retired version may have a period before.
            if period.day.shadow:
                return LookOutcome(state=state)
            reason = NO_HOLDOUT if holdout is None else NO_DECISIONS
            missing = period.figure("effect", no_figure(0, reason))
            return LookOutcome(figures=(missing,), state=state)
        # What acting changes, for everybody and by segment.
        seed = period.first
        settings = BusinessSettings(value=period.outcome.value or None, cost=period.outcome.cost)
        found = model_uplift(
            _segments(period, customers),
            _holdout_counts(customers, holdout),
            settings,
            seed=seed,
            mismatch_e=1.0 / period.budget("holdout").alarms_a_look,
        )
        figures = list(_figures(period, found, customers))
        # What is broken, or fell.
        after, details = _changes(period, found, customers, holdout, state)
        figures.append(period.figure("effect at every look", after.pop("sequence")))
        return LookOutcome(
            figures=tuple(figures), alarms=tuple(details), state=after, details=details
        )


@dataclass(frozen=True, slots=True)
class _Period:
    """Unix days of a period, from its first to the Sunday that is looked at, and the outcome."""

    day: DayOfVersion
    name: str
    outcome: OutcomePolicy
    first: int
    last: int

    def figure(
        self, measured: str, figure: Figure, segment: str = "", **details: object
    ) -> StoredFigure:
        """Return a figure of the period."""
        return StoredFigure(
            model=self.day.facts.model,
            version=self.day.facts.version,
            kind="uplift",
            name=f"{measured} {self.name}",
            last_day=self.last,
            days=self.last - self.first + 1,
            figure=figure,
            segment=segment,
            details={"outcome": self.name, **details},
        )

    def budget(self, kind: str) -> DetectorBudget:
        """Return what the detector of the effect ("uplift") or of the holdout may spend."""
        policy = self.day.policy
        planned = plan_budget(uplift_detectors(self.day.facts, policy), policy.budget).detectors
        return planned[f"{kind} {self.name}", Cadence.FOUR_WEEKS]

    def alarm(self, kind: str) -> MonitoringAlarm:
        """Return an alarm about the period at the end of the day."""
        return MonitoringAlarm(
            model=self.day.facts.model,
            version=self.day.facts.version,
            kind=kind,
            stream=f"{kind} {self.name}",
            at=(self.day.day + 1) * DAY_S,
            since=self.first * DAY_S,
        )


def _segments(period: _Period, customers: SeenCustomers) -> dict[str, SegmentCustomers]:
    """Return the customers of each segment; "" has everybody."""
    facts = period.day.facts
    masks: dict[str, NDArray[np.bool_]] = {"": np.ones(len(customers), dtype=np.bool_)}
    masks |= segment_masks(
        period.day.policy.segments, facts.bins.names, facts.dictionaries, customers.vectors
    )
    segments = {}
    for name, members in masks.items():
        known = members & np.isfinite(customers.outcomes)
        treated = known & ~customers.holdout
        bins = bins_of_customers(
            customers.scores[known], customers.holdout[known], customers.outcomes[known]
        )
        acts = int(customers.acts[treated].sum())
        acted = int((customers.acts[treated] > 0).sum()) if customers.acts_reported else None
        segments[name] = SegmentCustomers(bins, acts, acted)
    return segments


def _holdout_counts(customers: SeenCustomers, holdout: ConfiguredHoldout) -> HoldoutCounts:
    controls = customers.holdout
    return HoldoutCounts(
        controls=int(controls.sum()),
        treated=int((~controls).sum()),
        share=holdout.share,
        acted_controls=int((customers.acts[controls] > 0).sum()),
        moved=customers.moved,
        salts=holdout.draws,
    )


def _figures(
    period: _Period, found: ModelUplift, customers: SeenCustomers
) -> Iterator[StoredFigure]:
    """Yield the figures of every segment, with what a reader must know of them."""
    integrity = {"intact": found.integrity.intact, "broken": list(found.integrity.broken)}
    facts = {"holdout": integrity, "customers": len(customers)}
    for segment, part in found.segments.items():
        for measured, figure in _measured(part):
            yield period.figure(measured, figure, segment, **facts)
        points = [figure.definition() for figure in part.qini.gained]
        curve = {"shares": list(part.qini.shares), "gained": points}
        yield period.figure("qini", part.qini.area, segment, curve=curve, **facts)


def _measured(part: SegmentUplift) -> Iterator[tuple[str, Figure]]:
    yield "effect", part.effect
    yield "effect of an act", part.effect_of_an_act
    yield "money", part.money
    for side, rate in part.conversion.items():
        yield f"conversion {side}", rate


def _changes(
    period: _Period,
    found: ModelUplift,
    customers: SeenCustomers,
    holdout: ConfiguredHoldout,
    state: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[MonitoringAlarm, Mapping[str, Any]]]:
    """Return the state after a look, with the figure "sequence", and alarms with their details.

    A holdout that breaks raises one alarm, until it is intact in a later period. The effect fell if
    the whole interval of the period lies nearer to no effect than that of the period that it is
    compared with, at whatever look. Each of the two intervals has half of what the budget allows.
    """
    after = dict(state)
    alarms: dict[MonitoringAlarm, Mapping[str, Any]] = {}
    # The holdout.
    if not found.integrity.intact:
        if not state.get("broken", False):
            alarms[period.alarm("holdout")] = {
                "outcome": period.name,
                "broken": list(found.integrity.broken),
            }
        missing = no_figure(len(customers), found.integrity.reason)
        return {**after, "broken": True, "broke": period.first, "sequence": missing}, alarms
    after["broken"] = bool(state.get("broken", False)) and state.get("broke") == period.first
    # The interval that holds at every look, tuned by what the period before had.
    looks = _looks(period, customers, holdout.share)
    size = sum(look.treated + look.controls for look in looks)
    squares = sum(look.treated_squares + look.control_squares for look in looks)
    if state.get("period") != period.first:
        weeks = (period.last - period.first + 1) / DAYS_A_WEEK
        expected = state.get("next", [round(size / weeks * 4), SECOND_MOMENT])
        after |= {"period": period.first, "plan": expected, "fell": False}
    planned = planned_spread(max(after["plan"][0], 1), after["plan"][1], holdout.share)
    after["sequence"] = effect_sequence(looks, planned, SEQUENCE_ALPHA)
    compared = effect_sequence(looks, planned, period.budget("uplift").alarms_a_look / 2)
    baseline = state.get("baseline")
    if baseline is not None and compared.known and not after["fell"] and _fell(baseline, compared):
        after["fell"] = True
        shown = {"outcome": period.name, "now": compared.definition(), "before": baseline}
        alarms[period.alarm("uplift")] = shown
    # A whole period plans the next one. The first clear effect is what later ones are compared
    # with. After an alarm it is the new effect if that is clear, else the next clear one.
    if period.last - period.first + 1 == PERIOD_DAYS and size:
        after["next"] = [size, max(squares / size, 1e-6)]
        _, low, high = compared.bounds() if compared.known else (0.0, 0.0, 0.0)
        if after["fell"]:
            after.pop("baseline", None)
        if "baseline" not in after and low * high > 0:
            after["baseline"] = {"low": low, "high": high, "first_day": period.first}
    return after, alarms


def _looks(period: _Period, customers: SeenCustomers, share: float) -> list[EffectLook]:
    """Return the sums of the customers who were first seen in each week."""
    looks = []
    known = np.isfinite(customers.outcomes)
    for monday in range(period.first, period.last, DAYS_A_WEEK):
        days = customers.first_days
        week = known & (days >= monday) & (days < monday + DAYS_A_WEEK)
        sums: list[float] = []
        for side in (~customers.holdout, customers.holdout):
            outcomes = customers.outcomes[week & side]
            sums += [len(outcomes), float(outcomes.sum()), float((outcomes**2).sum())]
        looks.append(
            EffectLook(int(sums[0]), sums[1], sums[2], int(sums[3]), sums[4], sums[5], share)
        )
    return looks


def _fell(baseline: Mapping[str, Any], now: Figure) -> bool:
    """Whether the effect is nearer to none, or on the other side, beyond doubt."""
    _, low, high = now.bounds()
    return bool(high < baseline["low"] if baseline["low"] > 0 else low > baseline["high"])


def uplift_finding(figures: Iterable[StoredFigure]) -> pb.Finding | None:
    """Return the finding from which `turnout report` takes the newest uplift of a model.

    figures  that a look has stored. None: there is no effect among them that has a number.

    The text is JSON, and its figures are those of the outcome with the most customers.
    """
    # Effects of everybody that have a number.
    found = {(item.name, item.segment): item for item in figures if item.kind == "uplift"}
    effects = [
        item
        for (name, segment), item in found.items()
        if not segment and name == f"effect {item.details.get('outcome')}" and item.figure.known
    ]
    if not effects:
        return None
    # The report shows one outcome of a model.
    effect = max(effects, key=lambda item: item.figure.n)
    outcome = effect.details["outcome"]
    money = found.get((f"money {outcome}", ""))
    value, low, high = effect.figure.bounds()
    text = {
        "uplift": value,
        "uplift_low": low,
        "uplift_high": high,
        "money": None if money is None else money.figure.value,
        "customers": effect.figure.n,
        "outcome": outcome,
        "last_day": effect.last_day,
        "days": effect.days,
    }
    return pb.Finding(
        model=effect.model, version=effect.version, kind=FIGURES, text=json.dumps(text)
    )
