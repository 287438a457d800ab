"""Counting into cells: the same counts as a plain loop over rows, however batches are cut."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitoring.cells.cell import (
    ROW_FLAGS,
    CellCounts,
    CellKey,
    cell_from_proto,
    cell_to_proto,
    feature_column,
    score_column,
)
from monitoring.cells.counting import CellCounter, count_feature
from monitoring.cells.segments import Segments
from monitoring.cells.version_bins import FeatureBins, VersionBins
from monitoring.errors import BadCellError, BadRecordError
from protos.journal_pb2 import ServedBatch
from stats.score_grid import bins_by_edges, score_grid_edges
from tests.monitoring.served import AT_NS, DIGEST8, HOUR_NS, churn_bins, served_batch
from tests.property_examples import examples


def holdout_of(ids: bytes) -> NDArray[np.bool_]:
    """Return the control group's calls, of ids that are not sealed."""
    return (np.frombuffer(ids, np.uint8).reshape(-1, 64)[:, 1] & 0x80) > 0


def counter() -> CellCounter:
    """Return a counter of version 7 of churn without segments."""
    return CellCounter(lambda *_: churn_bins(), holdout_of)


def row_by_row(batches: list[ServedBatch]) -> dict[tuple[int, int, bool], Counter[str]]:
    """Count rows with plain loops, by (hour, role, holdout)."""
    cells: dict[tuple[int, int, bool], Counter[str]] = {}
    for batch in batches:
        vectors = np.frombuffer(batch.vectors, "<f4").reshape(-1, batch.width)
        scores, flags = np.frombuffer(batch.scores, "<f4"), np.frombuffer(batch.row_flags, "<u4")
        row = 0
        for call, count in enumerate(np.frombuffer(batch.row_count, "<u4").tolist()):
            hour = int(np.frombuffer(batch.at_unix_ns, "<i8")[call]) // HOUR_NS
            key = hour, batch.role[call], bool(batch.prediction_ids[64 * call + 1] & 0x80)
            cell = cells.setdefault(key, Counter())
            cell["calls"] += 1
            for _ in range(count):
                cell["rows"] += 1
                cell[
                    f"score {int(bins_by_edges(scores[row : row + 1], score_grid_edges())[0])}"
                ] += 1
                for bit in range(3):
                    cell[f"flag {bit}"] += int(flags[row]) >> bit & 1
                for column, value in enumerate(vectors[row].tolist()):
                    entry = 4 if np.isnan(value) else sum(value > edge for edge in (-1, 0, 1))
                    cell[f"f{column} {entry}"] += 1
                    cell[f"f{column} 5"] += column == 0 and value == 2
                row += 1
    return cells


@examples(60)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 6))
def test_cells_equal_a_loop_over_rows(seed: int, batches: int, cut: int) -> None:
    """Roles, hours and the control group are apart, and two parts add up to the total."""
    rng = np.random.default_rng(seed)
    served = [
        served_batch(
            rng,
            int(rng.integers(1, 5)),
            role=int(rng.integers(1, 6)),
            at_ns=AT_NS + int(rng.integers(0, 2)) * HOUR_NS,
        )
        for _ in range(batches)
    ]
    # Count the batches in two parts.
    cells: dict[CellKey, CellCounts] = {}
    for part in (served[:cut], served[cut:]):
        counting = counter()
        for batch in part:
            counting.add(batch)
        for key, counts in counting.take_cells().items():
            cells.setdefault(key, CellCounts()).add_cell(counts)
    # Compare each count with that of the loop.
    expected = row_by_row(served)
    assert {(key.hour, key.role, key.holdout) for key in cells} == set(expected)
    for key, counts in cells.items():
        assert key[:3] == ("churn", "7", DIGEST8)
        loop = expected[key.hour, key.role, key.holdout]
        assert (counts.calls, counts.rows) == (loop["calls"], loop["rows"])
        scores = counts.counts(score_column("churned")).tolist()
        assert {f"score {n}": count for n, count in enumerate(scores) if count} == {
            name: count for name, count in loop.items() if name.startswith("score") and count
        }
        assert counts.counts(ROW_FLAGS)[:3].tolist() == [loop[f"flag {bit}"] for bit in range(3)]
        for column in range(3):
            found = counts.counts(feature_column(f"usage:f{column}"), 6).tolist()
            assert found == [loop[f"f{column} {entry}"] for entry in range(6)]
        assert CellCounts.from_bytes(counts.to_bytes()) == counts
        assert cell_from_proto(cell_to_proto(key, counts)) == (key, counts)


