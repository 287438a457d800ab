"""reference.json: fixed bins that the gateway counts into."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.property_examples import examples
from training.artifacts import reference


@examples(40)
@given(
    hnp.arrays(
        np.float32, st.integers(1, 200), elements=st.floats(0, 1, width=32, allow_subnormal=False)
    )
)
def test_any_scores_give_19_strictly_growing_edges_that_survive_json(scores: np.ndarray) -> None:
    """Also scores that are all alike; float32 written and read again is the same float32."""
    edges = reference.score_edges(scores)
    assert len(edges) == 19
    assert np.all(edges[1:] > edges[:-1])
    assert np.array(json.loads(json.dumps(edges.tolist())), np.float32).tobytes() == edges.tobytes()
    assert reference.bin_counts(scores, edges).sum() == len(scores)


def test_distinct_scores_fill_20_bins_alike() -> None:
    """1,000 distinct scores: 50 a bin."""
    scores = np.random.default_rng(1).permutation(1_000).astype(np.float32)
    assert reference.bin_counts(scores, reference.score_edges(scores)).tolist() == [50] * 20


def test_an_edge_belongs_to_the_bin_below_it() -> None:
    """Bin j holds edges[j-1] < v <= edges[j], with open ends."""
    edges = np.array([0.0, 1.0], dtype=np.float32)
    values = np.array([-9, 0, np.nextafter(np.float32(0), np.float32(1)), 1, 9], dtype=np.float32)
    assert reference.bin_indices(values, edges).tolist() == [0, 0, 1, 1, 2]


def test_a_file_says_bins_counts_and_missing() -> None:
    """NaN is counted apart; a yes/no column has two bins."""
    rows = np.array([[1, 0], [2, 1], [np.nan, 0], [4, 1]], dtype=np.float32)
    written = json.loads(
        reference.write_reference(
            names=("v:a", "v:b"),
            rows=rows,
            scores=np.linspace(0, 1, 100).astype(np.float32),
            score_name="score",
            threshold=0.4,
        )
    )
    first, second = written["features"]
    assert (first["name"], first["missing"], sum(first["counts"])) == ("v:a", 1, 3)
    assert [count for count in second["counts"] if count] == [2, 2]
    assert written["decision_threshold"] == 0.4
    assert (len(written["score"]["edges"]), len(written["score"]["counts"])) == (19, 20)


def test_a_column_that_is_always_missing_still_has_edges() -> None:
    """Nothing is known of it; every live value then lies in an end bin."""
    rows = np.full((5, 1), np.nan, dtype=np.float32)
    written = json.loads(
        reference.write_reference(
            names=("v:a",),
            rows=rows,
            scores=np.zeros(5, dtype=np.float32),
            score_name="score",
            threshold=0.5,
        )
    )
    assert written["features"][0] == {"name": "v:a", "edges": [0], "counts": [0, 0], "missing": 5}
