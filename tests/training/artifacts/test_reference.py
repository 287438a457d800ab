"""Tests of reference.json, into whose bins the gateways count."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stats.score_grid import bins_by_edges, score_grid_edges
from tests.property_examples import examples
from training.artifacts import reference


@examples(40)
@given(
    hnp.arrays(
        np.float32, st.integers(1, 200), elements=st.floats(0, 1, width=32, allow_subnormal=False)
    )
)
def test_score_edges_grow_strictly_and_survive_json(scores: np.ndarray) -> None:
    """Equal scores give 19 edges too. A float32 is the same after writing and reading."""
    edges = reference.score_edges(scores)
    assert len(edges) == 19
    assert np.all(edges[1:] > edges[:-1])
    assert np.array(json.loads(json.dumps(edges.tolist())), np.float32).tobytes() == edges.tobytes()
    assert reference.bin_counts(scores, edges).sum() == len(scores)


def test_score_edges_fill_20_bins_equally() -> None:
    """1,000 distinct scores give 50 in each bin."""
    scores = np.random.default_rng(1).permutation(1_000).astype(np.float32)
    assert reference.bin_counts(scores, reference.score_edges(scores)).tolist() == [50] * 20


def test_bin_indices_put_an_edge_into_the_lower_bin() -> None:
    """Bin j has edges[j-1] < v <= edges[j], and the outer bins are open."""
    edges = np.array([0.0, 1.0], dtype=np.float32)
    values = np.array([-9, 0, np.nextafter(np.float32(0), np.float32(1)), 1, 9], dtype=np.float32)
    assert reference.bin_indices(values, edges).tolist() == [0, 0, 1, 1, 2]


def test_reference_has_bins_counts_and_missing_values() -> None:
    """NaN is counted separately, and a column of 0 and 1 has two bins."""
    rows = np.array([[1, 0], [2, 1], [np.nan, 0], [4, 1]], dtype=np.float32)
    written = json.loads(
        reference.write_reference(
            names=("v:a", "v:b"),
            rows=rows,
            scores=np.linspace(0, 1, 100).astype(np.float32)[:, None],
            outputs=("score",),
            task="binary",
            threshold=0.4,
        )
    )
    first, second = written["features"]
    assert (first["name"], first["missing"], sum(first["counts"])) == ("v:a", 1, 3)
    assert [count for count in second["counts"] if count] == [2, 2]
    assert written["decision_threshold"] == 0.4
    assert (len(written["score"]["edges"]), len(written["score"]["counts"])) == (19, 20)


def test_reference_has_the_labels_of_held_out_rows_by_score() -> None:
    """Every row with a score is counted once, in its bin of the grid that all versions share."""
    rng = np.random.default_rng(1)
    scores = rng.random(500).astype(np.float32)
    scores[7] = np.nan
    positive = rng.random(500) < 0.3
    written = json.loads(
        reference.write_reference(
            names=("v:a",),
            rows=np.zeros((5, 1), np.float32),
            scores=scores[:, None],
            outputs=("score",),
            task="binary",
            threshold=0.5,
            positive=positive,
        )
    )["held_out_labels"]
    counted = dict(
        zip(
            written["bins"],
            zip(written["positives"], written["negatives"], strict=True),
            strict=True,
        )
    )
    bins = bins_by_edges(scores, score_grid_edges())
    for place in set(bins[np.isfinite(scores)].tolist()):
        inside = bins == place
        assert counted.pop(place) == (positive[inside].sum(), (~positive)[inside].sum())
    assert counted == {}


def test_reference_has_edges_for_a_column_that_is_always_missing() -> None:
    """Every live value is then in one of the outer bins."""
    rows = np.full((5, 1), np.nan, dtype=np.float32)
    written = json.loads(
        reference.write_reference(
            names=("v:a",),
            rows=rows,
            scores=np.zeros((5, 1), dtype=np.float32),
            outputs=("score",),
            task="binary",
            threshold=0.5,
        )
    )
    assert written["features"][0] == {"name": "v:a", "edges": [0], "counts": [0, 0], "missing": 5}
