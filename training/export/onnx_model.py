"""ONNX bytes that run on this machine, before there is a whole version to load."""

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

_runtime: Any = onnxruntime
"""onnxruntime's own hints do not export what the package exports."""


class OnnxModel:
    """A graph of `inputs` float32 (B, F) to `scores` float32 (B, K), on one thread."""

    def __init__(self, onnx: bytes) -> None:
        options = _runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # a drill that faults on purpose must not fill the log
        self._session = _runtime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, K) float32. Whatever ONNX Runtime raises passes through: here it is the
        maker's own graph that is wrong.
        """
        matrix = np.ascontiguousarray(rows, dtype=np.float32)
        scores: NDArray[np.float32] = self._session.run(["scores"], {"inputs": matrix})[0]
        return scores
