"""Tests of recipes with an author's own function or estimator, from their files to a fit."""

import sys
from pathlib import Path

import numpy as np
import pytest

from project.definitions import parse_definitions
from project.errors import ProjectError
from project.loading.own_function import with_own_function
from tests.project.project_files import RECIPE, loaded
from training.learner import estimator_of
from training.recipe import Recipe

pytestmark = pytest.mark.walk

NETWORK = """
from lib.graphs import graph

def fit(rows, targets, seed, hidden=16):
    return graph(rows.shape[1], hidden), None
"""
GRAPHS = """
from onnx import TensorProto, helper

def graph(width, hidden):
    node = helper.make_node("ReduceMean", ["row"], ["score"], axes=[1], keepdims=1)
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [node], f"of {hidden}",
        [value("row", TensorProto.FLOAT, [None, width])],
        [value("score", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
"""
LEARNER = 'Learner(kind="boosting", parameters={"max_iter": 20})'
OWN = RECIPE.replace(LEARNER, "Learner.function(fit, hidden=32)").replace(
    "from views.usage", "from lib.network import fit\nfrom views.usage"
)
ESTIMATOR = RECIPE.replace(LEARNER, "pipeline").replace(
    "candidate = Recipe(",
    """pipeline = Learner.estimator(
    "sklearn.pipeline.Pipeline",
    steps=[
        ("scale", Learner.estimator("sklearn.preprocessing.StandardScaler")),
        ("last", Learner.estimator("sklearn.linear_model.LogisticRegression", C=0.3)),
    ],
)
candidate = Recipe(""",
)


def recipe_of(root: Path, text: str) -> Recipe:
    """The recipe that the project's file declares, as its JSON has it."""
    files = {"recipes/churn.py": text, "lib/network.py": NETWORK, "lib/graphs.py": GRAPHS}
    found = loaded(root, files)
    assert found.problems == ()
    return parse_definitions(found.required().json).recipe("churn")


def test_own_function_is_found_again_by_its_name(tmp_path: Path) -> None:
    """It imports other files of the project, also while it fits, and leaves no module behind."""
    from training.learners.fit import fit_recipe
    from training.learners.fitted import Targets

    recipe = recipe_of(tmp_path, OWN)
    assert recipe.learner.fit is None
    assert recipe.learner.parameters["arguments"] == {"hidden": 32}
    rows = np.random.default_rng(1).random((40, 2)).astype(np.float32)
    with with_own_function(recipe, tmp_path) as whole:
        fitted = fit_recipe(whole, rows, Targets.binary(rows[:, 0] > 0.5))
    assert fitted.truth_by == ""
    assert np.abs(fitted.outputs(rows)[:, 0] - rows.mean(axis=1)).max() < 1e-6
    assert not [name for name in sys.modules if name.split(".")[0] == "lib"]
    assert str(tmp_path) not in sys.path


def test_function_of_a_changed_file_is_not_called(tmp_path: Path) -> None:
    """The recipe was applied with another file."""
    recipe = recipe_of(tmp_path, OWN)
    (tmp_path / "lib" / "network.py").write_text(NETWORK + "\n# changed\n")
    with (
        pytest.raises(ProjectError, match=r"lib/network.py was changed .* run `turnout plan`"),
        with_own_function(recipe, tmp_path),
    ):
        pass
    (tmp_path / "lib" / "network.py").unlink()
    with (
        pytest.raises(ProjectError, match=r"lib\.network:fit is in no file of the project"),
        with_own_function(recipe, tmp_path),
    ):
        pass


def test_estimator_of_a_project_is_made_again(tmp_path: Path) -> None:
    """The file is loaded in a child; training has only what the child said."""
    recipe = recipe_of(tmp_path, ESTIMATOR)
    assert recipe.learner.parameters["class"] == "sklearn.pipeline.Pipeline"
    made = estimator_of(recipe.learner.parameters)
    assert [type(step).__name__ for _, step in made.steps] == [
        "StandardScaler",
        "LogisticRegression",
    ]
    with with_own_function(recipe, tmp_path) as same:
        assert same is recipe
