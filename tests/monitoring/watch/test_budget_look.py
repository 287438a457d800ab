"""The budget of false alarms: each source of alarms is in it, and all together keep it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.jobs.look import COUNTED
from monitoring.jobs.severity import SEVERITIES
from monitoring.looks.budget_look import GROUP_OF_KIND, BudgetLook
from monitoring.looks.fairness_look import fairness_detectors
from monitoring.looks.harm_look import harm_detectors
from monitoring.looks.uplift_look import uplift_detectors
from registry.watching.policy import MonitoringPolicy
from stats.alarms.budget import FAIRNESS, GROUP_WEIGHTS, UPLIFT, Cadence, plan_budget
from tests.monitoring.outcome_world import CHURN, FIRST_DAY, OutcomeWorld, churn_day
from tests.monitoring.watch.virtual_days import facts

OTHERS = (harm_detectors, fairness_detectors, uplift_detectors)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OutcomeWorld]:
    """Return an empty store."""
    opened = OutcomeWorld(tmp_path)
    yield opened
    opened.store.close()


def test_every_kind_of_alarm_spends_a_part_of_the_budget_or_is_no_chance() -> None:
    """A new kind of alarm must say what it may raise while nothing changes."""
    assert set(GROUP_OF_KIND) == set(SEVERITIES)
    assert set(GROUP_OF_KIND.values()) == {*GROUP_WEIGHTS, COUNTED}


@pytest.mark.parametrize("budget", [0.25, 0.02])
def test_budget_states_what_each_source_contributes(world: OutcomeWorld, budget: float) -> None:
    """A version with everything: two outcomes, groups of people, scores, features and shares."""
    policy = MonitoringPolicy(
        outcomes={"churned": CHURN, "called": CHURN}, sensitive=("people",), budget=budget
    )
    found = BudgetLook(world.looks, OTHERS).look(churn_day(FIRST_DAY, policy, facts()), {})
    bounds = {item.name: item.figure.value or 0.0 for item in found.figures}
    assert set(bounds) == {*GROUP_WEIGHTS, COUNTED, "all"}
    assert bounds.pop(COUNTED) == 0.0
    total = bounds.pop("all")
    assert total == pytest.approx(sum(bounds.values()))
    assert 0.0 < total <= budget
    for group, bound in bounds.items():
        assert 0.0 < bound <= budget * GROUP_WEIGHTS[group] * (1 + 1e-9)
    # A policy without groups and outcomes spends nothing on them.
    bare = BudgetLook(world.looks, OTHERS).look(
        churn_day(FIRST_DAY, MonitoringPolicy(), facts()), {}
    )
    assert {item.name: item.figure.value for item in bare.figures}[FAIRNESS] == 0.0
    assert {item.name: item.figure.value for item in bare.figures}[UPLIFT] == 0.0


def test_evidence_of_every_look_has_the_thresholds_that_the_bound_says() -> None:
    """A run of evidence crosses A with probability 1 / A, and a quarter touches T runs."""
    policy = MonitoringPolicy(outcomes={"churned": CHURN}, sensitive=("people",))
    version = facts()
    (groups,) = plan_budget(fairness_detectors(version, policy)).detectors.values()
    assert groups.alarms_max == pytest.approx(0.25 * 0.15)
    assert groups.alarms_a_look * 2 == pytest.approx(groups.alarms_max)
    planned = plan_budget(uplift_detectors(version, policy)).detectors
    effect, share = (
        planned[f"{name} churned", Cadence.FOUR_WEEKS] for name in ("uplift", "holdout")
    )
    # A period has one run of evidence on the effect, whose two intervals miss with half each.
    assert effect.alarms_a_look == pytest.approx(0.25 * 0.10 * 0.8 / 4)
    assert share.alarms_a_look == pytest.approx(0.25 * 0.10 * 0.2 / 4)
