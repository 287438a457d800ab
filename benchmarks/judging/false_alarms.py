"""How often healthy rollouts are rolled back: thousands at once, looked at every second.

Calls arrive as a Poisson stream, so counts of disjoint kinds of call are independent Poisson
numbers and need not be drawn call by call. Latency's gates are left open: what is reported for it
is an upper bound.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchmarks.judging.many_tests import DepartureArray, TiltArray
from rollout.evidence.latency import EDGE_RECORDS_MIN, QUANTILES
from rollout.policy.policy import Policy
from rollout.simulation.streams import (
    BINS,
    HEALTHY,
    LATENCY_SIGMA,
    MEDIAN_LATENCY_NS,
    RETRAINING_NOISE_SD,
    draw_latencies,
    simulated_score_bins,
    simulated_shift,
)
from stats.departure import departure_effect
from stats.latency import BINS as LATENCY_BINS
from stats.latency import EDGES_NS, latency_bins
from stats.tilt import FEWER_EVENTS, LATENCY, MORE_EVENTS

BLOCK = 250
"""Rollouts in one array, and under one certificate: small enough for the caches."""
CHUNK_S = 60
CALLS_A_SECOND = 100.0
RATES = {"errors": HEALTHY.errors, "timeouts": HEALTHY.timeouts, "schema": 0.0001}
GATE_EVERY_S = 10

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Fired = dict[str, NDArray[np.bool_]]
"""(R,) which rollouts were rolled back, by what."""
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthyRamp:
    """What changes over a healthy rollout: the share by stages, both arms' rates by the second."""

    shares: tuple[float, ...] = (0.05,)
    errors: tuple[float, float] = (HEALTHY.errors, HEALTHY.errors)
    """At the beginning, at the end."""
    latency: tuple[float, float] = (1.0, 1.0)

    def errors_at(self, part: float) -> float:
        """The rate when *part* of the rollout is over."""
        return self.errors[0] + part * (self.errors[1] - self.errors[0])

    def latency_at(self, part: float) -> float:
        """How many times as long calls take by then."""
        return self.latency[0] + part * (self.latency[1] - self.latency[0])


STEADY_RAMP = HealthyRamp()
CLIMBING_RAMP = HealthyRamp(
    shares=(0.01, 0.05, 0.25, 0.5), errors=(0.0005, 0.005), latency=(1.0, 1.15)
)


@dataclass(slots=True)
class AlarmCounts:
    """Rollouts that some metric would have rolled back."""

    rollouts: int = 0
    by_metric: dict[str, int] = field(default_factory=dict)
    any: int = 0
    pooled: dict[str, int] = field(default_factory=dict)
    """The same by tests on totals, which forget that the split moved."""

    def add(
        self, fired: dict[str, NDArray[np.bool_]], pooled: dict[str, NDArray[np.bool_]]
    ) -> None:
        """Count a block."""
        self.rollouts += len(next(iter(fired.values())))
        for name, hit in fired.items():
            self.by_metric[name] = self.by_metric.get(name, 0) + int(hit.sum())
        self.any += int(np.logical_or.reduce(list(fired.values())).sum())
        for name, hit in pooled.items():
            self.pooled[name] = self.pooled.get(name, 0) + int(hit.sum())


