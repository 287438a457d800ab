"""Simulated traffic of two arms, second by second, under named scenarios.

Every call is drawn at random: its key, whether it fails and how, its latency, and the bins of its
score. A second of traffic is turned into the windows that a gateway would send. Benchmarks also
turn it into the sums that other tools' judges use.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from protos import predict_pb2, window_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.inbox import ClosedSecond
from rollout.policy.policy import GoodOutcome
from stats.latency import latency_bins

STREAM_START_S = 1_790_000_000
"""Unix second at which every simulated stream begins."""
NS = 1_000_000_000
BINS = 20
NAN_BIN = BINS
CERTIFIED_ROWS = 20_000
"""Held-out rows behind an approved shift."""
RETRAINING_NOISE_SD = 0.3
"""Noise between the scores of production and of a retrained candidate, in standard deviations."""
MEDIAN_LATENCY_NS = 20e6
LATENCY_SIGMA = 0.5
"""Latency is lognormal with a median of 20 ms; its p99 is 64 ms."""

GOOD_OUTCOME = GoodOutcome(name="bought", at_least=1.0, trust_anonymous=True)
"""The good outcome of the simulated customers."""

Keys = NDArray[np.uint64]
Bins = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How one arm answers. Rates are parts of the calls, 0 to 1."""

    errors: float = 0.001
    nan: float = 0.0
    timeouts: float = 0.0005
    latency_factor: float = 1.0
    """Factor of the latency of all calls."""
    tail_factor: float = 1.0
    """Further factor of the slowest 5 % of the calls."""
    shift_sd: float = 0.0
    """Shift of the scores from the approved ones, in standard deviations."""
    constant: bool = False
    missing: float = 0.0
    """Part of the rows whose features are missing."""
    outcome: float = 0.03
    """Part of the keys with the good outcome."""


HEALTHY = Behaviour()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The behaviour of both arms, and when it begins."""

    name: str
    description: str
    candidate: Behaviour = HEALTHY
    baseline: Behaviour = HEALTHY
    onset_s: int = 0
    """Seconds during which both arms are HEALTHY first."""
    calls_a_second: float = 100.0
    certified_rows: int = CERTIFIED_ROWS
    """Rows behind the approved shift; 0: no shift was approved."""

    def behaviours_at(self, second: int) -> tuple[Behaviour, Behaviour]:
        """Return the behaviour of candidate and baseline in *second* since the start."""
        return (self.candidate, self.baseline) if second >= self.onset_s else (HEALTHY, HEALTHY)


def _faulty_scenario(name: str, description: str, candidate: Behaviour) -> Scenario:
    return Scenario(name=name, description=description, candidate=candidate)


FAULTLESS = Behaviour(errors=0.0, timeouts=0.0)
SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="healthy", description="a retrained candidate, as good as production"),
        Scenario(
            name="spotless",
            description="no failure in either arm",
            candidate=FAULTLESS,
            baseline=FAULTLESS,
        ),
        _faulty_scenario("errors-1", "errors .1 -> 1 %", Behaviour(errors=0.01)),
        _faulty_scenario("errors-5", "errors .1 -> 5 %", Behaviour(errors=0.05)),
        _faulty_scenario("failing", "every call fails", Behaviour(errors=1.0)),
        _faulty_scenario("nan", "every score is NaN", Behaviour(nan=1.0)),
        _faulty_scenario("constant", "one score for everybody", Behaviour(constant=True)),
        _faulty_scenario("slow", "latency x 1.2", Behaviour(latency_factor=1.2)),
        _faulty_scenario("slow-tail", "p99 + 20 %, p50 as before", Behaviour(tail_factor=1.2)),
        _faulty_scenario(
            "shifted-small", "scores .1 sd off the certificate", Behaviour(shift_sd=0.1)
        ),
        _faulty_scenario("shifted", "scores 1 sd off the certificate", Behaviour(shift_sd=1.0)),
        _faulty_scenario("outcome", "outcome 3 -> 2 %", Behaviour(outcome=0.02)),
        Scenario(
            name="late-errors",
            description="errors .1 -> 1 % after 30 min",
            candidate=Behaviour(errors=0.01),
            onset_s=1800,
        ),
        Scenario(name="silent", description="no calls arrive", calls_a_second=0.0),
        Scenario(
            name="baseline-bad",
            description="production alone fails, on 5 %",
            baseline=Behaviour(errors=0.05),
        ),
        Scenario(
            name="both-bad",
            description="both fail on 5 %",
            candidate=Behaviour(errors=0.05),
            baseline=Behaviour(errors=0.05),
            onset_s=60,
        ),
        Scenario(name="uncertified", description="an unapproved difference", certified_rows=0),
    )
}


@dataclass(frozen=True, slots=True)
class ArmTraffic:
    """The N calls of one arm in one second, as (N,) columns."""

    keys: Keys
    failed: NDArray[np.bool_]
    nan: NDArray[np.bool_]
    timed_out: NDArray[np.bool_]
    latency_ns: NDArray[np.int64]
    champion_bin: Bins
    """Production's score bin of the same row."""
    bin: Bins
    missing: int
    outcomes: Keys
    """Keys whose good outcome is reported in this second."""

    @property
    def calls(self) -> int:
        """The number of calls, N."""
        return len(self.keys)

    @property
    def bad(self) -> NDArray[np.bool_]:
        """(N,) bool: the call had no good answer."""
        return self.failed | self.nan | self.timed_out


