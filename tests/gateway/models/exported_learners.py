"""Learners of scikit-learn, fitted and written by skl2onnx, for tests of native models."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.gateway.models.test_native_trees import WIDTH


def exported(
    learner: Any,  # noqa: ANN401  scikit-learn has no common type
    *,
    missing: bool = False,
    classes: int = 0,
    double: bool = False,
) -> tuple[bytes, int]:
    """Fit *learner*; return its graph as skl2onnx writes it, and the number of scores.

    classes  of the outcomes; 0: they are values.
    double   whether it is written for float64 inputs, to which the rows are cast.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    # Fit on rows whose outcomes depend on every column.
    random = np.random.default_rng(7)
    rows = random.normal(size=(500, WIDTH)).astype(np.float32)
    signal = rows @ np.linspace(-1, 1, WIDTH) + rows[:, 0] * rows[:, 1]
    if missing:
        rows[random.random(rows.shape) < 0.1] = np.nan
    edges = np.quantile(signal, np.arange(1, classes) / max(classes, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner.fit(rows, np.digitize(signal, edges) if classes else signal)
        options = {"zipmap": False} if classes else None
        kind = DoubleTensorType if double else FloatTensorType
        model: Any = to_onnx(
            learner,
            initial_types=[("rows", kind([None, WIDTH]))],
            options=options,
            target_opset={"": 21, "ai.onnx.ml": 3},
        )
    # Names are those of versions, and only the scores are an output.
    graph = model.graph
    names = {graph.input[0].name: "inputs", graph.output[-1].name: "scores"}
    produced = graph.output[-1].type.tensor_type.elem_type
    if double:
        names = {graph.input[0].name: "wide", graph.output[-1].name: "last"}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    if double:
        graph.node.insert(0, helper.make_node("Cast", ["inputs"], ["wide"], to=TensorProto.DOUBLE))
        # skl2onnx says float64 of some scores that trees give as float32.
        assert produced in (TensorProto.FLOAT, TensorProto.DOUBLE)
        graph.node.append(helper.make_node("Cast", ["last"], ["scores"], to=TensorProto.FLOAT))
    del model.graph.input[:]
    given = helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, WIDTH])
    model.graph.input.append(given)
    del model.graph.output[:]
    outputs = classes or 1
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, outputs])
    model.graph.output.append(scores)
    return bytes(model.SerializeToString()), outputs


def learners() -> dict[str, tuple[Callable[[], Any], int, bool]]:
    """Return name -> (what makes the learner, classes, whether inputs are missing)."""
    return {**_alone(), **_pipelines()}


def _alone() -> dict[str, tuple[Callable[[], Any], int, bool]]:
    from sklearn.ensemble import IsolationForest, RandomForestRegressor, VotingRegressor
    from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
    from sklearn.neural_network import MLPRegressor

    averaged = [("a", Ridge()), ("b", RandomForestRegressor(5, max_depth=5, random_state=1))]
    return {
        "logistic": (LogisticRegression, 2, False),
        "logistic, classes": (LogisticRegression, 4, False),
        "linear": (LinearRegression, 0, False),
        "ridge": (Ridge, 0, False),
        "elastic net": (ElasticNet, 0, False),
        "network, relu": (lambda: _network("relu"), 2, False),
        "network, tanh": (lambda: _network("tanh"), 3, False),
        "network, logistic": (lambda: _network("logistic"), 3, False),
        "network, values": (
            lambda: MLPRegressor(hidden_layer_sizes=(9, 4), max_iter=20, random_state=1),
            0,
            False,
        ),
        "isolation forest": (lambda: IsolationForest(n_estimators=5, random_state=1), 0, False),
        "average of ridge and forest": (lambda: VotingRegressor(averaged), 0, False),
    }


