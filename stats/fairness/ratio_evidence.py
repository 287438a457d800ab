"""Evidence on the ratio of a group's rate to that of others. It is valid at every look.

There are two bounds, 4/5 and 5/4 if nothing else is asked for (29 CFR 1607.4(D)), and two null
hypotheses at each: that the ratio is on the side of 1, and that it is on the other side. Rejecting
the first says "outside", and rejecting the second at both bounds says "within".

Each e-process is the mean of two, and so is an e-process too:

    tilt    that of stats.tilt on counts of events: a group is an arm, and its share of the look's
            people is the split. It does not mind that rates change from look to look.
    blocks  a likelihood ratio of both rates. The bet is on what earlier looks had, against the
            rates at the bound that are closest to it (reverse information projection, Turner, Ly
            and Gruenwald, 2024). It counts people without the event too, so it needs fewer people
            where most of them have it.

Both hold for rates of any size and for people with different chances: a factor of one person is
1 + (p - q) a, at most e^((p - q) a), and the exponents add up to at most 0 under the null
hypothesis. What they need is that each person is counted once: the same person at ten looks is one
person, not ten.

Evidence since the first look says whether a version was ever unfair. A version that was fair for a
year has so little of it that a change shows late. So each bet has a Shiryaev-Roberts statistic too,
M <- (1 + M) e, which starts again with every look (see stats.detector); T looks have T / A false
alarms on average where an alarm is a mean M of A.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from stats.tilt import Grid, TiltState, log_add, log_sum, start_tilt, step_tilt

RATIO_MIN = 0.8
"""The lower bound; the upper one is its inverse."""
STEPS = (0.1, 0.2, 0.35, 0.6, 1.2)
"""Distances of the bets from a bound, as logarithms of the ratio."""
RATE_MAX = 0.999


@dataclass(frozen=True, slots=True)
class RatioNull:
    """A null hypothesis on the ratio: "at most *bound*" if the bets lie above it, else "at least".

    bound      ratio of the rates.
    direction  1: bets on larger ratios; -1: on smaller ones.
    """

    bound: float
    direction: int

    @property
    def grid(self) -> Grid:
        """The bets of the tilt."""
        margin = math.log(self.bound)
        return Grid(tuple(margin + self.direction * step for step in STEPS), margin)


@cache
def nulls_of(ratio_min: float) -> dict[str, RatioNull]:
    """Return the null hypotheses for the bounds *ratio_min* and its inverse."""
    return {
        "outside low": RatioNull(ratio_min, -1),
        "inside low": RatioNull(ratio_min, 1),
        "outside high": RatioNull(1.0 / ratio_min, 1),
        "inside high": RatioNull(1.0 / ratio_min, -1),
    }


NULLS = nulls_of(RATIO_MIN)
OUTSIDE = tuple(name for name in NULLS if name.startswith("outside"))
"""The null hypotheses that are true of a fair group."""


@dataclass(frozen=True, slots=True)
class RateCounts:
    """People of a group and of the rest in one look, each counted once, and their events.

    Raises ValueError unless 0 <= events <= people on both sides.
    """

    people: int
    events: int
    rest_people: int
    rest_events: int

    def __post_init__(self) -> None:
        if not (0 <= self.events <= self.people and 0 <= self.rest_events <= self.rest_people):
            raise ValueError(f"{self}: between none and all of the people have the event")

    def __add__(self, other: "RateCounts") -> "RateCounts":
        return RateCounts(
            self.people + other.people,
            self.events + other.events,
            self.rest_people + other.rest_people,
            self.rest_events + other.rest_events,
        )


NO_PEOPLE = RateCounts(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class RatioEvidence:
    """The evidence after some looks. It is replaced, never changed.

    counts  all people so far.
    tilts   null hypothesis -> state of its tilt. blocks  -> ln of the product of each bet's ratios.
    log_e_max  null hypothesis -> the largest ln E so far.
    log_m   null hypothesis of OUTSIDE -> ln M of each bet of a look, the tilt's first.
    ratio_min  the lower bound.
    """

    counts: RateCounts
    tilts: dict[str, TiltState]
    blocks: dict[str, tuple[float, ...]]
    log_e_max: dict[str, float]
    log_m: dict[str, tuple[float, ...]]
    ratio_min: float = RATIO_MIN

    def log_change(self, name: str) -> float:
        """Return ln of the mean M against *name* of OUTSIDE: a change that began at any look."""
        return log_sum(self.log_m[name]) - math.log(len(self.log_m[name]))

    def log_e(self, name: str) -> float:
        """Return ln E against the null hypothesis *name*, after the last look."""
        mean = log_sum(self.blocks[name]) - math.log(len(STEPS))
        return log_add(self.tilts[name].log_e, mean) - math.log(2.0)

    def definition(self) -> dict[str, Any]:
        """Return the state as JSON values; `ratio_evidence_from` reads them back exactly."""
        counts = self.counts
        return {
            "ratio_min": self.ratio_min,
            "counts": [counts.people, counts.events, counts.rest_people, counts.rest_events],
            "nulls": {
                name: {
                    "log_s": _without_infinity(self.tilts[name].log_s),
                    "prior_spent": self.tilts[name].prior_spent,
                    "log_e": self.tilts[name].log_e,
                    "tilt_max": self.tilts[name].log_e_max,
                    "looks": self.tilts[name].looks,
                    "blocks": list(self.blocks[name]),
                    "log_e_max": self.log_e_max[name],
                }
                for name in NULLS
            },
            "log_m": {name: _without_infinity(self.log_m[name]) for name in OUTSIDE},
        }


def ratio_evidence_from(definition: dict[str, Any]) -> RatioEvidence:
    """Return the evidence of `RatioEvidence.definition`. Raises KeyError for other values."""
    nulls = {name: definition["nulls"][name] for name in NULLS}
    return RatioEvidence(
        RateCounts(*definition["counts"]),
        {
            name: TiltState(
                _with_infinity(state["log_s"]),
                state["prior_spent"],
                state["log_e"],
                state["tilt_max"],
                state["looks"],
            )
            for name, state in nulls.items()
        },
        {name: tuple(state["blocks"]) for name, state in nulls.items()},
        {name: state["log_e_max"] for name, state in nulls.items()},
        {name: _with_infinity(definition["log_m"][name]) for name in OUTSIDE},
        definition.get("ratio_min", RATIO_MIN),
    )


def _without_infinity(logs: tuple[float, ...]) -> list[float | None]:
    """Return logarithms as JSON values; that of 0 is None."""
    return [None if value == -math.inf else value for value in logs]


def _with_infinity(logs: list[float | None]) -> tuple[float, ...]:
    return tuple(-math.inf if value is None else value for value in logs)


def start_ratio_evidence(ratio_min: float = RATIO_MIN) -> RatioEvidence:
    """Return the evidence before the first look: every E is 1. *ratio_min*  0 to 1, the bound."""
    return RatioEvidence(
        NO_PEOPLE,
        {name: start_tilt(null.grid) for name, null in nulls_of(ratio_min).items()},
        dict.fromkeys(NULLS, (0.0,) * len(STEPS)),
        dict.fromkeys(NULLS, 0.0),
        dict.fromkeys(OUTSIDE, (-math.inf,) * (2 * len(STEPS))),
        ratio_min,
    )


def restart_change(evidence: RatioEvidence) -> RatioEvidence:
    """Return the evidence after an alarm of change: M is 0 again, and all else stays."""
    start = dict.fromkeys(OUTSIDE, (-math.inf,) * (2 * len(STEPS)))
    return replace(evidence, log_m=start)


def add_look(evidence: RatioEvidence, look: RateCounts) -> RatioEvidence:
    """Return the evidence after one more look. A look without people on one side says nothing."""
    if not look.people or not look.rest_people:
        return evidence
    share = look.people / (look.people + look.rest_people)
    # The evidence since the first look, by both e-processes.
    nulls = nulls_of(evidence.ratio_min)
    tilts = {
        name: step_tilt(nulls[name].grid, state, look.events, look.rest_events, share)
        for name, state in evidence.tilts.items()
    }
    blocks = {
        name: tuple(
            log_e + gain
            for log_e, gain in zip(
                evidence.blocks[name], _block_gains(null, look, evidence.counts), strict=True
            )
        )
        for name, null in nulls.items()
    }
    # The evidence of a change at any look.
    log_m = {
        name: tuple(
            log_add(m, 0.0) + gain
            for m, gain in zip(
                evidence.log_m[name],
                look_gains(name, look, evidence.counts, evidence.ratio_min),
                strict=True,
            )
        )
        for name in OUTSIDE
    }
    counts, ratio = evidence.counts + look, evidence.ratio_min
    after = RatioEvidence(counts, tilts, blocks, evidence.log_e_max, log_m, ratio)
    largest = {name: max(after.log_e(name), evidence.log_e_max[name]) for name in NULLS}
    return replace(after, log_e_max=largest)


def look_gains(
    name: str, look: RateCounts, earlier: RateCounts, ratio_min: float = RATIO_MIN
) -> tuple[float, ...]:
    """Return ln e of one look for each bet against *name*: the tilt's bets, then the blocks'.

    earlier  all people of the looks before, whose rates the blocks bet on.

    The mean of their exponentials is an e-value. A look without people on one side gives zeros.
    """
    if not look.people or not look.rest_people:
        return (0.0,) * (2 * len(STEPS))
    share = look.people / (look.people + look.rest_people)
    events = look.events + look.rest_events
    null = nulls_of(ratio_min)[name]
    tilt = (look.events * gain - events * cost for gain, cost in null.grid.stakes(share))
    return (*tilt, *_block_gains(null, look, earlier))


def _block_gains(null: RatioNull, look: RateCounts, earlier: RateCounts) -> tuple[float, ...]:
    """Return the log likelihood ratio of the look for each bet; 0 before anybody was seen."""
    if not earlier.rest_people:
        return (0.0,) * len(STEPS)
    rest_rate = (earlier.rest_events + 0.5) / (earlier.rest_people + 1.0)
    gains = []
    for step in STEPS:
        bet = min(rest_rate * null.bound * math.exp(null.direction * step), RATE_MAX)
        # A bet that was cut at 1 may be in the null hypothesis, where it is its own nearest rate.
        if null.direction * (bet - rest_rate * null.bound) <= 0:
            gains.append(0.0)
            continue
        nearest = _nearest_rate(null.bound, look, bet, rest_rate)
        gains.append(
            _log_ratio(look.events, look.people, bet, min(null.bound * nearest, 1 - 1e-12))
            + _log_ratio(look.rest_events, look.rest_people, rest_rate, nearest)
        )
    return tuple(gains)


def _nearest_rate(bound: float, look: RateCounts, bet: float, rest_rate: float) -> float:
    """Return the rest's rate t of the null hypothesis that is the closest to the bet.

    It minimises n KL(bet, bound t) + m KL(rest_rate, t) for n people of the group and m others: the
    smaller root of bound (n + m) t^2 - (n (bound + bet) + m (1 + bound rest_rate)) t
    + n bet + m rest_rate.
    """
    n, m = look.people, look.rest_people
    square = bound * (n + m)
    linear = n * (bound + bet) + m * (1.0 + bound * rest_rate)
    constant = n * bet + m * rest_rate
    root = math.sqrt(max(linear * linear - 4.0 * square * constant, 0.0))
    return min(2.0 * constant / (linear + root), 1.0 - 1e-12)


def _log_ratio(events: int, people: int, bet: float, null: float) -> float:
    return events * math.log(bet / null) + (people - events) * (
        math.log1p(-bet) - math.log1p(-null)
    )
