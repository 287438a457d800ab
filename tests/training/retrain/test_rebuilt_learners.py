"""Versions of every learner are built again from their card alone, to the byte."""

import json
from dataclasses import replace
from typing import Any

import pytest

from registry.bundle import verify_bundle
from tests.training.population import PopulationStore, profile_labels, profile_recipe
from training.learner import Learner
from training.retrain.build_record import read_build

QUICK = ("lightgbm",)
"""Learners that `make test` tries. The nightly tests try all."""
SMALL: dict[str, dict[str, Any]] = {
    "logistic": {"scaling": "standard"},
    "forest": {"parameters": {"n_estimators": 10, "max_depth": 6}},
    "boosting": {"parameters": {"max_iter": 20}},
    "lightgbm": {"parameters": {"n_estimators": 20}},
    "xgboost": {"parameters": {"n_estimators": 20}},
    "catboost": {"parameters": {"iterations": 20}},
}


def learner_of(kind: str) -> Learner:
    """A small learner of a kind; "pipeline" is one of scikit-learn."""
    if kind != "pipeline":
        return Learner(kind=kind, **SMALL[kind])  # type: ignore[arg-type]
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return Learner.estimator(make_pipeline(StandardScaler(), LogisticRegression()))


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.walk if kind in QUICK else pytest.mark.nightly)
        for kind in (*SMALL, "pipeline")
    ],
)
def test_version_is_built_again_from_its_card(kind: str) -> None:
    """The recipe of the card gives the five files again; nothing else of the first is used."""
    from training.train import train_version

    if kind in ("lightgbm", "xgboost", "catboost"):
        pytest.importorskip(kind, reason="its extra is not installed")
    recipe = replace(profile_recipe(learner_of(kind)), audit=())
    first = train_version(recipe, PopulationStore(), profile_labels())
    sealed = first.sealed(author="dana", created_unix_ms=1)
    found = verify_bundle(sealed, trusted_key=None)
    record = read_build(json.loads(sealed["card.json"]), found.contract)
    assert record is not None
    again = train_version(record.recipe, PopulationStore(), profile_labels())
    assert again.files == first.files
