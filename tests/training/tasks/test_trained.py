"""Versions of each task, from a recipe to files that gateways load."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from registry import scoring
from registry.bundle import Bundle
from tests.training.population import VIEW, PopulationStore, profile_matrix
from tests.training.tasks.rows import CLASSES, GATE, OFFERS, SETTINGS, task_labels, task_recipe
from training.errors import GateFailedError
from training.labelled_rows import LabelledRows
from training.learner import Learner
from training.recipe import Recipe, Task
from training.train import TrainedVersion, train_version

pytestmark = pytest.mark.walk

NEW: tuple[Task, ...] = ("multiclass", "regression", "ranking", "anomaly")
FOREST = Learner.estimator(IsolationForest(n_estimators=20))
FEW = Learner(kind="boosting", parameters={"max_iter": 4, "max_leaf_nodes": 4})


def recipe_of_task(task: Task, **changes: Any) -> Recipe:  # noqa: ANN401
    """A recipe of the task with a learner for it."""
    return task_recipe(task, FOREST if task == "anomaly" else None, **changes)


def trained(
    recipe: Recipe, labels: LabelledRows | None = None, champion: Bundle | None = None
) -> TrainedVersion:
    """The version of the recipe on the population."""
    labels = task_labels(recipe.task) if labels is None else labels
    return train_version(recipe, PopulationStore(), labels, champion=champion)


@pytest.fixture(scope="module")
def versions() -> dict[Task, TrainedVersion]:
    """A version of each task that is not binary."""
    return {task: trained(recipe_of_task(task)) for task in NEW}


@pytest.mark.parametrize("task", NEW)
def test_version_of_a_task_is_loaded_and_scored_by_name(
    task: Task, versions: dict[Task, TrainedVersion]
) -> None:
    """Contract, reference, card and golden rows have every output of the task."""
    version = versions[task]
    bundle = version.bundle(author="ann", created_unix_ms=1)
    session = scoring.load_session(bundle)
    outputs = CLASSES if task == "multiclass" else (SETTINGS[task]["label"],)
    assert bundle.contract.outputs == outputs
    assert bundle.reference.task == task
    assert [item.name for item in bundle.reference.scale.outputs] == list(outputs)
    assert "held_out_labels" not in bundle.reference.definition
    scores = session.run(version.rows)
    assert scores.tobytes() == version.scores.tobytes()
    assert scores.shape == (len(version.rows), len(outputs))
    assert np.isfinite(bundle.golden_outputs).all()
    card = json.loads(version.files["card.json"])
    assert card["task"] == task
    assert card["parity"]["passed"]
    assert card["score_tolerance"]["relative"] == (0.0 if task == "multiclass" else 1e-5)
    assert {"held_out_rows", "parity", "leakage", "golden"} <= {
        check["name"] for check in card["gate"]
    }
    for estimate in version.metrics.values():
        assert estimate.value is not None


def test_classes_have_probabilities_and_values_their_unit(
    versions: dict[Task, TrainedVersion],
) -> None:
    """What is learned is far better than to know nothing of a row."""
    classes, values = versions["multiclass"], versions["regression"]
    assert np.allclose(classes.scores.sum(axis=1), 1.0, atol=1e-5)
    assert classes.metrics["auc"].value > 0.85  # type: ignore[operator]
    card = json.loads(values.files["card.json"])
    assert card["data"]["values"]["unit"] == "EUR"
    assert values.metrics["r2"].low > 0.8  # type: ignore[operator]
    assert card["score_tolerance"]["absolute"] > 0.02, "values are in the thousands"
    # The spread of a value is that of its scores, and of a probability 1.
    spreads = [
        [
            item.spread
            for item in version.bundle(author="ann", created_unix_ms=1).reference.scale.outputs
        ]
        for version in (classes, values)
    ]
    assert spreads[0] == [1.0, 1.0, 1.0]
    assert 2_000 < spreads[1][0] < 6_000
    assert set(card["fairness"]) == {"profile:senior"}
    assert "mean_error_gap" in card["fairness"]["profile:senior"]["groups"][0]
    fairness = json.loads(classes.files["card.json"])["fairness"]
    assert set(fairness) == {f"profile:senior (decision {name})" for name in CLASSES}


def test_offers_are_ordered_within_their_calls(versions: dict[Task, TrainedVersion]) -> None:
    """The rows of a call are beside each other, and the best of them is found most often."""
    version = versions["ranking"]
    card = json.loads(version.files["card.json"])
    assert card["data"]["calls"] == len(version.rows) // OFFERS
    assert card["data"]["split"].startswith("xxh3_64 of the call's id")
    assert version.metrics["hit_rate"].low > 0.7  # type: ignore[operator]
    assert (
        np.add.reduceat(version.held_out, range(0, len(version.rows), OFFERS)) % OFFERS == 0
    ).all()


def test_unusual_rows_are_as_many_as_can_be_looked_at(
    versions: dict[Task, TrainedVersion],
) -> None:
    """Known anomalies judge the scores. Without them nothing but their share is known."""
    version = versions["anomaly"]
    assert version.metrics["selection_rate"].value == pytest.approx(0.05, abs=0.01)
    assert version.metrics["auc"].low > 0.7  # type: ignore[operator]
    selected = version.scores[version.held_out, 0] >= version.threshold
    assert 0.03 < selected.mean() <= 0.05
    blind = trained(recipe_of_task("anomaly"), replace(task_labels("anomaly"), positive=None))
    assert blind.files["model.onnx"] == version.files["model.onnx"], "it learns from no outcome"
    assert list(blind.metrics) == ["selection_rate"]
    names = [check["name"] for check in json.loads(blind.files["card.json"])["gate"]]
    assert names == ["held_out_rows", "parity", "leakage", "golden"]


@pytest.mark.parametrize("task", ["multiclass", "regression", "ranking"])
def test_candidate_gains_in_the_main_metric_of_its_task(
    task: Task, versions: dict[Task, TrainedVersion]
) -> None:
    """The better one passes with its shift, and the poorer one leaves the champion as it is."""
    better = versions[task]
    poor = trained(replace(better.recipe, learner=FEW, gate=replace(GATE, gain_low_min=-1e9)))
    champion = poor.bundle(author="ann", created_unix_ms=1)
    again = trained(better.recipe, champion=champion)
    assert again.files["model.onnx"] == better.files["model.onnx"]
    assert again.gain is not None
    assert again.gain.low > 0  # type: ignore[operator]
    shift = json.loads(again.files["card.json"])["expected_shift"]
    assert shift["task"] == task
    assert set(shift["mean_difference"]) == set(better.recipe.contract.outputs)
    assert 0 < shift["flip_rate"] < 1
    best = better.bundle(author="ann", created_unix_ms=1)
    with pytest.raises(GateFailedError, match="gain over the champion -") as failed:
        trained(replace(better.recipe, learner=FEW), champion=best)
    assert failed.value.only_better


def test_champion_of_another_task_is_not_compared_with(
    versions: dict[Task, TrainedVersion],
) -> None:
    """Its scores mean something else."""
    champion = versions["regression"].bundle(author="ann", created_unix_ms=1)
    with pytest.raises(GateFailedError, match="has the task 'regression' and the outputs"):
        trained(recipe_of_task("multiclass"), champion=champion)


@pytest.mark.parametrize("task", ["multiclass", "regression", "ranking"])
def test_version_that_knows_nothing_of_a_row_is_refused(task: Task) -> None:
    """Outcomes that no feature tells: there is no skill over a constant."""
    labels = task_labels(task)
    order = np.random.default_rng(8).permutation(len(labels))
    shuffled = replace(labels, values=labels.values[order])  # type: ignore[index]
    with pytest.raises(GateFailedError, match="the low end must be above 0") as failed:
        trained(recipe_of_task(task), shuffled)
    assert not failed.value.only_better


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_feature_that_is_the_outcome_is_named(task: Task) -> None:
    """A class is looked for among the others, a value above the median."""
    labels = task_labels(task)
    charges = profile_matrix()[:, 1].astype(np.float64)
    values: Any = 10.0 * charges
    if task == "multiclass":
        values = np.array(CLASSES, dtype=object)[np.digitize(charges, (50.0, 90.0))]
    with pytest.raises(GateFailedError, match=r"'profile:charges' alone has an AUC of 1\.0000 for"):
        trained(recipe_of_task(task), replace(labels, values=values))
    assert VIEW.features[1].name == "charges"
