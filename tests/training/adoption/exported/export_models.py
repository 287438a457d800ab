"""Writes the files beside it with the exporters of other tools, which the tests do not need.

pip install lightgbm==4.7.0 xgboost-cpu==3.2.0 catboost==1.2.10 onnxmltools==1.16.0
python tests/training/adoption/exported/export_models.py
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx

FOLDER = Path(__file__).parent
ROWS = 400


def main() -> None:
    """Write every file."""
    lightgbm, xgboost, catboost, onnxmltools, types = (
        importlib.import_module(name)
        for name in (
            "lightgbm",
            "xgboost",
            "catboost",
            "onnxmltools",
            "onnxmltools.convert.common.data_types",
        )
    )
    # The rows have missing values, and three targets.
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, 4)).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    filled = np.nan_to_num(x)
    binary = (filled[:, 0] + filled[:, 1] > 0).astype(int)
    three = np.digitize(filled[:, 0], [-0.5, 0.5])
    amount = 5000 + 3000 * filled[:, 0] + 1000 * filled[:, 1]
    targets = {"binary": binary, "three": three, "amount": amount}
    # Each exporter writes a file for each target.
    row = [("X", types.FloatTensorType([None, 4]))]
    for name, target in targets.items():
        kind = "Regressor" if name == "amount" else "Classifier"
        leaves: dict[str, Any] = {"n_estimators": 3, "random_state": 0, "n_jobs": 1}
        fitted = getattr(lightgbm, f"LGBM{kind}")(**leaves, num_leaves=4, verbose=-1)
        write(f"lightgbm_{name}", onnxmltools.convert_lightgbm(fitted.fit(x, target), None, row))
        fitted = getattr(xgboost, f"XGB{kind}")(**leaves, max_depth=2)
        write(f"xgboost_{name}", onnxmltools.convert_xgboost(fitted.fit(x, target), None, row))
        fitted = getattr(catboost, f"CatBoost{kind}")(
            iterations=3, depth=2, random_seed=0, thread_count=1, allow_writing_files=False
        )
        fitted.fit(x, target, verbose=False)
        path = FOLDER / f"catboost_{name}.onnx"
        fitted.save_model(str(path), format="onnx")
        # CatBoost writes a page of build notes as its version.
        model = onnx.load_model(path)
        model.producer_version = "1.2.10"
        del model.metadata_props[:]
        write(f"catboost_{name}", model)


def write(name: str, model: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """Write one file."""
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
