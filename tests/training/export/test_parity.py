"""Tests of the parity certificate."""

import numpy as np

from training.export.parity import ParityCertificate, certify_parity


def certificate(fitted: list[float], converted: list[float]) -> ParityCertificate:
    """A certificate whose first row is held out and whose other rows are edge rows."""
    return certify_parity(
        np.array(fitted)[:, np.newaxis],
        np.array(converted, dtype=np.float32)[:, np.newaxis],
        held_out_rows=1,
        threshold=0.5,
    )


def test_parity_accepts_float32_rounding() -> None:
    """Rounding gives differences of about 6e-8."""
    result = certificate([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert result.passed
    assert (result.held_out_rows, result.edge_rows) == (1, 2)
    assert 0 < result.difference_max < 1e-7


def test_parity_names_the_row_over_the_limit() -> None:
    """The certificate has its index, and counts its changed decision."""
    result = certificate([0.1, 0.4999, 0.3], [0.1, 0.5001, 0.3])
    assert not result.passed
    assert (result.rows_over_limit, result.decisions_changed, result.worst_row) == (1, 1, 1)


def test_parity_counts_nan_on_one_side_as_infinite() -> None:
    """NaN compares false with every number, so a plain maximum would miss it."""
    result = certificate([0.1, float("nan")], [0.1, 0.5])
    assert not result.passed
    assert result.difference_max == float("inf")
    assert result.definition()["difference_max"] is None


def test_parity_accepts_nan_on_both_sides() -> None:
    """Both scores are not a number."""
    assert certificate([0.1, float("nan")], [0.1, float("nan")]).passed
