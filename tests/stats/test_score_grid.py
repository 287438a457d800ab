"""The fixed grid of scores: every score has one bin, and the value of a bin is near its scores."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stats.score_grid import (
    INNER_BINS,
    LOGIT_MAX,
    NAN_BIN,
    NEGATIVE_INFINITY_BIN,
    POSITIVE_INFINITY_BIN,
    SCORE_BINS,
    bins_by_edges,
    score_grid_edges,
    score_grid_values,
)
from tests.property_examples import examples


def test_edges_grow_and_are_equal_in_logit() -> None:
    """Float32 rounds an edge near 1 by a thousandth of a bin at most."""
    edges = score_grid_edges().astype(np.float64)
    assert len(edges) == SCORE_BINS - 1
    widths = np.diff(np.log(edges / (1 - edges)))
    np.testing.assert_allclose(widths, 2 * LOGIT_MAX / INNER_BINS, rtol=0.02)


def test_special_scores_have_bins_of_their_own() -> None:
    """NaN and the infinities are behind the bins of scores, and 0 and 1 in the open ends."""
    scores = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0], dtype=np.float32)
    bins = bins_by_edges(scores, score_grid_edges())
    expected = [NAN_BIN, POSITIVE_INFINITY_BIN, NEGATIVE_INFINITY_BIN, 0, SCORE_BINS - 1]
    assert bins.tolist() == expected


@examples(300)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_bins_keep_the_order_and_the_value_of_scores(scores: list[float]) -> None:
    """A larger score never has a smaller bin, and the bin's value is within .002 of it."""
    values = np.sort(np.array(scores, dtype=np.float32))
    bins = bins_by_edges(values, score_grid_edges())
    assert (np.diff(bins) >= 0).all()
    assert np.abs(score_grid_values()[bins] - values).max() <= 0.002
