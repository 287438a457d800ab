"""Segments by policy: the same as a loop over rows, and no row is counted twice in one of them."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from monitoring.cells.cell import CellCounts, CellKey, feature_column
from monitoring.cells.counting import CellCounter
from monitoring.cells.segments import SegmentRules, segments_to_proto
from monitoring.cells.version_bins import FeatureBins, VersionBins
from registry.watching.policy import MonitoringPolicy, Segmentation
from stats.score_grid import score_grid_edges
from tests.monitoring.served import DIGEST8, EDGES, HOUR_NS, churn_bins, served_batch

INF = float("inf")
TENURE = Segmentation(feature="f1", ranges={"new": (-INF, 0.0), "old": (1.0, 2.0)})
PLAN = Segmentation(feature="f0", categories={"basic": ("b", "gone"), "rest": ("a",)})
POLICY = MonitoringPolicy(segments={"tenure": TENURE, "plan": PLAN})


def bins() -> VersionBins:
    """Return bins whose first input is a category: a, b; 2 is unknown."""
    known = churn_bins()
    category = FeatureBins("usage:f0", EDGES, categories=2, dictionary=("a", "b"))
    features = (category, *known.features[1:])
    return VersionBins("churn", "7", DIGEST8, known.outputs, features)


def rules(policy: MonitoringPolicy = POLICY) -> SegmentRules:
    """Return the rules of a policy as a reader gets them."""
    return SegmentRules([segments_to_proto("churn", policy)])


def no_holdout(ids: bytes) -> NDArray[np.bool_]:
    """Return that no call is of the control group."""
    return np.zeros(len(ids) // 64, dtype=np.bool_)


def parts_by_loop(row: NDArray[np.float32]) -> set[str]:
    """Return the segments of one row, as the policy itself says."""
    code = float(row[0])
    text = {0.0: "a", 1.0: "b"}.get(code, "")
    plan = PLAN.part_of(text) if text else "other"
    return {f"plan={plan}", f"tenure={TENURE.part_of(float(row[1]))}"}


def test_rows_have_the_segments_of_the_policy() -> None:
    """Ends of ranges, missing values, unknown categories, and numbers that are no code."""
    numbers = np.array([-2, -1, 0, 0.5, 1, 2, 3, np.nan, np.inf], dtype=np.float32)
    vectors = np.array([(a, b, 0) for a in numbers for b in numbers], dtype=np.float32)
    found = rules()(bins(), vectors)
    assert found is not None
    for row, vector in enumerate(vectors):
        if vector[0] != 0.5:  # a code is a whole number
            assert set(found.names[found.of_row[row]]) == parts_by_loop(vector), vector
    assert len(set(found.names)) == len(found.names) == 9


def test_cells_of_a_segmentation_add_up_to_the_cells_of_all_rows() -> None:
    """Each row is in "" and in one segment of each segmentation; so are calls, bins and scores."""
    rng = np.random.default_rng(7)
    batches = [served_batch(rng, 60, at_ns=n * HOUR_NS, first=60 * n) for n in (1, 1, 2)]
    counter = CellCounter(lambda *_: bins(), no_holdout, rules())
    plain = CellCounter(lambda *_: bins(), no_holdout)
    rows: Counter[tuple[int, str]] = Counter()
    for batch in batches:
        counter.add(batch)
        plain.add(batch)
        hour = int(np.frombuffer(batch.at_unix_ns, "<i8")[0] // HOUR_NS)
        for vector in np.frombuffer(batch.vectors, "<f4").reshape(-1, batch.width):
            rows.update((hour, segment) for segment in parts_by_loop(vector))
    cells = counter.take_cells()
    expected = plain.take_cells()
    assert {key: counts for key, counts in cells.items() if not key.segment} == expected
    by_segment: Counter[tuple[int, str]] = Counter()
    for segmentation in ("tenure", "plan"):
        sums: dict[CellKey, CellCounts] = {}
        for key, counts in cells.items():
            if key.segment.startswith(f"{segmentation}="):
                by_segment[key.hour, key.segment] += counts.rows
                sums.setdefault(key._replace(segment=""), CellCounts()).add_cell(counts)
        assert sums == expected
    assert by_segment == rows
    new = sum_of(cells, "tenure=new")
    assert new.counts(feature_column("usage:f1"), 6)[:2].sum() == new.rows


def sum_of(cells: dict[CellKey, CellCounts], segment: str) -> CellCounts:
    """Return the sum of the cells of one segment."""
    total = CellCounts()
    for key, counts in cells.items():
        if key.segment == segment:
            total.add_cell(counts)
    return total


@pytest.mark.parametrize(
    "segmentation",
    [
        Segmentation(feature="absent", ranges={"new": (0.0, 1.0)}),
        # The version reads a number where the policy names categories, and the other way round.
        Segmentation(feature="f1", categories={"basic": ("b",)}),
        Segmentation(feature="f0", ranges={"low": (0.0, 1.0)}),
        Segmentation(feature="f1", ranges={"n" * 128: (0.0, 1.0)}),
    ],
)
def test_segmentation_that_a_version_cannot_have_is_left_out(segmentation: Segmentation) -> None:
    """The version is counted as a whole, and the other segmentations are there."""
    policy = MonitoringPolicy(segments={"wrong": segmentation, "tenure": TENURE})
    found = rules(policy)(bins(), np.zeros((2, 3), dtype=np.float32))
    assert found is not None
    assert found.names == (("tenure=other",),)
    alone = MonitoringPolicy(segments={"wrong": segmentation})
    assert rules(alone)(bins(), np.zeros((2, 3), dtype=np.float32)) is None


def test_other_models_and_versions_without_bins_have_no_segments() -> None:
    """Nothing is known of their inputs."""
    vectors = np.zeros((2, 3), dtype=np.float32)
    assert rules()(VersionBins("nba", "7", DIGEST8, (), bins().features), vectors) is None
    assert rules()(VersionBins("churn", "7", DIGEST8, problem="gone"), vectors) is None
    assert SegmentRules([segments_to_proto("churn", MonitoringPolicy())]).models == frozenset()


def test_many_segmentations_are_counted_by_the_combinations_that_exist() -> None:
    """Nine segmentations of three parts have 19,683 combinations, and few rows have few."""
    part = Segmentation(feature="f1", ranges={"low": (-INF, 0.0), "high": (0.0, INF)})
    policy = MonitoringPolicy(segments={f"s{number}": part for number in range(9)})
    vectors = np.array([[0, -1, 0], [0, 1, 0], [0, -2, 0]], dtype=np.float32)
    found = rules(policy)(bins(), vectors)
    assert found is not None
    assert len(found.names) == 2
    assert all(len(names) == 9 for names in found.names)


def test_bins_keep_their_dictionaries_as_a_message() -> None:
    """A reader needs them; bins of an older release lack them."""
    read = VersionBins.from_proto(bins().to_proto())
    assert read.features[0].dictionary == ("a", "b")
    assert (read.lacks_dictionaries, churn_bins().lacks_dictionaries) == (False, True)
    assert len(score_grid_edges()) == len(read.outputs[0].edges)
