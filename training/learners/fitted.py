"""What a learner is fitted to, and what a fitted learner gives, whichever library fitted it."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from training.errors import RecipeError

TargetTask = Literal["binary", "multiclass", "regression", "anomaly"]
"""What a learner learns. Offers are ranked by a binary or regression learner, a row an offer."""


@dataclass(frozen=True, eq=False, slots=True)
class Targets:
    """The outcomes of N rows.

    task     what is learned from them.
    values   (N,) bool for "binary"; (N,) int64 for "multiclass", each the index of a class; (N,)
             float64 for "regression"; None for "anomaly", which learns from the rows alone.
    classes  number of classes of "multiclass"; 2 for "binary", 0 for the others. Each must be
             among the rows to fit on.
    """

    task: TargetTask
    values: NDArray[Any] | None
    classes: int = 0

    @staticmethod
    def binary(positive: NDArray[np.bool_]) -> "Targets":
        """Return the targets of labels that are positive or negative, (N,) bool."""
        return Targets("binary", positive, 2)

    @property
    def outputs(self) -> int:
        """K, the number of outputs of a learner that is fitted to these targets."""
        return self.classes if self.task == "multiclass" else 1

    def selected(self, rows: NDArray[Any]) -> "Targets":
        """Return the targets of some rows: (M,) indexes, or (N,) bool."""
        values = None if self.values is None else self.values[rows]
        return Targets(self.task, values, self.classes)


class FittedLearner(Protocol):
    """A learner after its fit. Its outputs and those of its graph are the same K columns.

    binary      K = 1: P(positive), corrected for left-out negatives (Recipe.negatives_share).
    multiclass  K = the number of classes: P(class), in the order of the classes; each row sums to
                1. Each class is among the fitted rows; otherwise the fit is refused.
    regression  K = 1: the value.
    anomaly     K = 1: the larger, the more unusual the row.
    """

    @property
    def truth_by(self) -> str:
        """Library and version that `outputs` are from; "" if they are those of the graph itself."""

    def outputs(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the library says of *rows*, (N, F) float32, as (N, K) float64."""

    def to_onnx(self, *, name: str, width: int, model_contract: str) -> bytes:
        """Return ONNX bytes that map `inputs`, float32 (B, F), to `scores`, float32 (B, K).

        name            name of the graph.
        width           F.
        model_contract  hash (hex) for the metadata, which is compared at every load.

        The same fitted learner always gives the same bytes. Raises ConversionError.
        """


def require_every_class(targets: Targets) -> None:
    """Raise RecipeError unless the fitted rows have every class of *targets*."""
    if targets.task not in ("binary", "multiclass"):
        return
    assert targets.values is not None
    counts = np.bincount(targets.values.astype(np.int64), minlength=targets.classes)
    if (counts == 0).any():
        raise RecipeError(
            f"of the {len(counts)} classes, those at the positions "
            f"{np.flatnonzero(counts == 0).tolist()} have no row to fit on; leave them out of the "
            "labels, or give more labels"
        )
