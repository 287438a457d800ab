"""The task "ranking": which offer of a call is best.

Each offer is a row and gets a score of its own, by a learner of single rows. What counts is the
order of the scores within a call.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.ranking import CallOrder, order_calls
from training.errors import LabelsError
from training.evaluation.fairness import Attribute, compare_decisions
from training.evaluation.gate import GateCheck, skill_check
from training.evaluation.metrics import Estimate, mean_gain
from training.evaluation.task_metrics import evaluate_order
from training.labelled_rows import LabelledRows
from training.learners.fitted import Targets
from training.recipe import Recipe
from training.split import Split, check_both_sides
from training.tasks.outcomes import Events, Outcomes, Scores, number_values

CALLS_MIN = 100
"""Held-out calls with which an order is judged."""


class RankedOutcomes(Outcomes):
    """What each offer was worth: whether it was taken, or a number from 0 on.

    Its rows are ordered by call (LabelledRows.by_group).
    """

    main_metric, main_shown = "ndcg", "NDCG"
    metrics = ("ndcg", "hit_rate")

    def __init__(self, recipe: Recipe, labels: LabelledRows) -> None:
        super().__init__(recipe, labels)
        if labels.groups is None:
            raise LabelsError(
                f"{self.named} ranks the offers of a call, and the labelled rows have no groups; "
                "give Labels(group=...), the column with the id of the call"
            )
        begins = np.r_[True, labels.groups[1:] != labels.groups[:-1]]
        self.offsets = np.r_[np.flatnonzero(begins), len(labels)].astype(np.int64)
        self._check_instants()

    def _check_instants(self) -> None:
        """Refuse calls whose offers have several instants: a split by time would part them."""
        starts, instants = self.offsets[:-1], self.labels.as_of_ms
        several = np.maximum.reduceat(instants, starts) != np.minimum.reduceat(instants, starts)
        if several.any():
            raise LabelsError(
                f"{self.named}: the offers of {int(several.sum()):,} of {len(starts):,} calls have "
                "several instants; the instant of an offer is that of its call"
            )

    @cached_property
    def worth(self) -> NDArray[np.float64]:
        """(N,) what each offer was worth, from 0 on; LabelsError for a negative number."""
        if self.labels.positive is not None:
            return self.labels.positive.astype(np.float64)
        worth = number_values(self.recipe, self.labels)
        if (worth < 0.0).any():
            raise LabelsError(
                f"{self.named}: {int((worth < 0.0).sum()):,} offers are worth less than 0; an "
                "offer that nobody took is worth 0"
            )
        return worth

    @property
    def targets(self) -> Targets:
        """Whether each offer was taken, or its worth."""
        if self.labels.positive is not None:
            return Targets.binary(self.labels.positive)
        return Targets("regression", self.worth)

    def facts(self) -> dict[str, Any]:
        """Return the number of calls, of offers that were worth something, and of rows without."""
        return {
            "calls": len(self.offsets) - 1,
            "positives": int((self.worth > 0.0).sum()),
            "without_outcome": self.labels.left_out,
        }

    @property
    def events(self) -> Events:
        """The offers that were worth something, and the others."""
        return {"positive": self.worth > 0.0, "negative": self.worth == 0.0}

    @property
    def leak_events(self) -> Events:
        """The offers that were worth something alone."""
        return {"": self.worth > 0.0}

    def check_split(self, split: Split) -> None:
        """Raise LabelsError if no offer was taken on one side, or no held-out call has a choice."""
        check_both_sides(self.recipe, split, {"positive": self.worth > 0.0})
        starts, differ = self.offsets[:-1], np.zeros(len(self.worth))
        differ[split.held_out] = 1.0
        held_out = np.maximum.reduceat(differ, starts) > 0.0
        varied = np.maximum.reduceat(self.worth, starts) > np.minimum.reduceat(self.worth, starts)
        judged = int((held_out & varied).sum())
        if judged < CALLS_MIN:
            raise LabelsError(
                f"{self.named}: {judged:,} of {int(held_out.sum()):,} held-out calls have offers "
                f"of different worth, and {CALLS_MIN} are needed to judge an order; give those "
                "offers that were not taken too, or another held_out_share or held_out_days"
            )

    @property
    def row_offsets(self) -> NDArray[np.uint32]:
        """Where the rows of each call begin."""
        return np.asarray(self.offsets, dtype=np.uint32)

    def threshold(self, scores: NDArray[np.float32]) -> float:
        """Return the median score for the reference, which no decision depends on."""
        return float(np.quantile(scores[:, 0], 0.5, method="inverted_cdf"))

    def _order(self, scores: Scores) -> CallOrder:
        return order_calls(self.offsets, self.worth, scores[:, 0])

    def evaluate(self, scores: Scores, *, threshold: float) -> dict[str, Estimate]:  # noqa: ARG002  the best of a call decides
        """Return NDCG and the share of calls whose best offer is first."""
        return evaluate_order(self._order(scores), seed=self.recipe.seed)

    def gain(self, champion: Scores, candidate: Scores) -> Estimate | None:
        """Return by how much the candidate's NDCG is larger."""
        before, after = self._order(champion), self._order(candidate)
        return mean_gain(-before.ndcg, -after.ndcg, seed=self.recipe.seed)

    def skill_checks(self, scores: Scores, metrics: Mapping[str, Estimate]) -> list[GateCheck]:  # noqa: ARG002  compared by calls
        """Return the check that it beats a random order."""
        gain = self.gain(np.zeros_like(scores), scores)
        assert gain is not None
        return [skill_check(self.main_shown, "a random order", gain)]

    def compare_groups(
        self,
        attribute: Attribute,
        scores: Scores,
        *,
        threshold: float,  # noqa: ARG002  the best of a call decides
    ) -> dict[str, dict[str, Any]]:
        """Compare how often an offer is the best of its call."""
        starts, sizes = self.offsets[:-1], np.diff(self.offsets)
        best = np.repeat(np.maximum.reduceat(scores[:, 0], starts), sizes)
        seed = self.recipe.seed
        return {"": compare_decisions(attribute, self.worth > 0.0, scores[:, 0] == best, seed=seed)}
