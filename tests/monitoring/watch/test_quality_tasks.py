"""The look at outcomes of other tasks than two classes, and of counts that were rolled up."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, mean_absolute_error, ndcg_score, roc_auc_score

from monitoring.cells.version_bins import OutputBins, VersionBins
from monitoring.looks.day_looks import SealedFacts
from monitoring.looks.quality_look import QualityLook
from monitoring.store.cell_rows import Retention
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from stats.score_grid import score_grid_edges
from tests.monitoring.outcome_world import (
    CHURN,
    FIRST_DAY,
    DayRowsInMemory,
    OutcomeWorld,
    churn_day,
    churn_facts,
    decision_rows,
    figures_by_name,
    report,
    report_rows,
)

DAYS = 3
"""Horizon and grace of the outcome."""
KNOWN = OutcomePolicy(positive_when="any", horizon="2d", grace="1d")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OutcomeWorld]:
    """Return an empty store."""
    opened = OutcomeWorld(tmp_path)
    yield opened
    opened.store.close()


def facts_of_task(task: str, outputs: tuple[OutputBins, ...]) -> SealedFacts:
    """Return version 7 with other outputs."""
    facts = churn_facts(task=task)
    bins = VersionBins("churn", "7", facts.bins.digest8, outputs, facts.bins.features)
    return replace(facts, bins=bins)


def test_predicted_values_are_judged_by_their_errors(world: OutcomeWorld) -> None:
    """Cells have sums of errors: there is a mean absolute error and a bias, and no other number."""
    edges = np.linspace(0, 100, 20, dtype=np.float32)
    facts = facts_of_task("regression", (OutputBins("churned", edges, probability=False),))
    world.store.save_version(facts.bins)
    rng = np.random.default_rng(1)
    actual = rng.normal(50, 10, 60)
    predicted = actual + rng.normal(2, 5, 60)
    at_ms = (FIRST_DAY * 24 + 5) * 3_600_000
    world.push(
        outcomes=[
            report(bytes([n + 1]) * 64, at_ms, value, score=score)
            for n, (value, score) in enumerate(zip(actual, predicted, strict=True))
        ]
    )
    policy = MonitoringPolicy(outcomes={"churned": KNOWN})
    found = QualityLook(world.cohorts).look(churn_day(FIRST_DAY + DAYS, policy, facts), {})
    figures = figures_by_name([found])
    mae = figures["mae churned", FIRST_DAY, 1].figure
    assert mae.value == pytest.approx(mean_absolute_error(actual, predicted))
    assert mae.n == 60
    bias = figures["bias churned", FIRST_DAY, 1].figure
    assert bias.value == pytest.approx((predicted - actual).mean())
    assert "fourth powers" in figures["rmse churned", FIRST_DAY, 1].figure.lacking
    assert found.alarms == ()


def test_scores_that_are_no_probabilities_are_judged_by_their_order(world: OutcomeWorld) -> None:
    """An anomaly score has an area, and no calibration."""
    edges = np.linspace(-3, 3, 200, dtype=np.float32)
    facts = facts_of_task("anomaly", (OutputBins("churned", edges, probability=False),))
    world.store.save_version(facts.bins)
    rng = np.random.default_rng(2)
    scores, positive = rng.normal(size=80), np.arange(80) % 4 == 0
    scores[positive] += 1.0
    at_ms = (FIRST_DAY * 24 + 5) * 3_600_000
    world.push(
        outcomes=[
            report(bytes([n + 1]) * 64, at_ms, float(positive[n]), score=float(scores[n]))
            for n in range(80)
        ]
    )
    outcome = replace(KNOWN, positive_when=">= 1")
    policy = MonitoringPolicy(outcomes={"churned": outcome})
    found = QualityLook(world.cohorts).look(churn_day(FIRST_DAY + DAYS, policy, facts), {})
    areas = [item.figure for item in found.figures if item.name == "auc churned" and item.days == 1]
    assert areas[0].value == pytest.approx(roc_auc_score(positive, scores), abs=0.01)
    assert not any("calibration" in item.name for item in found.figures)
    early = QualityLook(world.cohorts).look(churn_day(FIRST_DAY, policy, facts), {})
    lacking = figures_by_name([early])["auc churned", FIRST_DAY, 1].figure.lacking
    assert lacking.startswith("the outcomes are not final")


def test_several_classes_need_the_rows(world: OutcomeWorld) -> None:
    """The value of an outcome is the position of its class; another value is none."""
    grid = score_grid_edges()
    outputs = tuple(OutputBins(name, grid, probability=True) for name in ("a", "b", "c"))
    facts = facts_of_task("multiclass", outputs)
    rng = np.random.default_rng(3)
    scores = rng.dirichlet([1.0, 1.0, 1.0], 300).astype(np.float32)
    codes = np.array([rng.choice(3, p=row / row.sum()) for row in scores.astype(np.float64)])
    rows = decision_rows(FIRST_DAY, [str(n) for n in range(300)], scores)
    kept = DayRowsInMemory()
    kept.add(FIRST_DAY, rows)
    values = {number: float(code) for number, code in enumerate(codes.tolist())}
    world.add_reports(report_rows(rows, {**values, 0: 7.0, 1: 0.5}))
    policy = MonitoringPolicy(outcomes={"churned": KNOWN})
    day = churn_day(FIRST_DAY + DAYS, policy, facts)
    figures = figures_by_name([QualityLook(world.cohorts, kept).look(day, {})])
    accuracy = figures["accuracy churned", FIRST_DAY, 1].figure
    assert accuracy.value == pytest.approx((scores.argmax(axis=1) == codes)[2:].mean())
    loss = figures["log_loss churned", FIRST_DAY, 1].figure.value
    shares = scores[2:].astype(np.float64)
    expected = log_loss(codes[2:], shares / shares.sum(axis=1, keepdims=True))
    assert loss == pytest.approx(expected, abs=1e-4)
    without = QualityLook(world.cohorts).look(day, {})
    assert {item.name for item in without.figures} == {
        "accuracy churned",
        "auc churned",
        "log_loss churned",
    }
    assert all("--decisions" in item.figure.lacking for item in without.figures)


def test_offers_are_judged_by_the_order_of_their_call(world: OutcomeWorld) -> None:
    """An offer of a call that nobody reported was not taken."""
    edges = np.linspace(-3, 3, 20, dtype=np.float32)
    facts = facts_of_task("ranking", (OutputBins("churned", edges, probability=False),))
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(100, 4))
    taken = np.array([rng.choice(4, p=np.exp(row) / np.exp(row).sum()) for row in scores])
    rows = decision_rows(FIRST_DAY, ["x"] * 400, scores.ravel(), rows_a_call=4)
    kept = DayRowsInMemory()
    kept.add(FIRST_DAY, rows)
    world.add_reports(
        report_rows(rows, {call * 4 + offer: 1.0 for call, offer in enumerate(taken.tolist())})
    )
    policy = MonitoringPolicy(outcomes={"churned": replace(KNOWN, positive_when=">= 1")})
    found = QualityLook(world.cohorts, kept).look(churn_day(FIRST_DAY + DAYS, policy, facts), {})
    figures = figures_by_name([found])
    hits = figures["hit_rate churned", FIRST_DAY, 1].figure
    assert hits.value == pytest.approx((scores.argmax(axis=1) == taken).mean())
    worth = np.eye(4)[taken]
    expected = ndcg_score(worth, scores, k=5)
    assert figures["ndcg churned", FIRST_DAY, 1].figure.value == pytest.approx(expected)


def test_rolled_up_counts_give_the_same_day_and_no_part_of_a_week(world: OutcomeWorld) -> None:
    """Days stay exact. A week has six other days, so no figure of one of them is true."""
    scores = np.random.default_rng(5).beta(2, 5, 600)
    positive = np.random.default_rng(6).random(600) < scores
    monday = FIRST_DAY + 3
    assert datetime.fromtimestamp(monday * 86_400, UTC).weekday() == 0
    for day in range(monday, monday + 7):
        world.add_cohort(day, scores, positive)
    look, today = QualityLook(world.cohorts), churn_day(monday + DAYS)
    before = look.look(today, {})
    now = (monday + 60) * 24
    assert world.store.roll_up(now, Retention(hour_days=2)) > 0
    assert look.look(today, {}) == before
    world.store.roll_up(now, Retention(hour_days=2, day_days=3))
    figures = figures_by_name([look.look(today, {})])
    assert figures["auc churned", monday, 1].figure.lacking.startswith(
        "the counts of these days were rolled up to weeks"
    )
    # The whole week is still there.
    week = look.look(churn_day(monday + 6 + DAYS), {})
    assert figures_by_name([week])["auc churned", monday + 6, 7].figure.n == 7 * 600


def test_hour_that_comes_twice_and_scores_that_are_nan(world: OutcomeWorld) -> None:
    """Days are those of UTC, where no hour comes twice; a NaN is counted and is in no figure."""
    day = (datetime(2024, 10, 27, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    scores = np.random.default_rng(7).beta(2, 5, 300)
    positive = np.random.default_rng(8).random(300) < scores
    # Both are half past two in Berlin, in summer and in winter time.
    for hour in (0, 1):
        world.add_cohort(day, scores, positive, hour=hour)
    world.add_cohort(day, np.full(20, np.nan), np.ones(20, np.bool_), hour=2)
    found = figures_by_name([QualityLook(world.cohorts).look(churn_day(day + DAYS), {})])
    figure = found["accuracy churned", day, 1]
    assert figure.figure.n == 600
    assert figure.details["notes"][0].startswith("20 outcomes are left out")


def test_cost_is_that_of_wrong_decisions_by_the_policy(world: OutcomeWorld) -> None:
    """A wrong act costs 4, and a missed outcome its value less the cost of the act."""
    scores = np.random.default_rng(9).beta(2, 3, 500)
    positive = np.random.default_rng(10).random(500) < scores
    world.add_cohort(FIRST_DAY, scores, positive)
    outcome = replace(CHURN, value=-100.0, cost=4.0)
    day = churn_day(FIRST_DAY + DAYS, MonitoringPolicy(outcomes={"churned": outcome}))
    found = figures_by_name([QualityLook(world.cohorts).look(day, {})])
    wrong = (scores >= 0.5) & ~positive, (scores < 0.5) & positive
    expected = (wrong[0].sum() * 4.0 + wrong[1].sum() * 96.0) / 500
    cost = found["cost churned", FIRST_DAY, 1].figure.value
    assert cost == pytest.approx(expected, rel=0.03)


def test_version_without_bins_says_why(world: OutcomeWorld) -> None:
    """Its files were gone when its rows were counted."""
    facts = churn_facts()
    bins = VersionBins("churn", "7", facts.bins.digest8, problem="its files are gone")
    day = churn_day(FIRST_DAY, facts=replace(facts, bins=bins))
    (figure,) = QualityLook(world.cohorts).look(day, {}).figures
    assert figure.figure.lacking == "its files are gone"
