"""The look at cohorts with few labels: near the truth, in words, and for such cohorts only."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from monitoring.looks.few_labels_look import FewLabelsLook
from monitoring.looks.quality_look import SUNDAY
from monitoring.store.look_store import LookOutcome
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from tests.monitoring.outcome_world import (
    FIRST_DAY,
    FiguresByName,
    OutcomeWorld,
    churn_day,
    draw_scores,
    figures_by_name,
)

SURVEY = OutcomePolicy(
    positive_when=">= 1", horizon="2d", grace="1d", absent="unknown", value=-40.0, cost=5.0
)
FINAL_DAYS = 3
WEEKS = 4
BRIER = "brier churned, estimated"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OutcomeWorld]:
    """Return an empty store."""
    opened = OutcomeWorld(tmp_path)
    yield opened
    opened.store.close()


def add_survey(world: OutcomeWorld, day: int, share: float, rows: int = 3_000) -> np.ndarray:
    """Add a day of which a share of customers answer, at random; return the squared errors."""
    rng = np.random.default_rng(day)
    scores = draw_scores(day, rows)
    positive = rng.random(rows) < scores
    world.add_cohort(day, scores, positive, rng.random(rows) < share)
    return np.asarray((scores - positive) ** 2)


def look(
    world: OutcomeWorld, first: int, last: int, outcome: OutcomePolicy = SURVEY
) -> list[LookOutcome]:
    """Look at each day as the runner does."""
    policy = MonitoringPolicy(outcomes={"churned": outcome})
    found: list[LookOutcome] = []
    for day in range(first, last + 1):
        state = json.loads(json.dumps(found[-1].state if found else {}))
        found.append(FewLabelsLook(world.cohorts).look(churn_day(day, policy), state))
    return found


def test_days_and_weeks_are_estimated_from_few_labels(world: OutcomeWorld) -> None:
    """The intervals have what all labels would say, and words say how many there are."""
    monday = FIRST_DAY + (SUNDAY + 1 - FIRST_DAY) % 7
    days = range(monday, monday + 7 * WEEKS)
    errors = {day: add_survey(world, day, 0.04) for day in days}
    found = look(world, monday, days[-1] + FINAL_DAYS)
    figures: FiguresByName = figures_by_name(found)
    # Each day: of 28 intervals of 95 % some may miss.
    covered = 0
    for day in days:
        figure = figures[BRIER, day, 1]
        _, low, high = figure.figure.bounds()
        covered += low <= errors[day].mean() <= high
        assert figure.details["maturity"] == "final"
        assert 60 < figure.figure.n < 180
        basis = f"estimated from {figure.figure.n} labelled of 3,000 predictions"
        assert figure.details["basis"] == basis
        assert figure.details["notes"] == [
            f"{basis}; it assumes that labelled predictions are like all others, as if drawn at "
            "random"
        ]
    assert covered >= 24
    # All weeks so far: their interval holds at each of them.
    widths = []
    for weeks in range(2, WEEKS + 1):
        last = monday + 7 * weeks - 1
        figure = figures[f"{BRIER} at every week", last, 7 * weeks]
        _, low, high = figure.figure.bounds()
        assert low <= np.mean([errors[day] for day in range(monday, last + 1)]) <= high
        assert figure.details["basis"].endswith(f"labelled of {21_000 * weeks:,} predictions")
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert figures[f"{BRIER} at every week", monday + 6, 7].figure.lacking
    # No alarm comes of them, and other metrics are there too.
    assert not any(outcome.alarms for outcome in found)
    accuracy = figures["accuracy churned, estimated", days[-1], 1].figure.value
    assert accuracy is not None
    assert 0.6 < accuracy <= 1.0
    assert figures["cost churned, estimated", days[-1], 1].figure.known


def test_sequence_lasts_from_its_first_week(world: OutcomeWorld) -> None:
    """A week with many labels is skipped, and its days are between those of the others."""
    monday = FIRST_DAY + (SUNDAY + 1 - FIRST_DAY) % 7
    for week, share in enumerate([0.04, 0.5, 0.04]):
        for day in range(monday + 7 * week, monday + 7 * week + 7):
            add_survey(world, day, share)
    found = look(world, monday, monday + 20 + FINAL_DAYS)
    figures = figures_by_name(found)
    shown = f"{BRIER} at every week"
    assert [key for key in figures if key[0] == shown] == [
        (shown, monday + 6, 7),
        (shown, monday + 20, 21),
    ]
    basis = figures[shown, monday + 20, 21].details["basis"]
    assert basis.endswith("labelled of 42,000 predictions")


def test_young_cohort_is_estimated_from_the_labels_that_are_there(world: OutcomeWorld) -> None:
    """It is provisional until horizon and grace are over."""
    add_survey(world, FIRST_DAY, 0.04)
    found = [figures_by_name([item]) for item in look(world, FIRST_DAY, FIRST_DAY + FINAL_DAYS)]
    shown = [item[BRIER, FIRST_DAY, 1].details["maturity"] for item in found]
    assert shown == ["provisional"] * 3 + ["final"]


@pytest.mark.parametrize(
    ("share", "absent"),
    [(0.5, "unknown"), (0.005, "unknown"), (0.0, "unknown"), (0.04, "negative")],
)
def test_other_cohorts_are_left_to_the_look_at_outcomes(
    world: OutcomeWorld, share: float, absent: str
) -> None:
    """Many labels, fewer than 30, none, and an outcome whose absence says no."""
    add_survey(world, FIRST_DAY, share)
    outcome = OutcomePolicy(positive_when=">= 1", horizon="2d", grace="1d", absent=absent)  # type: ignore[arg-type]
    (*_, last) = look(world, FIRST_DAY, FIRST_DAY + FINAL_DAYS, outcome)
    assert last.figures == ()
