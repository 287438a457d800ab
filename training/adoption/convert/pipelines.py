"""Converts estimators and pipelines of scikit-learn, with LightGBM and XGBoost inside them."""

import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import load_model_from_string
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.base import is_classifier, is_outlier_detector, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline

from training.adoption.convert.missing_branches import with_missing_branches
from training.adoption.convert.opened import OpenedModel, matrix, shown_classes
from training.adoption.convert.thresholds import round_thresholds
from training.adoption.convert.widen import widened
from training.adoption.foreign import Feed
from training.adoption.foreign_session import ForeignSession
from training.errors import AdoptionError
from training.export.onnx_model import ML_OPSET, OPSET

MATRIX = "inputs"
"""Name of the input of a model that takes one matrix."""
MISSING_TEXT = ""
"""What the graph of a pipeline that fills in missing texts takes for one: texts have no NaN."""
Estimator = Any
"""scikit-learn has no common type."""


def open_estimator(model: Estimator, shown: str, texts: Sequence[str] = ()) -> OpenedModel:
    """Return *model* converted.

    shown  what is opened, such as "churn.pkl".
    texts  names of columns that the sample has as texts.

    Raises AdoptionError when skl2onnx cannot convert it.
    """
    kind, output, score = _scores_of(model, shown)
    inputs = _inputs(model, texts, shown)
    _register_boosters()
    # The copy is for the graph: thresholds are rounded there, and the original is the truth.
    convertible = copy.deepcopy(model)
    round_thresholds(convertible, computed=_computes(model))
    _prepare_members(convertible)
    onnx = with_missing_branches(_converted(convertible, inputs, shown), convertible)
    columns = {MATRIX: _matrix_names(model)} if MATRIX in inputs else _graph_inputs(onnx, inputs)
    as_frame = _frame_maker(model, columns)
    return OpenedModel(
        origin=f"{kind} in {shown}",
        onnx=onnx,
        columns={name: names for name, names in columns.items() if names},
        truth_by=_truth_by(model),
        output=output,
        classes=shown_classes(model.classes_) if output == "probabilities" else (),
        score=lambda feed: score(as_frame(feed)),
    )


def _scores_of(model: Estimator, shown: str) -> tuple[str, str, Callable[[Any], NDArray[Any]]]:
    """Return the kind of *model*, the output of its graph, and what computes it."""
    kind = type(model).__name__
    if is_classifier(model):
        if hasattr(model, "predict_proba"):
            return kind, "probabilities", lambda rows: np.asarray(model.predict_proba(rows))
        raise AdoptionError(
            f"{kind} in {shown} gives labels and distances and no probabilities; a rollout "
            "compares scores. Wrap it before the fit: CalibratedClassifierCV(model)"
        )
    if is_regressor(model):
        return kind, "variable", lambda rows: _columns(model.predict(rows))
    if is_outlier_detector(model):
        return kind, "scores", lambda rows: _columns(model.decision_function(rows))
    raise AdoptionError(
        f"{shown} has a {kind}, which is no classifier, regressor or detector of outliers; a "
        "version needs a fitted estimator whose predict_proba or predict gives scores"
    )


def _columns(scores: Any) -> NDArray[Any]:  # noqa: ANN401  an array of a library
    array = np.asarray(scores)
    return array[:, np.newaxis] if array.ndim == 1 else array


def _inputs(model: Estimator, texts: Sequence[str], shown: str) -> dict[str, type]:
    """Return graph input -> its type: one for each column of a frame, or one matrix."""
    if not hasattr(model, "n_features_in_"):
        raise AdoptionError(f"{shown} has a {type(model).__name__} that was not fitted")
    names = getattr(model, "feature_names_in_", None)
    kinds = _column_kinds(model)
    if names is None and not kinds:
        return {MATRIX: DoubleTensorType if _computes(model) else FloatTensorType}
    if names is None:
        raise AdoptionError(
            f"the pipeline in {shown} was fitted on columns without names, some of which are texts "
            "or whole numbers; fit it on a frame whose columns have names"
        )
    kinds |= dict.fromkeys(texts, StringTensorType)
    selects = any(isinstance(part, ColumnTransformer) for part in _steps(model))
    if not selects and not set(kinds) & set(names):
        return {MATRIX: DoubleTensorType if _computes(model) else FloatTensorType}
    number = DoubleTensorType if _computes(model) else FloatTensorType
    return {str(name): kinds.get(str(name), number) for name in names}


