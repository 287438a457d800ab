"""Unpickles models: plain pickle, joblib, cloudpickle and skops. A pickle runs code as it opens."""

import io
import re
import warnings
from importlib.metadata import version
from typing import Any

from training.adoption.convert.file_kinds import FileKind, ModelFile, read_model_file
from training.adoption.convert.opened import EXTRA, OpenedModel
from training.errors import AdoptionError

PACKAGES = {"lightgbm", "xgboost", "catboost", "onnxmltools", "skops", "cloudpickle", "pandas"}
"""Packages that the extra brings."""
VERSION_IN_PICKLE = re.compile(rb"_sklearn_version.{0,6}?(\d+\.\d+(?:\.\w+)*)", re.DOTALL)


def open_pickle(file: ModelFile, texts: list[str]) -> OpenedModel:
    """Unpickle *file* and convert the estimator in it. *texts* as in open_estimator."""
    content = read_model_file(file.path, file.shown)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _loaded(file, content)
    remarks = _version_remarks(caught, file.shown)
    model, more = _estimator_in(model, file.shown)
    opened = _converted(model, file.shown, texts)
    return OpenedModel(
        **{name: getattr(opened, name) for name in OpenedModel.__slots__ if name != "warnings"},
        warnings=(*opened.warnings, *remarks, *more),
    )


def _loaded(file: ModelFile, content: bytes) -> Any:  # noqa: ANN401  whatever the file makes
    shown = file.shown
    try:
        if file.kind is FileKind.SKOPS:
            import skops.io

            # The types of the file's own list are trusted here because the sandbox trusts nothing.
            trusted = skops.io.get_untrusted_types(data=content)
            return skops.io.loads(content, trusted=trusted)
        import joblib

        return joblib.load(io.BytesIO(content))
    except ModuleNotFoundError as error:
        raise _missing_module(error, content, shown) from error
    except (MemoryError, AdoptionError):
        raise
    except Exception as error:
        raise AdoptionError(
            f"{shown} cannot be opened as {file.kind.value}: {type(error).__name__}: "
            f"{str(error)[:300]}{_version_hint(content)}"
        ) from error


def _missing_module(error: ModuleNotFoundError, content: bytes, shown: str) -> AdoptionError:
    name = error.name or ""
    package = name.split(".")[0]
    if package in PACKAGES:
        return AdoptionError(f"{shown} needs the package {package}: {EXTRA}")
    hint = _version_hint(content)
    if package == "sklearn":
        return AdoptionError(f"{shown} needs {name}, which scikit-learn no longer has{hint}")
    return AdoptionError(
        f"{shown} needs the module {name!r}, which is not installed: a pickle has only names of "
        "the code that it uses. Save the model with cloudpickle after "
        "cloudpickle.register_pickle_by_value(module), or export it to ONNX where it was trained"
    )


def _version_hint(content: bytes) -> str:
    """Return the version of scikit-learn in a pickle, if it is another one."""
    found = VERSION_IN_PICKLE.search(content)
    if found is None or found[1].decode() == version("scikit-learn"):
        return ""
    return (
        f". It was saved by scikit-learn {found[1].decode()}, and {version('scikit-learn')} is "
        "installed: adopt it in an environment with that version, or export it to ONNX there"
    )


def _version_remarks(caught: list[warnings.WarningMessage], shown: str) -> tuple[str, ...]:
    """Return a remark on another patch version. Raises AdoptionError for any other version."""
    remarks = []
    for item in caught:
        warning = item.message
        original = getattr(warning, "original_sklearn_version", None)
        if original is None:
            continue
        installed = version("scikit-learn")
        if str(original).split(".")[:2] != installed.split(".")[:2]:
            raise AdoptionError(
                f"{shown} was saved by scikit-learn {original}, and {installed} is installed, "
                "which may score differently. Adopt it in an environment with "
                f"scikit-learn=={original}, or export it to ONNX there and adopt that file"
            )
        remarks.append(f"saved by scikit-learn {original}, opened by {installed}")
    return tuple(sorted(set(remarks)))


def _estimator_in(model: Any, shown: str) -> tuple[Any, tuple[str, ...]]:  # noqa: ANN401
    """Return the estimator, also when it lies in a dict, list or tuple, and a remark on that."""
    if not isinstance(model, dict | list | tuple):
        return model, ()
    values = list(model.values()) if isinstance(model, dict) else list(model)
    estimators = [value for value in values if hasattr(value, "predict")]
    if len(estimators) != 1:
        raise AdoptionError(
            f"{shown} has a {type(model).__name__} with {len(estimators)} estimators; save the "
            "estimator itself"
        )
    return estimators[0], (f"taken from a {type(model).__name__}; what else it has is not used",)


def _converted(model: Any, shown: str, texts: list[str]) -> OpenedModel:  # noqa: ANN401
    """Convert by the library that *model* is of."""
    library = type(model).__module__.split(".")[0]
    name = type(model).__name__
    if not hasattr(model, "predict"):
        raise AdoptionError(f"{shown} has a {name} and no model; save the fitted estimator itself")
    # Converters are loaded after the file: they take seconds, and many files are refused before.
    from training.adoption.convert.boosters import open_catboost, open_lightgbm, open_xgboost
    from training.adoption.convert.pipelines import open_estimator

    if library == "lightgbm":
        if name == "Booster":
            return open_lightgbm(model, shown)
        return open_lightgbm(model.booster_, shown, getattr(model, "classes_", None))
    if library == "xgboost":
        if name == "Booster":
            return open_xgboost(model, shown)
        return open_xgboost(model.get_booster(), shown, getattr(model, "classes_", None))
    if library == "catboost":
        return open_catboost(model, shown)
    return open_estimator(model, shown, texts)
