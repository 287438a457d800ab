"""A look at a version: figures, alarms and a state that a killed job may use again."""

import json
from datetime import date, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.jobs.look import (
    LookState,
    WatchedShare,
    WatchedValue,
    WatchedVersion,
    budget_lines,
    budget_of_version,
    daily_look,
    quality_look,
    weekly_look,
)
from monitoring.jobs.severity import Severity
from stats.alarms.budget import FEATURES, RISK, SCORE, Cadence, DetectorSettings
from stats.alarms.weekdays import SETTLING_DAYS, settle_reference
from stats.drift.figures import DriftFigures, DriftSize, NoFigures, ValueCounts

MONDAY = date(2026, 11, 30)
EDGES = norm.ppf(np.arange(1, 10) / 10)

Counts = NDArray[np.int64]


def draw(rng: np.random.Generator, rows: int, shift: float = 0.0) -> Counts:
    """Return (10,) counts of normal values that moved by *shift* deviations."""
    return np.bincount(np.searchsorted(EDGES, rng.normal(shift, 1, rows)), minlength=10)


def watched(*, settled: bool) -> WatchedVersion:
    """Return a version with a score and two features of a view."""
    # The score and the features, with their references of training and of production.
    rng = np.random.default_rng(1)
    weekdays = [day % 7 for day in range(SETTLING_DAYS)]
    values = [
        WatchedValue(
            name=name,
            group=SCORE if name == "p" else FEATURES,
            reference=ValueCounts(draw(rng, 5_000), missing=50),
            reference_id=f"{name}-1",
            settled=settle_reference(np.array([draw(rng, 2_000) for _ in weekdays]), weekdays)
            if settled
            else None,
            settled_weeks=draw(rng, 12_000) if settled else None,
            view="" if name == "p" else "usage",
        )
        for name in ("p", "calls", "minutes")
    ]
    # What is looked at every five minutes.
    shares = (
        WatchedShare(
            name="usage missing",
            kind="quality",
            reference_hits=2_000,
            reference_rows=100_000,
            reference_id="r",
            view="usage",
        ),
        WatchedShare(
            name="silence",
            kind="silence",
            reference_hits=0,
            reference_rows=120,
            reference_id="r",
            cluster=1,
        ),
    )
    return WatchedVersion(model="churn", version="7", values=tuple(values), shares=shares)


def quarter(
    version: WatchedVersion, shift: float, from_day: int, days: int = 14
) -> tuple[list[MonitoringAlarm], LookState]:
    """Return the alarms of daily and weekly looks, with "calls" moved from a day on."""
    rng = np.random.default_rng(2)
    state: LookState = {}
    alarms: list[MonitoringAlarm] = []
    for number in range(days):
        day = MONDAY + timedelta(days=number)
        counts = {
            name: ValueCounts(draw(rng, 2_000, shift if moved else 0.0))
            for name in ("p", "calls", "minutes")
            for moved in [name == "calls" and number >= from_day]
        }
        result = daily_look(version, counts, day, state)
        # The job is killed after its look and looks again, with the state that JSON gives back.
        state = json.loads(json.dumps(result.state, allow_nan=False))
        repeated = daily_look(version, counts, day, state)
        assert (repeated.alarms, repeated.state) == ((), result.state)
        alarms += result.alarms
    return alarms, state


@pytest.mark.walk
@pytest.mark.parametrize(("settled", "shift"), [(True, 0.5), (False, 0.8)])
def test_daily_look_finds_a_feature_that_moved(settled: bool, shift: float) -> None:
    """Its name, its view and its day. It is drift, so it goes to the review."""
    alarms, _ = quarter(watched(settled=settled), shift, from_day=9)
    assert alarms
    assert {(item.stream, item.view, item.kind) for item in alarms} == {
        ("calls", "usage", "features")
    }
    begins = int((MONDAY + timedelta(days=9) - date(1970, 1, 1)).days) * 86_400
    assert (alarms[0].since, alarms[0].at) == (begins, begins + 86_400)
    assert alarms[0].severity is Severity.REVIEW


@pytest.mark.walk
def test_daily_look_is_silent_about_a_tolerated_shift() -> None:
    """.1 standard deviations are no alarm, in 14 days and with all streams."""
    alarms, state = quarter(watched(settled=True), 0.1, from_day=5)
    assert not alarms
    assert set(state["DAILY"]) == {"p", "calls", "minutes"}


