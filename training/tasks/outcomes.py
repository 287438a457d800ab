"""The interface of a task: the outcomes of labelled rows, and how scores are judged by them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from training.errors import LabelsError, RecipeError
from training.evaluation.fairness import Attribute
from training.evaluation.gate import GateCheck
from training.evaluation.metrics import Estimate
from training.labelled_rows import VALUES_SHOWN, LabelledRows
from training.learners.fitted import Targets
from training.recipe import Recipe
from training.split import Split, check_both_sides

Scores = NDArray[np.float64]
"""(N, K): the K outputs for each of the N rows of the outcomes."""
Events = Mapping[str, NDArray[np.bool_]]
"""Name for people -> the rows, (N,) bool, in which it happened."""


class Outcomes(ABC):
    """What the labels of a recipe say of N rows. There is one class for each task.

    main_metric  the metric in which a candidate must gain on its champion, and `main_shown`, its
                 name for people.
    less_better  whether the main metric is a loss.
    metrics      the metrics that `evaluate` gives of every recipe of the task.
    probable     whether scores are probabilities, which are exact to a fixed difference. Values are
                 sums, which are as exact as their own size.

    Constructing it raises LabelsError when the labels do not fit the task.
    """

    main_metric: ClassVar[str]
    main_shown: ClassVar[str]
    less_better: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]]
    probable: ClassVar[bool] = False

    def __init__(self, recipe: Recipe, labels: LabelledRows) -> None:
        self.recipe = recipe
        self.labels = labels

    @classmethod
    def metric_names(cls, recipe: Recipe) -> tuple[str, ...]:  # noqa: ARG003  of all recipes
        """Return the names of the metrics, for bounds of the gate."""
        return cls.metrics

    @classmethod
    def check_bounds(cls, recipe: Recipe) -> None:
        """Raise RecipeError if the gate bounds a metric that the task does not have."""
        known = cls.metric_names(recipe)
        for name in (*recipe.gate.metrics_min, *recipe.gate.metrics_max):
            if name not in known:
                raise RecipeError(
                    f"recipe {recipe.model}/{recipe.setting}: its gate bounds {name!r}, which is "
                    f"no metric of the task {recipe.task!r}; these are {', '.join(known)}"
                )

    @property
    def named(self) -> str:
        """The recipe's name for errors."""
        return f"{self.recipe.model}/{self.recipe.setting}"

    def selected(self, rows: NDArray[np.bool_]) -> Self:
        """Return the outcomes of some rows, (N,) bool."""
        return type(self)(self.recipe, self.labels.selected(rows))

    @property
    @abstractmethod
    def targets(self) -> Targets:
        """What the learner is fitted to."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the facts about the outcomes for the card, as JSON values."""

    @property
    @abstractmethod
    def events(self) -> Events:
        """The outcomes that both sides of the split need rows of; none for a value."""

    @property
    def leak_events(self) -> Events:
        """The events that no feature alone may tell from the other rows."""
        return self.events

    def check_split(self, split: Split) -> None:
        """Raise LabelsError if one side of the split cannot be learned from, or judged by."""
        check_both_sides(self.recipe, split, self.events)

    @abstractmethod
    def threshold(self, scores: NDArray[np.float32]) -> float:
        """Return the threshold of decisions, by the held-out scores, (N, K)."""

    @property
    def row_offsets(self) -> NDArray[np.uint32] | None:
        """Where the rows of each call begin; None: the decision on a row is its own."""
        return None

    @abstractmethod
    def evaluate(self, scores: Scores, *, threshold: float) -> dict[str, Estimate]:
        """Return the metrics of *scores* with 95 % intervals."""

    @abstractmethod
    def gain(self, champion: Scores, candidate: Scores) -> Estimate | None:
        """Return the gain in the main metric on the same rows, above 0 if the candidate is better.

        None if the rows cannot tell which one is better.
        """

    @property
    def gain_low_min(self) -> float:
        """What the low end of a gain must be above."""
        return self.recipe.gate.gain_low_min

    @abstractmethod
    def skill_checks(self, scores: Scores, metrics: Mapping[str, Estimate]) -> list[GateCheck]:
        """Return the checks that the scores are worth something."""

    @abstractmethod
    def compare_groups(
        self, attribute: Attribute, scores: Scores, *, threshold: float
    ) -> dict[str, dict[str, Any]]:
        """Return what is decided about each group, or how large its errors are.

        The keys are endings of the attribute's name, for comparisons of several decisions.
        """


def listed(values: list[Any]) -> str:
    """Return a few of *values* for an error."""
    more = f" and {len(values) - VALUES_SHOWN} more" if len(values) > VALUES_SHOWN else ""
    return ", ".join(repr(value) for value in values[:VALUES_SHOWN]) + more


def required_values(recipe: Recipe, labels: LabelledRows, kind: str) -> NDArray[Any]:
    """Return the outcomes that are classes or numbers; LabelsError if the rows have none."""
    if labels.values is None:
        raise LabelsError(
            f"{recipe.model}/{recipe.setting} has the task {recipe.task!r}, and the labelled rows "
            f'have no values; give Labels(kind="{kind}"), or LabelledRows(values=...)'
        )
    return labels.values


def number_values(recipe: Recipe, labels: LabelledRows) -> NDArray[np.float64]:
    """Return the outcomes as numbers, (N,); LabelsError if one of them is none."""
    values = required_values(recipe, labels, "number")
    wrong = [item for item in values.tolist() if not isinstance(item, int | float | np.number)]
    if wrong:
        raise LabelsError(
            f"{recipe.model}/{recipe.setting} learns a number, and {len(wrong):,} outcomes are "
            f"none, such as {listed(wrong[:1])}; cast the column in the transform of the labels"
        )
    return values.astype(np.float64)
