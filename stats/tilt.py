"""Tests whether one arm has more events than the other. The test is valid at every look.

It is the two-sample tilt e-process on counts of events, in its design form. Unless the arms differ,
each event falls to the canary with the *configured* probability of the split. A grid of rate ratios
bets that the arms differ. E starts at 1 and, under the null hypothesis, is not expected to grow:
P(E ever reaches 1/a) <= a for any base rate, any changing split and any number of looks (Ville).

    per look   l_g = C (d_g - m) - (C + B) (ln(1 + r(e^d_g - 1)) - ln(1 + r(e^m - 1)))
               S_g = (S_g + prior_t) e^l_g        a rate ratio may set in at any look t
               E   = mean_g S_g + prior not yet spent

with C, B events of canary and baseline, r the canary's share, d_g a log rate ratio, m the margin.
Events with a common cause, such as the slow answers of one batch, count 1/n each, where n is the
number of calls that could have the event. A product of n e-values to the power 1/n is no larger
than their mean, and a mean of e-values is an e-value whatever the events have in common (Hoelder's
inequality).

The null hypothesis is "canary rate <= e^m x baseline rate" if all d_g > m, and ">=" if all d_g < m.
The state consists of logarithms, so that 10^9 events and E of e^10000 are ordinary numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, fsum, log, log1p

SHARES_MAX = 512
"""Shares for which a grid remembers the stakes."""
LOG_FLOAT_MAX = 600.0
"""The exponential of a logarithm of smaller size than this fits into a float."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Log rate ratios with equal stakes, all above *margin* or all below it.

    Raises ValueError for ratios on both sides.
    """

    deltas: tuple[float, ...]
    margin: float = 0.0
    _stakes: dict[float, tuple[tuple[float, float], ...]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Share -> result of `stakes`, a cache."""

    def __post_init__(self) -> None:
        above = [delta > self.margin for delta in self.deltas]
        if not above or any(above) != all(above) or self.margin in self.deltas:
            raise ValueError(
                f"log ratios {self.deltas} do not all lie on one side of the margin {self.margin}; "
                "a grid bets in one direction"
            )

    def stakes(self, share: float) -> tuple[tuple[float, float], ...]:
        """Return (gain, cost) of each rate ratio at *share*, as logarithms.

        An event of the canary adds gain - cost to the evidence, an event of the baseline - cost.
        """
        stakes = self._stakes.get(share)
        if stakes is None:
            margin_tilt = _log_tilt(share, self.margin)
            stakes = tuple(
                (delta - self.margin, _log_tilt(share, delta) - margin_tilt)
                for delta in self.deltas
            )
            if len(self._stakes) >= SHARES_MAX:
                self._stakes.clear()
            self._stakes[share] = stakes
        return stakes


MORE_EVENTS = Grid(tuple(math.log(ratio) for ratio in (1.25, 1.5, 2, 3, 5, 10, 30, 100)))
"""For errors, timeouts and NaN: the canary has more of them."""
FEWER_EVENTS = Grid(tuple(-math.log(ratio) for ratio in (1.05, 1.1, 1.2, 1.35, 1.6, 2, 4, 20)))
"""For good outcomes: the canary has fewer of them."""
LATENCY = Grid(tuple(math.log(ratio) for ratio in (1.05, 1.1, 1.2, 1.4, 1.7, 2.2, 3, 6)))
"""For answers slower than a fixed edge: the canary has more of them."""


def non_inferior(ratio: float) -> Grid:
    """Return the grid that rejects "canary rate >= *ratio* x baseline rate", *ratio* > 1."""
    margin = math.log(ratio)
    return Grid(tuple(margin - step * margin for step in (0.5, 0.75, 1.0, 1.25)), margin)


@dataclass(slots=True)
class TiltState:
    """The state of the test between two looks. It is replaced, never changed."""

    log_s: tuple[float, ...]
    """ln S_g of each grid point; -inf before the first event."""
    prior_spent: float = 0.0
    """Part of the prior that was spent up to the newest window with an event."""
    log_e: float = 0.0
    log_e_max: float = 0.0
    looks: int = 0


def start_tilt(grid: Grid) -> TiltState:
    """Return the state before the first look: E = 1."""
    return TiltState(log_s=(-math.inf,) * len(grid.deltas))


