"""Simulates missing values, unknown categories and silence of quiet models, every five minutes.

Calls follow the hours of a day, are fewer on weekends, and wander from day to day. Missing values
come in clusters, as a customer without a row is scored many times, and their share wanders too.
The detectors are those of stats.alarms, for all models at once.
"""

import math

import numpy as np
from numpy.typing import NDArray

from stats.alarms.change_test import QUALITY_CLUSTER, SHARE_RATIO, share_gains

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

VIEWS = 4
CATEGORIES = 3
SHARES = VIEWS + CATEGORIES
"""Streams of shares: rows without a view, and rows with an unknown category."""
LOOKS_A_DAY = 288
MINUTES = 5
HOURS_A_WEEK = 168
SETTLING_DAYS = 14
HOURLY = np.array([1, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 10, 9, 9, 9, 9, 10, 10, 9, 8, 6, 4, 3, 2.0])
WEEKEND_CALLS = 0.6
CALLS_WANDER = 0.15
"""Standard deviation of the logarithm of a day's calls."""
SHARE_WANDER = 0.1
CLUSTER_MEAN = 2.0
"""Rows of one customer in five minutes."""


class QualityModels:
    """M models with 7 share streams and silence, and a detector for each."""

    def __init__(self, rng: np.random.Generator, models: int) -> None:
        self._rng = rng
        calls_a_day = np.exp(rng.uniform(math.log(1_000), math.log(100_000), size=models))
        self._a_minute = calls_a_day / 24 / 60
        self._shares = np.exp(
            rng.uniform(math.log(0.003), math.log(0.05), size=(models, SHARES))
        ).astype(np.float64)
        # The references of the first days, as production would settle them.
        rows = (calls_a_day * SETTLING_DAYS).astype(np.int64)
        hits = rng.binomial(rows[:, None], self._shares)
        gains = share_gains(
            hits.reshape(-1), rows.repeat(SHARES), SHARE_RATIO, cluster=QUALITY_CLUSTER
        )
        self._gains = gains.reshape(models, SHARES, *gains.shape[1:])
        # Silence is counted by minute, and each hour of the week has a reference of its own.
        minutes = 60 * SETTLING_DAYS // 7
        silent = rng.binomial(
            minutes, np.exp(-self._a_minute[:, None] * _profile(np.arange(HOURS_A_WEEK)))
        )
        possible = share_gains(np.arange(minutes + 1), np.full(minutes + 1, minutes), SHARE_RATIO)
        self._silence_gains = possible[silent]
        self._m = np.zeros((models, SHARES + 1, gains.shape[1]))

    def look_through(self, days: int, thresholds: Floats) -> Counts:
        """Look at *days* days; return (M, 8) alarms of each model's streams.

        thresholds  (8,) A of each stream.
        """
        models = len(self._a_minute)
        alarms = np.zeros((models, SHARES + 1), dtype=np.int64)
        for day in range(days):
            calls = self._a_minute * np.exp(CALLS_WANDER * self._rng.standard_normal(models))
            wander = np.exp(SHARE_WANDER * self._rng.standard_normal((models, SHARES)))
            shares = np.minimum(self._shares * wander, 1.0)
            for look in range(LOOKS_A_DAY):
                hour = (day % 7) * 24 + look * MINUTES // 60
                alarms += self._look(calls * _profile(np.array(hour)), shares, hour, thresholds)
        return alarms

    def _look(self, a_minute: Floats, shares: Floats, hour: int, thresholds: Floats) -> Counts:
        # Rows come in clusters of 1 and a Poisson number more, all with the value or without it.
        clusters = self._rng.poisson(a_minute * MINUTES / CLUSTER_MEAN)[:, None]
        hit_clusters = self._rng.binomial(clusters, shares)
        clean_clusters = clusters - hit_clusters
        hits = hit_clusters + self._rng.poisson((CLUSTER_MEAN - 1) * hit_clusters)
        clean = clean_clusters + self._rng.poisson((CLUSTER_MEAN - 1) * clean_clusters)
        silent = self._rng.binomial(MINUTES, np.exp(-a_minute))
        log_e = np.empty_like(self._m)
        log_e[:, :SHARES] = (
            hits[..., None] * self._gains[..., 1] + clean[..., None] * self._gains[..., 0]
        )
        silence = self._silence_gains[:, hour]
        log_e[:, SHARES] = (
            silent[:, None] * silence[..., 1] + (MINUTES - silent)[:, None] * silence[..., 0]
        )
        # M stays far below the largest float, since an alarm sets it to 0.
        self._m = (1.0 + self._m) * np.exp(log_e)
        alarmed = self._m.mean(axis=2) >= thresholds
        self._m[alarmed] = 0.0
        return np.asarray(alarmed, dtype=np.int64)


def _profile(hour_of_week: Counts) -> Floats:
    """Return the calls of an hour of the week relative to the mean hour of a workday."""
    weekend = hour_of_week >= 5 * 24
    hourly = HOURLY[hour_of_week % 24] / HOURLY.mean()
    return np.asarray(hourly * np.where(weekend, WEEKEND_CALLS, 1.0))
