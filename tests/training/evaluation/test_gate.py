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
        np.array([0.25 + rows_over_limit]),
        np.array([0.25], np.float32),
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
    checks = gate.quality_checks(
        GateSettings(),
        held_out_rows=rows,
        auc=Estimate(auc, auc, auc),
        gain=gain,
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
        auc=Estimate(0.5, 0.4, 0.6),
        gain=None,
        parity=parity_of(),
    )
    with pytest.raises(
        GateFailedError, match=r"2 of 3 checks .* 10 held-out rows; .* 0\.5000"
    ) as failed:
        gate.enforce_gate("churn/test", checks)
    assert len(failed.value.checks) == 2


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
    check = gate.held_out_classes_check(positive)
    assert check.passed is passed
    assert f"{min(positives, 1_000 - positives)} held-out rows of the rarer class" in check.text