def _column_kinds(model: Estimator) -> dict[str, type]:
    """Return column -> type, for columns whose encoder was fitted on texts or whole numbers."""
    kinds: dict[str, type] = {}
    for part in _steps(model):
        if not isinstance(part, ColumnTransformer):
            continue
        for _, transformer, columns in getattr(part, "transformers_", ()):
            scalar = isinstance(columns, str)  # a vectorizer takes one column as texts
            names = [columns] if scalar else list(columns) if not callable(columns) else []
            for step in _steps(transformer):
                for name, values in zip(names, _known_values(step, scalar), strict=False):
                    if isinstance(name, str) and values is not None:
                        kinds.setdefault(name, values)
    return kinds


def _known_values(step: Estimator, scalar: bool) -> list[type | None]:
    """Return for each column of *step* the type that its fitted values show."""
    if scalar and hasattr(step, "vocabulary_"):
        return [StringTensorType]
    arrays = getattr(step, "categories_", None)
    if arrays is None and np.asarray(getattr(step, "statistics_", 0)).dtype.kind == "O":
        return [StringTensorType] * len(step.statistics_)
    kinds = {"O": StringTensorType, "U": StringTensorType, "T": StringTensorType}
    whole = dict.fromkeys("iub", Int64TensorType)
    return [(kinds | whole).get(np.asarray(known).dtype.kind) for known in arrays or ()]


def _steps(model: Estimator) -> list[Estimator]:
    """Return *model* and what it runs before and inside it."""
    steps = [model]
    if isinstance(model, Pipeline):
        steps += [part for _, step in model.steps for part in _steps(step)]
    elif isinstance(model, ColumnTransformer):
        steps += [
            part for entry in getattr(model, "transformers_", ()) for part in _steps(entry[1])
        ]
    elif isinstance(model, FeatureUnion):
        steps += [part for entry in model.transformer_list for part in _steps(entry[1])]
    for name in ("estimator", "base_estimator", "estimator_"):
        inner = getattr(model, name, None)
        if hasattr(inner, "fit"):
            steps += _steps(inner)
    for fold in getattr(model, "calibrated_classifiers_", ()):
        steps += _steps(fold.estimator)
    return [step for step in steps if not isinstance(step, str)]


def _computes(model: Estimator) -> bool:
    """Tell whether *model* does more than compare its inputs with thresholds.

    Then it computes in float64, and its graph must. LightGBM compares in float64 too, but float32
    rows take the same branches once thresholds are rounded.
    """
    trees = ("sklearn.ensemble", "sklearn.tree", "lightgbm", "xgboost")
    members = [part for part in _steps(model) if not isinstance(part, Pipeline)]
    return not all(
        type(part).__module__.startswith(trees) and not isinstance(part, VotingClassifier)
        for part in members
    )


def _converted(model: Estimator, inputs: Mapping[str, type], shown: str) -> bytes:
    """Return ONNX bytes. Raises AdoptionError with the converter's reason."""
    # Each column of a frame is an input of its own.
    width = model.n_features_in_
    types = [(name, kind([None, width if name == MATRIX else 1])) for name, kind in inputs.items()]
    wide = DoubleTensorType in inputs.values()
    try:
        converted: Any = convert_sklearn(
            model,
            initial_types=types,
            options={"zipmap": False} if is_classifier(model) else None,
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            name="adopted",
        )
        if wide:
            converted = widened(converted, _imputed_values(model))
        onnx = converted.SerializeToString(deterministic=True)
        ForeignSession(onnx)
    except Exception as error:
        # Some operators exist in float32 only.
        if wide:
            floats = {
                name: FloatTensorType if kind is DoubleTensorType else kind
                for name, kind in inputs.items()
            }
            return _converted(model, floats, shown)
        raise AdoptionError(
            f"skl2onnx cannot convert the {type(model).__name__} in {shown}: "
            f"{_first_sentence(error)}. Replace that step by one of scikit-learn's that skl2onnx "
            "has, or export the model to ONNX yourself and adopt that file"
        ) from error
    return bytes(onnx)


