"""Made-up traffic of two arms, a second at a time: what each scenario does to a candidate.

Every call is drawn: its key, whether it fails and how, its latency, the bins of its score. One
stream is turned into the very windows that a gateway would send, and into the sums that other
tools' judges look at.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from protos import predict_pb2, window_pb2
from rollout.evidence.approved_shift import Shift
from rollout.evidence.inbox import Second
from rollout.policy.policy import GoodOutcome
from stats.latency import bins_of

START = 1_790_000_000
"""Unix second at which every stream begins."""
NS = 1_000_000_000
BINS = 20
NAN_BIN = BINS
CERTIFIED_ROWS = 20_000
"""Held-out rows behind a certificate."""
RETRAINED = 0.3
"""Standard deviations of noise between production's score and a retrained candidate's."""
LATENCY_NS = 20e6
SIGMA = 0.5
"""Latency is lognormal about a median of 20 ms; its p99 is 64 ms."""

GOOD = GoodOutcome(name="bought", at_least=1.0)
"""What the made-up customers do, or do not."""

Keys = NDArray[np.uint64]
Bins = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How one arm answers."""

    errors: float = 0.001
    nan: float = 0.0
    timeouts: float = 0.0005
    latency: float = 1.0
    """All calls take so many times as long ..."""
    tail: float = 1.0
    """... and the slowest in a hundred so many times as long again."""
    shift_sd: float = 0.0
    """Scores beyond what was certified, in standard deviations."""
    constant: bool = False
    missing: float = 0.0
    """Rows whose features are missing."""
    outcome: float = 0.03
    """Keys with the good outcome."""


HEALTHY = Behaviour()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What both arms do, and when it begins."""

    name: str
    words: str
    candidate: Behaviour = HEALTHY
    baseline: Behaviour = HEALTHY
    onset_s: int = 0
    """Until then both arms are HEALTHY."""
    calls_a_second: float = 100.0
    certified_rows: int = CERTIFIED_ROWS
    """0: nobody certified what would change."""

    def at(self, second: int) -> tuple[Behaviour, Behaviour]:
        """Return (candidate, baseline) in a second since the start."""
        return (self.candidate, self.baseline) if second >= self.onset_s else (HEALTHY, HEALTHY)


def _bad(name: str, words: str, candidate: Behaviour) -> Scenario:
    return Scenario(name=name, words=words, candidate=candidate)


CLEAN = Behaviour(errors=0.0, timeouts=0.0)
SCENARIOS: dict[str, Scenario] = {
    one.name: one
    for one in (
        Scenario(name="healthy", words="a retrained candidate, as good as production"),
        Scenario(
            name="spotless", words="no failure in either arm", candidate=CLEAN, baseline=CLEAN
        ),
        _bad("errors-1", "errors .1 -> 1 %", Behaviour(errors=0.01)),
        _bad("errors-5", "errors .1 -> 5 %", Behaviour(errors=0.05)),
        _bad("failing", "every call fails", Behaviour(errors=1.0)),
        _bad("nan", "every score is NaN", Behaviour(nan=1.0)),
        _bad("constant", "one score for everybody", Behaviour(constant=True)),
        _bad("slow", "latency x 1.2", Behaviour(latency=1.2)),
        _bad("slow-tail", "p99 + 20 %, p50 as before", Behaviour(tail=1.2)),
        _bad("shifted-small", "scores .1 sd off the certificate", Behaviour(shift_sd=0.1)),
        _bad("shifted", "scores 1 sd off the certificate", Behaviour(shift_sd=1.0)),
        _bad("outcome", "outcome 3 -> 2 %", Behaviour(outcome=0.02)),
        Scenario(
            name="late-errors",
            words="errors .1 -> 1 % after 30 min",
            candidate=Behaviour(errors=0.01),
            onset_s=1800,
        ),
        Scenario(name="silent", words="nobody calls", calls_a_second=0.0),
        Scenario(
            name="baseline-bad",
            words="production alone fails, on 5 %",
            baseline=Behaviour(errors=0.05),
        ),
        Scenario(
            name="both-bad",
            words="both fail on 5 %",
            candidate=Behaviour(errors=0.05),
            baseline=Behaviour(errors=0.05),
            onset_s=60,
        ),
        Scenario(name="uncertified", words="a difference nobody approved", certified_rows=0),
    )
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm's calls of one second, (N,) columns."""

    keys: Keys
    failed: NDArray[np.bool_]
    nan: NDArray[np.bool_]
    timed_out: NDArray[np.bool_]
    latency_ns: NDArray[np.int64]
    champion_bin: Bins
    """Production's bin of the same row."""
    bin: Bins
    missing: int
    outcomes: Keys
    """Keys whose good outcome is reported in this second."""

    @property
    def calls(self) -> int:
        """N."""
        return len(self.keys)

    @property
    def bad(self) -> NDArray[np.bool_]:
        """(N,) no good answer."""
        return self.failed | self.nan | self.timed_out


