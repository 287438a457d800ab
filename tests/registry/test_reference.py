"""Tests of reference.json: tasks, outputs, and the bins, decisions and distances of scores."""

import json

import numpy as np
import pytest

from features.canonical import canonical_json
from features.contract import ModelContract
from registry import bundle
from registry.bundle import Reference
from registry.types import VersionRefusedError
from stats.score_scale import ScoreScale
from tests.tiny_models import tiny_contract, tiny_files
from training.artifacts.reference import bins_of_outputs, value_spread, write_reference

CLASSES = ("low", "middle", "high")


def reference_of(scores: np.ndarray, task: str, outputs: tuple[str, ...]) -> Reference:
    """Write reference.json for float32 scores (M, K), and read it again."""
    contract = tiny_contract(outputs=outputs)
    content = write_reference(
        names=contract.names,
        rows=np.zeros((4, contract.width), np.float32),
        scores=scores.astype(np.float32),
        outputs=outputs,
        task=task,
        threshold=0.5,
    )
    return read_reference(content, contract)


def read_reference(content: bytes, contract: ModelContract) -> Reference:
    """Read the reference.json of a version with *contract*."""
    files = {**tiny_files(contract=contract), "reference.json": content}
    sealed = bundle.seal_files(files, model="churn", author="ann", created_unix_ms=1)
    return bundle.verify_bundle(sealed, trusted_key=None).reference


def class_scores(rows: int, seed: int = 3) -> np.ndarray:
    """Return (rows, 3) float32 probabilities."""
    return np.random.default_rng(seed).dirichlet((3, 2, 1), rows).astype(np.float32)


def stated(**changes: object) -> bytes:
    """Return the reference.json of a tiny version of one output with the given changes."""
    reference = json.loads(tiny_files()["reference.json"])
    output = {"name": "score", "edges": [0.5], "spread": 1.0}
    return canonical_json({**reference, "task": "binary", "outputs": [output], **changes})


def test_reference_without_a_task_is_binary_and_has_the_score_edges() -> None:
    """Versions of older releases keep their bins, and their distances are not scaled."""
    reference = read_reference(tiny_files()["reference.json"], tiny_contract())

    assert (reference.task, reference.scale.size) == ("binary", 20)
    assert reference.scale.spreads.tolist() == [1.0]
    scores = np.array([[0.05], [0.06], [0.96], [np.nan], [np.inf], [-np.inf]], np.float32)
    assert reference.scale.bins(scores).tolist() == [0, 1, 19, 20, 21, 22]


@pytest.mark.parametrize(("outputs", "size"), [(3, 22), (41, 60), (42, 42), (60, 60), (61, 60)])
def test_reference_without_a_task_takes_several_outputs_for_classes(
    outputs: int, size: int
) -> None:
    """Each output has a bin as far as there is room; the others share the last."""
    contract = tiny_contract(outputs=[f"class{n}" for n in range(outputs)])
    scale = read_reference(tiny_files(contract=contract)["reference.json"], contract).scale

    assert (scale.task, scale.size) == ("multiclass", size)
    bins = scale.bins(np.eye(outputs, dtype=np.float32))
    assert len(set(bins.tolist())) == min(outputs, 60)
    assert bins.max() == size - 1


def test_reference_of_one_output_has_the_edges_of_its_scores() -> None:
    """The bins of a binary version are those of releases that knew no outputs."""
    reference = reference_of(np.random.default_rng(1).random((500, 1)), "binary", ("score",))

    assert np.array_equal(reference.scale.edges[0], reference.score_edges)
    assert reference.scale.spreads.tolist() == [1.0]


def test_reference_of_classes_fills_its_bins_equally() -> None:
    """20 bins; a class has the more of them the more rows it is predicted for."""
    scores = class_scores(4_000)
    scale = reference_of(scores, "multiclass", CLASSES).scale

    assert scale.size == 20
    counts = np.bincount(scale.bins(scores), minlength=20)
    assert counts.sum() == 4_000
    assert counts.min() > 100
    assert counts.max() < 300


def test_reference_of_70_classes_gives_the_rarest_one_bin_together() -> None:
    """The 59 most frequent have a bin each."""
    rows = np.arange(70)
    assert bins_of_outputs(rows) == [0] * 11 + [1] * 59
    scores = np.repeat(np.eye(70, dtype=np.float32), rows + 1, axis=0)
    scale = reference_of(scores, "multiclass", tuple(f"class{n}" for n in rows)).scale
    bins = scale.bins(np.eye(70, dtype=np.float32))
    assert scale.size == 60
    assert set(bins[:11]) == {59}
    assert sorted(bins[11:]) == list(range(59))


def test_scale_puts_swapped_and_dead_classes_into_other_bins() -> None:
    """The first output is the same in all of them."""
    scores = class_scores(4_000)
    scale = reference_of(scores, "multiclass", CLASSES).scale
    swapped, dead = scores[:, [0, 2, 1]], scores * np.array([1, 1, 0], np.float32)

    for changed, output in ((swapped, [1, 2]), (dead, [2])):
        rows = np.isin(scores.argmax(axis=1), output)
        assert (scale.bins(changed)[rows] != scale.bins(scores)[rows]).all()
        assert np.array_equal(scale.flips(changed, scores), rows)
        assert scale.distances(changed, scores)[rows].min() > 0


