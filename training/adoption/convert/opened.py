"""A foreign model that was opened and converted, with its own library at hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.adoption.foreign import Feed

EXTRA = "pip install 'turnout[foreign]'"
"""Installs every library that this folder calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedModel:
    """What the child knows of one model.

    origin    for example "LightGBM model".
    onnx      the graph, converted or as the file has it.
    weights   name -> content of further files, for an ONNX file with external weights.
    columns   graph input -> names of its columns, where the library has them.
    truth_by  library and version, for example "lightgbm 4.7.0"; "" for ONNX files.
    output    output of the graph whose values `score` gives.
    classes   names of the columns of *output*.
    score     the library's own scores, (N, K), of rows in the form that the graph takes.
    """

    origin: str
    onnx: bytes
    weights: Mapping[str, bytes] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    truth_by: str = ""
    output: str = ""
    classes: tuple[str, ...] = ()
    score: Callable[[Feed], NDArray[Any]] | None = None
    warnings: tuple[str, ...] = ()


def matrix(feed: Feed) -> NDArray[np.float64]:
    """Return the columns of all inputs of *feed* side by side, (N, F) float64."""
    return np.concatenate([np.asarray(part, np.float64) for part in feed.values()], axis=1)


def shown_classes(classes: Any) -> tuple[str, ...]:  # noqa: ANN401  a list or an array
    """Return the names of *classes*: 1.0 and 1 are both `1`."""
    return tuple(
        str(int(item)) if isinstance(item, float | np.floating) and item == int(item) else str(item)
        for item in classes
    )
