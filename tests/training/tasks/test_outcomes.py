"""What labels say for each task, and labels that cannot be learned from."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stats.score_scale import OutputReference, ScoreScale
from tests.training.population import ROWS, profile_labels
from tests.training.tasks.rows import CLASSES, GATE, OFFERS, task_labels, task_recipe
from training.errors import LabelsError, RecipeError
from training.evaluation.fairness import Attribute
from training.recipe import Task
from training.split import split_rows
from training.tasks.anomaly import AnomalyOutcomes
from training.tasks.multiclass import ClassOutcomes
from training.tasks.outcomes import Outcomes
from training.tasks.ranking import RankedOutcomes
from training.tasks.regression import ValueOutcomes
from training.train import TASKS

ALL: tuple[Task, ...] = ("binary", "multiclass", "regression", "ranking", "anomaly")


def outcomes_of(task: Task, **changes: Any) -> Outcomes:  # noqa: ANN401
    """The outcomes of the population for a task, with *changes* of the labels."""
    labels = replace(task_labels(task), **changes).by_group()
    return TASKS[task](task_recipe(task), labels)


def checked(outcomes: Outcomes) -> None:
    """Split the rows, and check both sides."""
    outcomes.check_split(split_rows(outcomes.recipe, outcomes.labels))


@pytest.mark.parametrize("task", ALL)
def test_metrics_are_those_that_a_gate_can_bound(task: Task) -> None:
    """An unknown name is refused before anything is trained."""
    outcomes = outcomes_of(task)
    checked(outcomes)
    outputs = len(outcomes.recipe.contract.outputs)
    scores = np.random.default_rng(1).random((ROWS, outputs))
    found = outcomes.evaluate(scores, threshold=0.5)
    assert set(found) == set(type(outcomes).metric_names(outcomes.recipe))
    assert outcomes.main_metric in found
    bounded = replace(outcomes.recipe, gate=replace(GATE, metrics_max={"brier_": 1.0}))
    with pytest.raises(RecipeError, match=r"bounds 'brier_', which is no metric .* these are \w+,"):
        type(outcomes).check_bounds(bounded)
    named = replace(GATE, metrics_min={outcomes.main_metric: 0.0})
    type(outcomes).check_bounds(replace(outcomes.recipe, gate=named))


@pytest.mark.parametrize("task", ALL)
def test_a_gain_is_above_0_where_the_candidate_is_better(task: Task) -> None:
    """Less loss is a gain too. A version has no gain over itself."""
    outcomes = outcomes_of(task)
    targets, generator = outcomes.targets, np.random.default_rng(2)
    if task == "multiclass":
        good = (np.eye(3)[targets.values] + 0.2) / 1.6
    elif task == "anomaly":
        good = outcomes.labels.positive[:, np.newaxis].astype(np.float64)  # type: ignore[index]
    else:
        good = np.asarray(targets.values, dtype=np.float64)[:, np.newaxis]
    spread = float(good.std())
    poor = np.abs(good + generator.normal(0, 2 * spread, good.shape))
    if task == "multiclass":
        poor /= poor.sum(axis=1, keepdims=True)
    gain = outcomes.gain(poor, good)
    assert gain is not None
    assert gain.low is not None
    assert gain.low > 0
    back = outcomes.gain(good, poor)
    assert back is not None
    assert back.value == pytest.approx(-gain.value)  # type: ignore[operator]
    assert outcomes.gain(good, good).value == 0.0  # type: ignore[union-attr]


def test_classes_are_those_that_the_recipe_names() -> None:
    """A text is itself or what is declared for it; the number 1 is not the text "1"."""
    values = np.array(["L", 1, 1.0, "stay", "U"], dtype=object).tolist() * 300
    recipe = task_recipe("multiclass", classes={"stay": ("stay", 1), "up": ("U",), "out": ("L",)})
    labels = replace(task_labels("multiclass"), values=np.array(values, dtype=object))
    outcomes = ClassOutcomes(recipe, labels)
    assert outcomes.codes[:5].tolist() == [2, 0, 0, 0, 1]
    assert outcomes.facts()["classes"] == {"stay": 900, "up": 300, "out": 300}
    assert recipe.contract.outputs == ("stay", "up", "out")
    wrong = replace(labels, values=np.array(["1"] * 3 + values[3:], dtype=object))
    with pytest.raises(LabelsError, match=r"a label is '1', in 3 of 1,500 rows, which means none"):
        ClassOutcomes(recipe, wrong).codes  # noqa: B018


@pytest.mark.parametrize(
    ("task", "changes", "reason"),
    [
        ("binary", {"positive": None}, "learns whether an event happened, and the labelled rows"),
        ("multiclass", {"values": None}, "the labelled rows have no values; give Labels"),
        ("multiclass", {"values": ["stay"] * ROWS}, "of 0 'upgrade' labels, 0 are held out and 0"),
        ("regression", {"values": [7.0] * ROWS}, "values that are held out equal 7; a value is"),
        ("regression", {"values": ["7"] * ROWS}, "learns a number, and 1,500 outcomes are none"),
        ("ranking", {"groups": None}, "ranks the offers of a call, and the labelled rows have no"),
        ("ranking", {"values": [-1.0] + [1.0] * (ROWS - 1)}, "1 offers are worth less than 0"),
        ("ranking", {"values": [0.0] * ROWS}, "of 0 positive labels, 0 are held out"),
        ("ranking", {"values": [1.0] * ROWS}, r"0 of \d+ held-out calls have offers of different"),
        (
            "ranking",
            {"groups": ["one"] * ROWS},
            r"of 1,4\d\d positive labels, 1,4\d\d are held out and 0",
        ),
        (
            "ranking",
            {"as_of_ms": np.arange(ROWS)},
            "the offers of 500 of 500 calls have several instants",
        ),
    ],
)
def test_outcomes_that_cannot_be_learned_are_refused(
    task: Task, changes: dict[str, Any], reason: str
) -> None:
    """Each has its sentence, before a row of features is read."""
    with pytest.raises(LabelsError, match=reason):
        checked(outcomes_of(task, **changes))


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
@pytest.mark.parametrize("task", ["regression", "multiclass", "ranking"])
def test_missing_outcomes_are_refused_with_their_number(task: Task, missing: float | None) -> None:
    """`read_labels` leaves such rows out, and a caller of LabelledRows must do so too."""
    values = [missing, missing, *task_labels(task).values.tolist()[2:]]  # type: ignore[union-attr]
    with pytest.raises(LabelsError, match="2 of 1,500 outcomes are missing or infinite"):
        outcomes_of(task, values=values)


def test_a_class_that_is_on_one_side_only_is_refused() -> None:
    """It is either never learned or never judged."""
    labels = task_labels("multiclass")
    recipe = task_recipe("multiclass")
    split = split_rows(recipe, labels)
    values = np.where(np.arange(ROWS) % 2 == 0, CLASSES[0], CLASSES[1]).astype(object)
    values[np.flatnonzero(split.held_out)[:4]] = CLASSES[2]
    with pytest.raises(LabelsError, match="of 4 'leave' labels, 4 are held out and 0 are left"):
        ClassOutcomes(recipe, replace(labels, values=values)).check_split(split)


def test_known_anomalies_must_be_held_out_as_well() -> None:
    """The learner needs none of them."""
    labels, recipe = profile_labels(), task_recipe("anomaly")
    split = split_rows(recipe, labels)
    positive = np.zeros(ROWS, dtype=np.bool_)
    positive[np.flatnonzero(split.fitted)[0]] = True
    outcomes = AnomalyOutcomes(recipe, replace(labels, positive=positive))
    with pytest.raises(LabelsError, match="of 1 positive labels none is held out"):
        outcomes.check_split(split)
    AnomalyOutcomes(recipe, replace(labels, positive=~positive & split.held_out)).facts()


def test_calls_stay_whole_in_every_subset() -> None:
    """The split is by the id of the call, whatever the order of the rows is."""
    labels = task_labels("ranking")
    recipe = task_recipe("ranking")
    ordered = labels.by_group()
    assert ordered.ids != labels.ids
    sides = split_rows(recipe, ordered).held_out
    judged = ordered.selected(sides)
    assert set(judged.groups) & set(ordered.selected(~sides).groups) == set()  # type: ignore[arg-type]
    outcomes = RankedOutcomes(recipe, judged)
    assert np.diff(outcomes.row_offsets).tolist() == [OFFERS] * (len(judged) // OFFERS)
    # A call keeps its side when other calls are not there.
    some = np.arange(len(ordered)) >= 600
    again = split_rows(recipe, ordered.selected(some)).held_out
    assert np.array_equal(again, sides[some])


def test_best_of_a_call_is_the_decision_that_shadow_and_canary_judge() -> None:
    """The rows that the fairness report counts are those that ScoreScale compares."""
    outcomes = outcomes_of("ranking")
    assert isinstance(outcomes, RankedOutcomes)
    scores = np.random.default_rng(4).random((ROWS, 1)).astype(np.float32)
    whole = Attribute("all", np.arange(ROWS) % 2, ("even", "odd"))
    report = outcomes.compare_groups(whole, scores.astype(np.float64), threshold=0.5)[""]
    selected = sum(group["counts"]["member"]["selected"] for group in report["groups"])
    assert selected == ROWS // OFFERS
    scale = ScoreScale([OutputReference("worth", np.zeros(1, np.float32), 1.0)], "ranking", 0.5)
    flips = scale.flips(scores, scores[::-1].copy(), outcomes.row_offsets)
    assert 0 < flips.sum() <= 2 * ROWS // OFFERS


def test_errors_of_groups_are_compared_in_the_unit() -> None:
    """A region whose values are predicted 500 too low is outside of the band."""
    outcomes = outcomes_of("regression")
    assert isinstance(outcomes, ValueOutcomes)
    member = np.arange(ROWS) % 3 == 0
    noise = np.random.default_rng(6).normal(0, 100, ROWS)
    scores = (outcomes.values + noise - 500.0 * member)[:, np.newaxis]
    attribute = Attribute("region", member.astype(np.int64), ("south", "north"))
    report = outcomes.compare_groups(attribute, scores, threshold=0.0)[""]
    assert report["verdict"] == "outside band"
    gap = report["groups"][1]["mean_error_gap"]
    assert gap["value"] == pytest.approx(-500, abs=20)
    assert gap["high"] < -400
    assert report["band"][1] == pytest.approx(0.2 * np.abs(noise - 500.0 * member).mean())
    fair = outcomes.compare_groups(attribute, scores + 500.0 * member[:, None], threshold=0.0)[""]
    assert fair["verdict"] in ("within band", "undecided")


def test_each_decision_of_several_classes_is_compared() -> None:
    """Half as many upgrades for one group is found, although the group is told to leave alike."""
    outcomes = outcomes_of("multiclass")
    member = np.arange(ROWS) % 2 == 0
    decided = np.where(np.arange(ROWS) % 4 == 0, 1, np.where(np.arange(ROWS) % 4 == 1, 1, 0))
    decided = np.where(~member, 1, decided)
    scores = np.eye(3)[decided]
    attribute = Attribute("flag", member.astype(np.int64), ("no", "yes"))
    found = outcomes.compare_groups(attribute, scores, threshold=0.5)
    assert list(found) == [f" (decision {name})" for name in CLASSES]
    upgrade = found[" (decision upgrade)"]
    assert upgrade["verdict"] == "outside band"
    assert upgrade["groups"][1]["selection_rate_ratio"]["value"] == pytest.approx(0.5)
