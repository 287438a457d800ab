"""Explains a decision at the threshold to the person it is about: reasons and a way out.

Reasons compare the person with the rows of the background that got the favourable decision: what
moved the score from there to the adverse side. They are told in the words of the version's own
reasons.toml. The smallest change is searched among the groups that the person can change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.explanation.background import reference_medians
from registry.explanation.changes import ChangeableInput, DecidingChange, smallest_change
from registry.explanation.errors import NotExplainedError
from registry.explanation.explainer import VersionExplainer
from registry.explanation.inputs import InputKind, input_kinds
from registry.explanation.reasons import (
    REASONS,
    REASONS_MAX,
    Reasons,
    ReasonsError,
    ReasonShare,
    rank_reasons,
    read_reasons,
)
from stats.tree_shapley import TreeExplainer

DECISION_TASKS = ("binary", "anomaly")
FIDELITY_ROWS_MAX = 200


@dataclass(frozen=True, slots=True)
class DecisionExplanation:
    """What the person is told.

    adverse  whether the decision is adverse.
    reasons  the largest first; () if it is not adverse.
    change   the smallest change found; None if there is none, or it was not asked for.
    tried    rows that were scored for it; 0: it was not searched.
    """

    adverse: bool
    reasons: tuple[ReasonShare, ...]
    change: DecidingChange | None
    tried: int


class DecisionExplainer:
    """Tells decisions of one version, which has reasons.toml."""

    def __init__(self, explainer: VersionExplainer, reasons: Reasons) -> None:
        """Raises NotExplainedError where no decision can be told."""
        self.explainer, self.reasons = explainer, reasons
        reference = explainer.bundle.reference
        if reference.task not in DECISION_TASKS or len(explainer.bundle.contract.outputs) != 1:
            raise NotExplainedError(
                f"reasons are for a decision at a threshold, and the task {reference.task!r} with "
                f"{len(explainer.bundle.contract.outputs)} outputs has none"
            )
        reasons.check_names(explainer.bundle.contract.names)
        self._threshold = reference.decision_threshold
        favourable = ~self.is_adverse(explainer.background_scores[:, 0])
        if not favourable.any():
            raise NotExplainedError(
                "no row of the background got the favourable decision, so there is nothing that an "
                "adverse one can be compared with"
            )
        self._against: TreeExplainer | NDArray[np.float64] = explainer.against(favourable)
        self.medians = reference_medians(explainer.bundle)[0]
        self._inputs = self._changeable_inputs()

    def explain(
        self,
        row: NDArray[np.float32],
        served: float | None,
        *,
        most: int = REASONS_MAX,
        with_change: bool = True,
    ) -> DecisionExplanation:
        """Return reasons and the smallest change for a (F,) row, whose score was *served*.

        Raises NotExplainedError as `VersionExplainer.explain` does.
        """
        explained = self.explainer.explain(row, 0, served, self._against)
        if not self.is_adverse(np.float32(explained.score)):
            return DecisionExplanation(False, (), None, 0)
        contributions = [(item.inputs, item.contribution) for item in explained.contributions]
        ranked = rank_reasons(self.reasons, contributions, most)
        if not with_change:
            return DecisionExplanation(True, ranked, None, 0)
        # Inputs that moved the score most come first, as too many cannot be tried.
        weights = {name: abs(value) for inputs, value in contributions for name in inputs}
        names = self.explainer.bundle.contract.names
        ordered = sorted(
            (self._with_crossing(item, row, explained.margin) for item in self._inputs),
            key=lambda item: -weights.get(names[item.position], 0.0),
        )
        change, tried = smallest_change(
            row, ordered, self.explainer.score, lambda scores: ~self.is_adverse(scores)
        )
        return DecisionExplanation(True, ranked, change, tried)

    def is_adverse(self, scores: Any) -> Any:  # noqa: ANN401  an array, or a number and a truth
        """Return whether each score is an adverse decision."""
        above = scores >= self._threshold
        return above if self.reasons.adverse == "above" else ~above

    def _changeable_inputs(self) -> list[ChangeableInput]:
        """Return the inputs that a person can change, with where and how far."""
        contract, reference = self.explainer.bundle.contract, self.explainer.bundle.reference
        rows, plain = self.explainer.background.rows, self.explainer.plain_columns()
        kinds = input_kinds(contract)
        found = []
        for group in self.reasons.groups:
            for name in group.features if group.changeable else ():
                position = contract.names.index(name)
                kind = kinds.get(name, InputKind())
                edges = reference.feature_edges[name].astype(np.float64)
                seen = rows[:, position][np.isfinite(rows[:, position])].astype(np.float64)
                seen = np.concatenate([seen, edges])
                if not len(seen):
                    continue
                low, high = max(seen.min(), kind.low), min(seen.max(), kind.high)
                spread = float(edges[-1] - edges[0]) if len(edges) > 1 else 0.0
                found.append(
                    ChangeableInput(
                        position=position,
                        direction=group.direction,
                        thresholds=np.union1d(edges, self._tree_cuts(plain.get(position))),
                        low=float(low),
                        high=float(high),
                        unit=spread or 1.0,
                        integral=bool(np.all(seen == np.floor(seen))),
                        categories=len(kind.dictionary),
                    )
                )
        return found

    def _tree_cuts(self, column: int | None) -> NDArray[np.float64]:
        """Return the thresholds of the version's trees on a column."""
        trees = self.explainer.form.trees
        if trees is None or column is None:
            return np.zeros(0)
        cuts = trees.paths.threshold[trees.paths.column == column].astype(np.float64)
        return np.unique(cuts[np.isfinite(cuts)])

    def _with_crossing(
        self, item: ChangeableInput, row: NDArray[np.float32], margin: float
    ) -> ChangeableInput:
        """Return *item* with the value at which a linear model crosses the threshold."""
        form = self.explainer.form
        column = self.explainer.plain_columns().get(item.position)
        if form.linear is None or form.link != "logistic" or column is None or item.categories:
            return item
        slope = float(form.linear.coefficients[column] @ form.combined[0])
        if slope == 0.0 or not 0.0 < self._threshold < 1.0:
            return item
        target = float(np.log(self._threshold) - np.log1p(-self._threshold))
        crossing = float(row[item.position]) + (target - margin) / slope
        # A little beyond it, so that rounding does not bring the score back.
        beside = crossing + np.array([-1e-4, 0.0, 1e-4]) * item.unit
        return ChangeableInput(
            **{
                **{name: getattr(item, name) for name in item.__slots__},
                "thresholds": np.union1d(item.thresholds, beside[np.isfinite(beside)]),
            }
        )


