"""The expected shift says exactly which rows move where."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property_examples import examples
from training.artifacts.reference import bin_counts, score_edges
from training.evaluation.expected_shift import ExpectedShift, expected_shift, population_stability


def shift_of(before: np.ndarray, after: np.ndarray, threshold: float = 0.5) -> ExpectedShift:
    """Shift on the first column's own score edges."""
    return expected_shift(
        before,
        after,
        champion="c0ffee",
        edges=score_edges(before),
        champion_threshold=0.5,
        candidate_threshold=threshold,
    )


@examples(40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_the_table_adds_up_to_both_versions_bins(seed: int, rows: int) -> None:
    """Its rows sum to the champion's counts, its columns to the candidate's."""
    draw = np.random.default_rng(seed)
    before = draw.random(rows).astype(np.float32).round(2)
    after = draw.random(rows).astype(np.float32).round(2)

    shift = shift_of(before, after)

    edges = score_edges(before)
    assert shift.table.shape == (20, 20)
    assert shift.table.sum(axis=1).tolist() == bin_counts(before, edges).tolist()
    assert shift.table.sum(axis=0).tolist() == bin_counts(after, edges).tolist()
    assert shift.flips == int(((before >= 0.5) != (after >= 0.5)).sum())


def test_the_same_model_is_a_diagonal_that_flips_nothing() -> None:
    """And its PSI and mean difference are zero."""
    scores = np.random.default_rng(1).random(500).astype(np.float32)
    shift = shift_of(scores, scores)
    assert shift.table.sum() == np.trace(shift.table) == 500
    assert (shift.flip_rate, shift.psi, shift.mean_difference) == (0.0, 0.0, 0.0)


def test_each_version_decides_at_its_own_threshold() -> None:
    """The same scores decided at .3 instead of .5 flip every row between, all to positive."""
    scores = np.linspace(0, 1, 101).astype(np.float32)
    shift = shift_of(scores, scores, threshold=0.3)
    assert shift.flips == shift.to_positive == 20


def test_the_digest_changes_with_a_single_row() -> None:
    """What an approver accepted is this table and no other."""
    before = np.linspace(0, 1, 200).astype(np.float32)
    after = before.copy()
    first = shift_of(before, after).digest
    after[7] = 0.99
    assert first == shift_of(before, before.copy()).digest
    assert shift_of(before, after).digest != first


def test_psi_of_a_half_moved_population() -> None:
    """(0.5, 0.5) to (0.9, 0.1): .4 ln 1.8 - .4 ln .2 = .879; smoothing moves it by under 1 %."""
    psi = population_stability(np.array([5_000, 5_000]), np.array([9_000, 1_000]))
    assert psi == pytest.approx(0.879, rel=0.01)