def test_weekly_look_finds_what_daily_looks_tolerate() -> None:
    """.2 standard deviations over two weeks of 12,000 customers."""
    version = watched(settled=True)
    rng = np.random.default_rng(4)
    state: LookState = {}
    for week in range(2):
        counts = {"calls": ValueCounts(draw(rng, 12_000, 0.2))}
        sunday = MONDAY + timedelta(days=6 + 7 * week)
        result = weekly_look(version, counts, sunday, state)
        state = result.state
        if result.alarms:
            break
    (found,) = result.alarms
    assert found.stream == "calls"
    assert (found.at - found.since) % (7 * 86_400) == 0
    with pytest.raises(ValueError, match="no Sunday"):
        weekly_look(version, {}, MONDAY, state)


def test_look_has_figures_against_training_and_against_settled_days() -> None:
    """Missing values are counted beside them, and a stream without rows has none."""
    version = watched(settled=True)
    rng = np.random.default_rng(5)
    counts = {"p": ValueCounts(draw(rng, 4_000, 0.7), missing=1_000)}
    figures = daily_look(version, counts, MONDAY, {}).figures
    assert isinstance(figures["p"].training.figures, DriftFigures)
    assert isinstance(figures["p"].settled, DriftFigures)
    assert figures["p"].settled.size is DriftSize.LARGE
    assert figures["p"].training.missing.share == pytest.approx(0.2)
    assert isinstance(figures["calls"].training.figures, NoFigures)
    assert str(figures["calls"].training.figures) == "not enough data: 0 of 100 rows"


def test_detector_starts_anew_when_a_reference_is_accepted() -> None:
    """Evidence against training's rows is no evidence against production's own days."""
    rng = np.random.default_rng(6)
    counts = {"calls": ValueCounts(draw(rng, 2_000, 0.4))}
    before = daily_look(watched(settled=False), counts, MONDAY, {}).state
    after = daily_look(watched(settled=True), {}, MONDAY + timedelta(days=1), before).state
    assert before["DAILY"]["calls"]["reference"] == "calls-1/training"
    assert after["DAILY"]["calls"]["reference"] == "calls-1/settled"
    assert set(after["DAILY"]["calls"]["log_m"]) == {None}


def test_stream_with_a_small_reference_is_named_as_unwatched() -> None:
    """It has no detector, and the other streams have theirs."""
    version = watched(settled=False)
    small = WatchedValue(
        name="rare",
        group=FEATURES,
        reference=ValueCounts(np.full(10, 3)),
        reference_id="x",
    )
    with_small = WatchedVersion(model="churn", version="7", values=(*version.values, small))
    result = daily_look(with_small, {}, MONDAY, {})
    assert result.unwatched == {
        "rare": "not enough data: 30 of 100 rows in the reference; settle one on more days"
    }
    assert "calls" in result.state["DAILY"]


def test_quality_look_finds_missing_rows_and_silence_within_minutes() -> None:
    """Missing rows rise from 2 to 30 % at 350 rows in five minutes; later no call comes at all."""
    version = watched(settled=True)
    state: LookState = {}
    found: dict[str, int] = {}
    for look in range(40):
        missing = 7 if look < 20 else 105
        silent = 0 if look < 30 else 5
        result = quality_look(
            version,
            {"usage missing": (missing, 350) if not silent else (0, 0), "silence": (silent, 5)},
            300 * (1_000 + look),
            state,
        )
        state = json.loads(json.dumps(result.state, allow_nan=False))
        for item in result.alarms:
            found.setdefault(item.stream, look)
            assert item.severity is Severity.PAGE
            assert item.since < item.at
    assert found["usage missing"] in (20, 21)
    assert found["silence"] in range(31, 34)
    with pytest.raises(ValueError, match="not negative"):
        quality_look(version, {"silence": (6, 5)}, 10**9, state)


def test_budget_lines_say_what_is_allowed_bound_and_seen() -> None:
    """Detectors of calibration have a part; the groups without detectors spend nothing."""
    version = watched(settled=True)
    lines = {line.group: line for line in budget_lines(version, {FEATURES: 2})}
    assert lines["all"].bound == pytest.approx(0.25 * (0.15 + 0.15 + 0.25))
    assert lines["all"].bound <= lines["all"].allowed == 0.25
    assert (lines[FEATURES].detectors, lines[FEATURES].seen, lines["all"].seen) == (4, 2, 2)
    assert lines["fairness"].bound == 0
    risk = DetectorSettings("brier", RISK, Cadence.WEEKLY)
    more = WatchedVersion(
        model="churn", version="7", values=version.values, other_detectors=(risk,)
    )
    assert budget_of_version(more).detectors["brier", Cadence.WEEKLY].alarms_max == pytest.approx(
        0.25 * 0.20
    )
