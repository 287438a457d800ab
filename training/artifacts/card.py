"""card.json: how a version came about and what is known of it. Facts only, and no time of day."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training.recipe import Recipe

FORMAT = 1
PACKAGES = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "duckdb", "protobuf")
NO_CHAMPION: dict[str, Any] = {"champion": None, "digest": ""}
"""Expected shift of a first version: there is nothing to differ from."""


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """Return what the recipe fixes."""
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
        "model_contract": recipe.contract.model_contract,
    }


def package_versions() -> dict[str, str]:
    """Return the versions of what could change a score, Python's own included."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def commit_of(folder: Path) -> str:
    """Return the git commit that *folder* is at, "+" appended when it has changes; else "unknown".

    "unknown" also outside of a checkout and without git: a card says what it does not know.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    )
    return done.stdout.strip()
