"""Other tools' judges, rebuilt from their sources and docs, to stand beside ours in simulations.

Never used to decide anything. Each is as its docs' examples set it up; where they leave a bound to
the user, 1 % of errors, a p99 of 1.15 times, a mean of 1.1 times production's. Their sources at
the commits named in the research: Kayenta a69573be, Argo Rollouts 9f8d111d, Flagger 15bd6ad5.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rollout.simulation.streams import ArmTraffic, TrafficSecond

ERRORS_MAX = 0.01
P99_RATIO_MAX = 1.15
MEAN_RATIO_MAX = 1.1
MINUTE_S = 60

Floats = NDArray[np.float64]


class OtherJudge(Protocol):
    """One judge. It is shown every second, and looks when its own interval is over."""

    name: str

    def judge_second(self, tick: TrafficSecond) -> str:
        """Take one second; return why it rolls back now, or empty."""
        ...


@dataclass(frozen=True, slots=True)
class Minute:
    """What a metrics store would say about one arm over a minute; NaN where nobody called."""

    calls: int
    errors: int
    p99_ns: float
    mean_ns: float

    @property
    def error_rate(self) -> float:
        """Of calls."""
        return self.errors / self.calls if self.calls else math.nan


@dataclass(slots=True)
class Minutes:
    """The minutes so far, of both arms."""

    candidate: list[Minute] = field(default_factory=list)
    baseline: list[Minute] = field(default_factory=list)
    _open_seconds: list[TrafficSecond] = field(default_factory=list)

    def add_second(self, tick: TrafficSecond) -> bool:
        """Add a second; return whether a minute is over."""
        self._open_seconds.append(tick)
        if len(self._open_seconds) < MINUTE_S:
            return False
        self.candidate.append(_minute([one.candidate for one in self._open_seconds]))
        self.baseline.append(_minute([one.baseline for one in self._open_seconds]))
        self._open_seconds.clear()
        return True

    def last(self, minutes: int) -> tuple[Minute, Minute]:
        """Return both arms' last *minutes* as one; latencies averaged by calls."""
        return _merged(self.candidate[-minutes:]), _merged(self.baseline[-minutes:])


def _minute(arms: Sequence[ArmTraffic]) -> Minute:
    errors = sum(int(arm.bad.sum()) for arm in arms)
    latency = np.concatenate([arm.latency_ns for arm in arms])
    if not len(latency):
        return Minute(0, 0, math.nan, math.nan)
    return Minute(len(latency), errors, float(np.quantile(latency, 0.99)), float(latency.mean()))


def _merged(minutes: Sequence[Minute]) -> Minute:
    calls = sum(one.calls for one in minutes)
    if not calls:
        return Minute(0, 0, math.nan, math.nan)
    told = [one for one in minutes if one.calls]
    return Minute(
        calls,
        sum(one.errors for one in minutes),
        sum(one.p99_ns * one.calls for one in told) / calls,
        sum(one.mean_ns * one.calls for one in told) / calls,
    )


class FlaggerShaped:
    """Each minute: success below 99 %, p99 beyond 1.15 x, or no values; the fifth rolls back.

    Failed checks are never taken back by good ones. Flagger's default is 1; its docs use 5 to 10.
    """

    name = "Flagger-shaped, 5 strikes"

    def __init__(self, strikes_max: int = 5) -> None:
        self._minutes = Minutes()
        self._strikes_max = strikes_max
        self._strikes = 0

    def judge_second(self, tick: TrafficSecond) -> str:
        """Look each minute."""
        if not self._minutes.add_second(tick):
            return ""
        candidate, baseline = self._minutes.last(1)
        slow = candidate.p99_ns > P99_RATIO_MAX * baseline.p99_ns
        if not candidate.calls or candidate.error_rate > ERRORS_MAX or slow:
            self._strikes += 1
        return f"{self._strikes} failed checks" if self._strikes >= self._strikes_max else ""


class ArgoShaped:
    """Each minute over the last five: errors or p99 beyond their bound; more than the limit abort.

    Failed measurements add up, consecutive or not. The default limit is 0; the docs' example has 3.
    """

    def __init__(self, failures_max: int = 3) -> None:
        self.name = f"Argo-shaped, failureLimit {failures_max}"
        self._minutes = Minutes()
        self._failures_max = failures_max
        self._failed = 0

    def judge_second(self, tick: TrafficSecond) -> str:
        """Look each minute."""
        if not self._minutes.add_second(tick):
            return ""
        candidate, baseline = self._minutes.last(5)
        slow = candidate.p99_ns > P99_RATIO_MAX * baseline.p99_ns
        self._failed += bool(candidate.calls and (candidate.error_rate > ERRORS_MAX or slow))
        return f"{self._failed} failed" if self._failed > self._failures_max else ""


class SageMakerShaped:
    """Alarms: errors beyond 1 % twice in 10 min, or mean latency beyond 1.1 x twice in 5 min."""

    name = "SageMaker-shaped"

    def __init__(self) -> None:
        self._minutes = Minutes()
        self._errors = 0
        self._slow = 0

    def judge_second(self, tick: TrafficSecond) -> str:
        """Look every 5 and every 10 minutes; missing data breaches nothing."""
        if not self._minutes.add_second(tick):
            return ""
        told = len(self._minutes.candidate)
        if told % 10 == 0:
            candidate, _ = self._minutes.last(10)
            self._errors = self._errors + 1 if candidate.error_rate > ERRORS_MAX else 0
        if told % 5 == 0:
            candidate, baseline = self._minutes.last(5)
            slow = candidate.mean_ns > MEAN_RATIO_MAX * baseline.mean_ns
            self._slow = self._slow + 1 if slow else 0
        return "alarm" if self._errors >= 2 or self._slow >= 2 else ""


