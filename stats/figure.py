"""A figure of a model in service: an estimate with its interval, or the reason why there is none.

Every metric of accuracy, business and fairness is returned as a `Figure`, so that no caller can
show a number that rests on too few rows.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

LEVEL = 0.95
"""Probability with which an interval covers what it estimates, looked at once."""
Z = NormalDist().inv_cdf((1.0 + LEVEL) / 2.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimate with its 95 % interval. All three are None where `lacking` says why.

    n       the rows, people or calls that the estimate rests on.
    lacking  "" or a sentence, such as "not enough data: 12 of 30 rows needed".
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    lacking: str = ""

    @property
    def known(self) -> bool:
        """True if there is a number."""
        return self.value is not None

    def definition(self) -> dict[str, Any]:
        """Return the figure as JSON values."""
        shown: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        return {**shown, "n": self.n, **({"lacking": self.lacking} if self.lacking else {})}

    def bounds(self) -> tuple[float, float, float]:
        """Return value, low and high. Raises ValueError if there is no number."""
        if self.value is None or self.low is None or self.high is None:
            raise ValueError(f"there is no number to compute with: {self.lacking}")
        return self.value, self.low, self.high


def no_figure(n: int, reason: str) -> Figure:
    """Return a figure without a number, and the *reason* for people."""
    return Figure(None, None, None, n, reason)


def not_enough(n: float, needed: int, of: str = "rows") -> str:
    """Return the sentence that *n* of *needed* are there, or "" if they are enough.

    >>> not_enough(12, 30), not_enough(30, 30)
    ('not enough data: 12 of 30 rows needed', '')
    """
    return "" if n >= needed else f"not enough data: {int(n)} of {needed} {of} needed"


def normal_figure(
    value: float,
    error: float,
    n: int,
    *,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> Figure:
    """Return value +- 1.96 standard errors, cut at the range of the metric.

    Raises ValueError for a value or an error that is not finite.
    """
    if not (math.isfinite(value) and math.isfinite(error) and error >= 0.0):
        raise ValueError(f"value {value} with standard error {error} is no estimate")
    low, high = max(value - Z * error, lowest), min(value + Z * error, highest)
    return Figure(value, min(low, value), max(high, value), n)


def wilson_figure(hits: float, n: float, *, needed: int = 1, of: str = "rows") -> Figure:
    """Return the share *hits* / *n* with Wilson's interval (JASA 22, 1927).

    Counts may be expected counts, and so need not be whole. Raises ValueError unless
    0 <= hits <= n.
    """
    if not 0.0 <= hits <= n * (1 + 1e-9) or not math.isfinite(n):
        raise ValueError(f"{hits} of {n}: a share has between none and all of its {of}")
    if lacking := not_enough(n, max(needed, 1), of):
        return no_figure(int(n), lacking)
    share = min(hits / n, 1.0)
    width = 1.0 + Z * Z / n
    middle = (share + Z * Z / (2 * n)) / width
    half = Z / width * math.sqrt(share * (1.0 - share) / n + Z * Z / (4 * n * n))
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return Figure(share, min(low, share), max(high, share), int(n))


Ends = tuple[float, float, float]
"""A value with the low and the high end of its interval."""


def ends_of_difference(ends: Ends, other: Ends) -> Ends:
    """Return value, low and high of the difference of two independent estimates.

    Each end takes the distances of both values to their ends, added as variances are (the method of
    variance estimates recovery: Zou and Donner, Statistics in Medicine 27, 2008). Intervals need
    not be symmetric.
    """
    gap = ends[0] - other[0]
    down = math.hypot(ends[0] - ends[1], other[2] - other[0])
    up = math.hypot(ends[2] - ends[0], other[0] - other[1])
    return gap, gap - down, gap + up


def figure_difference(figure: Figure, other: Figure) -> Figure:
    """Return *figure* - *other*, two independent figures.

    If one of them has no number, neither has the difference, and it has the reason of that one.
    """
    n = min(figure.n, other.n)
    if not figure.known or not other.known:
        return no_figure(n, figure.lacking or other.lacking)
    return Figure(*ends_of_difference(figure.bounds(), other.bounds()), n)
