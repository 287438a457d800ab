"""Converts models of LightGBM, XGBoost and CatBoost that lie in files of these libraries."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.adoption.convert.opened import OpenedModel, matrix, shown_classes
from training.adoption.convert.pipelines import MATRIX
from training.adoption.convert.thresholds import rounded_booster
from training.errors import AdoptionError

OPSET = 15
"""Newest opset that onnxmltools 1.16 writes."""
Booster = Any
"""None of the three libraries has types."""


def open_lightgbm(booster: Booster, shown: str, classes: Any = None) -> OpenedModel:  # noqa: ANN401
    """Return a LightGBM booster converted.

    classes  names of the classes, where the booster's wrapper has them.
    """
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    # What the text says of the model: its objective and its boosting.
    text = booster.model_to_string()
    objective = text.partition("\nobjective=")[2].partition("\n")[0].split(" ")[0]
    if "\naverage_output\n" in text:
        raise AdoptionError(
            f"{shown} is a LightGBM model with boosting=rf, whose average onnxmltools leaves out; "
            "train it with boosting=gbdt, or a RandomForest of scikit-learn"
        )
    # The graph is made of rounded thresholds, and the scores of the booster as it is.
    names = tuple(booster.feature_name())
    onnx = _converted(
        onnxmltools.convert_lightgbm,
        rounded_booster(booster),
        shown,
        initial_types=[(MATRIX, FloatTensorType([None, len(names)]))],
        zipmap=False,
        target_opset=OPSET,
    )
    onnx = with_integer_categories(onnx)
    # What the columns of its scores are.
    probabilities = objective.startswith(("binary", "multiclass"))
    count = max(2, booster.num_model_per_iteration())
    warnings: tuple[str, ...] = ()
    if booster.pandas_categorical:
        warnings = (
            "columns of categories are numbers in LightGBM: the position of the word in "
            f"{json.dumps(booster.pandas_categorical, default=str)[:300]}",
        )
    return OpenedModel(
        origin=f"LightGBM model ({objective}) in {shown}",
        onnx=onnx,
        columns={MATRIX: names},
        truth_by=f"lightgbm {lightgbm.__version__}",
        output="probabilities" if probabilities else "variable",
        classes=shown_classes(range(count) if classes is None else classes)
        if probabilities
        else (),
        score=lambda feed: _as_classes(booster.predict(matrix(feed)), both=probabilities),
        warnings=warnings,
    )


def read_lightgbm(content: bytes, shown: str) -> OpenedModel:
    """Read LightGBM's text."""
    import lightgbm

    try:
        booster = lightgbm.Booster(model_str=content.decode("utf-8", "surrogateescape"))
    except Exception as error:
        raise _unreadable("LightGBM", shown, error) from error
    return open_lightgbm(booster, shown)


def open_xgboost(booster: Booster, shown: str, classes: Any = None) -> OpenedModel:  # noqa: ANN401
    """Return an XGBoost booster converted; *classes* as in open_lightgbm."""
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    # What the booster says of itself, and what of it does not convert.
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    width = booster.num_features()
    _refuse_xgboost(booster, learner, objective, shown)
    # The converter expects features called f0, f1, ...
    names = tuple(booster.feature_names or ())
    plain = booster.copy()
    plain.feature_names = None
    convertible = plain.copy()
    # A ranker's scores are sums of leaves, as those of a regressor, which the converter knows.
    if objective.startswith("rank:"):
        convertible.set_param({"objective": "reg:squarederror"})
    onnx = _converted(
        onnxmltools.convert_xgboost,
        convertible,
        shown,
        initial_types=[(MATRIX, FloatTensorType([None, width]))],
        target_opset=OPSET,
    )
    probabilities = objective.startswith(("binary:", "multi:"))
    count = max(2, int(learner["learner_model_param"]["num_class"]))
    best = booster.attr("best_iteration")
    rounds = (0, int(best) + 1) if best is not None else (0, 0)

    def score(rows: NDArray[np.float64]) -> NDArray[Any]:
        values = xgboost.DMatrix(rows.astype(np.float32))
        return np.asarray(plain.predict(values, iteration_range=rounds, strict_shape=False))

    return OpenedModel(
        origin=f"XGBoost model ({objective}) in {shown}",
        onnx=onnx,
        columns={MATRIX: names} if names else {},
        truth_by=f"xgboost {xgboost.__version__}",
        output="probabilities" if probabilities else "variable",
        classes=shown_classes(range(count) if classes is None else classes)
        if probabilities
        else (),
        score=lambda feed: _as_classes(score(matrix(feed)), both=probabilities),
    )