@dataclass(frozen=True, slots=True)
class Tick:
    """One second of both arms."""

    second: int
    share: float
    candidate: Arm
    baseline: Arm


class Stream:
    """One rollout's traffic. *share* may be set between two seconds: the split moved."""

    def __init__(self, scenario: Scenario, share: float, seed: int) -> None:
        self.scenario = scenario
        self.share = share
        self._chance = np.random.default_rng(seed)
        self.shift = certified(seed, scenario.certified_rows) if scenario.certified_rows else None

    def ticks(self, seconds: int) -> Iterator[Tick]:
        """Yield *seconds* of traffic."""
        for second in range(seconds):
            candidate, baseline = self.scenario.at(second)
            rate = self.scenario.calls_a_second
            yield Tick(
                second,
                self.share,
                self._arm(candidate, rate * self.share, of_candidate=True),
                self._arm(baseline, rate * (1 - self.share), of_candidate=False),
            )

    def _arm(self, how: Behaviour, calls_a_second: float, *, of_candidate: bool) -> Arm:
        chance = self._chance
        calls = int(chance.poisson(calls_a_second))
        keys = chance.integers(0, 2**64, calls, dtype=np.uint64)
        fate = chance.random(calls)
        failed = fate < how.errors
        nan = (fate >= how.errors) & (fate < how.errors + how.nan)
        rest = how.errors + how.nan
        timed_out = (fate >= rest) & (fate < rest + how.timeouts)
        z = chance.standard_normal(calls)
        champion = score_bins(z)
        mine = champion
        if of_candidate:
            moved = z + RETRAINED * chance.standard_normal(calls) + how.shift_sd
            mine = np.full(calls, 7) if how.constant else score_bins(moved)
        return Arm(
            keys=keys,
            failed=failed,
            nan=nan,
            timed_out=timed_out,
            latency_ns=latencies(chance, calls, how),
            champion_bin=champion,
            bin=mine,
            missing=int(chance.binomial(calls, how.missing)),
            outcomes=keys[chance.random(calls) < how.outcome],
        )


def latencies(chance: np.random.Generator, calls: int, how: Behaviour) -> NDArray[np.int64]:
    """(calls,) ns."""
    z = chance.standard_normal(calls)
    slow = np.where(z > TAIL_Z, how.tail, 1.0)
    return np.asarray(LATENCY_NS * how.latency * slow * np.exp(SIGMA * z)).astype(np.int64)


TAIL_Z = NormalDist().inv_cdf(0.95)
"""The slowest 5 %: with them 20 % slower p99 grows by 20 % and p50 and p90 stay."""
EDGES = np.array([NormalDist().inv_cdf(part / BINS) for part in range(1, BINS)])
"""(19,) production's score quantiles: 20 bins of 5 % each."""


def score_bins(z: NDArray[np.float64]) -> Bins:
    """(N,) reference bin of each score."""
    return np.searchsorted(EDGES, z, side="left")


