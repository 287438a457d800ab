"""The look at outcomes: figures of cohorts, and each cohort in the detectors once."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from monitoring.cohorts.segment_weeks import SUNDAY
from monitoring.looks.quality_look import QualityLook
from monitoring.store.window_counts import WindowBatchRows
from registry.watching.policy import MonitoringPolicy, OutcomePolicy, Segmentation
from tests.monitoring.outcome_world import (
    CHURN,
    CHURN_DAYS,
    FIRST_DAY,
    DayRowsInMemory,
    OutcomeWorld,
    add_days,
    churn_day,
    decision_rows,
    draw_scores,
    figures_by_name,
    look_through,
    report,
    report_rows,
)

DAYS = CHURN_DAYS


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OutcomeWorld]:
    """Return an empty store."""
    opened = OutcomeWorld(tmp_path)
    yield opened
    opened.store.close()


def test_final_cohort_has_the_figures_of_its_rows(world: OutcomeWorld) -> None:
    """They are those of scikit-learn on the rows, up to the width of a bin."""
    scores = draw_scores(1)
    positive = np.random.default_rng(2).random(len(scores)) < scores
    world.add_cohort(FIRST_DAY, scores, positive)
    found = look_through(QualityLook(world.cohorts), FIRST_DAY + DAYS, FIRST_DAY + DAYS)
    figures = figures_by_name(found)
    expected = {
        "auc": roc_auc_score(positive, scores),
        "log_loss": log_loss(positive, scores),
        "brier": brier_score_loss(positive, scores),
        "precision_at_100": positive[np.argsort(-scores)[:100]].mean(),
    }
    for metric, value in expected.items():
        found = figures[f"{metric} churned", FIRST_DAY, 1]
        assert found.figure.value == pytest.approx(value, abs=0.004), metric
        assert found.details["maturity"] == "final"
        assert found.details["basis"] == "of all predictions"
    assert figures["precision_at_1000 churned", FIRST_DAY, 1].figure.lacking
    assert "cost churned" not in {name for name, _, _ in figures}


def test_cohort_is_provisional_until_horizon_and_grace_are_over(world: OutcomeWorld) -> None:
    """Without delays of final cohorts there is no figure; with them the interval covers it."""
    look = QualityLook(world.cohorts)
    add_days(world, FIRST_DAY, 6)
    # Of the newest cohort the reports of the first day are there, of a quarter of the outcomes.
    day, scores = FIRST_DAY + 6, draw_scores(7)
    rng = np.random.default_rng(8)
    positive = rng.random(len(scores)) < scores
    early = rng.random(len(scores)) < 0.25
    world.add_cohort(day, scores, positive, positive & early, delays=np.zeros(800, np.int64))
    first = look_through(look, FIRST_DAY, FIRST_DAY)
    (lacking,) = {item.figure.lacking for item in first[0].figures}
    assert lacking.startswith("not enough data: 0 of 100 outcomes of final cohorts")
    found = look_through(look, FIRST_DAY + 1, day, first[-1].state)
    newest = figures_by_name(found)["brier churned", day, 1]
    assert newest.details["maturity"] == "provisional"
    assert newest.details["notes"][0].startswith("provisional: 2")
    # The other reports come, and the final figure takes the place of the provisional one.
    world.add_cohort(day, scores, positive, positive & ~early, scored=False)
    final = look_through(look, day + 1, day + DAYS, found[-1].state)
    settled = figures_by_name(final)["brier churned", day, 1]
    assert settled.details["maturity"] == "final"
    _, low, high = newest.figure.bounds()
    assert low < settled.figure.bounds()[0] < high
    assert settled.figure.bounds()[0] == pytest.approx(
        brier_score_loss(positive, scores), abs=0.002
    )


@pytest.mark.walk
def test_healthy_version_raises_nothing_and_weeks_have_figures(world: OutcomeWorld) -> None:
    """Ten days of calibrated scores, which is what the version was approved with."""
    add_days(world, FIRST_DAY, 10, rows=1_500)
    found = look_through(QualityLook(world.cohorts), FIRST_DAY + DAYS, FIRST_DAY + 9 + DAYS)
    assert [alarm for outcome in found for alarm in outcome.alarms] == []
    figures = figures_by_name(found)
    weeks = [day for name, day, days in figures if (name, days) == ("auc churned", 7)]
    epoch = date(1970, 1, 1).toordinal()
    assert {date.fromordinal(epoch + day).isoweekday() for day in weeks} == {7}
    assert figures["auc churned", weeks[-1], 7].figure.n == 7 * 1_500


def test_holdout_stands_beside_everybody_and_is_what_detectors_see(world: OutcomeWorld) -> None:
    """Acting prevents outcomes of those who are acted on. That is no loss of calibration."""
    add_days(world, FIRST_DAY, 5, rows=2_000, shift=-1.0)
    add_days(world, FIRST_DAY, 5, rows=2_000, holdout=True)
    found = look_through(QualityLook(world.cohorts), FIRST_DAY + DAYS, FIRST_DAY + 4 + DAYS)
    assert [alarm for item in found for alarm in item.alarms] == []
    figures = figures_by_name(found)
    day = FIRST_DAY + 4
    everybody = figures["calibration_intercept churned", day, 1].figure.value
    holdout = figures["calibration_intercept churned, holdout", day, 1].figure.value
    acting = figures["calibration_intercept churned, by acting", day, 1]
    assert everybody is not None
    assert holdout is not None
    assert everybody < -0.3
    assert abs(holdout) < 0.3
    assert acting.figure.value == pytest.approx(-1.0, abs=0.4)
    assert "is no decay" in acting.details["explanation"]


def test_canary_and_pinned_calls_stand_beside_production(world: OutcomeWorld) -> None:
    """Pinned calls chose the version themselves, so they are not part of everybody."""
    for role, rows in ((1, 500), (2, 400), (3, 300)):
        scores = draw_scores(role, rows)
        world.add_cohort(FIRST_DAY, scores, scores > 0.4, role=role)
    found = look_through(QualityLook(world.cohorts), FIRST_DAY + DAYS, FIRST_DAY + DAYS)
    figures = figures_by_name(found)
    names = (
        "accuracy churned",
        *(f"accuracy churned, {r}" for r in ("production", "canary", "pinned")),
    )
    assert [figures[name, FIRST_DAY, 1].figure.n for name in names] == [900, 500, 400, 300]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.0, 1.0, 5.0, 20.0, -3.0), {"> 0": 3, ">= 5": 2, "<= 0": 2, "any": 5, "= 1": 1}),
        ((0.0, 1.0, 1.0), {"> 0": 2, ">= 1": 2, "<= 0": 1, "any": 3, ">= 5": 0}),
    ],
)
def test_rules_of_positive_outcomes(
    world: OutcomeWorld, values: tuple[float, ...], expected: dict[str, int]
) -> None:
    """A rule that cells do not know follows from their counts, or is applied to the values."""
    at_ms = (FIRST_DAY * 24 + 5) * 3_600_000
    events = [
        report(bytes([n + 1]) * 64, at_ms, value, score=n / 8) for n, value in enumerate(values)
    ]
    world.push(outcomes=events)
    for rule, positives in expected.items():
        outcome = OutcomePolicy(positive_when=rule, horizon="5d", absent="unknown")
        policy = MonitoringPolicy(outcomes={"churned": outcome})
        look = QualityLook(world.cohorts)
        found = look.look(churn_day(FIRST_DAY + 5, policy), {})
        by_name = {item.name: item for item in found.figures if item.last_day == FIRST_DAY}
        lacking = by_name["recall churned"].figure.lacking
        assert lacking == f"not enough data: {positives} of 30 positive rows needed", rule
        assert by_name["auc churned"].details["basis"].startswith("among predictions")


@pytest.mark.parametrize(
    ("horizon", "grace", "days"), [("36h", "0d", 2), ("20m", "1h", 1), ("24h", "90m", 2)]
)
def test_horizons_in_hours_are_rounded_up_to_days(
    world: OutcomeWorld, horizon: str, grace: str, days: int
) -> None:
    """So a cohort is never final before its outcomes can have come."""
    outcome = OutcomePolicy(positive_when=">= 1", horizon=horizon, grace=grace, absent="negative")
    add_days(world, FIRST_DAY, 1)
    for day in range(FIRST_DAY, FIRST_DAY + days + 1):
        today = churn_day(day, MonitoringPolicy(outcomes={"churned": outcome}))
        found = QualityLook(world.cohorts).look(today, {})
        maturities = {i.details["maturity"] for i in found.figures if i.name == "auc churned"}
        assert maturities == {"provisional" if day < FIRST_DAY + days else "final"}


def test_equal_labels_no_outcomes_and_odd_reports(world: OutcomeWorld) -> None:
    """Each is a sentence or a count of its own, and never a number that looks like accuracy."""
    scores = draw_scores(1, 300)
    for silent in (FIRST_DAY - 1, FIRST_DAY):
        world.add_cohort(silent, scores, np.zeros(300, np.bool_))
    at_ms, day = ((FIRST_DAY + 1) * 24) * 3_600_000, 86_400_000
    reported = (FIRST_DAY + DAYS + 1) * day
    world.add_cohort(FIRST_DAY + 1, scores, np.random.default_rng(4).random(300) < scores)
    world.push(
        outcomes=[
            report(b"a" * 64, at_ms, event_unix_ms=at_ms - 10 * day),
            report(b"b" * 64, at_ms, float("nan")),
            report(b"c" * 64, at_ms, event_unix_ms=at_ms + 20 * day),
            *[report(b"d" * 64, at_ms, value) for value in (1.0, 1.0, 0.0)],
            report(b"e" * 64, at_ms, forged=True, received_unix_ms=reported, model=""),
        ]
    )
    last = FIRST_DAY + DAYS + 1
    found = look_through(QualityLook(world.cohorts), last - 2, last)
    figures = figures_by_name(found)
    assert "positive" in figures["auc churned", FIRST_DAY, 1].figure.lacking
    # Nobody reports, where scores expect 86 outcomes: it is told once, and no loss of calibration.
    (alarm,) = [alarm for item in found for alarm in item.alarms]
    assert (alarm.kind, alarm.stream) == ("outcomes", "missing churned")
    counted = figures["before prediction churned", FIRST_DAY + 1, 1].figure
    for word in ("before prediction", "in the future", "not a number", "duplicate", "corrected"):
        share = figures[f"{word} churned", FIRST_DAY + 1, 1].figure
        assert share.value == pytest.approx(1 / counted.n), word
    orphan = figures["orphan churned", FIRST_DAY + DAYS + 1, 1].figure
    assert orphan.value == pytest.approx(1 / (counted.n + 1))


def test_longer_delays_are_an_alarm_of_their_own(world: OutcomeWorld) -> None:
    """And after it the new delays are the usual ones."""
    # Thirteen days were as the first one here.
    usual = {"reports": {"delays": {"cohorts": 13, "first": [1_500, 1_500, 0, 0, 0]}}}
    add_days(world, FIRST_DAY, 2)
    add_days(world, FIRST_DAY + 2, 3, delay=2)
    look = QualityLook(world.cohorts)
    last = FIRST_DAY + 4 + DAYS
    found = look_through(look, FIRST_DAY + DAYS, last, {"churned": usual})
    alarms = [alarm for item in found for alarm in item.alarms]
    assert [(alarm.kind, alarm.stream) for alarm in alarms] == [("outcomes", "delays churned")]
    assert alarms[0].since == (FIRST_DAY + 2) * 86_400
    assert found[-1].state["churned"]["reports"]["delays"]["cohorts"] < 13


def test_nothing_follows_from_rows_that_were_not_counted(world: OutcomeWorld) -> None:
    """Reports come of all keys. If the journal has a tenth of them, the others are no negatives."""
    add_days(world, FIRST_DAY, 1)
    add_days(world, FIRST_DAY, 1, rows=40, holdout=True)
    world.add_cohort(FIRST_DAY, draw_scores(1, 60), np.ones(60, np.bool_), role=2)
    rows = Counter({("churn", "7", FIRST_DAY * 24 + 12): 8_000})
    world.store.add_windows([WindowBatchRows("gateway-1/0/1", 1, rows, rows, FIRST_DAY * 24)])
    found = look_through(QualityLook(world.cohorts), FIRST_DAY + DAYS, FIRST_DAY + DAYS)
    figure = figures_by_name(found)["auc churned", FIRST_DAY, 1].figure
    assert figure.lacking.startswith("11% of the rows were counted")
    assert found[0].alarms == ()
    assert {name for name, _, _ in figures_by_name(found) if "," in name} == set()
    # Rows that are kept are joined with their own outcomes, however few they are.
    scores, saved = draw_scores(5, 300), DayRowsInMemory()
    positive = np.random.default_rng(6).random(300) < scores
    batch = decision_rows(FIRST_DAY, [str(n) for n in range(300)], scores)
    saved.add(FIRST_DAY, batch)
    world.add_reports(report_rows(batch, dict.fromkeys(np.flatnonzero(positive).tolist(), 1.0)))
    found = look_through(QualityLook(world.cohorts, saved), FIRST_DAY + DAYS, FIRST_DAY + DAYS)
    area = figures_by_name(found)["auc churned", FIRST_DAY, 1].figure.value
    assert area == pytest.approx(roc_auc_score(positive, scores), abs=0.01)


def test_segments_have_figures_of_rows_that_were_saved(world: OutcomeWorld) -> None:
    """A range is from, up to and without; rows in no part are in "other"."""
    rng = np.random.default_rng(3)
    scores = rng.random(400)
    vectors = rng.integers(0, 3, (400, 3)).astype(np.float32)
    positive = rng.random(400) < scores
    answers = decision_rows(FIRST_DAY, [str(n) for n in range(400)], scores, vectors=vectors)
    saved = DayRowsInMemory()
    # Rows of another version do not count.
    saved.add(FIRST_DAY, answers, "6")
    saved.add(FIRST_DAY, answers)
    world.add_reports(report_rows(answers, dict.fromkeys(np.flatnonzero(positive).tolist(), 1.0)))
    world.add_cohort(FIRST_DAY, scores, positive)
    policy = MonitoringPolicy(
        outcomes={"churned": CHURN},
        segments={"tenure": Segmentation(feature="f1", ranges={"new": (0.0, 1.5)})},
    )
    found = QualityLook(world.cohorts, saved).look(churn_day(FIRST_DAY + DAYS, policy), {})
    areas = {item.segment: item.figure for item in found.figures if item.name == "auc churned"}
    new = vectors[:, 1] < 1.5
    for segment, rows in (("tenure=new", new), ("tenure=other", ~new)):
        value = roc_auc_score(positive[rows], scores[rows])
        assert areas[segment].value == pytest.approx(value, abs=0.01)
        assert areas[segment].n == rows.sum()


def test_segments_of_a_final_week_have_figures_of_all_its_days(world: OutcomeWorld) -> None:
    """From the counts of each day, whatever days have rows."""
    monday = FIRST_DAY + (SUNDAY + 1 - FIRST_DAY) % 7
    saved, kept = DayRowsInMemory(), {}
    # Rows of a Tuesday and of a Friday, and those of the week before.
    for day in (monday - 1, monday + 1, monday + 4):
        rng = np.random.default_rng(day)
        scores, vectors = rng.random(200), rng.integers(0, 3, (200, 3)).astype(np.float32)
        positive = rng.random(200) < scores
        rows = decision_rows(day, [str(n) for n in range(200)], scores, vectors=vectors)
        saved.add(day, rows)
        answers = dict.fromkeys(np.flatnonzero(positive).tolist(), 1.0)
        world.add_reports(report_rows(rows, answers))
        world.add_cohort(day, scores, positive)
        kept[day] = scores, positive, vectors[:, 1] < 1.5
    policy = MonitoringPolicy(
        outcomes={"churned": CHURN},
        segments={"tenure": Segmentation(feature="f1", ranges={"new": (0.0, 1.5)})},
    )
    look, found = QualityLook(world.cohorts, saved), []
    for day in range(monday - 1, monday + 7):
        state = json.loads(json.dumps(found[-1].state if found else {}))
        found.append(look.look(churn_day(day + DAYS, policy), state))
    weekly = {
        (item.last_day, item.days, item.segment): item
        for outcome in found
        for item in outcome.figures
        if item.name == "auc churned" and item.segment and item.days > 1
    }
    # From the Tuesday, with the rows of both days, also though nothing was scored on the Sunday.
    parts = [kept[monday + 1], kept[monday + 4]]
    scores, positive, new = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    assert list(weekly) == [(monday + 6, 6, "tenure=new"), (monday + 6, 6, "tenure=other")]
    for (_, _, segment), rows in zip(weekly, (new, ~new), strict=True):
        figure = weekly[monday + 6, 6, segment].figure
        assert figure.n == rows.sum()
        value = roc_auc_score(positive[rows], scores[rows])
        assert figure.value == pytest.approx(value, abs=0.01)


def test_shadow_has_the_outcomes_of_the_answers(world: OutcomeWorld) -> None:
    """Its rows have their ids. What it was on the day of the cohort counts, and not what it is."""
    rng = np.random.default_rng(3)
    scores = rng.random(400)
    positive = rng.random(400) < 1 - scores
    names = [str(n) for n in range(400)]
    answers, saved = decision_rows(FIRST_DAY, names, 1 - scores), DayRowsInMemory()
    saved.add(FIRST_DAY, answers, "6")
    saved.add(FIRST_DAY, decision_rows(FIRST_DAY, names, scores, role=5))
    world.add_reports(report_rows(answers, dict.fromkeys(np.flatnonzero(positive).tolist(), 1.0)))
    world.add_cohort(FIRST_DAY, scores, np.zeros(400, np.bool_), role=5)
    day = FIRST_DAY + DAYS
    for shadow in (True, False):
        found = QualityLook(world.cohorts, saved).look(churn_day(day, shadow=shadow), {})
        figures = figures_by_name([found])
        area = figures["auc churned", FIRST_DAY, 1].figure.value
        assert area == pytest.approx(roc_auc_score(positive, scores), abs=0.01)
    # Without decisions the sentence says what to switch on.
    found = QualityLook(world.cohorts).look(churn_day(day, shadow=True), {})
    assert all("--decisions" in item.figure.lacking for item in found.figures)
    # A version that answers nobody any more is judged by what it answered.
    world.add_cohort(FIRST_DAY + 1, scores, positive)
    found = QualityLook(world.cohorts, saved).look(churn_day(day + 1, shadow=True), {})
    assert figures_by_name([found])["accuracy churned", FIRST_DAY + 1, 1].figure.n == 400


@pytest.mark.walk
def test_stored_looks_are_found_again(world: OutcomeWorld) -> None:
    """A look that is made again finds the same, and figures, state and alarms can be stored."""
    add_days(world, FIRST_DAY, 5)
    look, outcomes = QualityLook(world.cohorts), []
    for day in range(FIRST_DAY + DAYS, FIRST_DAY + DAYS + 3):
        state = world.looks.look_state("churn", "7", "quality").state
        outcome = look.look(churn_day(day), state)
        assert outcome == look.look(churn_day(day), state)
        assert world.looks.save_look("churn", "7", look.name, day, outcome)
        outcomes.append(sum(outcome.state["churned"]["delays"]))
        stored = world.looks.read_figures(0, 10**6, model="churn", kind="quality")
        assert all(figure in stored for figure in outcome.figures)
    # Delays of every final cohort are known to the next ones.
    assert outcomes[2] > 1.3 * outcomes[1] > 1.3 * 1.6 * outcomes[0]
