"""Counts false alarms where nothing relevant changes: 1,000 model-quarters.

    python -m benchmarks.monitoring --only quiet

The customers are those of benchmarks.monitoring.quiet_world, missing values and silence those of
benchmarks.monitoring.quality_world. Beside the promise stand other tools' rules on the same
streams, and two worlds for comparison: customers exactly at the edge of the tolerance, where the
bound is hardest to keep, and campaigns at a segment that differs by more than the tolerance.
"""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import chi2, t

from benchmarks.monitoring.alarm_rules import (
    DetectorArray,
    other_alarms,
    thresholds,
    turnout_alarms,
    version_budget,
)
from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions
from benchmarks.monitoring.quality_world import CATEGORIES, VIEWS, QualityModels
from benchmarks.monitoring.quiet_world import (
    BINS,
    FEATURES,
    STREAMS,
    WorldSettings,
    simulate_model,
)
from stats.alarms.budget import DAYS_A_QUARTER, AlarmBudget, Cadence
from stats.alarms.change_test import DAILY, location_scores, shift_bound

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

MODELS = 1_000
QUICK_MODELS = 4
QUICK_DAYS = 3
ALARMS_MAX = 0.25
UPPER_END_MAX = 0.30
QUALITY_STREAMS = (
    *(f"missing view {index}" for index in range(VIEWS)),
    *(f"unknown category {index}" for index in range(CATEGORIES)),
    "silence",
)
EDGE_REFERENCE = 20_000
EDGE_KEYS = 1_000
AIMED_MODELS = 50


