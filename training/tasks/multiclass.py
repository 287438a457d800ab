"""The task "multiclass": the probability of each class, such as the next best action."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.probabilities import class_losses
from training.errors import LabelsError
from training.evaluation.fairness import Attribute, compare_decisions
from training.evaluation.gate import GateCheck, skill_check
from training.evaluation.metrics import Estimate, mean_gain
from training.evaluation.task_metrics import evaluate_classes
from training.learners.fitted import Targets
from training.recipe import THRESHOLD, Recipe, class_key
from training.tasks.outcomes import Events, Outcomes, Scores, listed, required_values


class ClassOutcomes(Outcomes):
    """The class of each row. The decision on a row is the class with the largest probability."""

    main_metric, main_shown = "log_loss", "log loss"
    metrics = ("log_loss", "accuracy", "auc")
    probable = True
    less_better = True

    @classmethod
    def metric_names(cls, recipe: Recipe) -> tuple[str, ...]:
        """Return those of all classes, and the recall of each."""
        return (*cls.metrics, *(f"recall.{name}" for name in recipe.class_values))

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """(N,) the index of each row's class; LabelsError for a value that is no class."""
        values = required_values(self.recipe, self.labels, "class").tolist()
        code_of = {
            class_key(value): code
            for code, meant in enumerate(self.recipe.class_values.values())
            for value in meant
        }
        codes = np.array([code_of.get(class_key(value), -1) for value in values], dtype=np.int64)
        unknown = np.flatnonzero(codes < 0)
        if len(unknown):
            found = list(dict.fromkeys(values[row] for row in unknown.tolist()))
            raise LabelsError(
                f"{self.named}: a label is {listed(found)}, in {len(unknown):,} of "
                f"{len(values):,} rows, which means none of the classes "
                f"{list(self.recipe.class_values)}; name it in Recipe.classes, as in "
                f"classes={{{self.recipe.contract.outputs[0]!r}: ({found[0]!r},), ...}}, or leave "
                "these rows out"
            )
        return codes

    @property
    def targets(self) -> Targets:
        """The index of each row's class."""
        return Targets("multiclass", self.codes, len(self.recipe.class_values))

    def facts(self) -> dict[str, Any]:
        """Return the number of rows of each class, and of those without one."""
        counts = np.bincount(self.codes, minlength=len(self.recipe.class_values)).tolist()
        return {
            "classes": dict(zip(self.recipe.class_values, counts, strict=True)),
            "without_outcome": self.labels.left_out,
        }

    @property
    def events(self) -> Events:
        """The rows of each class."""
        return {
            repr(name): self.codes == code for code, name in enumerate(self.recipe.class_values)
        }

    def threshold(self, scores: NDArray[np.float32]) -> float:  # noqa: ARG002  there is no choice
        """Return a number for the reference, which no decision depends on."""
        return THRESHOLD

    def evaluate(self, scores: Scores, *, threshold: float) -> dict[str, Estimate]:  # noqa: ARG002  the largest decides
        """Return log loss, accuracy, mean AUC against the rest, and the recall of each class."""
        names = list(self.recipe.class_values)
        return evaluate_classes(self.codes, scores, names, seed=self.recipe.seed)

    def gain(self, champion: Scores, candidate: Scores) -> Estimate | None:
        """Return by how much the candidate's log loss is smaller."""
        losses = [class_losses(self.codes, scores) for scores in (champion, candidate)]
        return mean_gain(*losses, seed=self.recipe.seed)

    def skill_checks(self, scores: Scores, metrics: Mapping[str, Estimate]) -> list[GateCheck]:  # noqa: ARG002  compared by rows
        """Return the check that it beats the shares of the classes."""
        shares = np.bincount(self.codes, minlength=scores.shape[1]) / len(self.codes)
        gain = self.gain(np.broadcast_to(shares, scores.shape), scores)
        assert gain is not None
        return [skill_check(self.main_shown, "the shares of the classes", gain)]

    def compare_groups(
        self,
        attribute: Attribute,
        scores: Scores,
        *,
        threshold: float,  # noqa: ARG002  the largest decides
    ) -> dict[str, dict[str, Any]]:
        """Compare how often each class is decided for."""
        decided, seed = scores.argmax(axis=1), self.recipe.seed
        return {
            f" (decision {name})": compare_decisions(
                attribute, self.codes == code, decided == code, seed=seed
            )
            for code, name in enumerate(self.recipe.class_values)
        }