def _imputed_values(model: Estimator) -> list[NDArray[np.float64]]:
    """Return the values that each imputer of numbers in *model* fills in."""
    found = [getattr(step, "statistics_", None) for step in _steps(model)]
    return [np.asarray(item) for item in found if np.asarray(item).dtype.kind == "f"]


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}".rstrip(".")


def _register_boosters() -> None:
    """Tell skl2onnx how estimators of LightGBM and XGBoost are converted, if they are loaded."""
    options = {
        "nocl": [True, False],
        "zipmap": [True, False, "columns"],
        "raw_scores": [True, False],
    }
    tables: list[tuple[str, str, str, Any]] = []
    if "lightgbm" in sys.modules:
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

        tables += [("lightgbm", "LGBMClassifier", "LightGbmLGBMClassifier", convert_lightgbm)]
        tables += [("lightgbm", "LGBMRegressor", "LightGbmLGBMRegressor", convert_lightgbm)]
    if "xgboost" in sys.modules:
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

        tables += [("xgboost", "XGBClassifier", "XGBoostXGBClassifier", convert_xgboost)]
        tables += [("xgboost", "XGBRegressor", "XGBoostXGBRegressor", convert_xgboost)]
    for module, name, alias, converter in tables:
        classifier = name.endswith("Classifier")
        update_registered_converter(
            getattr(sys.modules[module], name),
            alias,
            calculate_linear_classifier_output_shapes
            if classifier
            else calculate_linear_regressor_output_shapes,
            converter,
            options=options if classifier else None,
        )


def _prepare_members(model: Estimator) -> None:
    """Set what skl2onnx refuses and what changes no probability."""
    for part in _steps(model):
        if isinstance(part, VotingClassifier):
            part.flatten_transform = False
        elif _imputes_texts(part):
            part.missing_values = MISSING_TEXT


def _imputes_texts(step: Estimator) -> bool:
    """Tell whether *step* fills in missing texts, which a frame has as NaN."""
    return (
        isinstance(step, SimpleImputer)
        and np.asarray(getattr(step, "statistics_", 0)).dtype.kind == "O"
        and not isinstance(step.missing_values, str)
    )


def _graph_inputs(onnx: bytes, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return graph input -> the column of the frame that it stands for.

    The converter keeps the order of the columns, and writes "Data GB" as Data_GB.
    """
    graph = load_model_from_string(onnx).graph
    return {item.name: (name,) for item, name in zip(graph.input, names, strict=True)}


def _matrix_names(model: Estimator) -> tuple[str, ...]:
    names = getattr(model, "feature_names_in_", None)
    return () if names is None else tuple(str(name) for name in names)


def _frame_maker(model: Estimator, columns: Mapping[str, tuple[str, ...]]) -> Callable[[Feed], Any]:
    """Return what brings rows of the graph into the form that *model* was fitted on."""
    names = _matrix_names(model)
    if not names:
        return matrix
    import pandas

    fills = any(_imputes_texts(step) for step in _steps(model))

    def values(part: NDArray[Any]) -> Any:  # noqa: ANN401  a column of a frame
        if part.dtype == object and fills:
            return np.where(part[:, 0] == MISSING_TEXT, np.nan, part[:, 0])
        return part[:, 0].astype(np.float64 if part.dtype.kind == "f" else part.dtype)

    def as_frame(feed: Feed) -> Any:  # noqa: ANN401  pandas has no types here
        if MATRIX in columns:
            return pandas.DataFrame(matrix(feed), columns=list(names))
        return pandas.DataFrame(
            {columns[name][0]: values(part) for name, part in feed.items()}, columns=list(names)
        )

    return as_frame


def _truth_by(model: Estimator) -> str:
    """Return the libraries that score, with their versions."""
    modules = {type(part).__module__.split(".")[0] for part in _steps(model)}
    known = [name for name in ("sklearn", "lightgbm", "xgboost") if name in modules]
    shown = {"sklearn": "scikit-learn"}
    return " and ".join(
        f"{shown.get(name, name)} {sys.modules[name].__version__}" for name in known
    )
