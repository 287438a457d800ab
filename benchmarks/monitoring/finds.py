"""Measures how soon a change is found.

    python -m benchmarks.monitoring --only finds

A feature that moves by .3 standard deviations is planted into the customers of a quiet world, who
come back, have weeks and campaigns. Time is counted from the change to the end of the day whose
look finds it. Missing values, unknown categories and silence are looked at every five minutes, and
begin at any instant between two looks.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.monitoring.alarm_rules import (
    DetectorArray,
    other_alarms,
    thresholds,
    version_budget,
)
from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions
from benchmarks.monitoring.quiet import QUALITY_STREAMS
from benchmarks.monitoring.quiet_world import (
    FEATURES,
    SETTLING_DAYS,
    STREAMS,
    ModelCounts,
    PlantedShift,
    WorldSettings,
    simulate_model,
)
from stats.alarms.budget import AlarmBudget, Cadence
from stats.alarms.change_test import DAILY, QUALITY_CLUSTER, ChangeTest, share_test
from stats.alarms.shiryaev_roberts import look_at, start_detector
from stats.alarms.weekdays import WEEKDAYS, settle_reference

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

ROUNDS = 400
QUICK_ROUNDS = 5
KEYS_A_DAY = 5_000
SHIFT_SD = 0.3
WEEKS = 6
MEDIAN_DAYS_MAX = 1.0
LATE_DAYS_MAX = 3.0
MISSING = (0.02, 0.30)
UNKNOWN = (0.005, 0.05)
LOOK_MINUTES = 5
MINUTES_MAX = 10.0
BAR_CALLS_A_DAY = 100_000
CALLS_A_DAY = (5_000, 20_000, BAR_CALLS_A_DAY, 1_000_000)
LOOKS_MAX = 500
CLUSTER_MEAN = 2.0
QUIET_LOOKS = 20


def main(options: MonitoringOptions) -> list[MeasuredBar]:
    """Return the bars: a shifted feature, then missing values, categories and silence."""
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    rng = np.random.default_rng(options.seed)
    budget = version_budget(FEATURES, QUALITY_STREAMS)
    fewer = -(-rounds // 4)
    bars = [
        _shift_bar(rng, rounds if case == SHIFTS[0] else fewer, budget, *case) for case in SHIFTS
    ]
    bars += _other_rules(rng, fewer)
    bars += [_share_bar(rng, rounds, budget, "missing values", MISSING, a) for a in CALLS_A_DAY]
    bars += [_share_bar(rng, rounds, budget, "unknown categories", UNKNOWN, BAR_CALLS_A_DAY)]
    bars.append(_silence_bar(rng, rounds, budget))
    return bars


SHIFTS = ((SHIFT_SD, 1.0), (SHIFT_SD, 0.5), (0.5, 1.0), (0.15, 1.0))
"""(standard deviations, share of the first day with it); the first has the bar."""


def _shift_bar(
    rng: np.random.Generator, rounds: int, budget: AlarmBudget, shift: float, first_part: float
) -> MeasuredBar:
    days = np.array([_days_to_find(rng, budget, shift, first_part) for _ in range(rounds)])
    median, late = _quantiles(days)
    promised = (shift, first_part) == SHIFTS[0]
    begins = "midnight" if first_part == 1.0 else "noon"
    return MeasuredBar(
        subject=f"{shift} sd on one of {FEATURES} features from {begins} on, {KEYS_A_DAY:,} keys a "
        "day",
        measured=f"median {_shown(median)}, p95 {_shown(late)} days, {rounds} rounds",
        promised=f"<= {MEDIAN_DAYS_MAX:g} and <= {LATE_DAYS_MAX:g} days" if promised else "",
        passed=median <= MEDIAN_DAYS_MAX and late <= LATE_DAYS_MAX if promised else None,
        numbers={"median_days": _json(median), "p95_days": _json(late), "rounds": rounds},
    )


def _simulated(
    rng: np.random.Generator, shift: float, first_part: float
) -> tuple[ModelCounts, PlantedShift]:
    planted = PlantedShift(
        feature=int(rng.integers(FEATURES)),
        shift=shift,
        day=int(rng.integers(SETTLING_DAYS, SETTLING_DAYS + WEEKDAYS)),
        first_part=first_part,
    )
    settings = replace(WorldSettings(), keys_a_day=(KEYS_A_DAY, KEYS_A_DAY))
    return simulate_model(rng, settings, WEEKS, planted), planted


def _days_to_find(
    rng: np.random.Generator, budget: AlarmBudget, shift: float, first_part: float
) -> float:
    """Return days from the change to the end of the day with the alarm; inf: it was not found."""
    counts, planted = _simulated(rng, shift, first_part)
    weekdays = [day % WEEKDAYS for day in range(SETTLING_DAYS)]
    settled = [
        settle_reference(counts.daily[:SETTLING_DAYS, stream], weekdays)
        for stream in range(STREAMS)
    ]
    references = np.array(
        [[reference.of(weekday) for weekday in range(WEEKDAYS)] for reference in settled]
    )
    detectors = DetectorArray.start(references, DAILY, thresholds(budget, Cadence.DAILY))
    for day in range(SETTLING_DAYS, len(counts.daily)):
        alarmed = detectors.look(counts.daily[day], day % WEEKDAYS)
        if day >= planted.day and alarmed[planted.feature]:
            return day + first_part - planted.day
    return np.inf


def _other_rules(rng: np.random.Generator, rounds: int) -> Iterator[MeasuredBar]:
    """Yield how often other rules see the shift, and how often they see one without it."""
    seen: dict[str, list[float]] = {}
    for _ in range(rounds):
        counts, planted = _simulated(rng, SHIFT_SD, 1.0)
        stream = slice(planted.feature, planted.feature + 1)
        # The days with the shift, compared as the rules would have it, beside those before it.
        for name, days in (
            ("with", slice(planted.day, None)),
            ("without", slice(None, planted.day)),
        ):
            watched = np.concatenate([counts.daily[:SETTLING_DAYS], counts.daily[days]])
            part = ModelCounts(watched[:, stream], counts.weekly[:, stream])
            found = other_alarms(part, by_weekday=False)
            for rule, alarms in found.items():
                share = alarms / max(len(watched) - SETTLING_DAYS, 1)
                seen.setdefault(f"{rule}|{name}", []).append(share)
    for rule in dict.fromkeys(key.split("|")[0] for key in seen):
        shares = {name: float(np.mean(seen[f"{rule}|{name}"])) for name in ("with", "without")}
        yield MeasuredBar(
            subject=f"{rule}: days on which that feature alarms",
            measured=f"{shares['with']:.0%} with the shift, {shares['without']:.0%} without",
            numbers=shares,
        )


def _share_bar(
    rng: np.random.Generator,
    rounds: int,
    budget: AlarmBudget,
    subject: str,
    shares: tuple[float, float],
    calls_a_day: int,
) -> MeasuredBar:
    before, after = shares
    test = share_test(int(before * 14 * calls_a_day), 14 * calls_a_day, cluster=QUALITY_CLUSTER)
    name = QUALITY_STREAMS[0]
    limit = budget.detectors[name, Cadence.FIVE_MINUTES].log_threshold
    a_look = calls_a_day / 24 / 60 * LOOK_MINUTES

    def counts(changed: float) -> Counts:
        share = before + changed * (after - before)
        clusters = rng.poisson(a_look / CLUSTER_MEAN)
        hit = rng.binomial(clusters, share)
        sizes = [part + rng.poisson((CLUSTER_MEAN - 1) * part) for part in (clusters - hit, hit)]
        return np.array(sizes, dtype=np.int64)

    minutes = np.array([_minutes_to_find(rng, test, limit, counts) for _ in range(rounds)])
    promised = calls_a_day == BAR_CALLS_A_DAY and shares == MISSING
    return _minutes_bar(
        f"{subject} from {before:.1%} to {after:.0%}, {calls_a_day:,} calls a day",
        minutes,
        promised=promised,
    )


def _silence_bar(rng: np.random.Generator, rounds: int, budget: AlarmBudget) -> MeasuredBar:
    """Return how soon it is seen that the calls of a model stop in a working hour."""
    test = share_test(0, 120)
    limit = budget.detectors["silence", Cadence.FIVE_MINUTES].log_threshold

    def counts(changed: float) -> Counts:
        silent = int(changed * LOOK_MINUTES)
        return np.array([LOOK_MINUTES - silent, silent], dtype=np.int64)

    minutes = np.array([_minutes_to_find(rng, test, limit, counts) for _ in range(rounds)])
    return _minutes_bar("no call any more, after none of 120 minutes was silent", minutes)


def _minutes_to_find(
    rng: np.random.Generator, test: ChangeTest, limit: float, counts: Callable[[float], Counts]
) -> float:
    """Return minutes from a change, at any instant between two looks, to the look that finds it."""
    state = start_detector(test, "settled")
    begins = float(rng.random())
    for look in range(LOOKS_MAX):
        after = look - QUIET_LOOKS
        changed = 0.0 if after < 0 else 1.0 - begins if after == 0 else 1.0
        state, alarm = look_at(test, state, counts(changed), look, limit)
        if alarm is not None and after >= 0:
            return LOOK_MINUTES * (after + 1 - begins)
    return np.inf


def _minutes_bar(subject: str, minutes: Floats, *, promised: bool = False) -> MeasuredBar:
    median, late = _quantiles(minutes)
    return MeasuredBar(
        subject=subject,
        measured=f"median {_shown(median)}, p95 {_shown(late)} minutes, {len(minutes)} rounds",
        promised=f"p95 <= {MINUTES_MAX:g} minutes" if promised else "",
        passed=late <= MINUTES_MAX if promised else None,
        numbers={"median_minutes": _json(median), "p95_minutes": _json(late)},
    )


def _quantiles(values: Floats) -> tuple[float, float]:
    """Return the median and the 95 % quantile, each one of the values."""
    median, late = np.quantile(values, (0.5, 0.95), method="inverted_cdf")
    return float(median), float(late)


def _shown(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "not found"


def _json(value: float) -> float | None:
    return value if np.isfinite(value) else None
