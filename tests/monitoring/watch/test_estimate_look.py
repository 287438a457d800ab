"""The look at accuracy without outcomes, and what it says of itself."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from monitoring.looks.day_looks import SealedFacts
from monitoring.looks.estimate_look import EstimateLook
from monitoring.store.look_store import LookOutcome
from stats.score_grid import NAN_BIN, bins_by_edges, score_grid_edges
from tests.monitoring.outcome_world import (
    FIRST_DAY,
    DayRowsInMemory,
    OutcomeWorld,
    churn_day,
    churn_facts,
    decision_rows,
    figures_by_name,
    report_rows,
)

DAYS = 3
"""Horizon and grace of the outcome."""
SUNDAY = FIRST_DAY + 9

Floats = NDArray[np.float64]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OutcomeWorld]:
    """Return an empty store."""
    opened = OutcomeWorld(tmp_path)
    yield opened
    opened.store.close()


def draw(seed: int, rows: int, *, a: float = 2.0) -> tuple[Floats, NDArray[np.bool_]]:
    """Return scores and labels, calibrated."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(a, 5, rows)
    return scores, rng.random(rows) < scores


def sealed_facts() -> SealedFacts:
    """Return a version with 10,000 held-out rows."""
    scores, positive = draw(99, 10_000)
    bins = bins_by_edges(scores.astype(np.float32), score_grid_edges())
    counts = [np.bincount(bins[rows], minlength=NAN_BIN) for rows in (positive, ~positive)]
    labels = {
        "bins": list(range(NAN_BIN)),
        "positives": counts[0].tolist(),
        "negatives": counts[1].tolist(),
    }
    return churn_facts(held_out_labels=labels)


def look_at(
    world: OutcomeWorld,
    day: int,
    state: Mapping[str, Any] | None = None,
    facts: SealedFacts | None = None,
    *,
    rows: DayRowsInMemory | None = None,
    shadow: bool = False,
) -> LookOutcome:
    """Look at a day with a state that went through JSON."""
    today = churn_day(day, facts=facts or sealed_facts(), shadow=shadow)
    return EstimateLook(world.cohorts, rows).look(today, json.loads(json.dumps(state or {})))


def test_estimate_covers_what_outcomes_show_later(world: OutcomeWorld) -> None:
    """Scores of today differ from those of the reference, and customers behave as before."""
    scores, positive = draw(1, 3_000, a=3.0)
    world.add_cohort(FIRST_DAY, scores, np.zeros(3_000, np.bool_))
    found = look_at(world, FIRST_DAY)
    expected = figures_by_name([found])["auc churned", FIRST_DAY, 1]
    _, low, high = expected.figure.bounds()
    assert low < roc_auc_score(positive, scores) < high
    assert high - low < 0.06
    assert expected.details["method"] == "calibrated"
    assert "blind to a changed P(y|x)" in expected.details["blind_spot"]
    assert "0 of 8 final cohorts" in expected.details["track_record"]
    assert found.alarms == ()


def test_errors_of_final_cohorts_are_its_track_record(world: OutcomeWorld) -> None:
    """The estimate waits for its cohort, and the eighth error is one that widens the interval."""
    scores, positive = draw(2, 2_000)
    world.add_cohort(FIRST_DAY, scores, positive)
    world.add_cohort(FIRST_DAY + DAYS, scores, positive)
    first = look_at(world, FIRST_DAY)
    estimate = first.state["churned"]["waiting"][str(FIRST_DAY)]["auc"]
    state = {"churned": {**first.state["churned"], "errors": {"auc": [0.2] * 7}}}
    after = look_at(world, FIRST_DAY + DAYS, state)
    errors = after.state["churned"]["errors"]
    assert errors["auc"][7] == pytest.approx(
        abs(estimate - roc_auc_score(positive, scores)), abs=1e-3
    )
    assert list(after.state["churned"]["waiting"]) == [str(FIRST_DAY + DAYS)]
    later = figures_by_name([after])["auc churned", FIRST_DAY + DAYS, 1]
    value, low, high = later.figure.bounds()
    assert value - low >= 0.15
    assert high == pytest.approx(min(value + 0.2, high))
    # Of a holdout only its outcomes are realised ones.
    world.add_cohort(FIRST_DAY, scores[:500], ~positive[:500], holdout=True)
    again = look_at(world, FIRST_DAY + DAYS, state).state["churned"]["errors"]["auc"]
    realised = roc_auc_score(~positive[:500], scores[:500])
    assert again[7] == pytest.approx(abs(estimate - realised), abs=2e-3)


