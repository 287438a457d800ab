"""The learner of a recipe, as its author declares it. Nothing is fitted here."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from features.canonical import sha256_hex
from training.errors import RecipeError

LearnerKind = Literal[
    "logistic", "forest", "boosting", "lightgbm", "xgboost", "catboost", "sklearn", "function"
]
Calibration = Literal["none", "sigmoid", "isotonic"]
Scaling = Literal["none", "standard"]
CALIBRATION_FOLDS = 3
"""Folds of a calibration. Each needs a row of either class."""
ESTIMATOR_PACKAGES = ("sklearn", "lightgbm", "xgboost")
"""Packages whose estimators a recipe may name."""
LIBRARY_PACKAGES = {
    "lightgbm": ("lightgbm", "onnxmltools"),
    "xgboost": ("xgboost", "xgboost-cpu", "onnxmltools"),
    "catboost": ("catboost",),
}
"""Library -> names under which it and its converter are installed."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What a recipe fits.

    kind         "logistic" (LogisticRegression), "forest" (random forest) or "boosting"
                 (HistGradientBoosting) of scikit-learn; "lightgbm", "xgboost" or "catboost", each
                 an extra of the package. `Learner.estimator` and `Learner.function` make the kinds
                 "sklearn" and "function".
    parameters   arguments of the library's class, without its seed, which is the recipe's, and
                 without a number of threads, which is one.
    calibration  "sigmoid" wraps a classifier of scikit-learn in CalibratedClassifierCV with 3
                 folds.
    scaling      "standard" standardises the columns, only with "logistic". It becomes part of the
                 coefficients.
    fit          the author's function of the kind "function". It is no part of the definition, so a
                 recipe that comes from a definition lacks it until the project gives it again.
    """

    kind: LearnerKind
    parameters: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration = "none"
    scaling: Scaling = "none"
    fit: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(LearnerKind):
            raise RecipeError(
                f"a learner is of the kind {self.kind!r}; the kinds are "
                f"{', '.join(get_args(LearnerKind))}"
            )
        if self.kind == "sklearn" and "class" not in self.parameters:
            raise RecipeError(
                'a learner of the kind "sklearn" names no class; declare it by '
                "Learner.estimator(...)"
            )
        if self.kind == "function" and "function" not in self.parameters:
            raise RecipeError(
                'a learner of the kind "function" names no function; declare it by '
                "Learner.function(...)"
            )

    @staticmethod
    def estimator(estimator: Any, /, **parameters: Any) -> "Learner":  # noqa: ANN401  scikit-learn has no common type
        """Return a learner of an estimator or Pipeline of scikit-learn.

        estimator   the path of its class, such as "sklearn.linear_model.Ridge", or an unfitted
                    estimator. A path needs no import of scikit-learn, which takes seconds.
        parameters  arguments of the class that a path names; a learner of this kind stands for an
                    estimator inside.

        Estimators of LightGBM and XGBoost may be inside. Of an unfitted estimator the definition
        has the parameters that differ from their defaults.

        Raises RecipeError for parameters that JSON cannot say: functions, arrays, own classes.
        """
        if isinstance(estimator, str):
            said = {name: _said(value, name) for name, value in sorted(parameters.items())}
            return Learner(kind="sklearn", parameters={"class": estimator, "parameters": said})
        if parameters:
            raise RecipeError(
                "Learner.estimator has an estimator and parameters beside it; give the parameters "
                "to the estimator"
            )
        return Learner(kind="sklearn", parameters=estimator_definition(estimator))

    @staticmethod
    def function(fit: Callable[..., Any], /, **arguments: Any) -> "Learner":  # noqa: ANN401  JSON values
        """Return a learner that calls the author's own function.

        fit        `fit(rows, targets, seed, **arguments)` at the top of a file. It gets rows, (N,
                   F) float32, targets as training.learners.fitted.Targets has the values, and the
                   recipe's seed, and returns ONNX bytes, from one input (B, F) to one output (B,
                   K), or a pair of these and a function that scores rows, (N, F) float32 to (N, K).
        arguments  JSON values.

        The definition has the name of the function and the SHA-256 of its file. Raises RecipeError
        for a function that is not at the top of a file, or that does not take the arguments.
        """
        # Only a function at the top of a file can be found again by its name.
        file = inspect.getsourcefile(fit) if inspect.isfunction(fit) else None
        if file is None or not fit.__qualname__.isidentifier() or fit.__module__ == "__main__":
            raise RecipeError(
                f"{getattr(fit, '__qualname__', fit)!r} is no function at the top of a file; give "
                "Learner.function a function that `def` makes in a file of the project"
            )
        # A call that cannot be made would be found only after the rows were joined.
        try:
            inspect.signature(fit).bind("rows", "targets", "seed", **arguments)
        except TypeError as error:
            raise RecipeError(
                f"{fit.__name__} is called with rows, targets, seed and the arguments "
                f"{[*arguments]}, and does not take them: {error}"
            ) from error
        parameters = {
            "function": f"{fit.__module__}:{fit.__name__}",
            "source_sha256": sha256_hex(Path(file).read_bytes()),
            "arguments": {name: _said(value, name) for name, value in arguments.items()},
        }
        return Learner(kind="function", parameters=parameters, fit=fit)

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages that fit and convert the learner, beside those that every version needs."""
        said = str(self.parameters) if self.kind == "sklearn" else f"{self.kind}."
        libraries = [name for name in LIBRARY_PACKAGES if f"{name}." in said]
        return tuple(dict.fromkeys(item for name in libraries for item in LIBRARY_PACKAGES[name]))

    def definition(self) -> dict[str, Any]:
        """Return the learner as JSON values, if its parameters are such values."""
        return {
            "kind": self.kind,
            "parameters": dict(self.parameters),
            "calibration": self.calibration,
            "scaling": self.scaling,
        }