def _pipelines() -> dict[str, tuple[Callable[[], Any], int, bool]]:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, Normalizer, RobustScaler, StandardScaler

    def filled(*steps: Any) -> Callable[[], Any]:  # noqa: ANN401
        return lambda: make_pipeline(SimpleImputer(), *steps)

    boosting = HistGradientBoostingClassifier(max_iter=10, early_stopping=False, random_state=1)
    forest = RandomForestRegressor(10, max_depth=6, random_state=1)
    normalised = {
        f"normalizer {norm}, logistic": (
            lambda norm=norm: make_pipeline(Normalizer(norm), LogisticRegression()),
            2,
            False,
        )
        for norm in ("l1", "l2", "max")
    }
    return {
        **_combined(),
        "imputer, scaler, logistic": (filled(StandardScaler(), LogisticRegression()), 2, True),
        "imputer, scaler, network": (filled(MinMaxScaler(), _network("relu")), 2, True),
        "imputer, scaler, boosting": (filled(StandardScaler(), boosting), 2, True),
        "scaler, forest": (lambda: make_pipeline(RobustScaler(), forest), 0, False),
        **normalised,
    }


def _combined() -> dict[str, tuple[Callable[[], Any], int, bool]]:
    """Return learners around others, whose graphs stack, pick and reduce."""
    # scikit-learn takes a second to import, so only tests of its learners import it.
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import (
        AdaBoostClassifier,
        BaggingClassifier,
        BaggingRegressor,
        HistGradientBoostingClassifier,
    )
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer, PolynomialFeatures
    from sklearn.tree import DecisionTreeClassifier

    # What several of them have inside.
    tree = DecisionTreeClassifier(max_depth=4, random_state=1)
    boosting = HistGradientBoostingClassifier(max_iter=5, early_stopping=False, random_state=1)
    bins = KBinsDiscretizer(4, encode="ordinal")
    # What makes each learner, its classes, and whether it is scored beside ONNX Runtime.
    return {
        "bagged trees": (lambda: BaggingClassifier(n_estimators=4, random_state=1), 2, False),
        "bagged trees, values": (
            lambda: BaggingRegressor(n_estimators=4, random_state=1),
            0,
            False,
        ),
        "bagged logistic": (
            lambda: BaggingClassifier(LogisticRegression(), n_estimators=3, random_state=1),
            3,
            False,
        ),
        "boosted stumps": (lambda: AdaBoostClassifier(n_estimators=4, random_state=1), 3, False),
        "isotonic calibration": (lambda: CalibratedClassifierCV(tree, method="isotonic"), 2, False),
        "calibrated boosting": (lambda: CalibratedClassifierCV(boosting, cv=2), 2, False),
        "one against the rest": (lambda: OneVsRestClassifier(LogisticRegression()), 3, False),
        "stochastic descent": (lambda: SGDClassifier(loss="log_loss", random_state=1), 3, False),
        "naive Bayes": (GaussianNB, 3, False),
        "bins, boosting": (lambda: make_pipeline(bins, boosting), 2, False),
        "products of two, boosting": (
            lambda: make_pipeline(PolynomialFeatures(2), boosting),
            2,
            False,
        ),
    }


def double_learners() -> dict[str, tuple[Callable[[], Any], int]]:
    """Return name -> (what makes the learner, classes) of learners that skl2onnx writes so."""
    from sklearn.ensemble import (
        ExtraTreesRegressor,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    boosting = HistGradientBoostingClassifier(max_iter=10, early_stopping=False, random_state=1)
    return {
        "boosting": (lambda: boosting, 2),
        "boosting, classes": (lambda: boosting, 3),
        "scaler, boosting": (lambda: make_pipeline(StandardScaler(), boosting), 2),
        "forest": (lambda: RandomForestClassifier(10, max_depth=8, random_state=1), 2),
        "extra trees": (lambda: ExtraTreesRegressor(10, random_state=1), 0),
        "logistic": (LogisticRegression, 2),
    }


def _network(activation: str) -> Any:  # noqa: ANN401
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        hidden_layer_sizes=(24, 9), activation=activation, max_iter=20, random_state=1
    )
