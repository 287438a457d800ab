"""Facts for card.json, which says how a version was made.

It has no time of day, so that the same training gives the same bytes.
"""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from training.recipe import Recipe

FORMAT = 1
PACKAGES = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "duckdb", "protobuf")
PROBABILITY_TOLERANCE = {"absolute": 1e-5, "relative": 0.0}
"""How exact the scores of every trained version are, which are probabilities."""


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that the recipe determines."""
    learner = recipe.learner
    return {
        "format": FORMAT,
        "model": recipe.model,
        "setting": recipe.setting,
        "label": recipe.label,
        "learner": {
            "kind": learner.kind,
            "hyperparameters": dict(learner.parameters),
            "calibration": learner.calibration,
            "scaling": learner.scaling,
        },
        "seed": recipe.seed,
        "threshold": recipe.threshold,
        "names": list(recipe.contract.names),
        **({} if not recipe.on_demand else _on_demand_facts(recipe)),
        "model_contract": recipe.contract.model_contract,
        "score_tolerance": PROBABILITY_TOLERANCE,
    }


def code_facts(commit: str) -> dict[str, Any]:
    """Return the facts about the code: its git commit and its packages."""
    return {"commit": commit, "packages": package_versions()}


def _on_demand_facts(recipe: Recipe) -> dict[str, Any]:
    """Return what stands in front of the model, and the columns that the learner was fitted on."""
    return {
        "on_demand": [feature.definition() for feature in recipe.on_demand],
        "learner_columns": list(recipe.learner_columns),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that could change a score."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions
