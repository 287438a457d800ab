"""Functions of an author, as `Learner.function` takes them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def linear_graph(weights: NDArray[np.float32], *, probability: bool = True) -> bytes:
    """A graph of a weighted sum, with a sigmoid behind it for a probability."""
    width = len(weights)
    nodes = [helper.make_node("MatMul", ["row", "weights"], ["sum"])]
    nodes += [helper.make_node("Sigmoid" if probability else "Identity", ["sum"], ["score"])]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(weights.astype(np.float32)[:, np.newaxis], "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))


def fitted_weights(rows: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float32]:
    """Weights that tell the targets apart, for columns of any size."""
    centred = (targets.astype(np.float64) - targets.mean())[:, np.newaxis]
    weights = (rows * centred).mean(axis=0) / (rows.var(axis=0) + 1.0)
    return np.asarray(4 * weights, np.float32)


def fit_mean(
    rows: NDArray[np.float32], targets: NDArray[Any], seed: int, scale: float = 1.0
) -> tuple[bytes, Any]:
    """A linear model, and its scores by numpy."""
    weights = fitted_weights(rows, targets) * np.float32(scale)

    def score(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-(rows.astype(np.float64) @ weights.astype(np.float64))))

    return linear_graph(weights), score


def fit_without_truth(rows: NDArray[np.float32], targets: NDArray[Any], seed: int) -> bytes:
    """The graph of a linear model alone."""
    return linear_graph(fitted_weights(rows, targets))


def fit_wrongly(rows: NDArray[np.float32], targets: NDArray[Any], seed: int) -> tuple[bytes, Any]:
    """A graph that is not what the author's scores say."""
    graph, score = fit_mean(rows, targets, seed)
    return graph, lambda rows: score(rows) + 1e-3


def fit_badly(rows: NDArray[np.float32], targets: NDArray[Any], seed: int, fault: str) -> Any:  # noqa: ANN401  wrong on purpose
    """What an author gets wrong: an error, the end of the process, too few columns, bad scores."""
    if fault == "raises":
        return {}["scaler"]
    if fault == "exits":
        raise SystemExit(3)
    if fault == "narrow":
        return linear_graph(fitted_weights(rows[:, :1], targets))
    return fit_without_truth(rows, targets, seed), lambda _rows: {}["scaler"]