def main(options: MonitoringOptions) -> list[MeasuredBar]:
    """Return the bars: ours first, then the other rules and the comparisons."""
    models = options.rounds or (QUICK_MODELS if options.quick else MODELS)
    rng = np.random.default_rng(options.seed)
    budget = version_budget(FEATURES, QUALITY_STREAMS)
    values, others = _watch_customers(rng, models, WorldSettings(), budget)
    days = QUICK_DAYS if options.quick else DAYS_A_QUARTER
    quality = _watch_quality(rng, models, days, budget)
    bars = [_our_bar(values, quality, budget)]
    bars += [
        MeasuredBar(
            subject=f"{rule} every day, on the same streams",
            measured=f"{counts.mean():.1f} alarms a version a quarter",
            numbers={"alarms_a_quarter": float(counts.mean())},
        )
        for rule, counts in others.items()
    ]
    bars.append(_edge_bar(rng, models, budget))
    # Campaigns at a segment change who is scored; this is no false alarm, and it is shown.
    aimed = replace(WorldSettings(), campaign_tilt=1.0)
    found, _ = _watch_customers(rng, max(models * AIMED_MODELS // MODELS, 1), aimed, budget)
    bars.append(
        MeasuredBar(
            subject="campaigns at customers who differ by 1 log odds a standard deviation",
            measured=f"{found.sum(axis=1).mean():.1f} alarms a version a quarter",
            numbers={"alarms_a_quarter": float(found.sum(axis=1).mean())},
        )
    )
    return bars


def _watch_customers(
    rng: np.random.Generator, models: int, settings: WorldSettings, budget: AlarmBudget
) -> tuple[Counts, dict[str, Counts]]:
    """Return (M, STREAMS) alarms of the e-detectors, and rule -> (M,) alarms of the others."""
    alarms = np.zeros((models, STREAMS), dtype=np.int64)
    others: dict[str, list[int]] = defaultdict(list)
    for model in track(range(models), "customers", console=Console(stderr=True), transient=True):
        counts = simulate_model(rng, settings)
        alarms[model] = turnout_alarms(counts, budget)
        for by_weekday, name in ((False, ""), (True, " with a reference for each weekday")):
            for rule, found in other_alarms(counts, by_weekday=by_weekday).items():
                if not by_weekday or not rule.startswith("mean"):
                    others[rule + name].append(found)
    return alarms, {rule: np.array(counts) for rule, counts in others.items()}


def _watch_quality(rng: np.random.Generator, models: int, days: int, budget: AlarmBudget) -> Counts:
    """Return (M, 8) alarms of missing values, unknown categories and silence."""
    limits = np.array(
        [
            math.exp(budget.detectors[name, Cadence.FIVE_MINUTES].log_threshold)
            for name in QUALITY_STREAMS
        ]
    )
    return QualityModels(rng, models).look_through(days, limits)


def _our_bar(values: Counts, quality: Counts, budget: AlarmBudget) -> MeasuredBar:
    by_version = values.sum(axis=1) + quality.sum(axis=1)
    mean = float(by_version.mean())
    low, high = mean_interval(by_version)
    return MeasuredBar(
        subject=f"Turnout, {len(by_version)} model-quarters, {STREAMS + len(QUALITY_STREAMS)} "
        "streams each",
        measured=f"{mean:.4f} alarms a version a quarter (95 %: {low:.4f} to {high:.4f}); "
        f"the bound of these detectors is {budget.bound:.4f}",
        promised=f"<= {ALARMS_MAX}, upper end <= {UPPER_END_MAX}",
        passed=mean <= ALARMS_MAX and high <= UPPER_END_MAX,
        numbers={
            "alarms_a_quarter": mean,
            "low": low,
            "high": high,
            "bound": budget.bound,
            "model_quarters": len(by_version),
            "score": int(values[:, -1].sum()),
            "features": int(values[:, :-1].sum()),
            "quality": dict(zip(QUALITY_STREAMS, quality.sum(axis=0).tolist(), strict=True)),
        },
    )


def mean_interval(counts: Counts) -> tuple[float, float]:
    """Return the 95 % interval of the mean of (M,) counts.

    The wider of the exact one of a Poisson count, and Student's for counts that come in clusters.
    """
    models, total = len(counts), int(counts.sum())
    low = chi2.ppf(0.025, 2 * total) / 2 / models if total else 0.0
    high = chi2.ppf(0.975, 2 * total + 2) / 2 / models
    if models < 2:
        return float(low), float(high)
    half = t.ppf(0.975, models - 1) * counts.std(ddof=1) / math.sqrt(models)
    return float(max(min(low, counts.mean() - half), 0.0)), float(max(high, counts.mean() + half))


def _edge_bar(rng: np.random.Generator, models: int, budget: AlarmBudget) -> MeasuredBar:
    """Return what daily detectors do if all streams lie at the edge of the tolerated location."""
    reference = rng.multinomial(EDGE_REFERENCE, np.full(BINS, 1 / BINS))
    edge = _shares_at_the_edge(reference)
    limits = thresholds(budget, Cadence.DAILY)
    bound = sum(
        item.alarms_max
        for (name, cadence), item in budget.detectors.items()
        if cadence is Cadence.DAILY
    )
    # The detectors of all models look in step, each stream for itself.
    start = DetectorArray.start(np.broadcast_to(reference, (STREAMS, 1, BINS)), DAILY, limits)
    detectors = DetectorArray(
        np.broadcast_to(start.log_gains[:1], (models * STREAMS, *start.log_gains.shape[1:])),
        np.tile(limits, models),
        np.tile(start.log_m, (models, 1)),
    )
    alarms = np.zeros(models, dtype=np.int64)
    for day in range(DAYS_A_QUARTER):
        alarmed = detectors.look(rng.multinomial(EDGE_KEYS, edge, models * STREAMS), day)
        alarms += alarmed.reshape(models, STREAMS).sum(axis=1)
    low, high = mean_interval(alarms)
    return MeasuredBar(
        subject="Turnout's daily detectors, all streams at the edge of the tolerance, independent",
        measured=f"{alarms.mean():.4f} (95 %: {low:.4f} to {high:.4f})",
        promised=f"<= {bound:.4f}, the bound of these detectors",
        passed=float(low) <= bound,
        numbers={"alarms_a_quarter": float(alarms.mean()), "bound": bound, "high": high},
    )


def _shares_at_the_edge(reference: Counts) -> Floats:
    """Return the (J,) shares whose mean normal score is just what is tolerated, by tilting."""
    scores = location_scores(reference)
    target = shift_bound(DAILY, int(reference.sum()))
    low, high = 0.0, 3.0
    for _ in range(60):
        tilt = (low + high) / 2
        shares = reference * np.exp(tilt * scores)
        shares = shares / shares.sum()
        low, high = (tilt, high) if shares @ scores < target else (low, tilt)
    return np.asarray(shares)
