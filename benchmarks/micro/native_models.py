"""Prints what a row costs natively and by ONNX Runtime, for each kind of model.

    python -m benchmarks.micro.native_models            every model
    python -m benchmarks.micro.native_models --only 63  models whose name has this text

Processor time of the thread, microseconds a row, the least of REPEATS passes over new rows. Both
are measured by turns in one process, each with one thread, as a gateway runs them.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scorer
from gateway.models.native_scorer import NativeScorer, load_tree_reader, prove_native
from registry.scoring import Session, open_onnx

WIDTH = 20
FITTED_ROWS = 20_000
TIMED_ROWS = 51_200
BATCHES = (1, 8, 64, 512)
CALLS_MAX = 200
REPEATS = 7


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A model to measure.

    fit       fits an estimator to (rows, outcomes).
    classes   number of classes of the outcomes; 0: they are values.
    complete  whether the graph is measured as a whole, and not its trees alone.
    """

    name: str
    fit: Callable[[NDArray[np.float32], NDArray[Any]], Any]
    classes: int = 0
    complete: bool = False


def boosted(leaves: int) -> Callable[[NDArray[np.float32], NDArray[Any]], Any]:
    """Return a fit of 100 boosted trees of this many leaves, or as many for each class."""

    def fit(rows: NDArray[np.float32], outcomes: NDArray[Any]) -> Any:  # noqa: ANN401
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        classes = np.issubdtype(outcomes.dtype, np.integer)
        kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        learner = kind(max_iter=100, max_leaf_nodes=leaves, early_stopping=False, random_state=1)
        return learner.fit(rows, outcomes)

    return fit


def forest(depth: int) -> Callable[[NDArray[np.float32], NDArray[Any]], Any]:
    """Return a fit of a forest of 100 trees of this depth."""

    def fit(rows: NDArray[np.float32], outcomes: NDArray[Any]) -> Any:  # noqa: ANN401
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        classes = np.issubdtype(outcomes.dtype, np.integer)
        kind = RandomForestClassifier if classes else RandomForestRegressor
        learner = kind(n_estimators=100, max_depth=depth, max_features=6, random_state=1)
        return learner.fit(rows, outcomes)

    return fit


def linear(rows: NDArray[np.float32], outcomes: NDArray[Any]) -> Any:  # noqa: ANN401
    """Fit a logistic regression behind an imputer and a scaler."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(
        rows, outcomes
    )


def regression(rows: NDArray[np.float32], outcomes: NDArray[Any]) -> Any:  # noqa: ANN401
    """Fit a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(rows, outcomes)


def network(*layers: int) -> Callable[[NDArray[np.float32], NDArray[Any]], Any]:
    """Return a rough fit of a network with these hidden layers."""

    def fit(rows: NDArray[np.float32], outcomes: NDArray[Any]) -> Any:  # noqa: ANN401
        from sklearn.neural_network import MLPClassifier

        return MLPClassifier(layers, max_iter=3, random_state=1).fit(rows, outcomes)

    return fit


