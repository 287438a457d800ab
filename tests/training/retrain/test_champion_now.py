"""Tests of judging a champion on labels that are newer than its own."""

from dataclasses import replace

import numpy as np
import pytest

from registry.bundle import Bundle
from tests.training.population import PopulationStore, profile_labels, profile_recipe
from training.evaluation.metrics import Estimate
from training.learner import Learner
from training.retrain.champion_now import (
    UNDEFINED,
    WINDOW_ROWS,
    _window,
    difference,
    judge_champion,
)

LATER_MS = 1_700_000_000_000 + 30 * 86_400_000
RECIPE = profile_recipe(Learner(kind="logistic", scaling="standard"))


@pytest.fixture(scope="module")
def champion() -> Bundle:
    """A version that was trained on the population."""
    from training.train import train_version

    trained = train_version(RECIPE, PopulationStore(), profile_labels())
    return trained.bundle(author="dana", created_unix_ms=1)


@pytest.mark.walk
def test_champion_without_decay_has_an_interval_around_no_change(champion: Bundle) -> None:
    """Its customers behave as they did in its training."""
    judged = judge_champion(RECIPE, PopulationStore(), profile_labels(LATER_MS), champion)
    assert judged.verdict == "no decay shown"
    assert judged.rows == 1_500
    assert judged.window_ms == (LATER_MS, LATER_MS)
    assert judged.registered.value == champion.card["metrics"]["auc"]["value"]
    assert judged.change.low < 0.0 < judged.change.high  # type: ignore[operator]
    assert "AUC 0." in judged.text
    assert judged.definition()["change"]["value"] == judged.change.value


@pytest.mark.walk
def test_champion_with_decay_has_an_interval_below_no_change(champion: Bundle) -> None:
    """Four of ten customers do the opposite of before."""
    labels = profile_labels(LATER_MS, turned=0.4)
    judged = judge_champion(RECIPE, PopulationStore(), labels, champion)
    assert judged.verdict == "decayed"
    assert judged.change.value == pytest.approx(
        judged.now.value - judged.registered.value  # type: ignore[operator]
    )
    assert judged.now.value == pytest.approx(0.55, abs=0.05)
    assert judged.text.endswith(", decayed.")


@pytest.mark.walk
def test_labels_that_the_champion_has_seen_do_not_count(champion: Bundle) -> None:
    """Without newer labels there is no number, and the reason is said."""
    judged = judge_champion(RECIPE, PopulationStore(), profile_labels(), champion)
    assert judged.verdict == "unknown"
    assert judged.now == UNDEFINED
    assert judged.unknown.startswith("0 labels are newer than its own")
    assert judged.definition()["now"] == {"value": None, "low": None, "high": None}


@pytest.mark.walk
def test_card_without_metrics_leaves_the_number_of_today(champion: Bundle) -> None:
    """A version of another tool was registered with a card of its own."""
    foreign = replace(champion, card={"metrics": {"auc": {"value": "high"}}})
    judged = judge_champion(RECIPE, PopulationStore(), profile_labels(), foreign)
    assert judged.now.value is not None
    assert judged.change == UNDEFINED
    assert "its card has no AUC" in judged.text


def test_window_is_the_newest_labels() -> None:
    """Those of one instant stay together."""
    instants = np.repeat(np.arange(10, dtype=np.int64), WINDOW_ROWS // 4)
    assert _window(instants, seen_ms=-1).sum() == WINDOW_ROWS
    assert instants[_window(instants, seen_ms=-1)].min() == 6
    assert instants[_window(instants, seen_ms=7)].min() == 8
    assert not _window(instants, seen_ms=9).any()


def test_difference_of_independent_samples_is_wider_than_either() -> None:
    """Equal symmetric intervals add as variances do."""
    one, other = Estimate(0.8, 0.77, 0.83), Estimate(0.85, 0.82, 0.88)
    change = difference(one, other)
    assert change.value == pytest.approx(-0.05)
    assert change.high - change.value == pytest.approx(0.03 * 2**0.5)  # type: ignore[operator]
    assert difference(one, UNDEFINED) == UNDEFINED