@dataclass(frozen=True, slots=True)
class TrafficSecond:
    """One second of both arms, and the candidate's share in it."""

    second: int
    share: float
    candidate: ArmTraffic
    baseline: ArmTraffic


class TrafficStream:
    """The traffic of one rollout. `share` may be set between two seconds, as a split moves."""

    def __init__(self, scenario: Scenario, share: float, seed: int) -> None:
        self.scenario = scenario
        self.share = share
        self._rng = np.random.default_rng(seed)
        self.shift = (
            simulated_shift(seed, scenario.certified_rows) if scenario.certified_rows else None
        )

    def seconds_of_traffic(self, seconds: int) -> Iterator[TrafficSecond]:
        """Yield *seconds* seconds of traffic."""
        for second in range(seconds):
            candidate, baseline = self.scenario.behaviours_at(second)
            rate = self.scenario.calls_a_second
            yield TrafficSecond(
                second,
                self.share,
                self._draw_arm(candidate, rate * self.share, of_candidate=True),
                self._draw_arm(baseline, rate * (1 - self.share), of_candidate=False),
            )

    def _draw_arm(
        self, behaviour: Behaviour, calls_a_second: float, *, of_candidate: bool
    ) -> ArmTraffic:
        # Calls, and whether each fails, gives NaN or times out.
        rng = self._rng
        calls = int(rng.poisson(calls_a_second))
        keys = rng.integers(0, 2**64, calls, dtype=np.uint64)
        uniform = rng.random(calls)
        failed = uniform < behaviour.errors
        nan = (uniform >= behaviour.errors) & (uniform < behaviour.errors + behaviour.nan)
        failed_or_nan = behaviour.errors + behaviour.nan
        timed_out = (uniform >= failed_or_nan) & (uniform < failed_or_nan + behaviour.timeouts)
        # Scores: the candidate's differ from production's by noise and by the scenario's shift.
        z = rng.standard_normal(calls)
        champion_bins = simulated_score_bins(z)
        bins = champion_bins
        if of_candidate:
            moved = z + RETRAINING_NOISE_SD * rng.standard_normal(calls) + behaviour.shift_sd
            bins = np.full(calls, 7) if behaviour.constant else simulated_score_bins(moved)
        return ArmTraffic(
            keys=keys,
            failed=failed,
            nan=nan,
            timed_out=timed_out,
            latency_ns=draw_latencies(rng, calls, behaviour),
            champion_bin=champion_bins,
            bin=bins,
            missing=int(rng.binomial(calls, behaviour.missing)),
            outcomes=keys[rng.random(calls) < behaviour.outcome],
        )


def draw_latencies(rng: np.random.Generator, calls: int, behaviour: Behaviour) -> NDArray[np.int64]:
    """Return (calls,) int64 latencies in ns."""
    z = rng.standard_normal(calls)
    slow = np.where(z > TAIL_Z, behaviour.tail_factor, 1.0)
    return np.asarray(
        MEDIAN_LATENCY_NS * behaviour.latency_factor * slow * np.exp(LATENCY_SIGMA * z)
    ).astype(np.int64)


TAIL_Z = NormalDist().inv_cdf(0.95)
"""Where the slowest 5 % begin. If they are 20 % slower, p99 grows by 20 %, and p50 and p90 stay."""
SCORE_EDGES = np.array([NormalDist().inv_cdf(part / BINS) for part in range(1, BINS)])
"""(19,) quantiles of production's scores, which make 20 bins of 5 % each."""


