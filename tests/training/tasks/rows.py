"""Labelled rows and recipes of each task over the population of tests/training/population.py."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tests.training.population import ROWS, profile_labels, profile_matrix, profile_recipe
from training.labelled_rows import LabelledRows
from training.learner import Learner
from training.recipe import Capacity, GateSettings, Recipe, Task

OFFERS = 3
CLASSES = ("stay", "upgrade", "leave")
GATE = GateSettings(held_out_rows_min=100)
FEW_TREES: Mapping[str, Any] = {"max_iter": 30, "max_leaf_nodes": 8}
SETTINGS: dict[Task, dict[str, Any]] = {
    "binary": {},
    "multiclass": {"classes": CLASSES},
    "regression": {"unit": "EUR", "label": "spend"},
    "ranking": {"label": "worth"},
    "anomaly": {"label": "unusual", "threshold": Capacity(share=0.05)},
}


def task_recipe(task: Task, learner: Learner | None = None, **changes: Any) -> Recipe:  # noqa: ANN401
    """A recipe of this task whose gate asks for few rows."""
    learner = learner or Learner(kind="boosting", parameters=FEW_TREES)
    settings = {"gate": GATE, **SETTINGS[task], **changes}
    return replace(profile_recipe(learner), task=task, **settings)


def task_labels(task: Task) -> LabelledRows:
    """Labels of this task that three of the population's four columns affect."""
    labels = profile_labels()
    if task == "binary":
        return labels
    generator = np.random.default_rng(5)
    tenure, charges, plan, _ = profile_matrix().T.astype(np.float64)
    value = 40.0 * charges - 30.0 * tenure + 800.0 * plan + generator.normal(0, 300.0, ROWS)
    if task == "regression":
        return replace(labels, positive=None, values=value)
    if task == "multiclass":
        cuts = np.digitize(value, np.quantile(value, (0.4, 0.8)))
        return replace(labels, positive=None, values=np.array(CLASSES, dtype=object)[cuts])
    if task == "ranking":
        # Rows of a call are apart from each other, so that training must bring them together.
        groups = [f"call-{number % (ROWS // OFFERS)}" for number in range(ROWS)]
        worth = np.clip(value, 0.0, None)
        return replace(labels, positive=None, values=worth, groups=np.array(groups))
    odd = np.abs(charges - charges.mean()) / charges.std() + np.abs(tenure - 36) / 20
    return replace(labels, positive=odd > np.quantile(odd, 0.93))
