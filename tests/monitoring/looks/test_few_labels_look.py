"""The look at cohorts with few labels: near the truth, in words, and for such cohorts only."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from monitoring.cohorts.segment_weeks import SUNDAY
from monitoring.looks.few_labels_look import FewLabelsLook
from monitoring.store.look_store import LookOutcome
from registry.watching.policy import MonitoringPolicy, OutcomePolicy, Segmentation
from tests.monitoring.outcome_world import (
    FIRST_DAY,
    DayRowsInMemory,
    FiguresByName,
    OutcomeWorld,
    churn_day,
    decision_rows,
    draw_scores,
    figures_by_name,
    report_rows,
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


TENURE = Segmentation(feature="f1", ranges={"new": (0.0, 0.5), "old": (0.5, 1.5)})
NEW_CUSTOMERS, SEGMENT_DAYS = 2_000, 12


def add_segmented_survey(world: OutcomeWorld, kept: DayRowsInMemory, day: int) -> float:
    """Add a day of new customers, of whom scores say too little, of others and of few old ones.

    Returns the mean squared error of the new ones.
    """
    rng = np.random.default_rng(day)
    parts = np.repeat([0.0, 1.0, 2.0], [NEW_CUSTOMERS, 100, 1_500])
    scores = draw_scores(day, len(parts))
    positive = rng.random(len(parts)) < np.where(parts == 0.0, 0.5, 1.0) * scores
    reported = rng.random(len(parts)) < 0.06
    vectors = np.zeros((len(parts), 3), np.float32)
    vectors[:, 1] = parts
    rows = decision_rows(day, [str(n) for n in range(len(parts))], scores, vectors=vectors)
    kept.add(day, rows)
    answers = {row: float(positive[row]) for row in np.flatnonzero(reported).tolist()}
    world.add_reports(report_rows(rows, answers))
    world.add_cohort(day, scores, positive, reported)
    return float(np.mean((scores - positive)[parts == 0.0] ** 2))


def test_segments_of_a_final_day_are_estimated_or_lack_labels(world: OutcomeWorld) -> None:
    """The intervals hold for each segment, also where the scores of one are wrong."""
    policy = MonitoringPolicy(outcomes={"churned": SURVEY}, segments={"tenure": TENURE})
    kept = DayRowsInMemory()
    days = range(FIRST_DAY, FIRST_DAY + SEGMENT_DAYS)
    errors = {day: add_segmented_survey(world, kept, day) for day in days}
    look = FewLabelsLook(world.cohorts, kept)
    covered = 0
    for day in days:
        found = look.look(churn_day(day + FINAL_DAYS, policy), {})
        figures = {
            item.segment: item
            for item in found.figures
            if item.segment and item.name == BRIER and (item.last_day, item.days) == (day, 1)
        }
        assert sorted(figures) == ["tenure=new", "tenure=old", "tenure=other"]
        # Those of the new customers, from their own labels.
        figure = figures["tenure=new"]
        _, low, high = figure.figure.bounds()
        covered += low <= errors[day] <= high
        assert 80 < figure.figure.n < 170
        basis = f"estimated from {figure.figure.n} labelled of 2,000 predictions"
        assert figure.details["basis"] == basis
        assert figure.details["notes"][1] == "of the keys whose scored rows are kept"
        # Some six old customers answered.
        old = figures["tenure=old"].figure
        assert (old.value, old.lacking) == (
            None,
            f"not enough data: {old.n} of 30 labelled rows needed",
        )
        assert figures["tenure=other"].figure.known
        # Young days have none, as with the figures of all outcomes.
        assert {item.last_day for item in found.figures if item.segment} == {day}
    assert covered >= SEGMENT_DAYS - 2


def test_segments_of_a_final_week_have_the_labels_of_its_days(world: OutcomeWorld) -> None:
    """So a segment with few labels a day has an interval on Sunday."""
    monday = FIRST_DAY + (SUNDAY + 1 - FIRST_DAY) % 7
    policy = MonitoringPolicy(outcomes={"churned": SURVEY}, segments={"tenure": TENURE})
    kept = DayRowsInMemory()
    days = range(monday, monday + 7)
    errors = [add_segmented_survey(world, kept, day) for day in days]
    look, found = FewLabelsLook(world.cohorts, kept), []
    for day in days:
        state = json.loads(json.dumps(found[-1].state if found else {}))
        found.append(look.look(churn_day(day + FINAL_DAYS, policy), state))
    weekly = {
        item.segment: item
        for item in found[-1].figures
        if item.segment and item.name == BRIER and (item.last_day, item.days) == (days[-1], 7)
    }
    assert sorted(weekly) == ["tenure=new", "tenure=old", "tenure=other"]
    _, low, high = weekly["tenure=new"].figure.bounds()
    assert low <= np.mean(errors) <= high
    assert weekly["tenure=new"].details["basis"].endswith("labelled of 14,000 predictions")
    daily = [
        item.figure.n
        for outcome in found
        for item in outcome.figures
        if (item.segment, item.name, item.days) == ("tenure=old", BRIER, 1)
    ]
    assert weekly["tenure=old"].figure.n == sum(daily) >= 30 > max(daily)
    assert weekly["tenure=old"].figure.known


def test_segments_without_kept_rows_say_so(world: OutcomeWorld) -> None:
    """Each part that the policy names."""
    policy = MonitoringPolicy(outcomes={"churned": SURVEY}, segments={"tenure": TENURE})
    add_survey(world, FIRST_DAY, 0.04)
    look = FewLabelsLook(world.cohorts, DayRowsInMemory())
    found = look.look(churn_day(FIRST_DAY + FINAL_DAYS, policy), {})
    lacking = {
        (item.segment, item.name): item.figure.lacking for item in found.figures if item.segment
    }
    metrics = [f"{metric} churned, estimated" for metric in ("brier", "accuracy", "cost")]
    parts = ("tenure=new", "tenure=old")
    assert lacking.keys() == {(part, metric) for part in parts for metric in metrics}
    assert all("no scored rows of these days are kept" in text for text in lacking.values())
