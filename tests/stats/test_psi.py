"""The population stability index."""

import math

import numpy as np
import pytest

from stats.psi import debiased_psi


def test_debiased_psi_of_equal_arms_is_about_zero() -> None:
    """The mean over draws of equal arms is near zero also for few keys."""
    draw = np.random.default_rng(1)
    p = np.full(10, 0.1)
    scores = [debiased_psi(draw.multinomial(200, p), draw.multinomial(2000, p)) for _ in range(200)]
    assert abs(float(np.mean(scores))) < 0.01


def test_debiased_psi_shows_a_shift_and_is_nan_for_an_empty_arm() -> None:
    """A tenth that moves from one end to the other is a large shift."""
    before = np.full(10, 1000)
    after = before.copy()
    after[0], after[9] = 200, 1800
    assert debiased_psi(after, before) > 0.15
    assert math.isnan(debiased_psi(np.zeros(10, dtype=np.int64), before))
    with pytest.raises(ValueError, match="one table of bins"):
        debiased_psi(np.ones(3, dtype=np.int64), np.ones(4, dtype=np.int64))