def estimator_definition(estimator: Any) -> dict[str, Any]:  # noqa: ANN401  scikit-learn has no common type
    """Return the class and the parameters of an estimator as JSON values.

    Raises RecipeError for a class of another package and for what JSON cannot say.
    """
    kind = type(estimator)
    if kind.__module__.split(".")[0] not in ESTIMATOR_PACKAGES or not _has_parameters(estimator):
        raise RecipeError(
            f"{kind.__module__}.{kind.__qualname__} is no estimator of "
            f"{', '.join(ESTIMATOR_PACKAGES)}, so a recipe cannot name it; give an estimator of "
            "these, or write Learner.function"
        )
    # The class is named where the package documents it, which no release moves.
    public = kind.__module__.split("._")[0]
    path = public if getattr(import_module(public), kind.__name__, None) is kind else None
    signature = inspect.signature(kind.__init__).parameters
    parameters = {
        name: _said(value, f"{kind.__name__}.{name}")
        for name, value in sorted(estimator.get_params(deep=False).items())
        if name not in signature or not _is_default(value, signature[name].default)
    }
    return {"class": f"{path or kind.__module__}.{kind.__name__}", "parameters": parameters}


def estimator_of(definition: Mapping[str, Any]) -> Any:  # noqa: ANN401  scikit-learn has no common type
    """Return the unfitted estimator of a definition. Raises RecipeError if there is none."""
    path = str(definition.get("class", ""))
    module, _, name = path.rpartition(".")
    try:
        if module.split(".")[0] not in ESTIMATOR_PACKAGES:
            raise RecipeError(f"{path!r} is of no package of {', '.join(ESTIMATOR_PACKAGES)}")
        kind = getattr(import_module(module), name)
        if not isinstance(kind, type) or not hasattr(kind, "get_params"):
            raise RecipeError(f"{path!r} is no estimator")
        return kind(**{key: _meant(value) for key, value in definition["parameters"].items()})
    except (ImportError, AttributeError, KeyError, TypeError) as error:
        raise RecipeError(
            f"the estimator {path!r} of the recipe cannot be made: {error!r}; install the package "
            "and version that the recipe was written with, or correct the recipe"
        ) from error


def _has_parameters(value: Any) -> bool:  # noqa: ANN401  any parameter
    return hasattr(value, "get_params") and not isinstance(value, type)


def _is_default(value: Any, default: Any) -> bool:  # noqa: ANN401  any parameter
    if value is default:
        return True
    if isinstance(value, float) and isinstance(default, float) and math.isnan(value):
        return math.isnan(default)
    plain = isinstance(value, bool | int | float | str)
    return plain and type(value) is type(default) and bool(value == default)


def _said(value: Any, name: str) -> Any:  # noqa: ANN401  any parameter
    """Return a parameter as JSON values. *name* says where it stands, for the error."""
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list | tuple):
        items = [_said(item, f"{name}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return {"items": [[_said(key, name), _said(item, name)] for key, item in value.items()]}
    if isinstance(value, Learner) and value.kind == "sklearn":
        return dict(value.parameters)
    if _has_parameters(value):
        return estimator_definition(value)
    raise RecipeError(
        f"{name} is a {type(value).__name__}, which a recipe cannot say as JSON; give numbers, "
        "texts, lists and estimators, or write Learner.function"
    )


def _meant(value: Any) -> Any:  # noqa: ANN401  any parameter
    """Return the parameter that `_said` has said."""
    if isinstance(value, list):
        return [_meant(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class" in value:
        return estimator_of(value)
    if "tuple" in value:
        return tuple(_meant(item) for item in value["tuple"])
    if "float" in value:
        return float(value["float"])
    return {_meant(key): _meant(item) for key, item in value["items"]}
