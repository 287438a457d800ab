"""Simulates how often healthy rollouts are rolled back: thousands at once, judged every second.

Calls arrive as a Poisson stream. Counts of disjoint kinds of call are then independent Poisson
numbers, so that no single call needs to be drawn. Latency's gates are left open, so its count of
false alarms is an upper bound.
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
"""Rollouts in one array, with one certified shift: small enough for the CPU's caches."""
CHUNK_S = 60
CALLS_A_SECOND = 100.0
RATES = {"errors": HEALTHY.errors, "timeouts": HEALTHY.timeouts, "schema": 0.0001}
GATE_EVERY_S = 10

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Fired = dict[str, NDArray[np.bool_]]
"""Metric -> (R,) whether it rolled the rollout back."""
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthyRamp:
    """What changes in a healthy rollout: the share by stages, both arms' rates by the second."""

    shares: tuple[float, ...] = (0.05,)
    errors: tuple[float, float] = (HEALTHY.errors, HEALTHY.errors)
    """Error rate at the beginning, and at the end."""
    latency: tuple[float, float] = (1.0, 1.0)

    def errors_at(self, part: float) -> float:
        """Return the error rate when *part* (0 to 1) of the rollout is over."""
        return self.errors[0] + part * (self.errors[1] - self.errors[0])

    def latency_at(self, part: float) -> float:
        """Return the factor of latency when *part* (0 to 1) of the rollout is over."""
        return self.latency[0] + part * (self.latency[1] - self.latency[0])


STEADY_RAMP = HealthyRamp()
CLIMBING_RAMP = HealthyRamp(
    shares=(0.01, 0.05, 0.25, 0.5), errors=(0.0005, 0.005), latency=(1.0, 1.15)
)


@dataclass(slots=True)
class AlarmCounts:
    """How many healthy rollouts each metric would have rolled back."""

    rollouts: int = 0
    by_metric: dict[str, int] = field(default_factory=dict)
    any: int = 0
    pooled: dict[str, int] = field(default_factory=dict)
    """Alarms of tests on running totals, which do not see that the split moved."""

    def add(
        self, fired: dict[str, NDArray[np.bool_]], pooled: dict[str, NDArray[np.bool_]]
    ) -> None:
        """Add the alarms of one block of rollouts."""
        self.rollouts += len(next(iter(fired.values())))
        for name, hit in fired.items():
            self.by_metric[name] = self.by_metric.get(name, 0) + int(hit.sum())
        self.any += int(np.logical_or.reduce(list(fired.values())).sum())
        for name, hit in pooled.items():
            self.pooled[name] = self.pooled.get(name, 0) + int(hit.sum())


