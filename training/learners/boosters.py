"""Fits boosted trees of LightGBM, XGBoost and CatBoost, in one thread, from the recipe's seed.

Each library is an extra of the package and is imported when it fits.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.adoption.convert.opened import OpenedModel
from training.errors import RecipeError
from training.learners.fitted import Targets

Rows = NDArray[np.float32]
SHOWN = "the recipe's learner"


def fit_lightgbm(parameters: Mapping[str, Any], seed: int, rows: Rows, targets: Targets) -> Any:  # noqa: ANN401  lightgbm has no types
    """Return LightGBM's own estimator, fitted."""
    import lightgbm

    kind = lightgbm.LGBMRegressor if targets.task == "regression" else lightgbm.LGBMClassifier
    model = kind(
        **parameters,
        random_state=seed,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbosity=0,
    )
    # LightGBM only warns of a parameter that it does not know.
    logged = _LightgbmLog()
    lightgbm.register_logger(logged)
    try:
        model.fit(rows, _values(targets))
    finally:
        lightgbm.register_logger(_LightgbmLog())
    unknown = [line for line in logged.lines if "Unknown parameter" in line]
    if unknown:
        raise RecipeError(f"LightGBM says {unknown[0].strip()!r}; correct the learner's parameters")
    return model


def fit_xgboost(parameters: Mapping[str, Any], seed: int, rows: Rows, targets: Targets) -> Any:  # noqa: ANN401  xgboost has no types here
    """Return XGBoost's own estimator, fitted."""
    import xgboost

    kind = xgboost.XGBRegressor if targets.task == "regression" else xgboost.XGBClassifier
    # JSON has lists where XGBoost wants a tuple.
    given = dict(parameters)
    if isinstance(given.get("monotone_constraints"), list):
        given["monotone_constraints"] = tuple(given["monotone_constraints"])
    model = kind(**given, random_state=seed, n_jobs=1, verbosity=1)
    # XGBoost only warns of a parameter that it does not know.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(rows, _values(targets))
    unused = [str(item.message) for item in caught if "are not used" in str(item.message)]
    if unused:
        line = next(part.strip() for part in unused[0].splitlines() if "are not used" in part)
        raise RecipeError(f"XGBoost says {line!r}; correct the learner's parameters")
    return model


def fit_catboost(parameters: Mapping[str, Any], seed: int, rows: Rows, targets: Targets) -> Any:  # noqa: ANN401  catboost has no types here
    """Return CatBoost's own estimator, fitted."""
    import catboost

    regression = targets.task == "regression"
    kind: Any = catboost.CatBoostRegressor if regression else catboost.CatBoostClassifier
    model = kind(
        **parameters,
        random_seed=seed,
        thread_count=1,
        allow_writing_files=False,  # it would make a folder of its own
        logging_level="Silent",
    )
    model.fit(rows, _values(targets))
    return model


def open_booster(kind: str, model: Any) -> OpenedModel:  # noqa: ANN401  an estimator of the library
    """Return a fitted estimator converted, as `turnout adopt` converts it."""
    from training.adoption.convert.boosters import open_catboost, open_lightgbm, open_xgboost

    if kind == "lightgbm":
        return open_lightgbm(model.booster_, SHOWN, getattr(model, "classes_", None))
    if kind == "xgboost":
        return open_xgboost(model.get_booster(), SHOWN, getattr(model, "classes_", None))
    return open_catboost(model, SHOWN)


FITS: dict[str, Callable[[Mapping[str, Any], int, Rows, Targets], Any]] = {
    "lightgbm": fit_lightgbm,
    "xgboost": fit_xgboost,
    "catboost": fit_catboost,
}


class _LightgbmLog:
    """Keeps what LightGBM warns of, which it would print otherwise."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        """Take a line of the library, which has its level inside."""
        self.lines.append(line)

    def warning(self, line: str) -> None:
        """Take a line of LightGBM's Python code."""
        self.lines.append(line)


def _values(targets: Targets) -> NDArray[Any]:
    """Return what is learned: classes as numbers, or values."""
    assert targets.values is not None
    values = targets.values
    return values if targets.task == "regression" else values.astype(np.int64)
