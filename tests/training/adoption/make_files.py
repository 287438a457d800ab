"""Makes the committed models of other tools: `python -m tests.training.adoption.make_files`.

Each file in `files/` is a few KB. A file is made again only when its library's format changes, and
pickles when the minor version of scikit-learn changes: the bytes of pickles differ from run to run.
"""

import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.training.adoption.foreign_rows import COLUMNS, churn_rows

FILES = Path(__file__).parent / "files"
NUMBERS = COLUMNS[:3]
"""Columns of numbers."""


def make_pickles(frame: Any, numbers: NDArray[np.float64], churned: NDArray[np.int64]) -> None:  # noqa: ANN401
    """Write three pickles: a pipeline on named columns, a regressor, LightGBM in a pipeline."""
    import cloudpickle
    import joblib
    from lightgbm import LGBMClassifier
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def columns(scaled: bool) -> Any:  # noqa: ANN401
        scale = make_pipeline(SimpleImputer(), StandardScaler()) if scaled else "passthrough"
        encode = OneHotEncoder(handle_unknown="ignore")
        return ColumnTransformer([("n", scale, list(NUMBERS)), ("t", encode, ["plan"])])

    pipeline = make_pipeline(columns(scaled=True), LogisticRegression()).fit(frame, churned)
    (FILES / "churn_pipeline.pkl").write_bytes(pickle.dumps(pipeline))
    forest = RandomForestRegressor(5, max_depth=4, random_state=1)
    joblib.dump(
        forest.fit(numbers, frame["usage"] * 100), FILES / "spend_forest.joblib", compress=3
    )
    boosted = make_pipeline(
        columns(scaled=False), LGBMClassifier(n_estimators=5, num_leaves=7, verbose=-1)
    )
    boosted.fit(frame, churned)
    (FILES / "churn_boosted.pkl").write_bytes(cloudpickle.dumps(boosted))


def make_boosters(numbers: NDArray[np.float64], churned: NDArray[np.int64]) -> None:
    """Write a file of LightGBM, XGBoost and CatBoost each, with three classes for XGBoost."""
    import catboost
    import lightgbm
    import xgboost

    data = lightgbm.Dataset(numbers, churned, feature_name=list(NUMBERS), free_raw_data=False)
    options = {"objective": "binary", "num_leaves": 7, "verbose": -1, "deterministic": True}
    booster = lightgbm.train(options, data, num_boost_round=5)
    booster.save_model(FILES / "churn_lightgbm.txt")
    offers = churned + (numbers[:, 0] > 1_000)
    matrix = xgboost.DMatrix(numbers, offers, feature_names=list(NUMBERS))
    options = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "nthread": 1}
    xgboost.train(options, matrix, num_boost_round=4).save_model(FILES / "offer_xgboost.ubj")
    forest = catboost.CatBoostClassifier(
        iterations=5, depth=3, verbose=0, allow_writing_files=False, random_seed=1, thread_count=1
    )
    forest.fit(numbers, churned)
    forest.save_model(str(FILES / "churn_catboost.cbm"))


def make_mlflow_folder(numbers: NDArray[np.float64], churned: NDArray[np.int64]) -> None:
    """Write a folder as `mlflow.sklearn.save_model` does, without mlflow."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    folder = FILES / "churn_mlflow"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model = HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=7, random_state=1)
    model.fit(numbers, churned)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    (folder / "MLmodel").write_text(
        "artifact_path: model\n"
        "flavors:\n"
        "  python_function:\n"
        "    loader_module: mlflow.sklearn\n"
        "    model_path: model.pkl\n"
        "  sklearn:\n"
        "    code: null\n"
        "    pickled_model: model.pkl\n"
        "    serialization_format: cloudpickle\n"
        "mlflow_version: 3.1.0\n",
        encoding="utf-8",
    )


def make_graphs(numbers: NDArray[np.float64], churned: NDArray[np.int64]) -> None:
    """Write a graph with ZipMap, and one as torch exports it, with weights in a second file."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    # skl2onnx ends a classifier with ZipMap unless told otherwise.
    model = LogisticRegression().fit(numbers, churned)
    graph = to_onnx(model, numbers[:1].astype(np.float32), target_opset=17)
    (FILES / "churn_zipmap.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    # Two layers, whose weights torch >= 2.9 writes beside the graph.
    drawn = np.random.default_rng(1)
    weights = {
        "layers.0.weight": drawn.normal(size=(16, 3)) / [500, 100, 30],
        "layers.0.bias": drawn.normal(size=16),
        "layers.2.weight": drawn.normal(size=(1, 16)) / 4,
        "layers.2.bias": drawn.normal(size=1),
    }
    constants = [
        numpy_helper.from_array(value.astype(np.float32), n) for n, value in weights.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", *list(weights)[:2]], ["linear"], transB=1),
        helper.make_node("Relu", ["linear"], ["relu"]),
        helper.make_node("Gemm", ["relu", *list(weights)[2:]], ["linear_1"], transB=1),
        helper.make_node("Sigmoid", ["linear_1"], ["sigmoid"]),
    ]
    rows = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["s0", width])
        for name, width in (("x", 3), ("sigmoid", 1))
    ]
    network = helper.make_model(
        helper.make_graph(nodes, "main_graph", rows[:1], rows[1:], constants),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
        producer_name="pytorch",
        producer_version="2.9.0",
    )
    # onnx appends to a file of weights that is there.
    for name in ("churn_network.onnx", "churn_network.onnx.data"):
        (FILES / name).unlink(missing_ok=True)
    onnx.save_model(
        network,
        FILES / "churn_network.onnx",
        save_as_external_data=True,
        location="churn_network.onnx.data",
        size_threshold=0,
    )


def main() -> None:
    """Write all files."""
    warnings.simplefilter("ignore")
    FILES.mkdir(exist_ok=True)
    frame, numbers, churned = churn_rows(2_000)
    make_pickles(frame, numbers, churned)
    make_boosters(numbers, churned)
    make_mlflow_folder(numbers, churned)
    make_graphs(numbers, churned)


if __name__ == "__main__":
    main()
