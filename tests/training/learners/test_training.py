"""Tests of versions of new learners: who scores them, what proves them, and what is refused."""

import json
from typing import Any

import pytest

from tests.training.learners.fits import BOOSTED, scaled
from tests.training.learners.own_functions import (
    fit_badly,
    fit_mean,
    fit_without_truth,
    fit_wrongly,
)
from tests.training.population import PopulationStore, profile_labels, profile_recipe
from training.errors import ConversionError, GateFailedError, RecipeError
from training.learner import Learner
from training.train import TrainedVersion, train_version
from turnout.views.golden_evidence import NO_TRUTH, evidence_lines, golden_evidence

pytestmark = pytest.mark.walk


def trained(learner: Learner) -> TrainedVersion:
    """A version of the small population."""
    return train_version(profile_recipe(learner), PopulationStore(), profile_labels())


def card_of(version: TrainedVersion) -> dict[str, Any]:
    """The version's card."""
    card: dict[str, Any] = json.loads(version.files["card.json"])
    return card


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost"])
def test_a_booster_becomes_a_version_that_is_scored_natively(name: str) -> None:
    """The card has the certificate and who scores, and the pages of the version say so."""
    version = trained(BOOSTED[name])
    card = card_of(version)
    assert version.parity.passed
    assert version.parity.difference_max < 1e-6
    assert card["native"] == {"used": True, "reason": ""}
    assert card["learner"]["kind"] == name
    assert any(package.startswith(name) for package in card["packages"])
    assert evidence_lines(card)["scored"] == "natively, by the gateway itself"
    assert card_of(trained(BOOSTED[name])) == card


def test_a_pipeline_is_scored_natively_and_others_say_why_not() -> None:
    """Its class is in the card."""
    card = card_of(trained(scaled("sklearn.linear_model.LogisticRegression", C=0.5)))
    assert card["learner"]["hyperparameters"]["class"] == "sklearn.pipeline.Pipeline"
    assert evidence_lines(card)["scored"] == "natively, by the gateway itself"
    other = card_of(trained(scaled("sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis")))
    scored = str(evidence_lines(other)["scored"])
    assert "by ONNX Runtime: the node " in scored


def test_a_function_with_scores_of_its_own_is_certified() -> None:
    """Its scores are the truth of every certified row."""
    card = card_of(trained(Learner.function(fit_mean)))
    assert card["parity"]["passed"] is True
    assert evidence_lines(card)["golden rows"] != NO_TRUTH
    with pytest.raises(GateFailedError, match="rows differ by more than 1e-05"):
        trained(Learner.function(fit_wrongly))


def test_a_function_without_scores_makes_a_version_without_truth() -> None:
    """It passes the gate, and nobody is told that it was compared."""
    card = card_of(trained(Learner.function(fit_without_truth)))
    assert card["parity"]["without_truth"] is True
    assert golden_evidence(card)["parity"] is False
    assert evidence_lines(card)["golden rows"] == NO_TRUTH


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raises", r"own_functions:fit_badly: KeyError at line \d+: 'scaler'"),
        ("exits", r"own_functions:fit_badly: SystemExit at line \d+: 3"),
        ("scores", r"the scores of .*:fit_badly: KeyError at line \d+: 'scaler'"),
    ],
)
def test_error_of_a_function_names_its_line(fault: str, words: str) -> None:
    """Whatever it is, it must neither be a traceback nor end the command."""
    with pytest.raises(RecipeError, match=words):
        trained(Learner.function(fit_badly, fault=fault))


def test_a_graph_of_other_columns_is_refused() -> None:
    """ONNX Runtime would say it in its own words, after the fit."""
    with pytest.raises(ConversionError, match="takes 1 columns, and its function was given"):
        trained(Learner.function(fit_badly, fault="narrow"))


def test_a_recipe_of_a_known_trap_is_refused_before_data_is_read() -> None:
    """All reasons are told at once."""
    learner = Learner(kind="lightgbm", parameters={"linear_tree": True, "n_jobs": 4})
    with pytest.raises(
        RecipeError, match=r"refused for 2 reason\(s\): .*one thread.*linear models"
    ):
        trained(learner)
