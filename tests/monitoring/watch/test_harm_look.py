"""The detectors of harm: their budget, what they find, and that rows of a customer are one fact."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monitoring.cohorts.customers import rows_a_customer
from monitoring.looks.harm_look import budget_of_harm, harm_detectors, look_for_fallen_area
from monitoring.looks.quality_look import QualityLook
from monitoring.store.look_store import LookOutcome
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from stats.accuracy.labelled_bins import LabelledBins
from stats.alarms.budget import GROUP_WEIGHTS, RISK, Cadence
from tests.monitoring.outcome_world import (
    CHURN,
    CHURN_DAYS,
    FIRST_DAY,
    DayRowsInMemory,
    OutcomeWorld,
    add_days,
    churn_day,
    churn_facts,
    decision_rows,
    look_through,
)

DAYS = CHURN_DAYS


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OutcomeWorld]:
    """Return an empty store."""
    opened = OutcomeWorld(tmp_path)
    yield opened
    opened.store.close()


@pytest.mark.parametrize(
    ("change", "kind", "stream"),
    [
        ({"shift": 0.9}, "calibration", "calibration above churned"),
        ({"shift": -0.9}, "calibration", "calibration below churned"),
        ({"shift": 0.0, "noise": 5.0}, "risk", "brier churned"),
    ],
)
def test_harm_alarms_once_its_cohorts_are_final(
    world: OutcomeWorld, change: dict[str, float], kind: str, stream: str
) -> None:
    """The change is dated by predictions, not by reports, and the detector starts again."""
    broken = FIRST_DAY + 2
    add_days(world, FIRST_DAY, 2, rows=6_000)
    add_days(world, broken, 3, rows=6_000, **change)
    found = look_through(QualityLook(world.cohorts), FIRST_DAY + DAYS, broken + 2 + DAYS)
    alarms = [(number, alarm) for number, item in enumerate(found) for alarm in item.alarms]
    number, alarm = next((number, item) for number, item in alarms if item.stream == stream)
    assert alarm.kind == kind
    assert alarm.at == (FIRST_DAY + DAYS + number + 1) * 86_400
    assert 0 <= alarm.since // 86_400 - broken <= 1
    assert number >= 2
    details = found[number].details[alarm]
    assert details["outcome"] == "churned"
    assert "brier churned" in details["figures"]
    # From here on it is at 0 again.
    states = found[number].state["churned"]["harm"][stream.removesuffix(" churned")]
    assert (states["alarms"], states["since"]) == (1, None)


@pytest.mark.walk
def test_fallen_area_alarms_by_its_weeks(world: OutcomeWorld) -> None:
    """Scores that say less than approved: the weeks that alarmed are not used again."""
    facts = churn_facts({"metrics": {"auc": {"value": 0.95}}})
    sunday = FIRST_DAY + 2
    add_days(world, sunday - 6, 28, rows=1_500)
    found: list[LookOutcome] = []
    for week in range(4):
        state = found[-1].state if found else None
        day = sunday + DAYS + 7 * week
        found += look_through(QualityLook(world.cohorts), day, day, state, facts)
    alarms = [alarm for item in found for alarm in item.alarms]
    assert {(alarm.kind, alarm.stream) for alarm in alarms} == {("auc", "auc churned")}
    details = next(item.details[alarms[0]] for item in found if alarms[0] in item.alarms)
    assert details["approved"] == 0.95
    assert details["bound"]["high"] < 0.93
    assert found[-1].state["churned"]["area"]["weeks"] == []


def test_rows_of_one_customer_are_one_fact(world: OutcomeWorld) -> None:
    """A customer who is scored twice a day has the outcome four times in a horizon of two days."""
    sunday, kept = FIRST_DAY + 2, DayRowsInMemory()
    for day in range(sunday - 6, sunday + 1):
        kept.add(day, decision_rows(day, ["a", "a", "b", "b"], np.full(4, 0.5)))
    assert rows_a_customer(kept, "churn", "7", sunday, 2) == pytest.approx(4.0)
    assert rows_a_customer(kept, "churn", "7", sunday, 1) == pytest.approx(2.0)
    assert rows_a_customer(kept, "churn", "8", sunday, 2) is None
    once = DayRowsInMemory()
    once.add(sunday, decision_rows(sunday, ["a", "b", "c"], np.full(3, 0.5)))
    assert rows_a_customer(once, "churn", "7", sunday, 400) == 1.0
    # A model without entities has its customers by their keys.
    bare, whole = DayRowsInMemory(), decision_rows(sunday, ["a", "a", "b", "c"], np.full(4, 0.5))
    bare.add(sunday, replace(whole, entity_ids=(), key_hash=np.array([1, 1, 2, 3], np.uint64)))
    assert rows_a_customer(bare, "churn", "7", sunday, 1) == pytest.approx(4 / 3)
    # It is counted on Sundays, and each row has so much less weight.
    add_days(world, sunday - DAYS, 1, shift=0.4)
    evidence = {}
    for rows in (None, kept, once):
        state = QualityLook(world.cohorts, rows).look(churn_day(sunday), {}).state["churned"]
        evidence[state["cluster"]] = np.array(state["harm"]["calibration above"]["log_m"])
    assert sorted(evidence) == [1.0, 2.0, pytest.approx(4.0)]
    np.testing.assert_allclose(evidence[1.0], 2 * evidence[2.0])
    np.testing.assert_allclose(evidence[1.0], 4 * evidence[max(evidence)])
    # The interval of the area grows by the root of it.
    day, widths = churn_day(sunday, facts=churn_facts({"metrics": {"auc": {"value": 0.99}}})), []
    week = LabelledBins(np.array([0.2, 0.6]), np.array([300.0, 500.0]), np.array([900.0, 200.0]))
    for cluster in (1.0, 4.0):
        saved = {"weeks": [[sunday - 7, 0.7, 0.01]]}
        found = look_for_fallen_area(day, "churned", sunday, week, saved, [], cluster)
        (details,) = found.alarms.values()
        widths.append(details["bound"]["high"] - details["bound"]["value"])
    assert widths[1] == pytest.approx(2 * widths[0])


def test_detectors_of_outcomes_share_the_weight_of_their_group(world: OutcomeWorld) -> None:
    """The drift look asks for them, so that both have one budget."""
    outcome = OutcomePolicy(positive_when=">= 1", horizon="5d", value=100.0, cost=4.0)
    policy = MonitoringPolicy(outcomes={"churned": outcome}, budget=0.5)
    labels = {"bins": [200, 600], "positives": [10, 90], "negatives": [300, 100]}
    facts = churn_facts(held_out_labels=labels)
    names = {(item.name, item.cadence) for item in harm_detectors(facts, policy)}
    daily = ("calibration above", "calibration below", "brier", "cost", "reports", "delays")
    assert names == {
        *((f"{stream} churned", Cadence.DAILY) for stream in daily),
        ("auc churned", Cadence.WEEKLY),
    }
    spent = sum(item.alarms_max for item in budget_of_harm(facts, policy).values())
    assert spent == pytest.approx(0.5 * GROUP_WEIGHTS[RISK])
    # What is not known has no detector: adopted versions have no metrics, and no policy no money.
    bare = harm_detectors(churn_facts({}), MonitoringPolicy(outcomes={"churned": CHURN}))
    assert {item.name for item in bare} == {
        f"{stream} churned" for stream in (*daily[:2], "reports", "delays")
    }
    assert harm_detectors(facts, MonitoringPolicy()) == ()
    # The acts are no quality, and another outcome than the learned one is not calibrated.
    several = MonitoringPolicy(outcomes={"churned": CHURN, "called": CHURN, "acted": CHURN})
    assert {item.name for item in harm_detectors(facts, several) if "called" in item.name} == {
        "reports called",
        "delays called",
    }