@cache
def certified(seed: int, rows: int) -> Shift:
    """Return what training would have certified of a retrained candidate, on held-out rows."""
    chance = np.random.default_rng((seed, 1))
    z = chance.standard_normal(rows)
    mine = score_bins(z + RETRAINED * chance.standard_normal(rows))
    joint = np.bincount(score_bins(z) * BINS + mine, minlength=BINS**2).reshape(BINS, BINS)
    return Shift(digest=f"simulated-{seed}", counts=joint, flip_rate=0.1)


def windows_of(
    tick: Tick, revision: int, *, candidate: str = "2", baseline: str = "1", watch: bool = False
) -> list[window_pb2.Window]:
    """Return the windows a gateway would send of *tick*; *watch*: the candidate is production."""
    arms = ("ARM_PRODUCTION", "ARM_STANDBY") if watch else ("ARM_CANARY", "ARM_PRODUCTION")
    told = ((tick.candidate, arms[0], candidate), (tick.baseline, arms[1], baseline))
    second = START + tick.second
    windows = [
        _window(arm, kind, version, revision, second) for arm, kind, version in told if arm.calls
    ]
    windows += [
        _outcomes(arm, kind, version, revision, second)
        for arm, kind, version in told
        if len(arm.outcomes)
    ]
    return windows


def second_of(tick: Tick, revision: int, *, watch: bool = False) -> Second:
    """Return *tick* as the inbox would close it."""
    return Second(START + tick.second, revision, tuple(windows_of(tick, revision, watch=watch)))


def _outcomes(arm: Arm, kind: str, version: str, revision: int, second: int) -> window_pb2.Window:
    """The window in which this arm's good outcomes are reported."""
    made = window_pb2.Window(model="simulated", version=version, revision=revision, second=second)
    made.outcomes.add(
        role=predict_pb2.CANARY if kind == "ARM_CANARY" else predict_pb2.PRODUCTION,
        name=GOOD.name,
        key_hash=arm.outcomes.tolist(),
        value=[1.0] * len(arm.outcomes),
    )
    return made


def _window(arm: Arm, kind: str, version: str, revision: int, second: int) -> window_pb2.Window:
    bad = arm.bad
    any_bad = bool(bad.any())
    made = window_pb2.Window(
        model="simulated",
        version=version,
        arm=kind,
        revision=revision,
        second=second,
        rows=arm.calls,
        keep_of_65536=65_536,
        features=window_pb2.Rows(missing=arm.missing),
        calls=window_pb2.Calls(
            answered=int((~bad).sum()),
            faulty=int(arm.failed.sum()),
            nan=int(arm.nan.sum()),
            late=int(arm.timed_out.sum()),
            fallen_back=int(bad.sum()) if kind == "ARM_CANARY" else 0,
        ),
        first_bad_unix_ns=second * NS if any_bad else 0,
        last_bad_unix_ns=second * NS + NS - 1 if any_bad else 0,
    )
    for metric, hit in (
        (window_pb2.METRIC_ERROR, arm.failed),
        (window_pb2.METRIC_SCHEMA, arm.nan),
        (window_pb2.METRIC_TIMEOUT, arm.timed_out),
    ):
        if hit.any():
            keys = arm.keys[hit].tolist()
            made.records.add(
                metric=window_pb2.Metric.Name(metric), key_hash=keys, bin=[0] * len(keys)
            )
    fine = ~bad
    if fine.any():
        keys = arm.keys[fine].tolist()
        expected = arm.champion_bin[fine].tolist() if kind == "ARM_CANARY" else []
        made.records.add(
            metric="METRIC_SCORE", key_hash=keys, bin=arm.bin[fine].tolist(), expected_bin=expected
        )
        slow = bins_of(arm.latency_ns[fine]).tolist()
        made.records.add(metric="METRIC_LATENCY", key_hash=keys, bin=slow)
    return made
