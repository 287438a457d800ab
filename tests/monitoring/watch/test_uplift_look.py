"""The look at business: customers once, the holdout first, and money only where it is known."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitoring.cohorts.customers import read_customers
from monitoring.looks.day_looks import DayOfVersion
from monitoring.looks.uplift_look import (
    ConfiguredHoldout,
    UpliftLook,
    days_after_service,
    uplift_finding,
)
from monitoring.store.look_store import LookOutcome
from monitoring.watch.holdouts import holdout_of_period
from registry.watching.policy import MonitoringPolicy, OutcomePolicy, Segmentation
from tests.monitoring.outcome_world import (
    DayRowsInMemory,
    OutcomeWorld,
    churn_day,
    decision_rows,
    figures_by_name,
    report_rows,
)
from turnout.report.facts import Fact, ReportInputs
from turnout.report.measures import uplift_of_models

MONDAY = 20_024
"""Unix day on which a period of four weeks begins: 20,024 modulo 28 is 4."""
DAYS = 2
"""Horizon and grace of the outcome."""
CHURN = OutcomePolicy(positive_when=">= 1", horizon="36h", absent="negative", value=-100.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OutcomeWorld]:
    """Return an empty store."""
    opened = OutcomeWorld(tmp_path)
    yield opened
    opened.store.close()


def policy_of(outcome: OutcomePolicy = CHURN) -> MonitoringPolicy:
    """Return a policy with one outcome and two segments."""
    segments = {"tenure": Segmentation(feature="f1", ranges={"new": (0.0, 1.0)})}
    return MonitoringPolicy(outcomes={"churned": outcome}, segments=segments)


class Campaign:
    """Customers of whom 20 % are in the holdout, and acting saves some of the others."""

    def __init__(self, world: OutcomeWorld, seed: int = 1, *, saved: float = 0.1) -> None:
        self.world = world
        self.rows = DayRowsInMemory()
        self.rng = np.random.default_rng(seed)
        self.saved = saved
        self.churned: dict[str, bool] = {}
        self.in_holdout: dict[str, bool] = {}

    def add_day(self, day: int, first: int, count: int, *, acts: int = 0) -> None:
        """Add one call of each of *count* customers; new ones draw their side and their outcome."""
        names = [f"customer-{number}" for number in range(first, first + count)]
        for name in names:
            if name not in self.in_holdout:
                self.in_holdout[name] = bool(self.rng.random() < 0.2)
                rate = 0.3 - self.saved * (not self.in_holdout[name])
                self.churned[name] = bool(self.rng.random() < rate)
        holdout = np.array([self.in_holdout[name] for name in names])
        vectors = np.zeros((count, 3), np.float32)
        vectors[:, 1] = np.arange(count) % 2
        scores = self.rng.random(count)
        rows = decision_rows(day, names, scores, holdout=holdout, vectors=vectors)
        self.rows.add(day, rows)
        churned = {row: 1.0 for row, name in enumerate(names) if self.churned[name]}
        events = report_rows(rows, churned)
        acted = [row for row in range(count) if not holdout[row]][:acts]
        events += report_rows(rows, dict.fromkeys(acted, 1.0), name="acted")
        self.world.add_reports(events)

    def look(
        self,
        day: DayOfVersion,
        state: Mapping[str, Any] | None = None,
        *,
        share: float = 0.2,
        draws: int = 1,
    ) -> LookOutcome:
        """Look at a day with a state that went through JSON."""
        look = UpliftLook(self.world.cohorts, lambda *_: ConfiguredHoldout(share, draws), self.rows)
        return look.look(day, json.loads(json.dumps(state or {})))


def test_effect_is_that_of_customers_at_their_first_look(world: OutcomeWorld) -> None:
    """Customers who come again count once, and the numbers are those of a calculation by hand."""
    campaign = Campaign(world)
    campaign.add_day(MONDAY, 0, 1_500, acts=300)
    campaign.add_day(MONDAY + 3, 500, 1_500)
    outcome = OutcomePolicy(
        positive_when=">= 1", horizon="36h", absent="negative", value=-100.0, cost=2.0
    )
    found = campaign.look(churn_day(MONDAY + 6 + DAYS, policy_of(outcome)))
    figures = {key[0]: item for key, item in figures_by_name([found]).items()}
    sides = np.array(list(campaign.in_holdout.values()))
    churned = np.array(list(campaign.churned.values()))
    assert len(sides) == 2_000
    assert figures["effect churned"].figure.n == 2_000
    treated, controls = churned[~sides].mean(), churned[sides].mean()
    assert figures["conversion treated churned"].figure.value == pytest.approx(treated)
    assert figures["conversion holdout churned"].figure.value == pytest.approx(controls)
    # Strata of the score, which says nothing here, change the difference a little.
    effect, low, high = figures["effect churned"].figure.bounds()
    assert effect == pytest.approx(treated - controls, abs=0.005)
    assert low < -0.1 < high
    acted = effect * (~sides).sum() / 300
    assert figures["effect of an act churned"].figure.value == pytest.approx(acted)
    money = effect * (~sides).sum() * -100.0 - 300 * 2.0
    assert figures["money churned"].figure.value == pytest.approx(money)
    assert figures["money churned"].days == 7
    assert len(figures["qini churned"].details["curve"]["shares"]) > 1
    # Each segment has its half, and the interval that holds at every look is wider.
    halves = [i.figure.n for i in found.figures if i.segment and i.name == "effect churned"]
    assert sum(halves) == 2_000
    _, wide_low, wide_high = figures["effect at every look churned"].figure.bounds()
    assert wide_low < low
    assert wide_high > high


def test_only_decided_sundays_are_looked_at(world: OutcomeWorld) -> None:
    """A week whose outcomes are not decided is left for later."""
    campaign = Campaign(world)
    campaign.add_day(MONDAY, 0, 50)
    for day in range(MONDAY + DAYS, MONDAY + 30):
        found = campaign.look(churn_day(day, policy_of()))
        last = day - DAYS - MONDAY + 1
        assert bool(found.figures) == (last > 0 and last % 7 == 0 and last <= 28), day
        assert {item.days for item in found.figures} <= {last}
    # A version that answers nobody any more has the period before; a shadow never had one.
    assert campaign.look(churn_day(MONDAY + 8, policy_of(), shadow=True)).figures
    assert campaign.look(churn_day(MONDAY + 36, policy_of(), shadow=True)).figures == ()


def test_outcomes_beyond_the_horizon_are_of_another_look(world: OutcomeWorld) -> None:
    """An outcome that is reported about a later call of the customer counts."""
    campaign = Campaign(world)
    rows = decision_rows(MONDAY, ["a", "b", "c"], np.array([0.2, 0.4, 0.6]))
    later = decision_rows(MONDAY + 1, ["b"], np.array([0.5]), first=9)
    campaign.rows.add(MONDAY, rows)
    campaign.rows.add(MONDAY + 1, later)
    world.push(outcomes=report_rows(rows, {0: 1.0}, after_ms=2 * 86_400_000))
    world.push(outcomes=report_rows(later, {0: 1.0}, after_ms=60_000))
    found = campaign.look(churn_day(MONDAY + 6 + DAYS, policy_of()))
    effect = figures_by_name([found])["effect churned", MONDAY + 6, 7]
    assert effect.figure.lacking.startswith("not enough data: 0 of 100 customers of the holdout")
    assert effect.details["customers"] == 3
    customers = read_customers(
        campaign.rows, world.cohorts, "churn", "7", (MONDAY, MONDAY + 6), "churned", CHURN, "acted"
    )
    assert customers is not None
    assert customers.names == ("a", "b", "c")
    assert customers.outcomes.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("share", "draws", "broken"),
    [(0.4, 1, "configured"), (0.2, 2, "drawn anew")],
)
def test_broken_holdout_is_one_alarm_and_no_number(
    world: OutcomeWorld, share: float, draws: int, broken: str
) -> None:
    """It raises one alarm, until the holdout is intact in a later period."""
    campaign = Campaign(world)
    campaign.add_day(MONDAY, 0, 800)
    found = campaign.look(churn_day(MONDAY + 6 + DAYS, policy_of()), share=share, draws=draws)
    (alarm,) = found.alarms
    assert (alarm.kind, alarm.stream) == ("holdout", "holdout churned")
    assert broken in found.details[alarm]["broken"][0]
    assert all(not item.figure.known for item in found.figures)
    assert uplift_finding(found.figures) is None
    again = churn_day(MONDAY + 13 + DAYS, policy_of())
    assert campaign.look(again, found.state, share=share, draws=draws).alarms == ()
    # The share crosses its threshold once in a period, and not again and again by chance.
    intact = campaign.look(again, found.state)
    assert intact.alarms == ()
    assert campaign.look(again, intact.state, share=share, draws=draws).alarms == ()
    campaign.add_day(MONDAY + 28, 0, 800)
    later = churn_day(MONDAY + 34 + DAYS, policy_of())
    intact = campaign.look(later, intact.state)
    assert intact.state["churned"]["broken"] is False
    assert campaign.look(later, intact.state, share=share, draws=draws).alarms


def test_holdout_of_a_period_is_what_was_deployed() -> None:
    """A change of share or salt inside of the period draws anew; one before or after does not."""
    day, salt, other = 86_400, b"a" * 16, b"b" * 16
    deployed = [(5 * day, 0, salt), (10 * day, 500, salt), (20 * day, 500, salt)]
    assert holdout_of_period(deployed, 10, 30) == ConfiguredHoldout(0.05, 1)
    assert holdout_of_period(deployed, 6, 9) is None
    assert holdout_of_period(deployed, 1, 4) is None
    assert holdout_of_period([], 1, 4) is None
    assert holdout_of_period(deployed, 9, 30) == ConfiguredHoldout(0.05, 2)
    later = [*deployed, (31 * day, 1_000, other)]
    assert holdout_of_period(later, 12, 30) == ConfiguredHoldout(0.05, 1)
    assert holdout_of_period(later, 12, 31) == ConfiguredHoldout(0.1, 2)


def test_looks_go_on_until_the_last_period_is_decided(world: OutcomeWorld) -> None:
    """A version that answered on the first day of a period only has a figure by then, not later."""
    assert days_after_service(MonitoringPolicy()) == 28
    campaign = Campaign(world)
    campaign.add_day(MONDAY, 0, 200)
    last = MONDAY + days_after_service(policy_of())
    found = [campaign.look(churn_day(day, policy_of(), shadow=True)) for day in (last - 1, last)]
    assert [bool(item.figures) for item in found] == [True, False]


def test_acts_on_the_holdout_break_it(world: OutcomeWorld) -> None:
    """Reports of the outcome "acted" say on whom somebody acted."""
    campaign = Campaign(world)
    campaign.add_day(MONDAY, 0, 400)
    rows = campaign.rows.rows[0][2]
    inside = int(np.flatnonzero(rows.holdout)[0])
    world.push(outcomes=report_rows(rows, {inside: 1.0}, name="acted"))
    found = campaign.look(churn_day(MONDAY + 6 + DAYS, policy_of()))
    (alarm,) = found.alarms
    assert "were acted on" in found.details[alarm]["broken"][0]


def test_customers_on_both_sides_break_the_holdout(world: OutcomeWorld) -> None:
    """A holdout that was drawn anew compares nobody with nobody."""
    campaign = Campaign(world)
    campaign.add_day(MONDAY, 0, 400)
    campaign.in_holdout = {name: not inside for name, inside in campaign.in_holdout.items()}
    campaign.add_day(MONDAY + 1, 0, 3)
    found = campaign.look(churn_day(MONDAY + 6 + DAYS, policy_of()))
    assert "3 customers were on both sides" in found.details[found.alarms[0]]["broken"][0]


@pytest.mark.walk
def test_an_effect_that_falls_is_an_alarm(world: OutcomeWorld) -> None:
    """A later period is compared with the first clear one, by intervals that hold at every look."""
    campaign = Campaign(world, saved=0.28)
    for week in range(4):
        campaign.add_day(MONDAY + 7 * week, week * 1_000, 1_000)
    state: Mapping[str, Any] = {}
    for week in range(4):
        found = campaign.look(churn_day(MONDAY + 7 * week + 6 + DAYS, policy_of()), state)
        assert found.alarms == ()
        state = found.state
        # Only a whole period is compared with.
        assert ("baseline" in state["churned"]) == (week == 3)
    baseline = state["churned"]["baseline"]
    assert baseline["low"] < -0.28 < baseline["high"] < 0
    # Nobody acts any more.
    campaign.saved = 0.0
    for week in range(4, 8):
        campaign.add_day(MONDAY + 7 * week, week * 1_000, 1_000)
    alarms = []
    for week in range(4, 8):
        found = campaign.look(churn_day(MONDAY + 7 * week + 6 + DAYS, policy_of()), state)
        state = found.state
        alarms += [(week, alarm.kind, alarm.since) for alarm in found.alarms]
    ((week, kind, since),) = alarms
    assert (kind, since) == ("uplift", (MONDAY + 28) * 86_400)
    # No effect is nothing to compare with; that it is back is no alarm.
    assert "baseline" not in state["churned"]
    campaign.saved = 0.28
    for week in range(8, 12):
        campaign.add_day(MONDAY + 7 * week, week * 1_000, 1_000)
    for week in range(8, 12):
        found = campaign.look(churn_day(MONDAY + 7 * week + 6 + DAYS, policy_of()), state)
        state = found.state
        assert found.alarms == ()
    assert state["churned"]["baseline"]["first_day"] == MONDAY + 56


@pytest.mark.walk
def test_alarms_of_effects_that_stay_are_as_rare_as_the_budget_asks(tmp_path: Path) -> None:
    """Two quarters of a constant effect in ten worlds, with a budget that a test can see."""
    policy = MonitoringPolicy(outcomes={"churned": CHURN}, budget=5.0)
    alarms: list[str] = []
    for seed in range(10):
        (folder := tmp_path / str(seed)).mkdir()
        world = OutcomeWorld(folder)
        campaign = Campaign(world, seed, saved=0.2)
        state: Mapping[str, Any] = {}
        for week in range(26):
            campaign.add_day(MONDAY + 7 * week, week * 150, 150)
            found = campaign.look(churn_day(MONDAY + 7 * week + 6 + DAYS, policy), state)
            state = found.state
            alarms += [alarm.kind for alarm in found.alarms]
        world.store.close()
    # 2 x 10 x .5 are allowed on average; 17 or more of a Poisson number come in 3 of 100 tests.
    assert len(alarms) < 17, alarms


def test_sentences_say_what_is_missing(world: OutcomeWorld) -> None:
    """No holdout, no decisions, no value, and acts that cost and are not reported."""
    campaign = Campaign(world)
    campaign.add_day(MONDAY, 0, 1_000)
    day = churn_day(MONDAY + 6 + DAYS, policy_of())
    none = UpliftLook(world.cohorts, lambda *_: None, campaign.rows).look(day, {})
    assert "no holdout is configured" in none.figures[0].figure.lacking
    bare = UpliftLook(world.cohorts, lambda *_: ConfiguredHoldout(0.2)).look(day, {})
    assert "--decisions" in bare.figures[0].figure.lacking
    for value, cost, reason in ((0.0, 1.0, "states no value"), (9.0, 1.0, "nobody reports acts")):
        outcome = OutcomePolicy(
            positive_when=">= 1", horizon="36h", absent="negative", value=value, cost=cost
        )
        found = campaign.look(churn_day(MONDAY + 6 + DAYS, policy_of(outcome)))
        figures = figures_by_name([found])
        assert reason in figures["money churned", MONDAY + 6, 7].figure.lacking


def test_newest_uplift_reaches_the_report(world: OutcomeWorld) -> None:
    """The finding's text is what `turnout report` reads, with the entry behind it."""
    campaign = Campaign(world)
    campaign.add_day(MONDAY, 0, 2_000)
    found = campaign.look(churn_day(MONDAY + 6 + DAYS, policy_of()))
    finding = uplift_finding(found.figures)
    assert finding is not None
    facts = (
        Fact(1, 0, "register", "churn", "version/7", {}),
        Fact(2, 0, "deploy", "churn", "", {"production": "7"}),
        Fact(3, 0, "finding", "churn", "version/7", {"kind": finding.kind, "text": finding.text}),
    )
    (row,) = uplift_of_models(ReportInputs(facts, 1, 0))
    effect = figures_by_name([found])["effect churned", MONDAY + 6, 7].figure
    assert (row["uplift"], row["customers"], row["entries"]) == (effect.value, 2_000, [3])
    assert row["money"] == figures_by_name([found])["money churned", MONDAY + 6, 7].figure.value