class KayentaShaped:
    """Every 10 min, Mann-Whitney over all one-minute points of errors and p99."""

    name = "Kayenta-shaped, 6 looks"

    def __init__(self, every_minutes: int = 10) -> None:
        self._minutes = Minutes()
        self._every_minutes = every_minutes

    def judge_second(self, tick: TrafficSecond) -> str:
        """Classify both metrics; High on either is below the pass mark."""
        if not self._minutes.add_second(tick) or len(self._minutes.candidate) % self._every_minutes:
            return ""
        metrics: dict[str, Callable[[Minute], float]] = {
            "errors": lambda one: one.error_rate,
            "p99": lambda one: one.p99_ns,
        }
        for name, read in metrics.items():
            canary = _without_nan([read(one) for one in self._minutes.candidate])
            control = _without_nan([read(one) for one in self._minutes.baseline])
            if kayenta_classify(canary, control) == "High":
                return f"{name} High"
        return ""


OTHER_JUDGES: tuple[Callable[[], OtherJudge], ...] = (
    FlaggerShaped,
    ArgoShaped,
    lambda: ArgoShaped(0),
    SageMakerShaped,
    KayentaShaped,
)
"""A fresh judge of each shape."""


def _without_nan(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


# Kayenta's NetflixACAJudge, ported; its Mann-Whitney interval is R's wilcox.test.

CONFIDENCE = 0.98
EFFECT_TOLERANCE = 0.25
ROOT_TOLERANCE = 1e-4


def kayenta_classify(canary: Sequence[float], control: Sequence[float]) -> str:
    """Return Pass, High, Low or Nodata, as NetflixACAJudge-v1.0 does by default."""
    if not canary or not control:
        return "Nodata"
    if sorted(canary) == sorted(control) or len({*canary, *control}) == 1:
        return "Pass"
    low, high, estimate = mann_whitney_interval(canary, control)
    if low > EFFECT_TOLERANCE * abs(estimate):
        return "High"
    return "Low" if high < -EFFECT_TOLERANCE * abs(estimate) else "Pass"


def mann_whitney_interval(
    canary: Sequence[float], control: Sequence[float]
) -> tuple[float, float, float]:
    """Return (low, high, Hodges-Lehmann estimate) of the shift canary - control."""
    x, y = np.array(canary, dtype=np.float64), np.array(control, dtype=np.float64)
    if len(np.unique(x)) == 1 and len(np.unique(y)) == 1:  # they jitter constants; we do not
        shift = float(x[0] - y[0])
        return shift, shift, shift
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2)
    least, most = float(x.min() - y.max()), float(x.max() - y.min())

    def root(quantile: float) -> float:
        def beyond(shift: float) -> float:
            return _rank_z(x - shift, y) - quantile

        at_least, at_most = beyond(least), beyond(most)
        if quantile and at_least <= 0:
            return least
        if quantile and at_most >= 0:
            return most
        return find_root(least, most, at_least, at_most, beyond)

    return root(z), root(-z), root(0.0)


def _rank_z(x: Floats, y: Floats) -> float:
    """Standardised rank sum of *x*, ties counted, continuity corrected."""
    n, m = len(x), len(y)
    both = np.concatenate([x, y])
    _, places, counts = np.unique(both, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[places]
    statistic = float(ranks[:n].sum()) - n * (n + 1) / 2 - n * m / 2
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    sigma = math.sqrt(n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1))))
    if sigma == 0.0:
        return 0.0
    return (statistic - math.copysign(0.5, statistic) * (statistic != 0)) / sigma


def find_root(
    a: float, b: float, fa: float, fb: float, function: Callable[[float], float]
) -> float:
    """Return a root between *a* and *b*: Brent's method step by step as R's zeroin takes it."""
    c, fc = a, fa
    if fa == 0.0:
        return a
    for _ in range(1000):
        previous = b - a
        if abs(fc) < abs(fb):
            a, b, c = b, c, b
            fa, fb, fc = fb, fc, fb
        tolerance = 2 * np.finfo(float).eps * abs(b) + ROOT_TOLERANCE / 2
        step = (c - b) / 2
        if abs(step) <= tolerance or fb == 0.0:
            return b
        if abs(previous) >= tolerance and abs(fa) > abs(fb):
            step = _interpolated(a, b, c, fa, fb, fc, step, previous, tolerance)
        if abs(step) < tolerance:
            step = math.copysign(tolerance, step)
        a, fa = b, fb
        b += step
        fb = function(b)
        if (fb > 0 and fc > 0) or (fb < 0 and fc < 0):
            c, fc = a, fa
    return b


def _interpolated(
    a: float, b: float, c: float, fa: float, fb: float, fc: float,
    step: float, previous: float, tolerance: float,
) -> float:  # fmt: skip
    """The secant or inverse quadratic step where it is trusted; else *step*, the bisection."""
    gap = c - b
    if a == c:
        t1 = fb / fa
        p, q = gap * t1, 1.0 - t1
    else:
        q, t1, t2 = fa / fc, fb / fc, fb / fa
        p = t2 * (gap * q * (q - t1) - (b - a) * (t1 - 1.0))
        q = (q - 1.0) * (t1 - 1.0) * (t2 - 1.0)
    q, p = (-q, p) if p > 0 else (q, -p)
    trusted = p < 0.75 * gap * q - abs(tolerance * q) / 2 and p < abs(previous * q / 2)
    return p / q if trusted else step