def count_false_alarms(
    policy: Policy, ramp: HealthyRamp, rollouts: int, looks: int, seed: int, progress: Progress
) -> AlarmCounts:
    """Look *looks* times at *rollouts* healthy rollouts; return how many were rolled back."""
    alarms = AlarmCounts()
    blocks = max(1, rollouts // BLOCK)
    for block in range(blocks):
        one = _Block(policy, ramp, min(BLOCK, rollouts), looks, (seed, block))
        for done in one.run():
            progress((block + done) / blocks)
        alarms.add(*one.fired())
    return alarms


class _Block:
    def __init__(
        self, policy: Policy, ramp: HealthyRamp, rollouts: int, looks: int, seed: tuple[int, int]
    ) -> None:
        self._policy, self._ramp, self._size, self._looks = policy, ramp, rollouts, looks
        self._chance = np.random.default_rng(seed)
        grids = {
            "errors": MORE_EVENTS,
            "timeouts": MORE_EVENTS,
            "schema": MORE_EVENTS,
            "outcome": FEWER_EVENTS,
        }
        grids |= dict.fromkeys(QUANTILES, LATENCY)
        self._tilts = {
            name: TiltArray(grid, rollouts, policy.looks_max) for name, grid in grids.items()
        }
        shift = simulated_shift(seed[0] * 100_003 + seed[1], 20_000)
        self._expected = shift.with_shadow_pairs(np.zeros((BINS, BINS), dtype=np.int64))
        self._departures = DepartureArray(self._expected, rollouts, policy.looks_max)
        self._departed = np.zeros(rollouts, dtype=np.bool_)
        self._pooled = {name: PooledTests(rollouts) for name in ("errors", "p50")}
        self._slow_edges = self._initial_edges()

    def run(self) -> Iterator[float]:
        """Play, and tell how far."""
        shares = self._ramp.shares
        stage_s = -(-self._looks // len(shares))
        for stage, share in enumerate(shares):
            begin, end = stage * stage_s, min((stage + 1) * stage_s, self._looks)
            if stage:
                self._slow_edges = self._edges_after(begin - stage_s, begin, shares[stage - 1])
            for first in range(begin, end, CHUNK_S):
                self._chunk(first, min(CHUNK_S, end - first), share)
                yield min((first + CHUNK_S) / self._looks, 1.0)

    def _chunk(self, first: int, seconds: int, share: float) -> None:
        part = (first + seconds / 2) / self._looks
        rates = {**RATES, "errors": self._ramp.errors_at(part), "outcome": HEALTHY.outcome}
        counts = {name: self._arm_events(rate, share, seconds) for name, rate in rates.items()}
        counts |= self._latency(share, seconds, self._ramp.latency_at(part))
        scores = self._scores(share, seconds)
        for second in range(seconds):
            for name, tilts in self._tilts.items():
                canary, baseline = counts[name]
                tilts.step(canary[second], baseline[second], share)
            self._departures.step(scores[0][second], scores[1][second])
            if second % GATE_EVERY_S == 0:
                self._look_at_gate()
        for name, pooled in self._pooled.items():
            pooled.update(*counts[name], share)

    def _arm_events(self, rate: float, share: float, seconds: int) -> tuple[Counts, Counts]:
        """(seconds, R) events of both arms."""
        shape = (seconds, self._size)
        mean = CALLS_A_SECOND * rate
        return (
            self._chance.poisson(mean * share, shape),
            self._chance.poisson(mean * (1 - share), shape),
        )

    # Latency: three nested counts, beyond edges that past production has fixed

    def _initial_edges(self) -> dict[str, Floats]:
        shape = (self._size, EDGE_RECORDS_MIN)
        drawn = latency_bins(draw_latencies(self._chance, shape[0] * shape[1], HEALTHY)).reshape(
            shape
        )
        return _edges(np.stack([np.bincount(row, minlength=LATENCY_BINS) for row in drawn]))

    def _edges_after(self, begin: int, end: int, share: float) -> dict[str, Floats]:
        """The edges that production's records of the stage before fix."""
        rate = np.zeros(LATENCY_BINS)
        for second in range(begin, end, CHUNK_S):
            factor = self._ramp.latency_at((second + CHUNK_S / 2) / self._looks)
            upper = np.append(EDGES_NS.astype(np.float64), np.inf)
            rate += CHUNK_S * np.diff(1.0 - _share_above(upper, factor), prepend=0.0)
        mean = rate * CALLS_A_SECOND * (1 - share)
        return _edges(self._chance.poisson(mean, (self._size, LATENCY_BINS)))

    def _latency(
        self, share: float, seconds: int, factor: float
    ) -> dict[str, tuple[Counts, Counts]]:
        beyond = {name: _share_above(edge, factor) for name, edge in self._slow_edges.items()}
        parts = (
            beyond["p99"],
            np.maximum(beyond["p90"] - beyond["p99"], 0.0),
            np.maximum(beyond["p50"] - beyond["p90"], 0.0),
        )
        arms: list[list[Counts]] = []
        for calls in (CALLS_A_SECOND * share, CALLS_A_SECOND * (1 - share)):
            drawn = [self._chance.poisson(calls * p, (seconds, self._size)) for p in parts]
            arms.append(list(np.cumsum(drawn, axis=0)))
        return {name: (arms[0][n], arms[1][n]) for n, name in enumerate(("p99", "p90", "p50"))}

    # Scores: the candidate's bin beside production's of the same row

    def _scores(self, share: float, seconds: int) -> tuple[Counts, Counts]:
        cells = seconds * self._size
        calls = self._chance.poisson(CALLS_A_SECOND * share, cells)
        cell = np.repeat(np.arange(cells), calls) * BINS
        z = self._chance.standard_normal(len(cell))
        mine = simulated_score_bins(
            z + RETRAINING_NOISE_SD * self._chance.standard_normal(len(cell))
        )
        shape = (seconds, self._size, BINS)
        return (
            np.bincount(cell + mine, minlength=cells * BINS).reshape(shape),
            np.bincount(cell + simulated_score_bins(z), minlength=cells * BINS).reshape(shape),
        )

    def _look_at_gate(self) -> None:
        beyond = self._departures.e_max >= self._threshold("prediction")
        for row in np.flatnonzero(beyond & ~self._departed):
            found = departure_effect(
                self._expected, self._departures.candidate[row], self._departures.champion[row]
            )
            self._departed[row] = found.psi >= self._policy.psi_min + found.table_error

    def _threshold(self, metric: str) -> float:
        return float(np.exp(self._policy.log_threshold(metric)))

    def fired(self) -> tuple[Fired, Fired]:
        """(R,) by metric: ours, and the pooled tests'."""
        ours = {name: tilts.e_max >= self._threshold(name) for name, tilts in self._tilts.items()}
        ours["prediction"] = self._departed
        pooled = {}
        for name, one in self._pooled.items():
            pooled[f"pooled z-test, {name}"] = one.crossed
            pooled[f"pooled mixture SPRT, {name}"] = one.crossed_mixture
        return ours, pooled


class PooledTests:
    """Two tests on running totals: a z-test at each look, and an always-valid mixture.

    Both compare the arms' overall rates. When the split grows while the rate rises, the canary has
    more of its calls in the bad hours: Simpson's paradox, and neither can know.
    """

    Z = NormalDist().inv_cdf(0.99)

    def __init__(self, rollouts: int) -> None:
        self._events = np.zeros((2, rollouts))
        self._calls = np.zeros(2)
        self.crossed = np.zeros(rollouts, dtype=np.bool_)
        self.crossed_mixture = np.zeros(rollouts, dtype=np.bool_)

    def update(self, canary: Counts, baseline: Counts, share: float) -> None:
        """Take (T, R) seconds; look once a second."""
        for mine, theirs in zip(canary, baseline, strict=True):
            self._events += np.stack([mine, theirs])
            self._calls += np.array([share, 1 - share]) * CALLS_A_SECOND
            rate = self._events / self._calls[:, None]
            pooled = self._events.sum(axis=0) / self._calls.sum()
            variance = np.maximum(pooled * (1 - pooled), 1e-12) * (1 / self._calls).sum()
            gap = rate[0] - rate[1]
            enough = self._events.sum(axis=0) >= 10
            self.crossed |= enough & (gap > self.Z * np.sqrt(variance))
            prior = np.maximum(pooled * (1 - pooled), 1e-12) * 0.01
            log_e = 0.5 * np.log(variance / (variance + prior)) + prior * gap**2 / (
                2 * variance * (variance + prior)
            )
            self.crossed_mixture |= enough & (gap > 0) & (log_e >= np.log(100.0))


def _edges(counts: Counts) -> dict[str, Floats]:
    """(R,) ns: the upper edge of the bin of each quantile of (R, bins) records."""
    total = np.cumsum(counts, axis=1)
    upper = np.append(EDGES_NS.astype(np.float64), np.inf)
    return {
        name: upper[(total >= (q * total[:, -1])[:, None]).argmax(axis=1)]
        for name, q in QUANTILES.items()
    }


def _share_above(edge_ns: Floats, factor: float) -> Floats:
    """The part of calls slower than each edge, when all take *factor* times as long."""
    with np.errstate(divide="ignore"):
        z = np.log(edge_ns / (MEDIAN_LATENCY_NS * factor)) / LATENCY_SIGMA
    return np.asarray(0.5 * _erfc(z / np.sqrt(2.0)))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


# Sticky keys

ENTITIES = 3_000
BAD_ENTITIES = 30
BAD_ENTITY_ERROR_RATE = 0.2
PARETO_SHAPE = 1.5


@dataclass(frozen=True, slots=True)
class StickyAlarms:
    """False alarms of the error metric when a few customers fail often and stay in their arm."""

    workers: int
    rollouts: int
    once_a_rollout: int
    """A customer counts once: what the controller does."""
    once_a_worker: int
    """A customer counts once a worker: what gateways could do by themselves."""
    every_call: int


def count_sticky_alarms(
    workers: int, rollouts: int, looks: int, seed: int, share: float = 0.05, alpha: float = 0.01
) -> StickyAlarms:
    """Play healthy rollouts of 3,000 customers, 1 % of whom fail 20 % of their calls."""
    chance = np.random.default_rng((seed, workers))
    counted: dict[str, list[tuple[Counts, Counts]]] = {"rollout": [], "worker": [], "call": []}
    for _ in range(rollouts):
        weight = chance.pareto(PARETO_SHAPE, ENTITIES) + 1.0
        fails = np.full(ENTITIES, HEALTHY.errors)
        fails[:BAD_ENTITIES] = BAD_ENTITY_ERROR_RATE
        rate = CALLS_A_SECOND * weight / weight.sum() * fails
        canary = chance.random(ENTITIES) < share
        calls = chance.poisson(rate * looks)
        who = np.repeat(np.arange(ENTITIES), calls)
        when = chance.integers(0, looks, len(who))
        order = np.argsort(when, kind="stable")
        who, when = who[order], when[order]
        at = who * workers + chance.integers(0, workers, len(who))
        first_a_worker = np.sort(np.unique(at, return_index=True)[1])
        first_a_rollout = np.sort(np.unique(who, return_index=True)[1])
        for name, kept in (
            ("rollout", first_a_rollout),
            ("worker", first_a_worker),
            ("call", np.arange(len(who))),
        ):
            mine = canary[who[kept]]
            counted[name].append(
                (
                    np.bincount(when[kept][mine], minlength=looks),
                    np.bincount(when[kept][~mine], minlength=looks),
                )
            )
    fired = {
        name: _first_crossed(seconds, share, looks, alpha) for name, seconds in counted.items()
    }
    return StickyAlarms(workers, rollouts, fired["rollout"], fired["worker"], fired["call"])


def _first_crossed(
    seconds: list[tuple[Counts, Counts]], share: float, looks: int, alpha: float
) -> int:
    canary = np.stack([one for one, _ in seconds])
    baseline = np.stack([one for _, one in seconds])
    tilts = TiltArray(MORE_EVENTS, len(seconds), looks)
    for second in range(looks):
        tilts.step(canary[:, second], baseline[:, second], share)
    return int((tilts.e_max >= 1 / alpha).sum())
