"""Decision rules of other tools, rebuilt from their sources and docs, to compare with our judge.

Nothing in production uses them. Each rule is set up as the examples in its tool's docs set it up.
Where the docs leave a bound to the user, the bounds are 1 % of errors, a p99 of 1.15 times
production's, and a mean latency of 1.1 times production's. The sources were read at these commits:
Kayenta a69573be, Argo Rollouts 9f8d111d, Flagger 15bd6ad5.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rollout.simulation.simulate import JudgeResult
from rollout.simulation.streams import ArmTraffic, TrafficSecond

ERRORS_MAX = 0.01
P99_RATIO_MAX = 1.15
MEAN_RATIO_MAX = 1.1
MINUTE_S = 60

Floats = NDArray[np.float64]


class OtherJudge(Protocol):
    """A decision rule that receives every second and decides when its own interval is over."""

    name: str

    def judge_second(self, tick: TrafficSecond) -> str:
        """Add one second. Return why the rule rolls back now, or an empty text."""
        ...


@dataclass(frozen=True, slots=True)
class Minute:
    """What a metrics store would report about one arm over a minute; NaN without calls."""

    calls: int
    errors: int
    p99_ns: float
    mean_ns: float

    @property
    def error_rate(self) -> float:
        """Errors per call, 0 to 1; NaN without calls."""
        return self.errors / self.calls if self.calls else math.nan


@dataclass(slots=True)
class Minutes:
    """The complete minutes of both arms, oldest first."""

    candidate: list[Minute] = field(default_factory=list)
    baseline: list[Minute] = field(default_factory=list)
    _open_seconds: list[TrafficSecond] = field(default_factory=list)

    def add_second(self, tick: TrafficSecond) -> bool:
        """Add a second. Return True if it completes a minute."""
        self._open_seconds.append(tick)
        if len(self._open_seconds) < MINUTE_S:
            return False
        self.candidate.append(_minute([second.candidate for second in self._open_seconds]))
        self.baseline.append(_minute([second.baseline for second in self._open_seconds]))
        self._open_seconds.clear()
        return True

    def last(self, minutes: int) -> tuple[Minute, Minute]:
        """Return the last *minutes* of candidate and baseline, each merged into one.

        Latencies are averages weighted by calls, as a metrics store computes them.
        """
        return _merged(self.candidate[-minutes:]), _merged(self.baseline[-minutes:])


def _minute(arms: Sequence[ArmTraffic]) -> Minute:
    errors = sum(int(arm.bad.sum()) for arm in arms)
    latency = np.concatenate([arm.latency_ns for arm in arms])
    if not len(latency):
        return Minute(0, 0, math.nan, math.nan)
    return Minute(len(latency), errors, float(np.quantile(latency, 0.99)), float(latency.mean()))


def _merged(minutes: Sequence[Minute]) -> Minute:
    calls = sum(minute.calls for minute in minutes)
    if not calls:
        return Minute(0, 0, math.nan, math.nan)
    with_calls = [minute for minute in minutes if minute.calls]
    return Minute(
        calls,
        sum(minute.errors for minute in minutes),
        sum(minute.p99_ns * minute.calls for minute in with_calls) / calls,
        sum(minute.mean_ns * minute.calls for minute in with_calls) / calls,
    )


class FlaggerShaped:
    """Checks success rate and p99 each minute and rolls back at the fifth failed check.

    A check fails below 99 % success, beyond 1.15 times production's p99, and without values.
    Good checks never cancel failed ones. Flagger's default is 1 check; its docs use 5 to 10.
    """

    name = "Flagger-shaped, 5 strikes"

    def __init__(self, strikes_max: int = 5) -> None:
        self._minutes = Minutes()
        self._strikes_max = strikes_max
        self._strikes = 0

    def judge_second(self, tick: TrafficSecond) -> str:
        """Check each minute."""
        if not self._minutes.add_second(tick):
            return ""
        candidate, baseline = self._minutes.last(1)
        slow = candidate.p99_ns > P99_RATIO_MAX * baseline.p99_ns
        if not candidate.calls or candidate.error_rate > ERRORS_MAX or slow:
            self._strikes += 1
        return f"{self._strikes} failed checks" if self._strikes >= self._strikes_max else ""


class ArgoShaped:
    """Measures error rate and p99 each minute over the last five minutes.

    It aborts when more measurements failed than the limit allows, consecutive or not. The default
    limit is 0; the example in the docs has 3.
    """

    def __init__(self, failures_max: int = 3) -> None:
        self.name = f"Argo-shaped, failureLimit {failures_max}"
        self._minutes = Minutes()
        self._failures_max = failures_max
        self._failed = 0

    def judge_second(self, tick: TrafficSecond) -> str:
        """Measure each minute."""
        if not self._minutes.add_second(tick):
            return ""
        candidate, baseline = self._minutes.last(5)
        slow = candidate.p99_ns > P99_RATIO_MAX * baseline.p99_ns
        self._failed += bool(candidate.calls and (candidate.error_rate > ERRORS_MAX or slow))
        return f"{self._failed} failed" if self._failed > self._failures_max else ""


class SageMakerShaped:
    """Alarms when a metric breaches its bound in two consecutive periods.

    Errors breach beyond 1 % in a period of 10 minutes, mean latency beyond 1.1 times production's
    in a period of 5 minutes.
    """

    name = "SageMaker-shaped"

    def __init__(self) -> None:
        self._minutes = Minutes()
        self._errors = 0
        self._slow = 0

    def judge_second(self, tick: TrafficSecond) -> str:
        """Check every 5 and every 10 minutes. A period without data does not breach."""
        if not self._minutes.add_second(tick):
            return ""
        minutes = len(self._minutes.candidate)
        if minutes % 10 == 0:
            candidate, _ = self._minutes.last(10)
            self._errors = self._errors + 1 if candidate.error_rate > ERRORS_MAX else 0
        if minutes % 5 == 0:
            candidate, baseline = self._minutes.last(5)
            slow = candidate.mean_ns > MEAN_RATIO_MAX * baseline.mean_ns
            self._slow = self._slow + 1 if slow else 0
        return "alarm" if self._errors >= 2 or self._slow >= 2 else ""


class KayentaShaped:
    """Compares all one-minute values of errors and p99 by Mann-Whitney, every 10 minutes."""

    name = "Kayenta-shaped, 6 looks"

    def __init__(self, every_minutes: int = 10) -> None:
        self._minutes = Minutes()
        self._every_minutes = every_minutes

    def judge_second(self, tick: TrafficSecond) -> str:
        """Classify both metrics. High on either metric is below the pass mark."""
        if not self._minutes.add_second(tick) or len(self._minutes.candidate) % self._every_minutes:
            return ""
        metrics: dict[str, Callable[[Minute], float]] = {
            "errors": lambda minute: minute.error_rate,
            "p99": lambda minute: minute.p99_ns,
        }
        for name, read in metrics.items():
            canary = _without_nan([read(minute) for minute in self._minutes.candidate])
            control = _without_nan([read(minute) for minute in self._minutes.baseline])
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
"""Each call makes a judge that has seen nothing yet."""


def judge_with_others(ticks: Iterable[TrafficSecond]) -> list[JudgeResult]:
    """Return the result of each of OTHER_JUDGES on the same seconds."""
    judges = [make_judge() for make_judge in OTHER_JUDGES]
    ended: dict[str, JudgeResult] = {}
    calls = second = 0
    for tick in ticks:
        calls += tick.candidate.calls
        second = tick.second + 1
        for judge in judges:
            if judge.name not in ended and (reason := judge.judge_second(tick)):
                ended[judge.name] = JudgeResult(judge.name, "rolled back", second, calls, reason)
        if len(ended) == len(judges):
            break
    return [
        ended.get(judge.name, JudgeResult(judge.name, "undecided", second, calls))
        for judge in judges
    ]


def _without_nan(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


# Kayenta's NetflixACAJudge, ported. Its Mann-Whitney interval is that of R's wilcox.test.

CONFIDENCE = 0.98
EFFECT_TOLERANCE = 0.25
ROOT_TOLERANCE = 1e-4
"""The tolerance with which wilcox.test calls R's uniroot."""


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
    from scipy.optimize import brentq  # it takes a second to import

    # Kayenta adds jitter to constants. Without jitter the shift of two constants is exact.
    if len(np.unique(x)) == 1 and len(np.unique(y)) == 1:
        shift = float(x[0] - y[0])
        return shift, shift, shift
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2)
    least, most = float(x.min() - y.max()), float(x.max() - y.min())

    def root(quantile: float) -> float:
        def beyond(shift: float) -> float:
            return _rank_z(x - shift, y) - quantile

        if quantile and beyond(least) <= 0:
            return least
        if quantile and beyond(most) >= 0:
            return most
        # R's uniroot is Brent's method with the same stopping rule, so the digits agree.
        return float(brentq(beyond, least, most, xtol=ROOT_TOLERANCE))

    return root(z), root(-z), root(0.0)


def _rank_z(x: Floats, y: Floats) -> float:
    """Return the standardised rank sum of *x*, with ties counted and continuity corrected."""
    n, m = len(x), len(y)
    both = np.concatenate([x, y])
    _, positions, counts = np.unique(both, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[positions]
    statistic = float(ranks[:n].sum()) - n * (n + 1) / 2 - n * m / 2
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    sigma = math.sqrt(n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1))))
    if sigma == 0.0:
        return 0.0
    return (statistic - math.copysign(0.5, statistic) * (statistic != 0)) / sigma
