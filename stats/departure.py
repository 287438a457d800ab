"""Tests whether scores depart from an approved shift. The test is valid at every look.

The approved shift is a table: how often a row in the champion's bin p falls into the candidate's
bin j. Production scores every row of a canary too, so p is known for each key. The null hypothesis
is that j is drawn from row p of the table. Tilts of three families bet against it:

    location   everything moves up or down          s_j = the normal score of bin j
    scale      everything spreads or shrinks        s_j = s^2, standardised, clipped to +-3
    one bin    one bin gets more or less            s_j = 1 in that bin

    per look   l_g = sum_pj N_pj (d_g s_gj - ln sum_k T_pk e^(d_g s_gk))
    E = the mean of the three families' means, each with a late onset, as in stats.tilt

While a version is watched as production, no row is scored twice. Then the keys of the old version
are the other arm: the bin of each is carried through the table by a draw that depends on its key
alone, and the same tilts compare two samples.

`departure_effect` and `debiased_psi` measure how large a difference is. They are no tests.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from stats.tilt import LOG_FLOAT_MAX, log_add, prior_spent_by

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

LOCATION = tuple(sign * step for step in (0.03, 0.06, 0.12, 0.25, 0.5, 1.0) for sign in (1, -1))
SCALE = tuple(sign * step for step in (0.06, 0.12, 0.25, 0.5) for sign in (1, -1))
ONE_BIN = tuple(math.log(ratio) for ratio in (1.25, 1.6, 2.5, 5, 15, 1 / 1.6, 1 / 4))
SMOOTHING = 1.0
"""Pseudo-rows added to each row of the table, distributed as the rows around it."""
UNIFORM_PART = 0.02
"""Part of the pseudo-rows that is spread over all bins, so that no bin is impossible."""
SCALE_SCORE_MAX = 3.0
ERROR_ROWS = 2.0
"""Rows spread over all bins when the error of a row of the table is estimated (Agresti and Coull).
Without them a bin that no row of 25 reached would have no error."""
CHANCE_SDS = 4.0
"""Standard deviations of chance by which an effect must exceed its bound."""


@dataclass(frozen=True, eq=False)
class Expectation:
    """An approved shift in the form that the test uses.

    counts  (J, J) int64, J >= 2: rows by the champion's bin, columns by the candidate's bin.

    Raises ValueError for another shape, negative counts, or no counts at all.
    """

    counts: Counts

    def __post_init__(self) -> None:
        shape = self.counts.shape
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2 or self.counts.min() < 0:
            raise ValueError(f"a shift of shape {shape} is no table of two bins or more, squared")
        if not self.counts.any():
            raise ValueError("a shift that counts no row says nothing; certify on held-out rows")

    @property
    def bins(self) -> int:
        """The number of bins, J."""
        return len(self.counts)

    @cached_property
    def table(self) -> Floats:
        """(J, J) float64: P(candidate's bin | champion's bin). Each row adds up to 1."""
        counts = self.counts.astype(np.float64)
        around = counts.copy()
        around[1:] += counts[:-1]
        around[:-1] += counts[1:]
        total = around.sum(axis=1, keepdims=True)
        marginal = counts.sum(axis=0) / counts.sum()
        near = np.where(total > 0, around / np.maximum(total, 1), marginal)
        prior = (1 - UNIFORM_PART) * near + UNIFORM_PART / self.bins
        smoothed = counts + SMOOTHING * prior
        return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True))

    @cached_property
    def error_variance(self) -> Floats:
        """(J, J) float64: the variance of a row of the table if it had one row behind it."""
        rows = self.counts.sum(axis=1, keepdims=True)
        part = (self.counts + ERROR_ROWS / self.bins) / (rows + ERROR_ROWS)
        return np.asarray(part * (1.0 - part))

    @cached_property
    def scores(self) -> Floats:
        """(G, J) float64: d_g s_gj of every alternative g."""
        marginal = self.counts.sum(axis=1) @ self.table / self.counts.sum()
        location = standardised(normal_scores(marginal), marginal)
        scale = np.clip(
            standardised(location * location, marginal), -SCALE_SCORE_MAX, SCALE_SCORE_MAX
        )
        rows = [delta * location for delta in LOCATION]
        rows += [delta * scale for delta in SCALE]
        rows += [delta * unit for unit in np.eye(self.bins) for delta in ONE_BIN]
        return np.array(rows)

    @cached_property
    def stakes(self) -> Floats:
        """(G,) float64: the weight of each alternative in E. The weights add up to 1."""
        sizes = (len(LOCATION), len(SCALE), len(ONE_BIN) * self.bins)
        return np.concatenate([np.full(size, 1.0 / (3 * size)) for size in sizes])

    @cached_property
    def log_norms(self) -> Floats:
        """(G, J) float64: ln sum_k T_pk e^(d_g s_gk), by the champion's bin p."""
        return np.asarray(np.log(np.exp(self.scores) @ self.table.T))

    @cached_property
    def _paired_gains(self) -> Floats:
        """(G, 2J) float64: what a key adds, by the candidate's bin, then by the champion's bin."""
        return np.ascontiguousarray(np.hstack([self.scores, -self.log_norms]))

    @cached_property
    def _cumulative(self) -> Floats:
        return np.cumsum(self.table, axis=1)

    def carry_through_table(self, champion_bins: Counts, keys: NDArray[np.uint64]) -> Counts:
        """Return a candidate's bin for each champion's bin, (K,). Each depends on its key alone."""
        uniform = _uniform(keys)
        bins: Counts = (self._cumulative[champion_bins] < uniform[:, None]).sum(axis=1)
        return np.minimum(bins, self.bins - 1)

    def gains(self, paired: Counts) -> Floats:
        """Return the (G,) log gain of each alternative.

        paired  (2, J) keys by the candidate's bin, and the same keys by the champion's bin.
        """
        gains: Floats = self._paired_gains @ paired.astype(np.float64).reshape(-1)
        return gains

    def two_sample_gains(self, candidate: Counts, standby: Counts, share: float) -> Floats:
        """Return the (G,) log gains for two samples.

        candidate  (J,) keys of the candidate by bin.
        standby    (J,) keys of the standby by bin, carried through the table.
        share      the candidate's configured share of both, 0 < share < 1.
        """
        tilt = np.log1p(share * np.expm1(self.scores))
        both = (candidate + standby).astype(np.float64)
        return np.asarray(self.scores @ candidate.astype(np.float64) - tilt @ both)


