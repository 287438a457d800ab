"""The task "anomaly": how unusual a row is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import LabelsError
from training.evaluation.fairness import Attribute, compare_decisions
from training.evaluation.gate import GateCheck, auc_check
from training.evaluation.metrics import Estimate, auc_gain
from training.evaluation.task_metrics import evaluate_anomalies
from training.evaluation.threshold import capacity_threshold
from training.learners.fitted import Targets
from training.recipe import Capacity, Recipe
from training.split import Split
from training.tasks.outcomes import Events, Outcomes, Scores


class AnomalyOutcomes(Outcomes):
    """Which rows are known anomalies, if that is known. The learner is not given it."""

    main_metric, main_shown = "auc", "AUC"
    metrics = ("selection_rate", "auc", "average_precision", "precision", "recall")

    @classmethod
    def metric_names(cls, recipe: Recipe) -> tuple[str, ...]:
        """Return the share of anomalies alone where the labels have no outcome."""
        known = recipe.labels is None or recipe.labels.value
        return cls.metrics if known else cls.metrics[:1]

    @property
    def targets(self) -> Targets:
        """Nothing: it learns from the rows alone."""
        return Targets("anomaly", None)

    def facts(self) -> dict[str, Any]:
        """Return the number of known anomalies; null if none are known."""
        known = self.labels.positive
        return {"positives": None if known is None else int(known.sum())}

    @property
    def events(self) -> Events:
        """The known anomalies, and the other rows."""
        known = self.labels.positive
        return {} if known is None else {"positive": known, "negative": ~known}

    @property
    def leak_events(self) -> Events:
        """The known anomalies alone."""
        return {} if self.labels.positive is None else {"": self.labels.positive}

    def check_split(self, split: Split) -> None:
        """Raise LabelsError if anomalies are known and none of them is held out, or all are."""
        for name, rows in self.events.items():
            if not (rows & split.held_out).any():
                raise LabelsError(
                    f"{self.named}: of {int(rows.sum()):,} {name} labels none is held out, so the "
                    "scores cannot be judged by them; give more, or another held_out_share or "
                    "held_out_days, or labels without value="
                )

    def threshold(self, scores: NDArray[np.float32]) -> float:
        """Return the threshold at which as many rows are anomalies as can be looked at."""
        capacity = self.recipe.threshold
        assert isinstance(capacity, Capacity), "the recipe has checked it"
        return capacity_threshold(capacity, scores[:, 0])

    def evaluate(self, scores: Scores, *, threshold: float) -> dict[str, Estimate]:
        """Return the share of anomalies and, if some are known, how well they are found."""
        return evaluate_anomalies(
            self.labels.positive, scores[:, 0], threshold=threshold, seed=self.recipe.seed
        )

    def gain(self, champion: Scores, candidate: Scores) -> Estimate | None:
        """Return AUC(candidate) - AUC(champion); None if no anomalies are known."""
        if self.labels.positive is None:
            return None
        seed = self.recipe.seed
        return auc_gain(self.labels.positive, champion[:, 0], candidate[:, 0], seed=seed)

    @property
    def gain_low_min(self) -> float:
        """The bound of an AUC gain has a name of its own."""
        return self.recipe.gate.auc_gain_low_min

    def skill_checks(self, scores: Scores, metrics: Mapping[str, Estimate]) -> list[GateCheck]:  # noqa: ARG002  the metrics say it
        """Return the check of the AUC; none if no anomalies are known."""
        return [auc_check(self.recipe.gate, metrics["auc"])] if "auc" in metrics else []

    def compare_groups(
        self, attribute: Attribute, scores: Scores, *, threshold: float
    ) -> dict[str, dict[str, Any]]:
        """Compare how often a row is an anomaly. Without known ones there is no gap of rates."""
        known = self.labels.positive
        positive = np.zeros(len(scores), dtype=np.bool_) if known is None else known
        selected = scores[:, 0] >= threshold
        return {"": compare_decisions(attribute, positive, selected, seed=self.recipe.seed)}
