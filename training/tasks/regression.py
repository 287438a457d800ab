"""The task "regression": a value in a unit."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import LabelsError
from training.evaluation.fairness import Attribute, compare_errors
from training.evaluation.gate import GateCheck
from training.evaluation.metrics import Estimate, mean_gain
from training.evaluation.task_metrics import evaluate_values
from training.learners.fitted import Targets
from training.split import Split
from training.tasks.outcomes import Events, Outcomes, Scores, number_values

IN_UNIT = ("mae", "rmse", "bias")
"""Metrics that have the unit of the values."""
ROWS_MIN = 2


class ValueOutcomes(Outcomes):
    """The value of each row. There is no decision: callers take the value."""

    main_metric, main_shown = "mae", "mean absolute error"
    metrics = ("mae", "rmse", "r2", "bias")
    less_better = True

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """(N,) the values; LabelsError where one of them is no number."""
        return number_values(self.recipe, self.labels)

    @property
    def targets(self) -> Targets:
        """The values, as numbers to come near to."""
        return Targets("regression", self.values)

    def facts(self) -> dict[str, Any]:
        """Return the unit and the distribution of the values, and the rows without one."""
        low, middle, high = np.quantile(self.values, (0.05, 0.5, 0.95)).tolist()
        return {
            "values": {
                "mean": float(self.values.mean()),
                "q05": low,
                "median": middle,
                "q95": high,
                **({"unit": self.recipe.unit} if self.recipe.unit else {}),
            },
            "without_outcome": self.labels.left_out,
        }

    @property
    def events(self) -> Events:
        """Values are no events."""
        return {}

    @property
    def leak_events(self) -> Events:
        """The values above the median: a feature that is the value tells them from the others."""
        return {"values above the median": self.values > np.median(self.values)}

    def check_split(self, split: Split) -> None:
        """Raise LabelsError if all values of one side are equal."""
        for side, rows in (("held out", split.held_out), ("left to fit on", split.fitted)):
            values = self.values[rows]
            if len(values) < ROWS_MIN or values.min() == values.max():
                shown = f"equal {values[0]:g}" if len(values) else "are missing"
                raise LabelsError(
                    f"{self.named}: the {len(values):,} values that are {side} {shown}; a value "
                    "is learned from rows that differ: correct the labels, or take another "
                    "held_out_share or held_out_days"
                )

    def threshold(self, scores: NDArray[np.float32]) -> float:
        """Return the median score for the reference, which no decision depends on."""
        return float(np.quantile(scores[:, 0], 0.5, method="inverted_cdf"))

    def evaluate(self, scores: Scores, *, threshold: float) -> dict[str, Estimate]:  # noqa: ARG002  there is no decision
        """Return the mean absolute error, the root of the mean squared error, R2 and bias."""
        return evaluate_values(self.values, scores[:, 0], seed=self.recipe.seed)

    def gain(self, champion: Scores, candidate: Scores) -> Estimate | None:
        """Return by how much the candidate's mean absolute error is smaller."""
        losses = [np.abs(scores[:, 0] - self.values) for scores in (champion, candidate)]
        return mean_gain(*losses, seed=self.recipe.seed)

    def skill_checks(self, scores: Scores, metrics: Mapping[str, Estimate]) -> list[GateCheck]:  # noqa: ARG002  the metrics say it
        """Return the check that it beats the mean, which has an R2 of 0."""
        r2 = metrics["r2"]
        low = float("-inf") if r2.low is None else r2.low
        shown = "not defined" if r2.value is None else f"{r2.value:.4f} [{low:.4f}, {r2.high:.4f}]"
        text = f"R2 {shown}; the low end must be above 0, which the mean of all values has"
        return [GateCheck("skill", low > 0.0, text)]

    def compare_groups(
        self,
        attribute: Attribute,
        scores: Scores,
        *,
        threshold: float,  # noqa: ARG002  there is no decision
    ) -> dict[str, dict[str, Any]]:
        """Compare the mean errors."""
        errors = scores[:, 0] - self.values
        return {"": compare_errors(attribute, errors, seed=self.recipe.seed)}