@dataclass(slots=True)
class DepartureState:
    """The state of the test between two looks. `log_s` is (G,) float64."""

    log_s: Floats
    prior_spent: float = 0.0
    log_e: float = 0.0
    log_e_max: float = 0.0
    looks: int = 0


def start_departure(expected: Expectation) -> DepartureState:
    """Return the state before the first look: E = 1."""
    return DepartureState(np.full(len(expected.stakes), -math.inf))


def idle_departure(state: DepartureState) -> DepartureState:
    """Return the state after a window without keys, which counts as a look."""
    return DepartureState(
        state.log_s, state.prior_spent, state.log_e, state.log_e_max, state.looks + 1
    )


def step_departure(
    expected: Expectation, state: DepartureState, gains: Floats, looks_max: int
) -> DepartureState:
    """Return the state after a window with (G,) log *gains*.

    looks_max  windows over which the prior for a late onset is spread.
    """
    if not np.count_nonzero(gains):
        return idle_departure(state)
    looks = state.looks + 1
    # Spend the prior that has become due, on every alternative.
    spent = prior_spent_by(looks, max(looks_max, 1))
    prior = spent - state.prior_spent
    if prior > 0.0:
        log_s = np.logaddexp(state.log_s, math.log(prior))
        log_s += gains
    else:
        log_s = state.log_s + gains
    # The exponentials are summed directly where they are ordinary floats, and scaled otherwise.
    high = float(np.maximum.reduce(log_s))
    if -LOG_FLOAT_MAX < high < LOG_FLOAT_MAX:
        log_e = math.log(float(np.exp(log_s).dot(expected.stakes)) + (1.0 - spent))
    else:
        log_e = high + math.log(float(np.exp(log_s - high).dot(expected.stakes)))
        if spent < 1.0:
            log_e = log_add(log_e, math.log(1.0 - spent))
    return DepartureState(
        log_s=log_s,
        prior_spent=spent,
        log_e=log_e,
        log_e_max=max(state.log_e_max, log_e),
        looks=looks,
    )


