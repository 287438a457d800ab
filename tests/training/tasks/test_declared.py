"""Recipes and labels of each task, as their author declares them."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.source import Source
from tests.training.population import VIEW, profile_recipe
from tests.training.tasks.rows import GATE, task_recipe
from training.errors import LabelsError, RecipeError
from training.evaluation.threshold import capacity_threshold
from training.labels import Labels
from training.learner import Learner
from training.recipe import Capacity, Cost, GateSettings, Recipe, Task, output_names

PLAIN = profile_recipe(Learner(kind="boosting"))
OUTCOMES = Labels(
    name="left",
    entities=("subscriber",),
    source=Source.files("outcomes.parquet", time="seen_at"),
    value="status",
)


@pytest.mark.parametrize(
    ("task", "changes", "reason"),
    [
        ("churn", {}, "has the task 'churn'; it is one of binary, multiclass"),
        ("multiclass", {}, r"has the classes \[\]; name two or more"),
        ("multiclass", {"classes": ("only",)}, r"\['only'\]; name two or more"),
        ("multiclass", {"classes": "ab"}, "has classes='ab'; give a tuple of names"),
        ("multiclass", {"classes": ("a", "b", "a")}, "names a class twice"),
        ("multiclass", {"classes": {"a": (1,), "b": ("x", 1)}}, "1 means two of its classes"),
        ("multiclass", {"classes": {"a": "x", "b": "y"}}, "'a' has the values 'x'; give a tuple"),
        ("multiclass", {"classes": {"a": 1, "b": 2}}, r"values 1; give a tuple .* \(1,\)"),
        ("binary", {"model": "Churn 2"}, "the name of its model must match"),
        ("binary", {"model": ""}, "the name of its model must match"),
        ("binary", {"setting": ""}, "it has no setting"),
        ("binary", {"classes": ("a", "b")}, "classes means nothing for the task 'binary'"),
        ("ranking", {"unit": "EUR"}, "unit means nothing for the task 'ranking'"),
        ("regression", {"negatives_share": 0.5}, "negatives_share means nothing for"),
        ("regression", {"threshold": 0.7}, "threshold means nothing for the task 'regression'"),
        ("anomaly", {"threshold": 0.7}, "how many rows can be looked at"),
        ("anomaly", {"threshold": Cost(false_positive=1, false_negative=1)}, "looked at"),
        ("regression", {"gate": GateSettings(auc_min=0.6)}, "auc_min, which means nothing .* met"),
        ("binary", {"gate": GateSettings(gain_low_min=0.1)}, "use auc_gain_low_min"),
    ],
)
def test_recipe_refuses_what_its_task_has_not(
    task: Task, changes: dict[str, Any], reason: str
) -> None:
    """Each setting that would be ignored in silence has its sentence."""
    plain = replace(PLAIN, gate=GATE)
    with pytest.raises(RecipeError, match=reason):
        replace(plain, task=task, **changes)


@pytest.mark.parametrize(
    ("task", "changes", "reason"),
    [
        ("binary", {"value": ""}, "'binary', and the labels 'left' name no outcome"),
        ("regression", {}, "have outcomes of the kind 'binary'; it needs 'number'"),
        ("binary", {"kind": "class"}, "of the kind 'class'; it needs 'binary'"),
        ("ranking", {}, "have the group ''; a ranking needs the column"),
        ("binary", {"group": "call"}, "have the group 'call'; a ranking needs"),
    ],
)
def test_recipe_refuses_labels_of_another_task(
    task: Task, changes: dict[str, Any], reason: str
) -> None:
    """It is said when the project is loaded, not when it is trained."""
    recipe = task_recipe(task)
    with pytest.raises(RecipeError, match=reason):
        replace(recipe, labels=replace(OUTCOMES, **changes))


def test_recipe_takes_labels_of_its_task() -> None:
    """Anomalies need no outcome, and offers are ranked by numbers or by what was taken."""
    fitting: list[tuple[Task, dict[str, Any]]] = [
        ("binary", {}),
        ("multiclass", {"kind": "class"}),
        ("regression", {"kind": "number"}),
        ("ranking", {"kind": "number", "group": "call"}),
        ("ranking", {"group": "call"}),
        ("anomaly", {}),
        ("anomaly", {"value": ""}),
    ]
    for task, changes in fitting:
        labels = replace(OUTCOMES, **changes)
        recipe = replace(task_recipe(task), labels=labels)
        definition = json.loads(json.dumps(recipe.definition()))
        rebuilt = Recipe.from_definition(definition, {VIEW.view_hash: VIEW}, {"left": labels})
        assert replace(rebuilt, entities=()) == recipe
        assert output_names(definition) == recipe.contract.outputs
        assert Labels.from_definition(json.loads(json.dumps(labels.definition()))) == labels


def test_classes_keep_their_order_and_their_values() -> None:
    """JSON objects have no order, so the definition has a list."""
    classes = {"stay": ("stay", 1), "leave": ("L",), "buy": (2.0, True)}
    recipe = task_recipe("multiclass", classes=classes)
    definition = json.loads(json.dumps(recipe.definition(), sort_keys=True))
    rebuilt = Recipe.from_definition(definition, {VIEW.view_hash: VIEW}, {})
    assert rebuilt.contract.outputs == ("stay", "leave", "buy")
    assert rebuilt.class_values == classes
    assert rebuilt.contract.model_contract == recipe.contract.model_contract


def test_definitions_of_binary_recipes_and_labels_stay() -> None:
    """Their digests are in cards and in the registry."""
    assert not {"task", "classes", "unit"} & set(PLAIN.definition())
    assert not {"kind", "group"} & set(OUTCOMES.definition())
    added = {"gain_low_min", "metrics_min", "metrics_max", "feature_auc_max"}
    assert not added & set(GateSettings().definition())
    bounds = GateSettings(metrics_min={"r2": 0.2}, gain_low_min=1.0)
    assert GateSettings(**json.loads(json.dumps(bounds.definition()))) == bounds


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "text"}, "have the kind 'text'; it is one of binary, class, number"),
        ({"kind": "number", "positive": (1,)}, "name positive values, which a binary outcome has"),
        ({"value": "", "positive": (1,)}, "name positive values, which a binary outcome has"),
        ({"group": "status"}, "the group 'status', which is the outcome"),
    ],
)
def test_labels_name_their_contradiction(changes: dict[str, Any], reason: str) -> None:
    """The message has the wrong name."""
    with pytest.raises(LabelsError, match=reason):
        replace(OUTCOMES, **changes)


def test_capacity_chooses_a_threshold_of_any_scores() -> None:
    """At most so many rows are at or above it, also of scores that are large, negative or equal."""
    generator = np.random.default_rng(1)
    for scores in (generator.normal(-500, 900, 1_000), generator.integers(0, 9, 1_000)):
        numbers = scores.astype(np.float32)
        threshold = capacity_threshold(Capacity(share=0.15), numbers)
        share = (numbers >= threshold).mean()
        next_lower = numbers[numbers < threshold].max()
        assert share <= 0.15 < (numbers >= next_lower).mean()
    same = np.full(100, 3.0, np.float32)
    assert not (same >= capacity_threshold(Capacity(share=0.5), same)).any()
