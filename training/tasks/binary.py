"""The task "binary": the probability of an event."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import LabelsError
from training.evaluation.fairness import Attribute, compare_groups
from training.evaluation.gate import GateCheck, auc_check
from training.evaluation.metrics import Estimate, auc_gain, evaluate_scores
from training.evaluation.threshold import choose_threshold
from training.learners.fitted import Targets
from training.tasks.outcomes import Events, Outcomes, Scores


class BinaryOutcomes(Outcomes):
    """Whether the event happened, of each row."""

    main_metric, main_shown = "auc", "AUC"
    metrics = (
        "auc",
        "log_loss",
        "brier",
        "precision",
        "recall",
        "accuracy",
        "selection_rate",
    )
    probable = True

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(N,) bool, the rows in which the event happened."""
        if self.labels.positive is None:
            raise LabelsError(
                f"{self.named} learns whether an event happened, and the labelled rows do not say "
                "so; give LabelledRows(positive=...)"
            )
        return self.labels.positive

    @property
    def targets(self) -> Targets:
        """True for the event."""
        return Targets.binary(self.positive)

    def facts(self) -> dict[str, Any]:
        """Return the number of events, and of rows without an outcome where there are some."""
        left_out = self.labels.left_out
        return {
            "positives": int(self.positive.sum()),
            **({"without_outcome": left_out} if left_out else {}),
        }

    @property
    def events(self) -> Events:
        """The event, and that it did not happen."""
        return {"positive": self.positive, "negative": ~self.positive}

    @property
    def leak_events(self) -> Events:
        """The event alone, because the other rows are those without it."""
        return {"": self.positive}

    def threshold(self, scores: NDArray[np.float32]) -> float:
        """Return the recipe's threshold, or choose it by cost or capacity."""
        return choose_threshold(self.recipe.threshold, self.positive, scores[:, 0])

    def evaluate(self, scores: Scores, *, threshold: float) -> dict[str, Estimate]:
        """Return the metrics of the probabilities, and of the decisions at *threshold*."""
        return evaluate_scores(
            self.positive, scores[:, 0], threshold=threshold, seed=self.recipe.seed
        )

    def gain(self, champion: Scores, candidate: Scores) -> Estimate | None:
        """Return AUC(candidate) - AUC(champion)."""
        return auc_gain(self.positive, champion[:, 0], candidate[:, 0], seed=self.recipe.seed)

    @property
    def gain_low_min(self) -> float:
        """The bound of an AUC gain has a name of its own."""
        return self.recipe.gate.auc_gain_low_min

    def skill_checks(self, scores: Scores, metrics: Mapping[str, Estimate]) -> list[GateCheck]:  # noqa: ARG002  the metrics say it
        """Return the check of the AUC."""
        return [auc_check(self.recipe.gate, metrics["auc"])]

    def compare_groups(
        self, attribute: Attribute, scores: Scores, *, threshold: float
    ) -> dict[str, dict[str, Any]]:
        """Compare the positive decisions."""
        seed, positive = self.recipe.seed, self.positive
        return {
            "": compare_groups(attribute, positive, scores[:, 0], threshold=threshold, seed=seed)
        }