def read_decision_explainer(
    explainer: VersionExplainer, files: Mapping[str, bytes]
) -> DecisionExplainer | None:
    """Return the decisions of a version; None if the version has no reasons.toml.

    Raises NotExplainedError for a file that cannot be used.
    """
    if REASONS not in files:
        return None
    try:
        return DecisionExplainer(explainer, read_reasons(files[REASONS]))
    except ReasonsError as error:
        raise NotExplainedError(f"{REASONS} of the version: {error}") from error


def reason_fidelity(decisions: DecisionExplainer, rows: NDArray[np.float32]) -> dict[str, Any]:
    """Return how well reasons hold: a group at its medians moves the score back.

    rows  (N, F), of which the first FIDELITY_ROWS_MAX with an adverse decision are explained.

    For the largest reason of each row: the share whose score moves to the favourable side when
    the group's inputs are set to their medians, and the share whose decision becomes favourable.
    """
    # The largest reason of each adverse row.
    explainer, names = decisions.explainer, decisions.explainer.bundle.contract.names
    scores = explainer.score(rows)[:, 0]
    adverse = np.flatnonzero(decisions.is_adverse(scores))[:FIDELITY_ROWS_MAX]
    moved = flipped = explained = 0
    sign = 1.0 if decisions.reasons.adverse == "above" else -1.0
    for index in adverse.tolist():
        reasons = decisions.explain(rows[index], None, with_change=False).reasons
        if not reasons or reasons[0].group is None:
            continue
        explained += 1
        # The same row, as if its group were as usual.
        changed = rows[index].copy()
        positions = [names.index(name) for name in reasons[0].group.features]
        changed[positions] = decisions.medians[positions]
        score = float(explainer.score(changed[np.newaxis])[0, 0])
        moved += sign * (score - float(scores[index])) < 0.0
        flipped += not decisions.is_adverse(np.float32(score))
    if not explained:
        return {"adverse_rows": len(adverse), "explained": 0}
    return {
        "adverse_rows": len(adverse),
        "explained": explained,
        "moved_share": moved / explained,
        "flipped_share": flipped / explained,
    }
