"""How much each input moves the scores of a version."""

import numpy as np
import pytest

from tests.tiny_models import linear_model
from training.artifacts.importances import importance_facts
from training.export.onnx_model import OnnxModel

NAMES = ("strong", "weak", "unused")
WEIGHTS = np.array([[4.0], [-1.0], [0.0]], dtype=np.float32)


def test_importance_of_a_linear_model_goes_by_the_size_of_its_weights() -> None:
    """Inputs of one distribution; the mean change of a uniform value is a third of its range."""
    rows = np.random.default_rng(1).random((5_000, 3), dtype=np.float32)
    score = OnnxModel(linear_model(3, weights=WEIGHTS)).scores
    facts = importance_facts(NAMES, score, rows, seed=7)
    importances = facts["importances"]
    assert importances["strong"] == pytest.approx(4.0 / 3, rel=0.1)
    assert importances["weak"] == pytest.approx(1.0 / 3, rel=0.1)
    assert importances["unused"] == 0.0
    # The same training gives the same bytes.
    assert importance_facts(NAMES, score, rows, seed=7) == facts


def test_importance_leaves_out_scores_that_are_not_finite() -> None:
    """A missing value makes its row's score NaN; where no row is left, it is 0 and no NaN."""
    rows = np.random.default_rng(1).random((200, 3), dtype=np.float32)
    rows[:50, 1] = np.nan
    score = OnnxModel(linear_model(3, weights=WEIGHTS)).scores
    importances = importance_facts(NAMES, score, rows, seed=7)
    assert importances["importances"]["strong"] == pytest.approx(4.0 / 3, rel=0.3)
    rows[:, 1] = np.nan
    importances = importance_facts(NAMES, score, rows, seed=7)
    assert importances["importances"] == dict.fromkeys(NAMES, 0.0)