def test_scale_counts_values_by_the_output_that_is_farthest_above_its_center() -> None:
    """Outputs of other units are comparable, and a swap or a dead output moves the bins."""
    made = np.random.default_rng(5).normal((100, 5e6, -2), (10, 1e6, 0.5), (4_000, 3))
    values = made.astype(np.float32)
    scale = reference_of(values, "regression", ("q10", "q50", "q90")).scale

    predicted = np.bincount(scale.predicted(values), minlength=3)
    assert predicted.min() > 1_000
    dead = values.copy()
    dead[:, 2] = 0
    for changed in (values[:, [2, 1, 0]], dead):
        assert (scale.bins(changed) != scale.bins(values)).mean() > 0.5


def test_scale_measures_distances_of_values_in_their_spread() -> None:
    """A spread is q95 - q05. From one spread on, a distance is 1."""
    values = np.linspace(0, 100_000, 2_001)[:, None].astype(np.float32)
    scale = reference_of(values, "regression", ("spend",)).scale

    assert scale.spreads[0] == pytest.approx(90_000, rel=0.01)
    other = values + np.float32(0.1 * scale.spreads[0])
    assert scale.distances(other, values) == pytest.approx(0.1, rel=1e-3)
    assert not scale.flips(other, values).any()
    assert scale.flips(values + np.float32(0.26 * scale.spreads[0]), values).all()
    assert scale.distances(values + np.float32(1e9), values).tolist() == [1.0] * 2_001


def test_scale_decides_a_ranking_by_the_best_row_of_each_call() -> None:
    """Other scores in the same order are no other decision."""
    scale = ScoreScale(
        reference_of(np.random.default_rng(1).random((50, 1)), "ranking", ("score",)).scale.outputs,
        "ranking",
        0.5,
    )
    before = np.array([[1], [3], [2], [9], [8]], np.float32)
    after = np.array([[2], [5], [4], [8], [9]], np.float32)
    offsets = np.array([0, 3, 5], np.uint32)

    assert scale.flips(after, before, offsets).tolist() == [False, False, False, True, True]


def test_scale_decides_one_probability_by_its_threshold() -> None:
    """Two versions may have thresholds of their own."""
    scale = ScoreScale(
        reference_of(np.random.default_rng(1).random((50, 1)), "anomaly", ("score",)).scale.outputs,
        "anomaly",
        0.5,
    )
    before, after = np.array([[0.2], [0.6]], np.float32), np.array([[0.4], [0.6]], np.float32)

    assert scale.flips(after, before).tolist() == [False, False]
    assert scale.flips(after, before, threshold=0.3).tolist() == [True, False]
    assert scale.flips(after, before, threshold=0.3, others_threshold=0.1).tolist() == [False] * 2


@pytest.mark.parametrize(
    ("values", "spread"),
    [([], 1.0), ([0, 0], 1.0), ([7, 7], 7.0), ([0] * 98 + [5, 9], 9.0), (range(101), 90.0)],
)
def test_spread_is_never_0(values: list[float], spread: float) -> None:
    """Mostly equal values have their range or their magnitude as a spread."""
    assert value_spread(np.array(values, np.float32)) == spread


def test_logits_of_classes_are_measured_in_their_spread() -> None:
    """Their decision is the largest all the same."""
    scores = class_scores(2_000)
    logits = np.log(scores + np.float32(1e-3)) * np.float32(10)
    scale = reference_of(logits, "multiclass", CLASSES).scale

    assert scale.spreads.min() > 5
    assert np.array_equal(scale.predicted(logits), logits.argmax(axis=1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "clustering"}, "a task is one of binary, multiclass, regression"),
        ({"task": "multiclass"}, "has one output"),
        ({"outputs": []}, "those of contract.json are"),
        ({"outputs": [{"name": "other", "edges": [1], "spread": 1}]}, "in this order"),
        ({"outputs": [{"name": "score", "edges": [1], "spread": 0}]}, "a spread is a number from"),
        ({"outputs": [{"name": "score", "edges": [1], "spread": 1, "center": 1e31}]}, "a center"),
        ({"outputs": [{"name": "score", "edges": [2, 1], "spread": 1}]}, "do not fall"),
        ({"outputs": [{"name": "score", "edges": list(range(60)), "spread": 1}]}, "61 bins"),
        ({"outputs": [{"name": "score", "spread": 1}]}, "not a reference"),
        ({"outputs": 3}, "not a reference"),
    ],
)
def test_reference_with_a_wrong_task_or_output_is_refused(
    changes: dict[str, object], said: str
) -> None:
    """The message says what would be right."""
    with pytest.raises(VersionRefusedError, match=said):
        read_reference(stated(**changes), tiny_contract())