def idle_tilt(state: TiltState) -> TiltState:
    """Return the state after a window without events, which counts as a look."""
    return TiltState(state.log_s, state.prior_spent, state.log_e, state.log_e_max, state.looks + 1)


def step_tilt(
    grid: Grid,
    state: TiltState,
    canary_events: float,
    baseline_events: float,
    share: float,
    looks_max: int = 0,
) -> TiltState:
    """Return the state after one more window.

    share      the canary's configured probability among both arms in this window, 0 < share < 1.
    looks_max  windows over which the prior for a late onset is spread. Half of the prior is spent
               in the first window, the rest evenly. 0: all in the first (the plain mixture).

    A window without events would move prior from one side of E to the other and change nothing.
    So the prior of such windows is spent when the next event comes. Raises ValueError for negative
    counts and for a share outside its range.
    """
    if canary_events < 0 or baseline_events < 0 or not 0.0 < share < 1.0:
        check_counts(canary_events, baseline_events, share)
    events = canary_events + baseline_events
    if not events:
        return idle_tilt(state)
    looks = state.looks + 1
    # The prior that has become due since the last event.
    spent = prior_spent_by(looks, looks_max)
    prior = spent - state.prior_spent
    # S_g = (S_g + prior) e^l_g of each grid point.
    paired = zip(state.log_s, grid.stakes(share), strict=True)
    if prior > 0.0:
        log_prior = log(prior)
        log_s = [
            (
                previous + log1p(exp(log_prior - previous))
                if previous > log_prior
                else log_prior + log1p(exp(previous - log_prior))
            )
            + canary_events * gain
            - events * cost
            for previous, (gain, cost) in paired
        ]
    else:
        log_s = [
            previous + canary_events * gain - events * cost for previous, (gain, cost) in paired
        ]
    # E = mean S_g + prior that is not spent; scaled where e^log_s would not fit into a float.
    high = max(log_s)
    if -LOG_FLOAT_MAX < high < LOG_FLOAT_MAX:
        log_e = log(sum(map(exp, log_s)) / len(log_s) + (1.0 - spent))
    else:
        log_e = log_sum(log_s) - log(len(log_s))
        if spent < 1.0:
            log_e = log_add(log_e, log(1.0 - spent))
    return TiltState(tuple(log_s), spent, log_e, max(state.log_e_max, log_e), looks)


def events_to_fire(grid: Grid, share: float, log_threshold: float) -> int:
    """Return how many events, all in the canary's first window, reach the threshold.

    It says whether a verdict is possible at little traffic. It uses the plain mixture. Raises
    ValueError if 10,000 events do not reach *log_threshold*.
    """
    for events in range(1, 10_000):
        if step_tilt(grid, start_tilt(grid), events, 0, share).log_e >= log_threshold:
            return events
    raise ValueError(f"at share {share}, 10,000 events do not reach e^{log_threshold}")


def check_counts(canary_events: float, baseline_events: float, share: float) -> None:
    """Raise ValueError for negative counts and for a share that is not between 0 and 1."""
    if canary_events < 0 or baseline_events < 0 or not 0.0 < share < 1.0:
        raise ValueError(
            f"{canary_events} canary events, {baseline_events} baseline events, share {share}: "
            "counts must not be negative, and the share lies between 0 and 1"
        )


def log_add(a: float, b: float) -> float:
    """Return ln(e^a + e^b). -inf is the logarithm of 0."""
    high, low = (a, b) if a >= b else (b, a)
    return high if low == -math.inf else high + log1p(exp(low - high))


def log_sum(logs: Sequence[float]) -> float:
    """Return the logarithm of the sum of the exponentials of *logs*."""
    high = max(logs)
    if high == -math.inf:
        return high
    return high + log(fsum([exp(value - high) for value in logs]))


def _log_tilt(share: float, delta: float) -> float:
    return math.log1p(share * math.expm1(delta))


def prior_spent_by(looks: int, looks_max: int) -> float:
    """Return the part of the prior, 0 to 1, that is spent up to this look."""
    return 1.0 if looks_max == 0 else min(0.5 + 0.5 * (looks - 1) / looks_max, 1.0)