def simulated_score_bins(z: NDArray[np.float64]) -> Bins:
    """Return the (N,) reference bin of each standard normal score."""
    return np.searchsorted(SCORE_EDGES, z, side="left")


@cache
def simulated_shift(seed: int, rows: int) -> ApprovedShift:
    """Return the approved shift of a retrained candidate, measured on *rows* held-out rows."""
    rng = np.random.default_rng((seed, 1))
    z = rng.standard_normal(rows)
    bins = simulated_score_bins(z + RETRAINING_NOISE_SD * rng.standard_normal(rows))
    joint = np.bincount(simulated_score_bins(z) * BINS + bins, minlength=BINS**2).reshape(
        BINS, BINS
    )
    return ApprovedShift(digest=f"simulated-{seed}", counts=joint, flip_rate=0.1)


def traffic_windows(
    tick: TrafficSecond,
    revision: int,
    *,
    candidate: str = "2",
    baseline: str = "1",
    watch: bool = False,
) -> list[window_pb2.Window]:
    """Return the windows that a gateway would send for *tick*.

    candidate, baseline  labels of the versions.
    watch                whether the candidate is production, and the baseline its standby.
    """
    arms = ("ARM_PRODUCTION", "ARM_STANDBY") if watch else ("ARM_CANARY", "ARM_PRODUCTION")
    by_arm = ((tick.candidate, arms[0], candidate), (tick.baseline, arms[1], baseline))
    second = STREAM_START_S + tick.second
    windows = [
        _window(arm, kind, version, revision, second) for arm, kind, version in by_arm if arm.calls
    ]
    windows += [
        _outcome_window(arm, kind, version, revision, second)
        for arm, kind, version in by_arm
        if len(arm.outcomes)
    ]
    return windows


def as_closed_second(tick: TrafficSecond, revision: int, *, watch: bool = False) -> ClosedSecond:
    """Return *tick* as the closed second of an inbox."""
    return ClosedSecond(
        STREAM_START_S + tick.second, revision, tuple(traffic_windows(tick, revision, watch=watch))
    )


def _outcome_window(
    arm: ArmTraffic, kind: str, version: str, revision: int, second: int
) -> window_pb2.Window:
    """Return the window in which the good outcomes of one arm are reported."""
    window = window_pb2.Window(model="simulated", version=version, revision=revision, second=second)
    window.outcomes.add(
        role=predict_pb2.CANARY if kind == "ARM_CANARY" else predict_pb2.PRODUCTION,
        name=GOOD_OUTCOME.name,
        key_hash=arm.outcomes.tolist(),
        value=[1.0] * len(arm.outcomes),
    )
    return window


def _window(
    arm: ArmTraffic, kind: str, version: str, revision: int, second: int
) -> window_pb2.Window:
    # Counts.
    bad = arm.bad
    any_bad = bool(bad.any())
    window = window_pb2.Window(
        model="simulated",
        version=version,
        arm=kind,
        revision=revision,
        second=second,
        rows=arm.calls,
        sampled_of_65536=65_536,
        features=window_pb2.FeatureCounts(missing=arm.missing),
        calls=window_pb2.CallCounts(
            answered=int((~bad).sum()),
            faulty=int(arm.failed.sum()),
            nan=int(arm.nan.sum()),
            late=int(arm.timed_out.sum()),
            fallbacks=int(bad.sum()) if kind == "ARM_CANARY" else 0,
        ),
        first_bad_unix_ns=second * NS if any_bad else 0,
        last_bad_unix_ns=second * NS + NS - 1 if any_bad else 0,
    )
    # Records of the keys that failed, by metric.
    for metric, hit in (
        (window_pb2.METRIC_ERROR, arm.failed),
        (window_pb2.METRIC_SCHEMA, arm.nan),
        (window_pb2.METRIC_TIMEOUT, arm.timed_out),
    ):
        if hit.any():
            keys = arm.keys[hit].tolist()
            window.records.add(
                metric=window_pb2.Metric.Name(metric), key_hash=keys, bin=[0] * len(keys)
            )
    # Records of the keys with a good answer: scores and latencies.
    good = ~bad
    if good.any():
        keys = arm.keys[good].tolist()
        production_bins = arm.champion_bin[good].tolist() if kind == "ARM_CANARY" else []
        window.records.add(
            metric="METRIC_SCORE",
            key_hash=keys,
            bin=arm.bin[good].tolist(),
            production_bin=production_bins,
        )
        latencies = latency_bins(arm.latency_ns[good]).tolist()
        window.records.add(metric="METRIC_LATENCY", key_hash=keys, bin=latencies)
    return window