def count_false_alarms(
    policy: Policy, ramp: HealthyRamp, rollouts: int, looks: int, seed: int, progress: Progress
) -> AlarmCounts:
    """Look *looks* times at *rollouts* healthy rollouts; return the false alarms."""
    alarms = AlarmCounts()
    blocks = max(1, rollouts // BLOCK)
    for block in range(blocks):
        simulated = _Block(policy, ramp, min(BLOCK, rollouts), looks, (seed, block))
        for done in simulated.run():
            progress((block + done) / blocks)
        alarms.add(*simulated.fired())
    return alarms


class _Block:
    def __init__(
        self, policy: Policy, ramp: HealthyRamp, rollouts: int, looks: int, seed: tuple[int, int]
    ) -> None:
        self._policy, self._ramp, self._size, self._looks = policy, ramp, rollouts, looks
        self._rng = np.random.default_rng(seed)
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
        """Simulate every look; yield the part that is done."""
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
        """Return (seconds, R) events of the canary and of the baseline."""
        shape = (seconds, self._size)
        mean = CALLS_A_SECOND * rate
        return (
            self._rng.poisson(mean * share, shape),
            self._rng.poisson(mean * (1 - share), shape),
        )

    # Latency: three nested counts, above edges that earlier records of production fixed

    def _initial_edges(self) -> dict[str, Floats]:
        shape = (self._size, EDGE_RECORDS_MIN)
        drawn = latency_bins(draw_latencies(self._rng, shape[0] * shape[1], HEALTHY)).reshape(shape)
        return _edges(np.stack([np.bincount(row, minlength=LATENCY_BINS) for row in drawn]))

    def _edges_after(self, begin: int, end: int, share: float) -> dict[str, Floats]:
        """Return the edges that production's records of the stage before fix."""
        rate = np.zeros(LATENCY_BINS)
        for second in range(begin, end, CHUNK_S):
            factor = self._ramp.latency_at((second + CHUNK_S / 2) / self._looks)
            upper = np.append(EDGES_NS.astype(np.float64), np.inf)
            rate += CHUNK_S * np.diff(1.0 - _share_above(upper, factor), prepend=0.0)
        mean = rate * CALLS_A_SECOND * (1 - share)
        return _edges(self._rng.poisson(mean, (self._size, LATENCY_BINS)))

    def _latency(
        self, share: float, seconds: int, factor: float
    ) -> dict[str, tuple[Counts, Counts]]:
        above = {name: _share_above(edge, factor) for name, edge in self._slow_edges.items()}
        parts = (
            above["p99"],
            np.maximum(above["p90"] - above["p99"], 0.0),
            np.maximum(above["p50"] - above["p90"], 0.0),
        )
        arms: list[list[Counts]] = []
        for calls in (CALLS_A_SECOND * share, CALLS_A_SECOND * (1 - share)):
            drawn = [self._rng.poisson(calls * p, (seconds, self._size)) for p in parts]
            arms.append(list(np.cumsum(drawn, axis=0)))
        return {name: (arms[0][n], arms[1][n]) for n, name in enumerate(("p99", "p90", "p50"))}

    # Scores: the candidate's bin and production's bin of the same row

    def _scores(self, share: float, seconds: int) -> tuple[Counts, Counts]:
        cells = seconds * self._size
        calls = self._rng.poisson(CALLS_A_SECOND * share, cells)
        cell = np.repeat(np.arange(cells), calls) * BINS
        z = self._rng.standard_normal(len(cell))
        candidate = simulated_score_bins(
            z + RETRAINING_NOISE_SD * self._rng.standard_normal(len(cell))
        )
        shape = (seconds, self._size, BINS)
        return (
            np.bincount(cell + candidate, minlength=cells * BINS).reshape(shape),
            np.bincount(cell + simulated_score_bins(z), minlength=cells * BINS).reshape(shape),
        )

    def _look_at_gate(self) -> None:
        above = self._departures.e_max >= self._threshold("prediction")
        for row in np.flatnonzero(above & ~self._departed):
            effect = departure_effect(
                self._expected, self._departures.candidate[row], self._departures.champion[row]
            )
            self._departed[row] = effect.psi >= self._policy.psi_min + effect.table_error

    def _threshold(self, metric: str) -> float:
        return float(np.exp(self._policy.log_threshold(metric)))

    def fired(self) -> tuple[Fired, Fired]:
        """Return the alarms of our metrics, and those of the pooled tests."""
        ours = {name: tilts.e_max >= self._threshold(name) for name, tilts in self._tilts.items()}
        ours["prediction"] = self._departed
        pooled = {}
        for name, tests in self._pooled.items():
            pooled[f"pooled z-test, {name}"] = tests.crossed
            pooled[f"pooled mixture SPRT, {name}"] = tests.crossed_mixture
        return ours, pooled


class PooledTests:
    """Two tests on running totals: a z-test at each look, and an always-valid mixture test.

    Both compare the arms' overall rates. When the canary's share grows while the error rate rises,
    more of the canary's calls fall into the bad time. Neither test sees that (Simpson's paradox).
    """

    Z = NormalDist().inv_cdf(0.99)

    def __init__(self, rollouts: int) -> None:
        self._events = np.zeros((2, rollouts))
        self._calls = np.zeros(2)
        self.crossed = np.zeros(rollouts, dtype=np.bool_)
        self.crossed_mixture = np.zeros(rollouts, dtype=np.bool_)

    def update(self, canary: Counts, baseline: Counts, share: float) -> None:
        """Add (T, R) seconds of events, and look after each second."""
        for canary_events, baseline_events in zip(canary, baseline, strict=True):
            self._events += np.stack([canary_events, baseline_events])
            self._calls += np.array([share, 1 - share]) * CALLS_A_SECOND
            rate = self._events / self._calls[:, None]
            pooled = self._events.sum(axis=0) / self._calls.sum()
            variance = np.maximum(pooled * (1 - pooled), 1e-12) * (1 / self._calls).sum()
            difference = rate[0] - rate[1]
            enough = self._events.sum(axis=0) >= 10
            self.crossed |= enough & (difference > self.Z * np.sqrt(variance))
            prior = np.maximum(pooled * (1 - pooled), 1e-12) * 0.01
            log_e = 0.5 * np.log(variance / (variance + prior)) + prior * difference**2 / (
                2 * variance * (variance + prior)
            )
            self.crossed_mixture |= enough & (difference > 0) & (log_e >= np.log(100.0))


def _edges(counts: Counts) -> dict[str, Floats]:
    """Return (R,) ns for each quantile: the upper edge of its bin, from (R, bins) records."""
    total = np.cumsum(counts, axis=1)
    upper = np.append(EDGES_NS.astype(np.float64), np.inf)
    return {
        name: upper[(total >= (q * total[:, -1])[:, None]).argmax(axis=1)]
        for name, q in QUANTILES.items()
    }


def _share_above(edge_ns: Floats, factor: float) -> Floats:
    """Return the share of calls slower than each edge, if all take *factor* times as long."""
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
    """Alarms if a customer counts once, as in the controller."""
    once_a_worker: int
    """Alarms if a customer counts once a worker, as gateways could count by themselves."""
    every_call: int
    """Alarms if every call counts."""


def count_sticky_alarms(
    workers: int, rollouts: int, looks: int, seed: int, share: float = 0.05, alpha: float = 0.01
) -> StickyAlarms:
    """Simulate healthy rollouts of 3,000 customers, of whom 1 % fail on 20 % of their calls."""
    rng = np.random.default_rng((seed, workers))
    counted: dict[str, list[tuple[Counts, Counts]]] = {"rollout": [], "worker": [], "call": []}
    for _ in range(rollouts):
        # Draw each customer's failing calls, in the order of time.
        weight = rng.pareto(PARETO_SHAPE, ENTITIES) + 1.0
        fails = np.full(ENTITIES, HEALTHY.errors)
        fails[:BAD_ENTITIES] = BAD_ENTITY_ERROR_RATE
        rate = CALLS_A_SECOND * weight / weight.sum() * fails
        canary = rng.random(ENTITIES) < share
        calls = rng.poisson(rate * looks)
        customer = np.repeat(np.arange(ENTITIES), calls)
        when = rng.integers(0, looks, len(customer))
        order = np.argsort(when, kind="stable")
        customer, when = customer[order], when[order]
        customer_and_worker = customer * workers + rng.integers(0, workers, len(customer))
        # Find the calls that count in each of the three ways.
        first_a_worker = np.sort(np.unique(customer_and_worker, return_index=True)[1])
        first_a_rollout = np.sort(np.unique(customer, return_index=True)[1])
        for name, counting in (
            ("rollout", first_a_rollout),
            ("worker", first_a_worker),
            ("call", np.arange(len(customer))),
        ):
            in_canary = canary[customer[counting]]
            counted[name].append(
                (
                    np.bincount(when[counting][in_canary], minlength=looks),
                    np.bincount(when[counting][~in_canary], minlength=looks),
                )
            )
    fired = {
        name: _first_crossed(seconds, share, looks, alpha) for name, seconds in counted.items()
    }
    return StickyAlarms(workers, rollouts, fired["rollout"], fired["worker"], fired["call"])


def _first_crossed(
    seconds: list[tuple[Counts, Counts]], share: float, looks: int, alpha: float
) -> int:
    canary = np.stack([canary_events for canary_events, _ in seconds])
    baseline = np.stack([baseline_events for _, baseline_events in seconds])
    tilts = TiltArray(MORE_EVENTS, len(seconds), looks)
    for second in range(looks):
        tilts.step(canary[:, second], baseline[:, second], share)
    return int((tilts.e_max >= 1 / alpha).sum())
