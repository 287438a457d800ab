"""PSI, as shown to people."""

import math

import numpy as np
import pytest

from stats.psi import debiased_psi


def test_equal_arms_score_about_zero_however_few() -> None:
    """The part that chance alone gives is taken off: the mean over A/A draws is near zero."""
    draw = np.random.default_rng(1)
    p = np.full(10, 0.1)
    scores = [debiased_psi(draw.multinomial(200, p), draw.multinomial(2000, p)) for _ in range(200)]
    assert abs(float(np.mean(scores))) < 0.01


def test_a_shift_shows_and_an_empty_arm_has_no_score() -> None:
    """A tenth moved from end to end is large; no counts are NaN, not zero."""
    before = np.full(10, 1000)
    after = before.copy()
    after[0], after[9] = 200, 1800
    assert debiased_psi(after, before) > 0.15
    assert math.isnan(debiased_psi(np.zeros(10, dtype=np.int64), before))
    with pytest.raises(ValueError, match="one table of bins"):
        debiased_psi(np.ones(3, dtype=np.int64), np.ones(4, dtype=np.int64))
