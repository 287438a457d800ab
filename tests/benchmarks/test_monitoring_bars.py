"""The benchmarks of monitoring run in a small version, and their exit code says what was missed."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks.monitoring import __main__ as command
from benchmarks.monitoring.alarm_rules import other_alarms, turnout_alarms, version_budget
from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions
from benchmarks.monitoring.quiet import QUALITY_STREAMS, mean_interval
from benchmarks.monitoring.quiet_world import (
    BINS,
    DAYS,
    FEATURES,
    SETTLING_DAYS,
    STREAMS,
    WEEKS,
    PlantedShift,
    WorldSettings,
    simulate_model,
)
from stats.alarms.change_test import location_scores

LONGER = ("estimates", "fold", "explain", "acts")
"""Their small versions start systems or fit many models, which takes minutes."""


@pytest.mark.walk
@pytest.mark.parametrize(
    "name",
    [
        "quiet",
        "finds",
        "day",
        "attribution",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in LONGER),
    ],
)
def test_benchmark_of_monitoring_prints_its_bars_and_json(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rounds are too few to state a bar, and enough to run every line of it."""
    target = tmp_path / "bars.json"
    code = command.main(["--only", name, "--quick", "--rounds", "2", "--json", str(target)])
    bars = json.loads(target.read_text())[name]
    assert code == int(any(bar["passed"] is False for bar in bars))
    assert any(bar["promised"] for bar in bars)
    assert all(bar["numbers"] for bar in bars)
    assert name in capsys.readouterr().out


@pytest.mark.walk
def test_quiet_world_is_quiet_and_a_planted_shift_is_found() -> None:
    """One rule on equal customers: without the shift no alarm, with it that feature's."""
    settings = WorldSettings(keys_a_day=(2_000, 2_000))
    budget = version_budget(FEATURES, QUALITY_STREAMS)
    quiet = simulate_model(np.random.default_rng(3), settings, weeks=6)
    planted = PlantedShift(feature=12, shift=0.6, day=SETTLING_DAYS + 3)
    moved = simulate_model(np.random.default_rng(3), settings, 6, planted)
    assert not turnout_alarms(quiet, budget).any()
    found = turnout_alarms(moved, budget)
    assert found[12] > 0
    assert found[:12].sum() + found[13:-1].sum() == 0
    # Other rules raise alarms in the quiet world, and these are not few.
    assert other_alarms(quiet, by_weekday=False)["p < .05"] > 50


@pytest.mark.walk
def test_simulated_customers_are_as_they_are_described() -> None:
    """Every customer has each stream once a day, comes back, and differs on weekends."""
    counts = simulate_model(np.random.default_rng(4), WorldSettings(keys_a_day=(1_000, 1_000)))
    assert counts.daily.shape == (DAYS, STREAMS, BINS)
    assert counts.weekly.shape == (WEEKS, STREAMS, BINS)
    customers = counts.daily.sum(axis=2)
    assert np.all(customers == customers[:, :1])
    assert 900 < np.median(customers) < 1_200
    # Keys are sticky: a week has far fewer customers than the sum of its days.
    assert np.all(counts.weekly.sum(axis=2)[:, 0] < customers[:, 0].reshape(WEEKS, 7).sum(axis=1))
    scores = np.array([location_scores(stream) for stream in counts.daily.sum(axis=0)])
    means = (counts.daily * scores).sum(axis=2) / customers
    weekend = np.arange(DAYS) % 7 >= 5
    shift = means[weekend].mean(axis=0) - means[~weekend].mean(axis=0)
    assert np.all(shift[:5] > 0.2)
    assert np.abs(shift[5:-1]).max() < 0.35


def test_mean_interval_covers_counts_that_are_rare_or_clustered() -> None:
    """No alarm in 1,000 quarters is at most .0037 a quarter; clusters widen the interval."""
    low, high = mean_interval(np.zeros(1_000, dtype=np.int64))
    assert low == 0.0
    assert high == pytest.approx(0.00369, abs=1e-5)
    spread = np.repeat([0, 1], [80, 20])
    clustered = np.repeat([0, 20], [99, 1])
    assert mean_interval(spread)[1] == pytest.approx(0.309, abs=0.01)
    assert mean_interval(clustered)[1] > 2 * mean_interval(spread)[1] - 0.1


def test_command_says_by_its_exit_code_that_a_bar_was_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 for a missed bar, 0 otherwise, 2 for a benchmark that this checkout does not have."""
    passed: bool | None = False
    asked: list[MonitoringOptions] = []

    def measured(options: MonitoringOptions) -> list[MeasuredBar]:
        asked.append(options)
        return [MeasuredBar(subject="alarms", measured="9", promised="<= 1", passed=passed)]

    module = ModuleType("measured")
    module.main = measured  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.import_module", lambda _: module)
    assert command.main(["--only", "quiet", "--rounds", "3"]) == 1
    assert "missed" in capsys.readouterr().out
    passed = None
    assert command.main(["--only", "quiet", "--seed", "7"]) == 0
    assert [(item.rounds, item.seed) for item in asked] == [(3, 1), (None, 7)]
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    for arguments in (["--only", "fold"], ["--rounds", "0"], ["--only", "weather"]):
        with pytest.raises(SystemExit) as exited:
            command.main(arguments)
        assert exited.value.code == 2
