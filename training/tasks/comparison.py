"""Compares a version with its champion on the same rows, each by the inputs of its own contract."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from features.offline import Spine, TrainingSet
from features.storage.unjoined import Unjoined
from features.views import View
from registry import scoring
from registry.bundle import Bundle
from training.errors import GateFailedError
from training.evaluation.expected_shift import ExpectedShift, expected_shift
from training.evaluation.metrics import Estimate
from training.joined import joined_rows
from training.recipe import Recipe
from training.tasks.outcomes import Outcomes


class FeatureSource(Protocol):
    """The methods of features.offline.OfflineStore that training needs."""

    def training_set(
        self, contract: ModelContract, spine: Spine, *, with_known: bool = False
    ) -> TrainingSet:
        """Return the features as they were known at each instant of *spine*."""

    def unjoined(self, view: View, spine: Spine) -> Unjoined:
        """Return why no row of *spine* found a fresh row of *view*."""

    def digest(self, views: Sequence[View]) -> str:
        """Return the SHA-256 (hex) of the data that *views* are read from."""

    def ingested(self, view: View) -> tuple[int, str]:
        """Return the number of the view's last ingest, and the SHA-256 of all ingests."""


def compare_with_champion(
    outcomes: Outcomes,
    store: FeatureSource,
    champion: Bundle,
    scores: NDArray[np.float32],
    *,
    threshold: float,
) -> tuple[Estimate | None, ExpectedShift]:
    """Return the gain over *champion* and the expected shift from it.

    outcomes   of the held-out rows.
    scores     (N, K) the scores of these rows by the version.
    threshold  of the version's decisions.

    The gain is None if the outcomes cannot tell which one is better. Raises GateFailedError for a
    champion that means something else by its scores, or has none for a row, and JoinError.
    """
    recipe, labels = outcomes.recipe, outcomes.labels
    require_comparable(recipe, champion)
    # The champion scores the same rows, with the features of its own contract.
    session = scoring.load_session(champion)
    # With defaults instead of features it would lose every comparison.
    rows, _ = joined_rows(
        f"{recipe.model}/{recipe.setting}, champion {champion.digest[:16]}",
        store,
        champion.contract,
        labels,
        without_row_max=recipe.gate.without_row_max,
    )
    champion_scores = session.run(rows)
    unusable = int((~np.isfinite(champion_scores).all(axis=1)).sum())
    if unusable:
        text = (
            f"the champion {champion.digest[:16]} scores {unusable} of {len(champion_scores)} "
            "held-out rows NaN or infinite, so no version can be compared with it; train without a "
            "champion, or compare with another version"
        )
        raise GateFailedError(text, (text,))
    # Both comparisons are paired: they use the same rows.
    gain = outcomes.gain(champion_scores.astype(np.float64), scores.astype(np.float64))
    shift = expected_shift(
        champion_scores,
        scores,
        champion=champion.digest,
        scale=champion.reference.scale,
        candidate_threshold=threshold,
        row_offsets=outcomes.row_offsets,
    )
    return gain, shift


def require_comparable(recipe: Recipe, champion: Bundle) -> None:
    """Raise GateFailedError if the champion's scores mean something else than the recipe's."""
    outputs, others = recipe.contract.outputs, champion.contract.outputs
    task = champion.reference.task
    # Classes are compared by name; a single output may be called as it was before.
    alike = outputs == others if recipe.task == "multiclass" else len(others) == 1
    if task != recipe.task or not alike:
        text = (
            f"the champion {champion.digest[:16]} has the task {task!r} and the outputs "
            f"{list(others)}, and {recipe.model}/{recipe.setting} {recipe.task!r} and "
            f"{list(outputs)}, so their scores cannot be compared; train without a champion, or "
            "give the model another name"
        )
        raise GateFailedError(text, (text,))