def scaled_trees(rows: NDArray[np.float32], outcomes: NDArray[Any]) -> Any:  # noqa: ANN401
    """Fit 100 boosted trees behind an imputer and a scaler."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=1)
    return make_pipeline(SimpleImputer(), StandardScaler(), trees).fit(rows, outcomes)


def isolation_forest(rows: NDArray[np.float32], outcomes: NDArray[Any]) -> Any:  # noqa: ANN401
    """Fit an isolation forest of 100 trees; it takes no outcomes."""
    from sklearn.ensemble import IsolationForest

    del outcomes
    return IsolationForest(random_state=1).fit(rows)


MODELS = [
    MeasuredModel("logistic", regression, 2, complete=True),
    MeasuredModel("imputer, scaler, logistic", linear, 2, complete=True),
    MeasuredModel("network, 64 and 32 units", network(64, 32), 2, complete=True),
    MeasuredModel("network, 256 and 128 units", network(256, 128), 2, complete=True),
    MeasuredModel("imputer, scaler, boosted, 31 leaves", scaled_trees, 2, complete=True),
    MeasuredModel("isolation forest", isolation_forest, complete=True),
    MeasuredModel("boosted, 31 leaves", boosted(31)),
    MeasuredModel("boosted, 63 leaves", boosted(63)),
    MeasuredModel("boosted, 255 leaves", boosted(255)),
    MeasuredModel("boosted, 31 leaves, 2 classes", boosted(31), 2),
    MeasuredModel("boosted, 31 leaves, 3 classes", boosted(31), 3),
    MeasuredModel("forest, depth 8", forest(8)),
    MeasuredModel("forest, depth 8, 3 classes", forest(8), 3),
    MeasuredModel("forest, depth 12", forest(12)),
    MeasuredModel("forest, depth 16", forest(16)),
]


def graph_of(measured: MeasuredModel) -> tuple[bytes, int]:
    """Fit *measured*, and return its graph from `inputs` to `scores` and the number of scores."""
    import onnx
    from skl2onnx import to_onnx

    # Outcomes depend on a few inputs and on noise, so trees grow as deep as they may.
    random = np.random.default_rng(1)
    rows = random.normal(size=(FITTED_ROWS, WIDTH)).astype(np.float32)
    signal = rows[:, 0] * rows[:, 1] + rows[:, 2] + random.normal(size=FITTED_ROWS)
    outcomes = signal
    if measured.classes:
        edges = np.quantile(signal, np.arange(1, measured.classes) / measured.classes)
        outcomes = np.digitize(signal, edges)
    options = {"zipmap": False} if measured.classes else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = to_onnx(
            measured.fit(rows, outcomes),
            rows[:1],
            options=options,
            target_opset={"": 21, "ai.onnx.ml": 3},
        )
    # Only the scores are served, and names are those of versions.
    names = {model.graph.input[0].name: "inputs", model.graph.output[-1].name: "scores"}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    if not measured.complete:
        kept = [node for node in model.graph.node if node.op_type.startswith("TreeEnsemble")]
        trees = onnx.NodeProto.FromString(kept[0].SerializeToString())
        trees.output[-1] = "scores"
        del model.graph.node[:]
        model.graph.node.append(trees)
    outputs = max(measured.classes, 1)
    shape = [None, outputs]
    scores = onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, shape)
    del model.graph.output[:]
    model.graph.output.append(scores)
    model.graph.input[0].name = "inputs"
    return model.SerializeToString(), outputs


def row_us(scorer: Scorer, rows: NDArray[np.float32], count: int) -> float:
    """Return the processor time of a row in batches of *count* rows, in microseconds."""
    calls = min(CALLS_MAX, len(rows) // count)
    batches = [rows[at * count : (at + 1) * count] for at in range(calls)]
    began = time.thread_time_ns()
    for batch in batches:
        scorer.run(batch)
    return (time.thread_time_ns() - began) / (calls * count) / 1_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="models whose name has this text")
    options = parser.parse_args()
    read = load_tree_reader()
    assert read is not None, "turnout_ingress is not built; run make ingress"
    rows = np.random.default_rng(2).normal(size=(TIMED_ROWS, WIDTH)).astype(np.float32)
    heads = " | ".join(f"{count} rows" for count in BATCHES)
    print(f"| 100 trees or as said, us a row: ONNX Runtime / native = times | {heads} |")
    print("|---|" + "---|" * len(BATCHES))
    for model in MODELS:
        if options.only not in model.name:
            continue
        onnx, outputs = graph_of(model)
        session = Session(open_onnx(onnx), WIDTH, outputs)
        trees = prove_native(onnx, rows[:64], session, read)
        assert isinstance(trees, NativeScorer), trees
        cells = []
        for count in BATCHES:
            # By turns, so that both meet the same load of the machine.
            pairs = [
                (row_us(session, rows, count), row_us(trees, rows, count)) for _ in range(REPEATS)
            ]
            runtime_us, native_us = (min(values) for values in zip(*pairs, strict=True))
            cells.append(f"{runtime_us:.2f} / {native_us:.2f} = {runtime_us / native_us:.1f}")
        print(f"| {model.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