@pytest.mark.walk
def test_weighted_estimate_sees_what_the_score_does_not(world: OutcomeWorld) -> None:
    """Where an input makes scores wrong, and more customers have it, only the weights know."""
    kept = DayRowsInMemory()
    rng = np.random.default_rng(5)

    def add(
        day: int, share: float, rows: int, *, reported: bool
    ) -> tuple[Floats, NDArray[np.bool_]]:
        vectors = np.zeros((rows, 3), np.float32)
        vectors[:, 1] = rng.random(rows) < share
        scores = rng.beta(2, 5, rows)
        # Scores of customers with the input say nothing.
        positive = rng.random(rows) < np.where(vectors[:, 1] > 0, 0.28, scores)
        batch = decision_rows(day, [f"{day}-{n}" for n in range(rows)], scores, vectors=vectors)
        kept.add(day, batch)
        world.add_cohort(day, scores, np.zeros(rows, np.bool_))
        if reported:
            hits = dict.fromkeys(np.flatnonzero(positive).tolist(), 1.0)
            world.add_reports(report_rows(batch, hits))
        return scores, positive

    for day in range(SUNDAY - DAYS - 6, SUNDAY - DAYS + 1):
        add(day, 0.2, 800, reported=True)
    parts = [add(day, 0.7, 800, reported=False) for day in range(SUNDAY - DAYS + 1, SUNDAY + 1)]
    # The week that is estimated has the last of the days with labels too.
    found = figures_by_name([look_at(world, SUNDAY, rows=kept)])
    weighted = found["auc churned, weighted", SUNDAY, 7]
    assert weighted.details["method"] == "weighted"
    assert weighted.details["effective_rows"] > 500
    calibrated = found["auc churned", SUNDAY, 7].figure.bounds()[0]
    value, low, high = weighted.figure.bounds()
    assert value < calibrated - 0.05
    fresh = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    assert roc_auc_score(fresh[1], fresh[0]) < calibrated - 0.1
    assert low < value < high


def test_sentences_say_what_has_no_estimate(world: OutcomeWorld) -> None:
    """Versions of earlier releases, broken files, other tasks, no decisions, and no rows."""
    scores, positive = draw(3, 2_000)
    world.add_cohort(SUNDAY, scores, positive)
    older = look_at(world, SUNDAY, facts=churn_facts()).figures
    assert {item.figure.lacking for item in older if item.name == "auc churned"} == {
        "not enough data: version 7 has no held-out labels by score; versions that are trained "
        "from this release on have them"
    }
    for labels in ({"bins": [5_000], "positives": [1], "negatives": [1]}, {"bins": "x"}, 7):
        broken = look_at(world, SUNDAY, facts=churn_facts(held_out_labels=labels)).figures
        assert "no held-out labels" in broken[0].figure.lacking
    other = look_at(world, SUNDAY, facts=churn_facts(task="regression")).figures
    assert "no estimate is known for the task regression" in other[0].figure.lacking
    week = figures_by_name([look_at(world, SUNDAY)])
    assert "--decisions" in week["auc churned, weighted", SUNDAY, 7].figure.lacking
    assert look_at(world, FIRST_DAY - 5).figures == ()


def test_shadow_is_estimated_by_its_own_scores(world: OutcomeWorld) -> None:
    """Its scores are in cells of the journal's role of shadows."""
    scores, positive = draw(4, 1_000)
    world.add_cohort(FIRST_DAY, scores, positive, role=5)
    assert look_at(world, FIRST_DAY).figures == ()
    found = look_at(world, FIRST_DAY, shadow=True)
    assert figures_by_name([found])["auc churned", FIRST_DAY, 1].figure.n == 1_000
    assert found.state["churned"]["waiting"] == {}
