"""A fitted learner whose library is asked for its scores, and whose converter wrote the graph."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with sklearn

from training.adoption.convert.opened import OpenedModel
from training.learners.fitted import Targets, TargetTask
from training.learners.served_graph import served_graph

ROWS_AT_ONCE = 65_536
"""Rows that a library is asked about at once, because some copy them to float64."""


@dataclass(frozen=True, eq=False, slots=True)
class OpenedLearner:
    """A model of any library, opened as `turnout adopt` opens it (FittedLearner).

    opened           the library's scores, and the graph that its converter wrote.
    task             what the scores are.
    outputs_count    K.
    negatives_share  share of the negative rows that the model was fitted on.
    """

    opened: OpenedModel
    task: TargetTask
    outputs_count: int
    negatives_share: float = 1.0

    @staticmethod
    def of(opened: OpenedModel, targets: Targets, negatives_share: float) -> "OpenedLearner":
        """Return the learner that was fitted to *targets*."""
        return OpenedLearner(opened, targets.task, targets.outputs, negatives_share)

    @property
    def truth_by(self) -> str:
        """Library and version, for example "lightgbm 4.6.0"."""
        return self.opened.truth_by

    def outputs(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the library says of *rows*, (N, F), as (N, K)."""
        found = np.empty((len(rows), self.outputs_count))
        with threadpool_limits(limits=1):
            for part in _parts(len(rows)):
                found[part] = self._library_scores(rows[part])
        if self.negatives_share == 1.0:
            return found
        return found / (found + (1.0 - found) / self.negatives_share)

    def to_onnx(self, *, name: str, width: int, model_contract: str) -> bytes:  # noqa: ARG002  the graph has it
        """Return the graph, as FittedLearner says."""
        return served_graph(
            self.opened.onnx,
            self.opened.output,
            self._columns,
            name=name,
            model_contract=model_contract,
            negatives_share=self.negatives_share,
            negated=self.task == "anomaly",
        )

    @property
    def _columns(self) -> list[int]:
        """The columns of the library's scores that are served."""
        return [1] if self.task == "binary" else list(range(self.outputs_count))

    def _library_scores(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        assert self.opened.score is not None, "a fitted model scores"
        name = next(iter(self.opened.columns), "inputs")
        scores = np.asarray(self.opened.score({name: rows}), dtype=np.float64)
        served = scores[:, self._columns]
        # Libraries score usual rows high, and a version scores unusual rows high.
        return -served if self.task == "anomaly" else served


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))
