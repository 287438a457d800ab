"""Outcomes are counted in the segments of their predictions, where the scored rows are kept."""

from pathlib import Path

import numpy as np
import pytest

from journal.prediction_id import hash_model_name
from monitoring.api.decision_policy import day_of_id
from monitoring.api.outcome_segments import OutcomeSegments
from monitoring.cells.cell import CellCounts
from monitoring.cells.decision_rows import SAMPLE_ALL, join_batches, sample_decisions
from monitoring.cells.outcome_columns import OutcomeKind, id_digest
from monitoring.cells.segments import SegmentRules, segments_to_proto
from monitoring.decisions.decision_store import DecisionStore
from monitoring.decisions.scored_inputs import ScoredRows
from monitoring.store.cell_rows import sum_of_cells
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import ServedBatch
from registry.watching.policy import MonitoringPolicy, Segmentation
from tests.monitoring.served import AT_NS, DIGEST8, churn_bins, served_batch

TENURE = Segmentation(feature="f1", ranges={"new": (-9.0, 1.0)})
SIZE = Segmentation(feature="f2", ranges={"small": (-9.0, 0.0), "large": (0.0, 9.0)})
NAME = pb.JournalName(gateway="gateway-1")


def rules(**segments: Segmentation) -> SegmentRules:
    """Return the rules of a policy of churn."""
    return SegmentRules([segments_to_proto("churn", MonitoringPolicy(segments=segments))])


class Counted:
    """A store that counts outcomes by segments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "decisions"
        self.database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
        self.decisions = DecisionStore(self.folder, self.database, day_of_id)
        self.store = MonitoringStore(self.database, lambda: 0, self.decisions.add_batch)
        self.store.save_version(churn_bins())
        rows = ScoredRows(self.folder, self.database)
        self._segments = OutcomeSegments(rows, self.store.find_version)
        self._sequence = 0

    def push(
        self, *, served: ServedBatch | None = None, events: list[pb.OutcomeEvent], by: SegmentRules
    ) -> None:
        """Push rows and outcomes, as the service does."""
        self._sequence += 1
        batch = pb.CellBatch(journal=NAME, sequence=self._sequence, outcomes=events)
        for joined in join_batches([] if served is None else [served]):
            holdout = np.zeros(len(joined.role), dtype=np.bool_)
            batch.decisions.extend(sample_decisions(joined, holdout, SAMPLE_ALL))
        self._segments.fill(batch, by)
        assert not any(event.prediction_id for event in batch.outcomes)
        self.store.push(batch)

    def counts(self, segment: str) -> CellCounts:
        """Return the sum of the cells of a segment."""
        return sum_of_cells(self.store.read_cells(0, 10**9, segment=segment))

    def positive(self, segment: str) -> int:
        """Return how many outcomes of a segment are positive."""
        return int(self.counts(segment).counts("outcome:churned:positive").sum())


def scored() -> ServedBatch:
    """Return two calls of two rows: f1 is 0, 5, 0, 5 and f2 is -1, -1, 1, 1."""
    batch = served_batch(np.random.default_rng(1), 2, rows_max=1)
    vectors = np.array([(0, 0, -1), (0, 5, -1), (0, 0, 1), (0, 5, 1)], dtype="<f4")
    batch.vectors, batch.row_count = vectors.tobytes(), np.array([2, 2], "<u4").tobytes()
    batch.scores, batch.row_flags = bytes(16), bytes(16)
    del batch.entity_ids[:]
    batch.entity_ids.extend(["a", "b", "c", "d"])
    return batch


def event(batch: ServedBatch, call: int, row: int, value: float, after: int = 0) -> pb.OutcomeEvent:
    """Return a report about a row, *after* milliseconds."""
    prediction_id = batch.prediction_ids[64 * call : 64 * call + 64]
    at_ms = AT_NS // 10**6
    return pb.OutcomeEvent(
        id_digest=id_digest(prediction_id),
        prediction_id=prediction_id,
        model_hash=hash_model_name("churn"),
        version_digest=DIGEST8,
        role=1,
        predicted_unix_ms=at_ms,
        row=row,
        name="churned",
        value=value,
        received_unix_ms=at_ms + after,
    )


@pytest.mark.parametrize("kept", ["pushed", "block", "file"])
def test_outcome_is_in_a_segment_of_each_segmentation(tmp_path: Path, kept: str) -> None:
    """Its scored row may come with it, wait in the database, or be in a file."""
    counted, batch = Counted(tmp_path), scored()
    by = rules(tenure=TENURE, size=SIZE)
    events = [event(batch, 0, 0, 1), event(batch, 0, 1, 1), event(batch, 1, 1, 1)]
    if kept == "pushed":
        counted.push(served=batch, events=events, by=by)
    else:
        counted.push(served=batch, events=[], by=by)
        if kept == "file":
            counted.decisions.compact()
        counted.push(events=events, by=by)
    segments = ("", "tenure=new", "tenure=other", "size=small", "size=large", "size=other")
    assert [counted.positive(name) for name in segments] == [3, 1, 2, 2, 1, 0]
    assert counted.store.coverage(0, 10**9)[0].outcomes == 3
    counted.store.close()


def test_correction_changes_the_segments_in_which_it_was_counted(tmp_path: Path) -> None:
    """Also when the policy is another one, or the scored row is gone; duplicates count so, too."""
    counted, batch = Counted(tmp_path), scored()
    by = rules(tenure=TENURE)
    counted.push(served=batch, events=[event(batch, 0, 0, 1)], by=by)
    counted.decisions.delete_blocks_before(10**9)
    later = [event(batch, 0, 0, 0, after=1), event(batch, 0, 0, 0, after=2)]
    counted.push(events=later, by=rules(size=SIZE))
    for segment in ("", "tenure=new"):
        counts = counted.counts(segment)
        assert counts.counts("outcome:churned:positive").sum() == 0
        assert counts.counts("outcome:churned:negative").sum() == 1
        kinds = counts.counts("outcome:churned:events", len(OutcomeKind))
        assert kinds[
            [OutcomeKind.COUNTED, OutcomeKind.CORRECTED, OutcomeKind.DUPLICATE]
        ].tolist() == ([1, 1, 1])
    assert not counted.counts("size=small").columns
    counted.store.close()


def test_outcome_without_a_kept_row_counts_among_all_rows_only(tmp_path: Path) -> None:
    """No scored row, a row that the call did not have, a damaged file, and no policy."""
    counted, batch = Counted(tmp_path), scored()
    by = rules(tenure=TENURE)
    counted.push(events=[event(batch, 0, 0, 1)], by=by)
    counted.push(served=batch, events=[event(batch, 0, 7, 1)], by=by)
    counted.push(events=[event(batch, 0, 1, 1)], by=rules())
    counted.decisions.compact()
    (file,) = counted.folder.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    counted.push(events=[event(batch, 1, 0, 1)], by=by)
    assert counted.positive("") == 4
    stored = counted.store.read_cells(0, 10**9, segment=None)
    assert {cell.key.segment for cell in stored} == {""}
    counted.store.close()


def test_row_of_a_shadow_gives_no_segment(tmp_path: Path) -> None:
    """A shadow may read other inputs under the same prediction id."""
    counted, batch = Counted(tmp_path), scored()
    batch.role = bytes([5, 5])
    counted.push(served=batch, events=[event(batch, 0, 0, 1)], by=rules(tenure=TENURE))
    counted.decisions.compact()
    counted.push(events=[event(batch, 1, 0, 1)], by=rules(tenure=TENURE))
    assert (counted.positive(""), counted.positive("tenure=new")) == (2, 0)
    counted.store.close()
