"""Does one arm fail more than the other? A test that may be looked at after every window.

The two-sample tilt e-process on counts of events, in its design form. Each event of a key fell in
the canary with the split's *configured* probability, unless the arms differ; a grid of rate
ratios bets that they do. E starts at 1 and, while the null holds, is expected never to grow:
P(E ever reaches 1/a) <= a, for any base rate, changing split, and number of looks (Ville).

    per look   l_g = C (d_g - m) - (C + B) (ln(1 + r(e^d_g - 1)) - ln(1 + r(e^m - 1)))
               S_g = (S_g + prior_t) e^l_g        a rate ratio may set in at any look t
               E   = mean_g S_g + prior not yet spent

with C, B events of canary and baseline, r the canary's share, d_g a log rate ratio, m the margin.
Events that come about together, as the slow answers of one batch do, count for 1/n each where n
is how many could have: a product of n of them to the power 1/n is no larger than their mean, and
a mean of e-values is one whatever the events have in common (Hoelder's inequality).
Null: "canary rate <= e^m x baseline rate" when all d_g > m, ">=" when all d_g < m. Everything is
kept as logarithms, so that 10^9 events and E of e^10000 are ordinary numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, fsum, log, log1p

SHARES_MAX = 512
"""Shares of which a grid remembers the stakes."""
LOG_FLOAT_MAX = 600.0
"""Logarithms below it, either way, are those of numbers that a float holds."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Log rate ratios that are bet on, uniformly; all above *margin* or all below it."""

    deltas: tuple[float, ...]
    margin: float = 0.0
    _stakes: dict[float, tuple[tuple[float, float], ...]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """By share, as they are asked for."""

    def __post_init__(self) -> None:
        above = [delta > self.margin for delta in self.deltas]
        if not above or any(above) != all(above) or self.margin in self.deltas:
            raise ValueError(
                f"log ratios {self.deltas} do not all lie on one side of the margin {self.margin}; "
                "a grid bets in one direction"
            )

    def stakes(self, share: float) -> tuple[tuple[float, float], ...]:
        """What a canary's event wins on each rate ratio at *share*, and what any event costs."""
        found = self._stakes.get(share)
        if found is None:
            none_tilt = _log_tilt(share, self.margin)
            found = tuple((d - self.margin, _log_tilt(share, d) - none_tilt) for d in self.deltas)
            if len(self._stakes) >= SHARES_MAX:
                self._stakes.clear()
            self._stakes[share] = found
        return found


MORE_EVENTS = Grid(tuple(math.log(ratio) for ratio in (1.25, 1.5, 2, 3, 5, 10, 30, 100)))
"""Errors, timeouts, NaN: the canary has more of them."""
FEWER_EVENTS = Grid(tuple(-math.log(ratio) for ratio in (1.05, 1.1, 1.2, 1.35, 1.6, 2, 4, 20)))
"""Conversions: the canary has fewer of them."""
LATENCY = Grid(tuple(math.log(ratio) for ratio in (1.05, 1.1, 1.2, 1.4, 1.7, 2.2, 3, 6)))
"""Calls slower than a fixed edge."""


def non_inferior(ratio: float) -> Grid:
    """Grid that rejects "canary rate >= ratio x baseline rate"; *ratio* > 1. For promotion."""
    margin = math.log(ratio)
    return Grid(tuple(margin - step * margin for step in (0.5, 0.75, 1.0, 1.25)), margin)


@dataclass(slots=True)
class TiltState:
    """All that must be kept between two looks; resumes bit for bit. Replaced, never changed."""

    log_s: tuple[float, ...]
    """One a grid point; -inf before anything was bet."""
    prior_spent: float = 0.0
    """By the newest window with an event."""
    log_e: float = 0.0
    log_e_max: float = 0.0
    looks: int = 0


def start_tilt(grid: Grid) -> TiltState:
    """Return the state before the first look: E = 1."""
    return TiltState(log_s=(-math.inf,) * len(grid.deltas))


def idle_tilt(state: TiltState) -> TiltState:
    """Return the state after a window without events: it is looked at, and nothing changes."""
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

    share       the canary's configured probability among both arms in this window, 0 < share < 1
    looks_max   windows over which a late onset is waited for; half the prior is spent on the
                first, the rest evenly. 0: all on the first (the plain mixture)

    A window without events moves prior from one side of E to the other and changes nothing, so
    the prior of such windows is spent when the next event comes.
    """
    if canary_events < 0 or baseline_events < 0 or not 0.0 < share < 1.0:
        check_counts(canary_events, baseline_events, share)
    events = canary_events + baseline_events
    if not events:
        return idle_tilt(state)
    looks = state.looks + 1
    spent = prior_spent_by(looks, looks_max)
    prior = spent - state.prior_spent
    paired = zip(state.log_s, grid.stakes(share), strict=True)
    if prior > 0.0:
        log_prior = log(prior)
        log_s = [
            (
                one + log1p(exp(log_prior - one))
                if one > log_prior
                else log_prior + log1p(exp(one - log_prior))
            )
            + canary_events * gain
            - events * cost
            for one, (gain, cost) in paired
        ]
    else:
        log_s = [one + canary_events * gain - events * cost for one, (gain, cost) in paired]
    high = max(log_s)
    if -LOG_FLOAT_MAX < high < LOG_FLOAT_MAX:
        log_e = log(sum(map(exp, log_s)) / len(log_s) + (1.0 - spent))
    else:
        log_e = log_sum(log_s) - log(len(log_s))
        if spent < 1.0:
            log_e = log_add(log_e, log(1.0 - spent))
    return TiltState(tuple(log_s), spent, log_e, max(state.log_e_max, log_e), looks)


def events_to_fire(grid: Grid, share: float, log_threshold: float) -> int:
    """Fewest events, all in the canary and in the first window, that reach *log_threshold*.

    Tells an operator whether a verdict is possible yet at tiny traffic. Plain mixture.
    """
    for events in range(1, 10_000):
        if step_tilt(grid, start_tilt(grid), events, 0, share).log_e >= log_threshold:
            return events
    raise ValueError(f"at share {share}, 10,000 events do not reach e^{log_threshold}")


def check_counts(canary_events: float, baseline_events: float, share: float) -> None:
    """Raise ValueError unless counts are not negative and 0 < share < 1."""
    if canary_events < 0 or baseline_events < 0 or not 0.0 < share < 1.0:
        raise ValueError(
            f"{canary_events} canary events, {baseline_events} baseline events, share {share}: "
            "counts must not be negative, and the share lies between 0 and 1"
        )


def log_add(a: float, b: float) -> float:
    """Return ln(e^a + e^b); -inf stands for zero."""
    high, low = (a, b) if a >= b else (b, a)
    return high if low == -math.inf else high + log1p(exp(low - high))


def log_sum(logs: Sequence[float]) -> float:
    """Return the logarithm of the sum of e^each; -inf when all are."""
    high = max(logs)
    if high == -math.inf:
        return high
    return high + log(fsum([exp(one - high) for one in logs]))


def _log_tilt(share: float, delta: float) -> float:
    return math.log1p(share * math.expm1(delta))


def prior_spent_by(looks: int, looks_max: int) -> float:
    """How much of the prior is spent by this look."""
    return 1.0 if looks_max == 0 else min(0.5 + 0.5 * (looks - 1) / looks_max, 1.0)
