"""The reader's batches: what they count, what waits, and what is damage."""

import time
from pathlib import Path

import numpy as np

from journal.segment import JournalKind
from journal.tail import DamageKind
from journal.tape import SegmentWriter
from monitoring.cells.cell import cell_from_proto
from monitoring.cells.decision_rows import SAMPLE_ALL, unpack_decisions
from monitoring.cells.segments import segments_to_proto
from monitoring.fold.id_fields import IdFields
from monitoring.fold.journal_fold import JournalFold
from protos import monitoring_pb2 as pb
from registry.watching.policy import MonitoringPolicy, Segmentation
from tests.monitoring.served import KEY, churn_bins, ids_of, outcome_record, served_batch

NAME = pb.JournalName(gateway="gateway-1")


def write(folder: Path, kind: JournalKind, *payloads: bytes) -> None:
    """Write one segment."""
    writer = SegmentWriter(folder, kind, 1 << 20, time.time_ns, 1)
    writer.roll()
    writer.write_records(list(payloads))
    writer.close()


def read_batch(folder: Path, state: pb.ReaderState, key: bytes = KEY) -> pb.CellBatch:
    """Return the next batch of a reader that begins at *state*."""
    fold = JournalFold(folder, NAME, state, IdFields(lambda: key))
    content = fold.read()
    return fold.batch_of(content, dict.fromkeys(content.versions, churn_bins()))


def test_batch_has_counts_positions_and_malformed_records(tmp_path: Path) -> None:
    """A record that contradicts itself is damage, and the others are counted."""
    rng = np.random.default_rng(3)
    good, bad = served_batch(rng, 4), served_batch(rng, 4)
    bad.scores = bad.scores[:-4]
    payloads = [item.SerializeToString() for item in (good, bad, good)]
    write(tmp_path, JournalKind.SERVED, *payloads, b"\xff\xff")
    batch = read_batch(tmp_path, pb.ReaderState(sequence=7))
    assert batch.sequence == 8
    rows = sum(cell_from_proto(cell)[1].rows for cell in batch.cells)
    assert rows == 2 * len(good.row_flags) // 4
    assert [damage.kind for damage in batch.damages] == [DamageKind.MALFORMED] * 2
    # From its positions on there is nothing more.
    state = pb.ReaderState(sequence=8, positions=batch.positions)
    assert not JournalFold(tmp_path, NAME, state, IdFields(lambda: KEY)).read()


def test_outcomes_wait_for_the_key(tmp_path: Path) -> None:
    """Without it every id would be forged; with it a foreign id is."""
    served = served_batch(np.random.default_rng(3), 1)
    foreign = bytes(64)
    reports = [outcome_record(served.prediction_ids), outcome_record(foreign), outcome_record(b"")]
    write(tmp_path, JournalKind.OUTCOMES, *(report.SerializeToString() for report in reports))
    assert not read_batch(tmp_path, pb.ReaderState(), key=b"").outcomes
    known, forged, by_entity = read_batch(tmp_path, pb.ReaderState()).outcomes
    assert (known.role, known.forged, len(known.id_digest)) == (1, False, 16)
    assert forged.forged
    assert not by_entity.id_digest


def test_segments_are_those_of_the_policy_and_change_with_it(tmp_path: Path) -> None:
    """Rows are counted in segments, and ids of outcomes are sent, for models with segments only."""
    served = served_batch(np.random.default_rng(3), 5)
    write(tmp_path, JournalKind.SERVED, served.SerializeToString())
    outcome = outcome_record(served.prediction_ids[:64]).SerializeToString()
    write(tmp_path, JournalKind.OUTCOMES, outcome)
    tenure = Segmentation(feature="f1", ranges={"new": (-9.0, 1.0)})
    policy = MonitoringPolicy(segments={"tenure": tenure})
    state = pb.ReaderState(segments=[segments_to_proto("churn", policy)])
    batch = read_batch(tmp_path, state)
    assert {cell.segment for cell in batch.cells} == {"", "tenure=new", "tenure=other"}
    assert batch.outcomes[0].prediction_id == served.prediction_ids[:64]
    # The same reader, after a push whose answer has no segments.
    fold = JournalFold(tmp_path, NAME, state, IdFields(lambda: KEY))
    fold.note_stored(pb.ReaderState(sequence=1))
    content = fold.read()
    batch = fold.batch_of(content, dict.fromkeys(content.versions, churn_bins()))
    assert {cell.segment for cell in batch.cells} == {""}
    assert not batch.outcomes[0].prediction_id


def test_decisions_are_those_of_sampled_keys(tmp_path: Path) -> None:
    """The store says of how many; batches of a version become one block."""
    rng = np.random.default_rng(3)
    batches = [served_batch(rng, 4) for _ in range(3)]
    write(tmp_path, JournalKind.SERVED, *(batch.SerializeToString() for batch in batches))
    assert not read_batch(tmp_path, pb.ReaderState()).decisions
    state = pb.ReaderState(decisions_by_model={"churn": SAMPLE_ALL})
    (block,) = read_batch(tmp_path, state).decisions
    rows = sum(len(batch.row_flags) // 4 for batch in batches)
    assert len(unpack_decisions(block)) == block.rows == rows


def test_sealed_ids_show_the_control_group_to_the_key_only() -> None:
    """Without the key a sealed id counts as no control group."""
    keys, holdout = np.arange(4, dtype=np.uint64), np.array([True, False, True, False])
    for sealed, key, expected in (
        (False, b"", holdout),
        (True, KEY, holdout),
        (True, b"", ~holdout & holdout),
    ):
        fields = IdFields(lambda key=key: key)  # type: ignore[misc]
        found = fields.holdout_of(ids_of(keys, holdout, sealed=sealed))
        assert found.tolist() == expected.tolist()
