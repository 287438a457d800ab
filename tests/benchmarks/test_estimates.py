"""The benchmark of estimates runs, and a broken estimate misses its bar."""

import numpy as np
import pytest

from benchmarks.monitoring import estimates
from benchmarks.monitoring.bars import MonitoringOptions
from benchmarks.monitoring.estimate_worlds import SHIFTS, UPLIFT_WORLDS
from stats.fairness.ratio_evidence import RateCounts, RatioEvidence, add_look
from stats.figure import Figure

pytestmark = pytest.mark.walk


def test_quick_benchmark_has_every_bar_and_meets_it() -> None:
    """Few worlds, with fixed seeds: expected AUC, uplift, Qini and fairness."""
    bars = estimates.main(MonitoringOptions(rounds=2, seed=1))
    promised = [bar for bar in bars if bar.promised]
    assert {bar.subject.split(":")[0] for bar in promised} == {
        "expected AUC, calibrated",
        "expected AUC, weighted",
        "effect",
        "Qini area",
        "fairness",
    }
    errors = [bar for bar in promised if "mean error" in bar.measured]
    assert len(errors) == 6
    assert all(bar.passed for bar in errors)


def test_estimate_that_is_wrong_misses_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interval without width covers nothing, and evidence that doubles itself accuses."""

    def narrow(bins: object) -> Figure:
        return Figure(0.02, 0.02, 0.02, 10)

    monkeypatch.setattr(estimates, "effect_figure", narrow)
    world = UPLIFT_WORLDS[1]
    (bar,) = estimates.uplift_bars(np.random.default_rng(1), 3, world)
    assert bar.passed is True  # the true effect is 2 points
    wrong = UPLIFT_WORLDS[3]
    (bar,) = estimates.uplift_bars(np.random.default_rng(1), 3, wrong)
    assert bar.passed is False

    def same_people_again(evidence: RatioEvidence, look: RateCounts) -> RatioEvidence:
        for _ in range(20):
            evidence = add_look(evidence, look)
        return evidence

    monkeypatch.setattr(estimates, "add_look", same_people_again)
    assert (
        estimates.fairness_bar(np.random.default_rng(1), 2, estimates.FAIR_WORLDS[3]).passed
        is False
    )


def test_shift_that_the_score_does_not_see_has_no_promise_without_weights() -> None:
    """Calibration alone is blind there, and the table says so by promising nothing."""
    bars = estimates.accuracy_bars(np.random.default_rng(1), 2, SHIFTS[2])
    promised = {bar.subject.split(":")[0] for bar in bars if bar.promised}
    assert promised == {"expected AUC, weighted"}
