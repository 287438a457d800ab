"""Runs an ONNX graph before there is a complete version to load; the releases of ONNX we write."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.onnx_runtime import onnxruntime

OPSET = 21
ML_OPSET = 3
IR_VERSION = 10

_runtime: Any = onnxruntime
"""onnxruntime as Any, because its type hints lack names that the package has."""


class OnnxModel:
    """A loaded graph from `inputs` (B, F) to an output (B, K), both float32. It uses one thread."""

    def __init__(self, onnx: bytes, output: str = "scores") -> None:
        self._output = output
        options = _runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # a bad version that raises must not fill the log
        self._session = _runtime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score *rows*, (N, F), and return (N, K) float32. ONNX Runtime's errors are not caught."""
        matrix = np.ascontiguousarray(rows, dtype=np.float32)
        scores: NDArray[np.float32] = self._session.run([self._output], {"inputs": matrix})[0]
        return scores