@dataclass(frozen=True, slots=True)
class DepartureEffect:
    """The size of a departure. `psi` is corrected for chance in the keys and in the table."""

    psi: float
    table_error: float
    """How much of `psi` may be chance in the table's rows: CHANCE_SDS standard deviations."""


def departure_effect(expected: Expectation, candidate: Counts, champion: Counts) -> DepartureEffect:
    """Return the departure of (J,) candidate bins from the table, given (J,) champion bins.

    It is the population stability index between observed and expected shares, minus its mean under
    the expectation. NaN without keys.
    """
    # The raw index.
    keys = int(candidate.sum())
    if keys == 0 or champion.sum() == 0:
        return DepartureEffect(math.nan, math.nan)
    by_champion = champion / champion.sum()
    bins = expected.bins
    p_expected = (keys * by_champion @ expected.table + 0.5) / (keys + 0.5 * bins)
    p_seen = (candidate + 0.5) / (keys + 0.5 * bins)
    raw = float(((p_seen - p_expected) * np.log(p_seen / p_expected)).sum())
    # What chance adds in each bin: by the number of keys, and by the rows behind the table.
    variance = expected.error_variance
    rows = expected.counts.sum(axis=1) + SMOOTHING
    of_keys = by_champion @ variance / p_expected / keys
    terms = of_keys + by_champion**2 / rows @ variance / p_expected
    # The test allows for chance in the keys, so the rest of the deviation is the table's.
    squared = chance_deviation(terms) ** 2 - chance_deviation(of_keys) ** 2
    return DepartureEffect(raw - float(terms.sum()), math.sqrt(max(squared, 0.0)))


def chance_deviation(terms: Floats) -> float:
    """Return how far a sum of squared errors with (J,) means *terms* may exceed its mean by chance.

    The sum is about a chi-square with as many degrees of freedom as bins matter (Satterthwaite).
    Its quantile is Wilson and Hilferty's, CHANCE_SDS standard deviations out.
    """
    mean = float(terms.sum())
    freedom = mean**2 / float((terms**2).sum())
    root = 1.0 - 2.0 / (9.0 * freedom) + CHANCE_SDS * math.sqrt(2.0 / (9.0 * freedom))
    return float(mean * (root**3 - 1.0))


def debiased_psi(canary: Counts, baseline: Counts) -> float:
    """Return the population stability index of two (J,) counts, minus its mean by chance.

        p   = (count + .5) / (n + .5 J)
        PSI = sum (p_c - p_b) ln(p_c / p_b) - (J - 1)(1/n_c + 1/n_b)

    .1 is a shift of about .3 standard deviations, .25 of about .5. NaN if an arm is empty. Raises
    ValueError if the histograms have different bins.
    """
    if canary.shape != baseline.shape or canary.ndim != 1:
        raise ValueError(
            f"histograms of {canary.shape} and {baseline.shape} bins cannot be compared; count "
            "both on one table of bins"
        )
    bins = len(canary)
    canary_n, baseline_n = int(canary.sum()), int(baseline.sum())
    if canary_n == 0 or baseline_n == 0:
        return float("nan")
    p_canary = (canary + 0.5) / (canary_n + 0.5 * bins)
    p_baseline = (baseline + 0.5) / (baseline_n + 0.5 * bins)
    raw = float(np.sum((p_canary - p_baseline) * np.log(p_canary / p_baseline)))
    return raw - (bins - 1) * (1 / canary_n + 1 / baseline_n)


def normal_scores(marginal: Floats) -> Floats:
    """Return the (J,) normal quantiles of the middle of each bin's ranks."""
    middle = np.cumsum(marginal) - marginal / 2
    inverse = NormalDist().inv_cdf
    return np.array([inverse(min(max(float(rank), 1e-6), 1 - 1e-6)) for rank in middle])


def standardised(scores: Floats, marginal: Floats) -> Floats:
    """Return (J,) scores with mean 0 and variance 1 under the (J,) shares; 0 if all are equal."""
    mean = float(scores @ marginal)
    variance = float((scores - mean) ** 2 @ marginal)
    return (scores - mean) / math.sqrt(variance) if variance > 1e-12 else np.zeros_like(scores)


def _uniform(keys: NDArray[np.uint64]) -> Floats:
    """Return (K,) numbers in (0, 1): 53 bits of each key, mixed by splitmix64's finaliser."""
    mixed = keys.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53 + 2.0**-54
