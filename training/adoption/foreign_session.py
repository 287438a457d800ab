"""Runs a foreign graph as it is, on rows in the form that it takes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.onnx_runtime import onnxruntime
from training.adoption.foreign import Feed
from training.errors import AdoptionError

_runtime: Any = onnxruntime
"""onnxruntime as Any, because its type hints lack names that the package has."""

NUMPY_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64,
    "tensor(uint32)": np.uint32,
    "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
"""Type of an input, as ONNX Runtime names it -> numpy's type."""


class ForeignSession:
    """A foreign graph in ONNX Runtime, with one thread.

    Raises AdoptionError when ONNX Runtime refuses the graph.
    """

    def __init__(self, content: bytes, *, optimised: bool = True) -> None:
        """Load *content*. Without optimisation each operator is run as the file has it."""
        self.optimised = optimised
        # Load without external threads, arena and log.
        options = _runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4  # a graph that raises must not fill the log
        levels = _runtime.GraphOptimizationLevel
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        )
        try:
            self._session = _runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise AdoptionError(
                f"onnxruntime {onnxruntime.__version__} refuses the graph: {str(error)[:300]}. "
                "Export it again with opset 21 (target_opset=21, opset_version=21)"
            ) from error
        # Note what each input takes.
        inputs = self._session.get_inputs()
        self._ranks = {item.name: len(item.shape) for item in inputs}
        self._types = {item.name: NUMPY_TYPES[item.type] for item in inputs}
        fixed = [
            item.shape[0]
            for item in inputs
            if item.shape and isinstance(item.shape[0], int) and item.shape[0] > 0
        ]
        self.batch: int | None = fixed[0] if fixed else None
        """Rows of every run, if the graph takes one number of rows only."""

    def run(self, feed: Feed, output: str) -> NDArray[Any]:
        """Return (N, C) of one output for N rows, in runs of `batch` rows if that is fixed.

        Numbers are brought to the type that the graph takes.

        An error of ONNX Runtime is not caught. AdoptionError: the output has not a row for each.
        """
        rows = len(next(iter(feed.values())))
        if self.batch is None:
            return self._run(feed, output)
        parts = []
        for first in range(0, rows, self.batch):
            # The last run repeats rows, up to the fixed number.
            indexes = np.arange(first, first + self.batch) % rows
            part = self._run({name: item[indexes] for name, item in feed.items()}, output)
            parts.append(part[: rows - first])
        return np.concatenate(parts)

    def _run(self, feed: Feed, output: str) -> NDArray[Any]:
        tensors = {
            name: np.ascontiguousarray(
                item[:, 0] if self._ranks[name] == 1 else item, dtype=self._types[name]
            )
            for name, item in feed.items()
        }
        rows = len(next(iter(tensors.values())))
        scores = self._session.run([output], tensors)[0]
        return as_columns(np.asarray(scores), rows, output)


def as_columns(scores: NDArray[Any], rows: int, output: str) -> NDArray[Any]:
    """Return (rows, C) of an output of (rows,) or (rows, C). AdoptionError for another shape."""
    if scores.shape[:1] != (rows,) or scores.ndim > 2:
        raise AdoptionError(
            f"the output {output!r} has shape {scores.shape} for {rows} rows; ({rows},) or "
            f"({rows}, columns) is needed, so that each row has scores of its own"
        )
    return scores[:, np.newaxis] if scores.ndim == 1 else scores
