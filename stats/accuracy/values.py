"""How good predicted values are: mean, absolute and squared error, and coverage of quantiles.

An error is predicted - actual, as in training.evaluation.task_metrics. Sums of errors add over
hosts, hours and segments.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.probabilities import ROWS_NEEDED
from stats.figure import Figure, no_figure, normal_figure, not_enough, wilson_figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ErrorSums:
    """Sums over rows: the number of rows, and errors e, |e|, e^2 and e^4.

    fourths  None: they were not counted, and then the root mean squared error has no interval.

    Raises ValueError for a sum that is not finite or cannot be one of n rows.
    """

    n: int
    errors: float
    absolute: float
    squares: float
    fourths: float | None = None

    def __post_init__(self) -> None:
        sizes = (self.absolute, self.squares, self.fourths or 0.0)
        if not all(math.isfinite(total) for total in (self.errors, *sizes)):
            raise ValueError(f"{self}: a NaN or an infinite error is no error; leave its row out")
        if self.n < 0 or min(sizes) < 0:
            raise ValueError(f"{self}: rows and sums of sizes are not negative")

    def __add__(self, other: "ErrorSums") -> "ErrorSums":
        counted = self.fourths is not None and other.fourths is not None
        return ErrorSums(
            self.n + other.n,
            self.errors + other.errors,
            self.absolute + other.absolute,
            self.squares + other.squares,
            (self.fourths or 0.0) + (other.fourths or 0.0) if counted else None,
        )


def sum_errors(actual: Floats, predicted: Floats) -> ErrorSums:
    """Return the sums over rows of *actual* and *predicted*, (N,) float64 each."""
    if len(actual) != len(predicted):
        raise ValueError(f"{len(actual)} values for {len(predicted)} predictions: one each")
    errors = predicted.astype(np.float64) - actual
    squares = errors**2
    return ErrorSums(
        len(errors),
        float(errors.sum()),
        float(np.abs(errors).sum()),
        float(squares.sum()),
        float((squares**2).sum()),
    )


def value_figures(sums: ErrorSums) -> dict[str, Figure]:
    """Return mean absolute error, root mean squared error and bias, in the unit of the values.

    bias  the mean error.
    """
    n = sums.n
    if lacking := not_enough(n, ROWS_NEEDED):
        return {name: no_figure(n, lacking) for name in ("mae", "rmse", "bias")}
    mae, bias, square = sums.absolute / n, sums.errors / n, sums.squares / n
    # Each is a mean with a standard error of its own; that of a root follows from its square.
    mae_error = math.sqrt(max(square - mae * mae, 0.0) / (n - 1))
    bias_error = math.sqrt(max(square - bias * bias, 0.0) / (n - 1))
    rmse = no_figure(n, "the sums have no fourth powers of errors, which its interval needs")
    if sums.fourths is not None:
        spread = max(sums.fourths / n - square * square, 0.0)
        squares = normal_figure(square, math.sqrt(spread / (n - 1)), n, lowest=0.0)
        root, low, high = (math.sqrt(end) for end in squares.bounds())
        rmse = Figure(root, low, high, n)
    return {
        "mae": normal_figure(mae, mae_error, n, lowest=0.0),
        "rmse": rmse,
        "bias": normal_figure(bias, bias_error, n),
    }


def coverage_figure(below: int, n: int) -> Figure:
    """Return the share of rows whose value was at or below a predicted quantile.

    For the quantile .9 a share of .9 is right.
    """
    return wilson_figure(below, n, needed=ROWS_NEEDED)