def test_segments_divide_the_rows() -> None:
    """Each row is in "" and in one segment, and a call in that of its first row."""
    rng = np.random.default_rng(1)
    batch = served_batch(rng, 20)
    rows = len(batch.row_flags) // 4

    def by_first_input(_: VersionBins, vectors: NDArray[np.float32]) -> Segments:
        return Segments((("low",), ("high",)), (vectors[:, 0] > 0).astype(np.intp))

    counting = CellCounter(lambda *_: churn_bins(), holdout_of, by_first_input)
    counting.add(batch)
    taken = counting.take_cells()
    whole = CellCounter(lambda *_: churn_bins(), holdout_of)
    whole.add(batch)
    assert {key: counts for key, counts in taken.items() if not key.segment} == whole.take_cells()
    cells = {key: counts for key, counts in taken.items() if key.segment}
    assert {key.segment for key in cells} == {"low", "high"}
    assert sum(counts.rows for counts in cells.values()) == rows
    assert sum(counts.calls for counts in cells.values()) == 20
    for key, counts in cells.items():
        low = counts.counts(feature_column("usage:f0"))[:2].sum()
        assert (low == 0) == (key.segment == "high")


def test_version_of_another_shape_is_counted_without_bins() -> None:
    """Bins of another number of inputs would count an input under the name of another."""
    counting = CellCounter(lambda *_: churn_bins(width=2), holdout_of)
    counting.add(served_batch(np.random.default_rng(0), 5))
    for counts in counting.take_cells().values():
        assert set(counts.columns) == {"calls", "rows", ROW_FLAGS}


@pytest.mark.parametrize("field", ["vectors", "scores", "row_flags", "key_hash", "row_count"])
def test_batch_whose_columns_contradict_is_refused(field: str) -> None:
    """It adds nothing."""
    batch = served_batch(np.random.default_rng(0), 3)
    setattr(batch, field, getattr(batch, field)[:-1])
    counting = counter()
    with pytest.raises(BadRecordError, match="counted as damage"):
        counting.add(batch)
    assert counting.take_cells() == {}


@pytest.mark.parametrize("edges", [0, 3, 60])
def test_few_and_many_edges_count_alike(edges: int) -> None:
    """Values on an edge are in the bin below it; infinities are in the outer bins."""
    rng = np.random.default_rng(edges)
    feature = FeatureBins("f", np.sort(rng.standard_normal(edges)).astype(np.float32))
    special = np.array([np.nan, np.inf, -np.inf], np.float32)
    column = np.concatenate([rng.standard_normal(500).astype(np.float32), feature.edges, special])
    counts = count_feature(column, feature)
    binned = bins_by_edges(column, feature.edges)
    expected = np.bincount(np.minimum(binned[np.isfinite(column)], edges), minlength=edges + 3)
    expected[edges] += 1
    expected[0] += 1
    expected[edges + 1] = 1
    assert counts.tolist() == expected.tolist()


def test_columns_that_cannot_be_added_are_refused() -> None:
    """A message may not make the store allocate, nor mix counts and sums."""
    good = CellCounts({"a": np.array([1, 2])})
    with pytest.raises(BadCellError, match="columns of their own"):
        good.add("a", np.array([1.5]))
    columns = list(good.to_columns())
    with pytest.raises(BadCellError, match="twice"):
        CellCounts.from_columns(columns * 2)
    columns[0].index[:] = [1, 1]
    with pytest.raises(BadCellError, match="do not grow"):
        CellCounts.from_columns(columns)
    columns[0].index[:] = [1, 1 << 30]
    with pytest.raises(BadCellError, match="not below"):
        CellCounts.from_columns(columns)
