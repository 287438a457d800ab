"""Tests of the expected shift."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property_examples import examples
from training.artifacts.reference import bin_counts, score_edges
from training.evaluation.expected_shift import ExpectedShift, expected_shift, population_stability


def shift_of(before: np.ndarray, after: np.ndarray, threshold: float = 0.5) -> ExpectedShift:
    """The shift on the score edges of the first column."""
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
def test_expected_shift_table_adds_up_to_the_bins_of_both_versions(seed: int, rows: int) -> None:
    """Its rows sum to the champion's counts, and its columns to the candidate's."""
    generator = np.random.default_rng(seed)
    before = generator.random(rows).astype(np.float32).round(2)
    after = generator.random(rows).astype(np.float32).round(2)

    shift = shift_of(before, after)

    edges = score_edges(before)
    assert shift.table.shape == (20, 20)
    assert shift.table.sum(axis=1).tolist() == bin_counts(before, edges).tolist()
    assert shift.table.sum(axis=0).tolist() == bin_counts(after, edges).tolist()
    assert shift.flips == int(((before >= 0.5) != (after >= 0.5)).sum())


def test_expected_shift_of_equal_scores_is_diagonal() -> None:
    """PSI and mean difference are 0, and no decision flips."""
    scores = np.random.default_rng(1).random(500).astype(np.float32)
    shift = shift_of(scores, scores)
    assert shift.table.sum() == np.trace(shift.table) == 500
    assert (shift.flip_rate, shift.psi, shift.mean_difference) == (0.0, 0.0, 0.0)


def test_expected_shift_uses_the_threshold_of_each_version() -> None:
    """With .3 instead of .5, every row between becomes positive."""
    scores = np.linspace(0, 1, 101).astype(np.float32)
    shift = shift_of(scores, scores, threshold=0.3)
    assert shift.flips == shift.to_positive == 20


def test_expected_shift_digest_changes_with_one_row() -> None:
    """An approver accepts this table and no other."""
    before = np.linspace(0, 1, 200).astype(np.float32)
    after = before.copy()
    first = shift_of(before, after).digest
    after[7] = 0.99
    assert first == shift_of(before, before.copy()).digest
    assert shift_of(before, after).digest != first


def test_population_stability_of_a_moved_population() -> None:
    """(.5, .5) to (.9, .1) gives .4 ln 1.8 - .4 ln .2 = .879.

    Smoothing changes it by less than 1 %.
    """
    psi = population_stability(np.array([5_000, 5_000]), np.array([9_000, 1_000]))
    assert psi == pytest.approx(0.879, rel=0.01)
