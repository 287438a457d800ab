"""Fits the learners of the serving benchmark, and writes what they learned as versions."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with sklearn

from benchmarks.gateway_folder import write_signed_version
from features.canonical import canonical_json
from features.contract import ModelContract
from registry.bundle import seal_files
from registry.types import Deployment

if TYPE_CHECKING:
    from training.export.on_demand_graph import NoOnDemandFront, OnDemandFront

TREES = 100
FOREST_DEPTH = 8
NETWORK_LAYERS = (64, 32)

Fit = Callable[[NDArray[np.float32], NDArray[np.bool_], int], Any]
"""Fits a classifier to labels (R) of rows (R, F), with a seed."""


def fit_trees(rows: NDArray[np.float32], labels: NDArray[np.bool_], seed: int) -> Any:  # noqa: ANN401
    """Fit TREES boosted trees of at most 31 leaves."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    # Threads of a busy machine spin while they wait for each other: 20 times the CPU.
    with threadpool_limits(1):
        return HistGradientBoostingClassifier(max_iter=TREES, random_state=seed).fit(rows, labels)


def fit_forest(rows: NDArray[np.float32], labels: NDArray[np.bool_], seed: int) -> Any:  # noqa: ANN401
    """Fit a forest of TREES trees of depth FOREST_DEPTH."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(TREES, max_depth=FOREST_DEPTH, random_state=seed)
    return forest.fit(rows, labels)


def fit_regression(rows: NDArray[np.float32], labels: NDArray[np.bool_], seed: int) -> Any:  # noqa: ANN401
    """Fit a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(random_state=seed).fit(rows, labels)


def fit_network(rows: NDArray[np.float32], labels: NDArray[np.bool_], seed: int) -> Any:  # noqa: ANN401
    """Fit a network of two layers, roughly: its weights matter to speed only by their number."""
    from sklearn.neural_network import MLPClassifier

    # scikit-learn divides the steps among epochs and warns when they do not converge.
    network = MLPClassifier(NETWORK_LAYERS, max_iter=200, tol=1e-2, random_state=seed)
    return network.fit(rows, labels)


def fit_pipeline(rows: NDArray[np.float32], labels: NDArray[np.bool_], seed: int) -> Any:  # noqa: ANN401
    """Fit scaled numbers, and texts as one column for each entry, before a logistic regression.

    rows  numbers, then the codes of four texts.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    codes = list(range(rows.shape[1] - 4, rows.shape[1]))
    columns = ColumnTransformer(
        [
            ("scaled", StandardScaler(), list(range(codes[0]))),
            ("codes", OneHotEncoder(handle_unknown="ignore"), codes),
        ]
    )
    pipeline = make_pipeline(columns, LogisticRegression(random_state=seed, max_iter=500))
    return pipeline.fit(rows, labels)


def on_demand_nodes(
    names: Sequence[str], stored: int, expressions: Sequence[str]
) -> "OnDemandFront | NoOnDemandFront":
    """Return the nodes in front of a model that compute *expressions* over its stored features.

    names   every input of the model: *stored* features, then the time.
    """
    from training.export.on_demand_graph import on_demand_front
    from training.on_demand import OnDemand, parse_on_demand

    features = [OnDemand(name=f"d{at}", expression=text) for at, text in enumerate(expressions)]
    terms = [(feature, parse_on_demand(feature, names[:stored])) for feature in features]
    return on_demand_front(names, names[:stored], terms)


def version_files(
    model: str,
    contract: ModelContract,
    rows: NDArray[np.float32],
    learner: Any,  # noqa: ANN401  scikit-learn has no common type
    front: "OnDemandFront | NoOnDemandFront | None" = None,
) -> dict[str, bytes]:
    """Return the five files of a version; its golden rows are the learner's own predictions.

    front  its on-demand features; None: it has none.
    """
    from training.export.convert import convert_to_onnx

    # The graph, with its on-demand features in front.
    columns = rows if front is None else front.columns(rows)
    onnx = convert_to_onnx(
        learner, name=model, width=columns.shape[1], model_contract=contract.model_contract
    )
    onnx = onnx if front is None else front.before(onnx)
    # Golden rows and a reference.
    golden = io.BytesIO()
    outputs = learner.predict_proba(columns)[:, 1:].astype(np.float32)
    np.savez(golden, inputs=rows, outputs=outputs)
    reference = {
        "score": {"edges": np.linspace(0.05, 0.95, 19).tolist()},
        "features": [
            {"name": name, "edges": np.linspace(-1.2, 1.2, 9).tolist()} for name in contract.names
        ],
        "decision_threshold": 0.5,
    }
    return {
        "model.onnx": onnx,
        "contract.json": canonical_json(contract.definition()),
        "golden.npz": golden.getvalue(),
        "reference.json": canonical_json(reference),
        "card.json": json.dumps({"model": model}).encode(),
    }


def write_versions(
    folder: Path, model: str, files: dict[str, bytes], labels: Sequence[str] = ("1",)
) -> Deployment:
    """Write versions that differ only in their cards; return a deployment of "1"."""
    digests = []
    for label in labels:
        card = json.dumps({"model": model, "version": label}).encode()
        sealed = seal_files(
            {**files, "card.json": card}, model=model, author="bench", created_unix_ms=1
        )
        digests.append((label, write_signed_version(folder, sealed)))
    return Deployment(
        model=model,
        revision=1,
        production="1",
        split_salt=bytes(range(16)),
        holdout_salt=bytes(range(16, 32)),
        digests=tuple(digests),
    )
