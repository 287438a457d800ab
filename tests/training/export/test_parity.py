"""The parity certificate sees every way in which two score columns can differ."""

import numpy as np

from training.export.parity import ParityCertificate, certify_parity


def certificate(fitted: list[float], converted: list[float]) -> ParityCertificate:
    """The first row is held-out, the others are edges."""
    return certify_parity(
        np.array(fitted),
        np.array(converted, dtype=np.float32),
        held_out_rows=1,
        threshold=0.5,
    )


def test_float32_rounding_passes() -> None:
    """6e-8 apart is what float32 does."""
    found = certificate([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert found.passed
    assert (found.held_out_rows, found.edge_rows) == (1, 2)
    assert 0 < found.difference_max < 1e-7


def test_one_row_apart_fails_and_is_named() -> None:
    """By its index, with the decision it turns."""
    found = certificate([0.1, 0.4999, 0.3], [0.1, 0.5001, 0.3])
    assert not found.passed
    assert (found.rows_over_limit, found.decisions_changed, found.worst_row) == (1, 1, 1)


def test_nan_on_one_side_is_infinitely_apart() -> None:
    """NaN compares false with everything, so a plain maximum would overlook it."""
    found = certificate([0.1, float("nan")], [0.1, 0.5])
    assert not found.passed
    assert found.difference_max == float("inf")
    assert found.definition()["difference_max"] is None


def test_nan_on_both_sides_agrees() -> None:
    """Both say: not a number."""
    assert certificate([0.1, float("nan")], [0.1, float("nan")]).passed