def with_integer_categories(onnx_bytes: bytes) -> bytes:
    """Return a graph of trees that cuts the fraction off columns of categories, as LightGBM does.

    The converter writes a split by categories as comparisons for equality, so 7.2 would not be the
    category 7. A graph without such splits stays as it is.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model: Any = onnx.load_model_from_string(onnx_bytes)
    # A column of categories is one that a tree compares for equality.
    nodes = [node for node in model.graph.node if node.op_type.startswith("TreeEnsemble")]
    categories: set[int] = set()
    for node in nodes:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        splits = zip(attributes["nodes_modes"], attributes["nodes_featureids"], strict=True)
        categories.update(column for mode, column in splits if mode == b"BRANCH_EQ")
    if not categories:
        return onnx_bytes
    # These columns are taken out, cast to whole numbers and back, and put where they were.
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    cut = sorted(categories)
    order = [*cut, *(column for column in range(width) if column not in categories)]
    constants = {"cut": cut, "rest": order[len(cut) :], "back": np.argsort(order).tolist()}
    for name, indexes in constants.items():
        tensor = numpy_helper.from_array(np.array(indexes, dtype=np.int64), name)
        model.graph.initializer.append(tensor)
    for node in nodes:
        node.input[0] = "columns"
    front = [
        helper.make_node("Gather", [MATRIX, "cut"], ["categories"], axis=1),
        helper.make_node("Cast", ["categories"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["whole_float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [MATRIX, "rest"], ["numbers"], axis=1),
        helper.make_node("Concat", ["whole_float", "numbers"], ["joined"], axis=1),
        helper.make_node("Gather", ["joined", "back"], ["columns"], axis=1),
    ]
    ordered = [*front, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    return bytes(model.SerializeToString(deterministic=True))


def _refuse_xgboost(booster: Booster, learner: dict[str, Any], objective: str, shown: str) -> None:
    """Raise AdoptionError for what the converter writes wrongly or not at all."""
    kind = learner["gradient_booster"]["name"]
    if kind != "gbtree":
        raise AdoptionError(
            f"{shown} is an XGBoost model with booster={kind!r}; only 'gbtree' converts to ONNX. "
            "Train it with that booster"
        )
    if objective in ("multi:softmax", "binary:hinge", "binary:logitraw"):
        raise AdoptionError(
            f"{shown} is an XGBoost model with objective {objective!r}, which gives no "
            "probabilities; train it with 'binary:logistic' or 'multi:softprob'"
        )
    if int(learner["learner_model_param"].get("num_target", 1)) > 1:
        raise AdoptionError(f"{shown} is an XGBoost model of several targets; save one for each")
    if booster.num_boosted_rounds() == 0:
        raise AdoptionError(f"{shown} is an XGBoost model without trees")


def read_xgboost(content: bytes, shown: str) -> OpenedModel:
    """Read XGBoost's JSON or UBJ."""
    import xgboost

    try:
        booster = xgboost.Booster(model_file=bytearray(content))
    except Exception as error:
        raise _unreadable("XGBoost", shown, error) from error
    return open_xgboost(booster, shown)


def open_catboost(model: Booster, shown: str) -> OpenedModel:
    """Return a CatBoost model converted by its own export."""
    import catboost

    # What its export cannot write is refused before it tries.
    if model.get_cat_feature_indices() or model.get_text_feature_indices():
        raise AdoptionError(
            f"{shown} is a CatBoost model with categories or texts as columns, which CatBoost does "
            "not export to ONNX (catboost#863). Encode these columns as numbers before the fit"
        )
    loss = str(model.get_all_params().get("loss_function", "RMSE"))
    classes = list(np.asarray(getattr(model, "classes_", ())).ravel())
    # The export writes a file.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx = _converted(lambda model: _exported(model, path), model, shown)
    probabilities = bool(classes)
    prediction = "Probability" if probabilities else "RawFormulaVal"
    names = tuple(str(name) for name in model.feature_names_)
    return OpenedModel(
        origin=f"CatBoost model ({loss}) in {shown}",
        onnx=onnx,
        columns={"features": names},
        truth_by=f"catboost {catboost.__version__}",
        output="probabilities" if probabilities else "predictions",
        classes=shown_classes(classes),
        score=lambda feed: _as_classes(
            catboost.CatBoost.predict(
                model, matrix(feed).astype(np.float32), prediction_type=prediction, thread_count=1
            ),
            both=False,
        ),
    )


def _exported(model: Booster, path: Path) -> bytes:
    model.save_model(os.fspath(path), format="onnx")
    return path.read_bytes()


def read_catboost(path: Path, shown: str) -> OpenedModel:
    """Read a CatBoost binary file."""
    import catboost

    model = catboost.CatBoost()
    try:
        model.load_model(os.fspath(path), format="cbm")
    except Exception as error:
        raise _unreadable("CatBoost", shown, error) from error
    return open_catboost(model, shown)


def _converted(convert: Any, model: Booster, shown: str, **options: Any) -> bytes:  # noqa: ANN401
    """Return ONNX bytes. Raises AdoptionError with the converter's reason."""
    try:
        onnx = convert(model, **options)
    except Exception as error:
        raise AdoptionError(
            f"the model in {shown} cannot be converted to ONNX: {type(error).__name__}: "
            f"{str(error)[:300]}"
        ) from error
    return onnx if isinstance(onnx, bytes) else bytes(onnx.SerializeToString(deterministic=True))


def _classes(classes: Any, count: int) -> tuple[str, ...]:  # noqa: ANN401
    return shown_classes(range(count) if classes is None else classes)


def _as_classes(scores: Any, *, both: bool) -> NDArray[Any]:  # noqa: ANN401  an array of a library
    """Return (N, K); with *both*, one column P of probabilities becomes 1 - P and P."""
    array = np.asarray(scores)
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if both and array.shape[1] == 1:
        array = np.concatenate([1 - array, array], axis=1)
    return array


def _unreadable(library: str, shown: str, error: Exception) -> AdoptionError:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return AdoptionError(
        f"{shown} looks like a {library} model and cannot be read as one: {text[:300]}. Save the "
        f"model again with {library}, and copy the file as binary"
    )
