"""Certifies that a foreign graph scores as the library that its model comes from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.golden import ScoreTolerance
from registry.scoring import allowed_differences, score_differences
from training.adoption.certificate import usual_tolerance
from training.adoption.foreign import Adaptation, Feed, ForeignModel, Transform
from training.adoption.foreign_session import ForeignSession
from training.errors import AdoptionError

FRACTIONS_BELOW = 2.0**23
"""Above it a float32 has no fractions, so that a threshold between two values cannot be written."""
THRESHOLD = 0.5
"""The decision threshold, if no other is given."""


@dataclass(frozen=True, slots=True)
class LibraryCertificate:
    """A library and its graph gave the same scores, within the tolerance.

    library           for example "lightgbm 4.6.0"; "" if there is none: the file is a graph.
    sample_rows       rows of the sample that both scored.
    edge_rows         rows at thresholds, words and missing values that both scored.
    difference_max    the largest difference.
    tolerance         how far they may differ.
    rounded_rows      sample rows of which float32 rounds a number; 0 if that is not known.
    rounding_flips    sample rows that get another decision because of that.
    rounding_max      the largest difference of scores because of that.
    """

    library: str
    sample_rows: int
    edge_rows: int
    difference_max: float
    tolerance: ScoreTolerance
    rounded_rows: int = 0
    rounding_flips: int = 0
    rounding_max: float = 0.0

    def definition(self) -> dict[str, Any]:
        """Return the certificate as JSON values, for the card."""
        return {
            "library": self.library,
            "sample_rows": self.sample_rows,
            "edge_rows": self.edge_rows,
            "difference_max": self.difference_max,
            "tolerance": {
                "absolute": self.tolerance.absolute,
                "relative": self.tolerance.relative,
            },
            "rounded_rows": self.rounded_rows,
            "rounding_flips": self.rounding_flips,
            "rounding_max": self.rounding_max,
        }


def certify_library(
    model: ForeignModel,
    adaptation: Adaptation,
    *,
    exact: Feed | None = None,
    tolerance: ScoreTolerance | None = None,
    threshold: float = THRESHOLD,
) -> LibraryCertificate:
    """Compare `ForeignModel.truth` with the graph, for the served columns, after the transform.

    exact      the sample rows as they were given, input -> (sample_rows, C), before numbers were
               rounded to float32. Without a library the graph says what the rounding changes.
    tolerance  None: `usual_tolerance` of the library's scores.
    threshold  of decisions: a single score at or above it. Of several outputs the decision is the
               largest.

    The graph is run, so this belongs in a child process with limits. Raises AdoptionError, which
    names the row, both scores and the probable cause.
    """
    session = ForeignSession(model.onnx)
    served = _Served(session, adaptation)
    # What rounding to float32 changes is said for graphs without a library, too.
    rounding = _rounding(model, served, exact, threshold)
    if adaptation.output not in model.truth:
        return LibraryCertificate("", 0, 0, 0.0, tolerance or ScoreTolerance(0.0, 0.0), *rounding)
    # Compare the library and the graph on the same rows.
    truth = served.columns(model.truth[adaptation.output])
    scores = served.scores(model.rows)
    within = tolerance or usual_tolerance(truth[: model.sample_rows].astype(np.float32))
    # NaN on both sides is equal, and NaN on one side is an infinite difference.
    expected = truth.astype(np.float32)
    differences = score_differences(scores.astype(np.float32), expected)
    excess = differences - allowed_differences(within, expected)
    # Name the worst row.
    row = int(np.argmax(excess.max(axis=1)))
    if excess[row].max() > 0:
        over = int((excess.max(axis=1) > 0).sum())
        column = int(np.argmax(excess[row]))
        raise AdoptionError(
            f"{over} of {len(truth)} rows score differently by {model.truth_by} and by the graph. "
            f"Row {row} ({_shown(model.rows, row)}) scores {truth[row, column]:.9g} by "
            f"{model.truth_by} and {scores[row, column]:.9g} by the graph; they may differ by "
            f"{within.absolute:.3g} + {within.relative:.3g} of the score. "
            f"{_cause(model, row)}"
        )
    return LibraryCertificate(
        model.truth_by,
        model.sample_rows,
        len(truth) - model.sample_rows,
        float(differences.max(initial=0.0)),
        within,
        *rounding,
    )


class _Served:
    """The columns of the served output, transformed and selected."""

    def __init__(self, session: ForeignSession, adaptation: Adaptation) -> None:
        self._session = session
        self._adaptation = adaptation
        self.output = adaptation.output

    def scores(self, feed: Feed) -> NDArray[np.float64]:
        """Return (N, K) scores of the graph. AdoptionError if it refuses the rows."""
        try:
            columns = self._session.run(feed, self._adaptation.output)
        except AdoptionError:
            raise
        except Exception as error:
            raise AdoptionError(
                f"the graph does not score the rows that the library scored: {str(error)[:300]}"
            ) from error
        return self.columns(columns)

    def columns(self, columns: NDArray[Any]) -> NDArray[np.float64]:
        """Return (N, K) of (N,) or (N, C) values of the output."""
        values = np.asarray(columns, dtype=np.float64)
        values = values[:, np.newaxis] if values.ndim == 1 else values
        values = transformed(values, self._adaptation.transform)
        served: NDArray[np.float64] = values[:, list(self._adaptation.selected)]
        return served


def transformed(values: NDArray[np.float64], transform: Transform) -> NDArray[np.float64]:
    """Return (N, C) values after a transform of the columns of each row."""
    if transform == "none":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        if transform == "sigmoid":
            return 1 / (1 + np.exp(-values))
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        sums: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return sums


def _rounding(
    model: ForeignModel, served: _Served, exact: Feed | None, threshold: float
) -> tuple[int, int, float]:
    """Return how many sample rows float32 rounds, how many decisions that changes, and how far."""
    count = model.sample_rows
    rounded = {name: values[:count] for name, values in model.rows.items()}
    changed = np.zeros(count, dtype=bool)
    for name, values in (exact or {}).items():
        if values.dtype.kind in "fiu":
            missing = np.isnan(values) if values.dtype.kind == "f" else False
            changed |= ~((values == rounded[name]) | missing).all(axis=1)
    # Scores before and after rounding, by the library or else by the graph.
    truth = model.truth_exact.get(served.output)
    if truth is not None:
        before = served.columns(truth)
        after = served.columns(model.truth[served.output])[:count]
    elif exact is not None and changed.any():
        before, after = served.scores(exact), served.scores(rounded)
    else:
        return int(changed.sum()), 0, 0.0
    flips = _decisions(before, threshold) != _decisions(after, threshold)
    differences = score_differences(before.astype(np.float32), after.astype(np.float32))
    return int(changed.sum()), int(flips.sum()), float(differences.max(initial=0.0))


def _decisions(scores: NDArray[np.float64], threshold: float) -> NDArray[Any]:
    """Return the decision of each row, (N, K) scores: above the threshold, or the largest."""
    if scores.shape[1] == 1:
        above: NDArray[np.bool_] = scores[:, 0] >= threshold
        return above
    largest: NDArray[np.intp] = np.argmax(scores, axis=1)
    return largest


def _cause(model: ForeignModel, row: int) -> str:
    """Return the probable cause of a difference in a row, with the way out."""
    # Look at the row's values.
    large = [
        f"{name}[{column}] = {value:.12g}"
        for name, values in model.rows.items()
        if values.dtype.kind in "fiu"
        for column, value in enumerate(values[row].astype(np.float64).tolist())
        if FRACTIONS_BELOW <= abs(value) < np.inf
    ]
    missing = any(
        np.isnan(values[row]).any() for values in model.rows.values() if values.dtype.kind == "f"
    )
    # The most probable cause comes first.
    if missing:
        return (
            "The row has NaN, and the converter treats missing values otherwise than the library "
            "(forests of scikit-learn do so). Give the column a default in its view, and convert "
            "with rows that have none"
        )
    if large:
        return (
            f"The row has {large[0]}, and float32 has no fractions above 2^23 = 8,388,608, so the "
            "thresholds of trees move onto values. Subtract a constant from the column, or divide "
            "it, before the fit"
        )
    if row >= model.sample_rows:
        return (
            "The row stands on a threshold of a tree, and the converter rounds thresholds of "
            "float64 to the nearest float32, past the row's value. Fit on float32 values, and "
            "round thresholds down before the conversion"
        )
    return (
        "The converter computes something else than the library, for example a scaler in float32 "
        "before trees. Leave out scalers before trees, or export with float64 inputs"
    )


def _shown(rows: Feed, row: int) -> str:
    """A row for a message: the first values of each input."""
    return "; ".join(
        f"{name}: {', '.join(str(value) for value in values[row][:6].tolist())}"
        for name, values in list(rows.items())[:8]
    )
