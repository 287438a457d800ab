"""Tests of the gate."""

import numpy as np
import pytest

from tests.tiny_models import tiny_files
from training.errors import GateFailedError
from training.evaluation import gate
from training.evaluation.metrics import Estimate
from training.export.parity import ParityCertificate, certify_parity
from training.recipe import GateSettings


def parity_of(rows_over_limit: float = 0.0) -> ParityCertificate:
    """A certificate over one held-out row with this difference."""
    return certify_parity(
        np.array([[0.25 + rows_over_limit]]),
        np.array([[0.25]], np.float32),
        held_out_rows=1,
        threshold=0.5,
    )


def failed_checks(
    *,
    auc: float = 0.8,
    gain: Estimate | None = None,
    rows: int = 600,
    certificate: ParityCertificate | None = None,
) -> list[str]:
    """Names of the failed checks with default settings."""
    settings = GateSettings()
    checks = gate.quality_checks(
        settings,
        held_out_rows=rows,
        skill=[gate.auc_check(settings, Estimate(auc, auc, auc))],
        gain=None if gain is None else gate.gain_check("auc", "AUC", gain, 0.0),
        parity=certificate or parity_of(),
    )
    return [check.name for check in checks if not check.passed]


def test_gate_passes_a_good_version() -> None:
    """It passes with a champion that is beaten, and without one."""
    assert failed_checks() == []
    assert failed_checks(gain=Estimate(0.02, 0.001, 0.04)) == []


def test_gate_fails_the_check_of_each_shortfall() -> None:
    """A gain whose interval includes 0 is not enough."""
    assert failed_checks(auc=0.69) == ["auc"]
    assert failed_checks(rows=499) == ["held_out_rows"]
    assert failed_checks(certificate=parity_of(2e-5)) == ["parity"]
    assert failed_checks(gain=Estimate(0.02, 0.0, 0.04)) == ["auc_gain"]
    assert failed_checks(gain=Estimate(-0.02, -0.04, -0.01)) == ["auc_gain"]
    assert failed_checks(gain=Estimate(None, None, None)) == ["auc_gain"]


def test_gate_error_has_every_number() -> None:
    """Its `checks` has the failed checks for programs."""
    checks = gate.quality_checks(
        GateSettings(),
        held_out_rows=10,
        skill=[gate.auc_check(GateSettings(), Estimate(0.5, 0.4, 0.6))],
        gain=None,
        parity=parity_of(),
    )
    with pytest.raises(
        GateFailedError, match=r"2 of 3 checks .* 10 held-out rows; .* 0\.5000"
    ) as failed:
        gate.enforce_gate("churn/test", checks)
    assert len(failed.value.checks) == 2


def test_gate_bounds_any_metric_of_a_task() -> None:
    """A metric that is not defined fails, and a gain in a unit of thousands is legible."""
    settings = GateSettings(metrics_min={"r2": 0.5}, metrics_max={"mae": 1_000.0, "bias": 5.0})
    metrics = {
        "r2": Estimate(0.5, 0.4, 0.6),
        "mae": Estimate(1_234.5, 1_200.0, 1_300.0),
        "bias": Estimate(None, None, None),
    }
    checks = gate.metric_checks(settings, metrics)
    assert [(check.name, check.passed) for check in checks] == [
        ("r2", True),
        ("mae", False),
        ("bias", False),
    ]
    assert checks[1].text == "mae 1,234.5; at most 1,000"
    gain = gate.gain_check("mae", "mean absolute error", Estimate(1_234.56, 7.0, 2_000.0), 0.0)
    assert (gain.name, gain.passed) == ("mae_gain", True)
    assert "+1,234.6 [+7.0, +2,000.0]" in gain.text
    poor = gate.skill_check("log loss", "the shares of the classes", Estimate(0.01, -0.01, 0.03))
    assert (poor.name, poor.passed) == ("skill", False)


def test_champion_is_kept_where_a_gain_alone_is_missing() -> None:
    """It holds for any task. A version that lacks more than that has failed."""
    lost = gate.gain_check("mae", "mean absolute error", Estimate(-1.0, -2.0, 0.5), 0.0)
    for checks, only_better in (([lost], True), ([lost, gate.GateCheck("r2", False, "")], False)):
        with pytest.raises(GateFailedError) as failed:
            gate.enforce_gate("spend/test", checks)
        assert failed.value.only_better is only_better


def test_servable_check_passes_a_complete_version() -> None:
    """It uses the load and the golden test of gateways."""
    assert gate.servable_check(tiny_files(), model="churn").passed


def test_servable_check_fails_a_version_off_its_golden_rows() -> None:
    """One weight differs by .01."""
    weights = np.array([[0.11], [0.2], [0.3]], dtype=np.float32)
    files = {**tiny_files(), "model.onnx": tiny_files(weights=weights)["model.onnx"]}
    check = gate.servable_check(files, model="churn")
    assert not check.passed
    assert "golden row" in check.text


@pytest.mark.parametrize(("positives", "passed"), [(0, False), (4, False), (5, True), (996, False)])
def test_gate_asks_for_rows_of_either_class(positives: int, passed: bool) -> None:
    """With three positive labels, an AUC is a matter of chance."""
    positive = np.arange(1_000) < positives
    (check,) = gate.held_out_classes_checks({"positive": positive, "negative": ~positive})
    assert check.passed is passed
    assert f"{min(positives, 1_000 - positives)} held-out rows of the rarest class" in check.text
