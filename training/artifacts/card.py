"""Facts for card.json, which says how a version was made.

It has no time of day, so that the same training gives the same bytes.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from training.labelled_rows import LabelledRows
from training.recipe import Recipe
from training.split import BY_ENTITY, BY_GROUP, Split

FORMAT = 1
PACKAGES = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "duckdb", "protobuf")
EXACT = 1e-5
"""How exact the scores of a version are on another machine, as a part of their size."""


def recipe_facts(recipe: Recipe, threshold: float) -> dict[str, Any]:
    """Return the facts that the recipe determines, with the *threshold* that was chosen by it."""
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
        "threshold": threshold,
        **_sampling_facts(recipe),
        **({} if recipe.task == "binary" else {"task": recipe.task}),
        "names": list(recipe.contract.names),
        **({} if not recipe.on_demand else _on_demand_facts(recipe)),
        "model_contract": recipe.contract.model_contract,
    }


def data_facts(
    recipe: Recipe,
    labels: LabelledRows,
    split: Split,
    outcomes: Mapping[str, Any],
    *,
    snapshot: str,
) -> dict[str, Any]:
    """Return the facts about the labelled rows and their split.

    outcomes  the facts about the outcomes, as JSON values.
    snapshot  digest of the features' data.
    """
    key = BY_ENTITY if labels.groups is None else BY_GROUP
    by_entity = {"held_out_share": recipe.held_out_share, "split": key}
    by_time = {
        "held_out_days": recipe.held_out_days,
        "gap_days": recipe.gap_days,
        "gap_rows": split.gap,
        "split": "the newest days of the labels, after a gap",
    }
    return {
        "snapshot": snapshot,
        "rows": len(labels),
        **outcomes,
        "held_out_rows": int(split.held_out.sum()),
        **({"fitted_rows": int(split.fitted.sum())} if recipe.negatives_share < 1.0 else {}),
        **(by_time if recipe.held_out_days else by_entity),
        "as_of_ms": [int(labels.as_of_ms.min()), int(labels.as_of_ms.max())],
    }


def code_facts(commit: str, learner_packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return the facts about the code: its git commit and its packages.

    learner_packages  names under which the learner's library may be installed.
    """
    found = {name: item for name in learner_packages if (item := _version_of(name))}
    return {"commit": commit, "packages": {**package_versions(), **found}}


def _sampling_facts(recipe: Recipe) -> dict[str, Any]:
    """Return by what a threshold was chosen, and which negatives were left out, where they were."""
    facts: dict[str, Any] = {}
    if not isinstance(recipe.threshold, int | float):
        facts["threshold_by"] = recipe.threshold.definition()
    if recipe.negatives_share < 1.0:
        facts["negatives_share"] = recipe.negatives_share
    return facts


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
        versions[name] = _version_of(name) or "unknown"
    return versions


def _version_of(name: str) -> str:
    """Return the version of an installed package; "" if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
