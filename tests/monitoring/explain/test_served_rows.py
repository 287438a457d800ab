"""The row of a prediction is found in the journals of gateways, also beside damage."""

from pathlib import Path

import numpy as np
import pytest

from journal.prediction_id import HOLDOUT_BIT, write_prediction_id
from journal.score_code import ScoreRule
from journal.segment import JournalKind, SegmentName, frame_record, segment_header
from monitoring.explain.served_rows import JournalDecisions
from protos.journal_pb2 import ServedBatch
from registry.explanation.errors import NotExplainedError

KEY = b"k" * 32
VERSION = bytes(range(8))
AT_MS = 1_700_000_000_000


def prediction_id(sequence: int, *, boot_id: int = 5, sealed: bool = False) -> bytes:
    """An id of one worker."""
    return write_prediction_id(
        KEY,
        sealed=sealed,
        role=1 | HOLDOUT_BIT,
        slot=0,
        sequence=sequence,
        model_hash=7,
        version=VERSION,
        revision=3,
        at_ms=AT_MS,
        key_hash=9,
        boot_id=boot_id,
        rows=sequence + 1,
        score=0.02,
        rule=ScoreRule(True, 0.5),
    )


def served_batch(*ids: bytes, first: float = 0.0) -> ServedBatch:
    """Calls of 1, 2, 3 ... rows with the values first, first + 1, ..."""
    counts = np.arange(1, len(ids) + 1, dtype="<u4")
    rows = int(counts.sum())
    vectors = (first + np.arange(2 * rows)).astype("<f4")
    return ServedBatch(
        model="churn",
        version="3",
        version_digest=int.from_bytes(VERSION, "little"),
        at_unix_ns=(np.arange(len(ids)) + AT_MS * 1_000_000).astype("<i8").tobytes(),
        row_count=counts.tobytes(),
        prediction_ids=b"".join(ids),
        width=2,
        vectors=vectors.tobytes(),
        outputs=1,
        scores=(vectors[::2] / 100).tobytes(),
    )


def write_segment(
    folder: Path, *batches: ServedBatch, boot_id: int = 5, number: int = 0, at_ms: int = AT_MS
) -> Path:
    """A segment with these records."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / str(SegmentName(at_ms, boot_id, number, JournalKind.SERVED))
    frames = [frame_record(batch.SerializeToString()) for batch in batches]
    path.write_bytes(segment_header(JournalKind.SERVED) + b"".join(frames))
    return path


@pytest.mark.parametrize("sealed", [False, True])
def test_call_is_found_with_its_rows(tmp_path: Path, sealed: bool) -> None:
    """The second of three calls has two rows, which stand after the row of the first."""
    ids = [prediction_id(number, sealed=sealed) for number in range(3)]
    write_segment(tmp_path / "gateway" / "journal", served_batch(), served_batch(*ids))
    found = JournalDecisions(tmp_path).find_decision(ids[1])
    assert found is not None
    assert (found.model, found.version, found.version_start) == ("churn", "3", VERSION.hex())
    assert found.vectors.tolist() == [[2, 3], [4, 5]]
    assert found.scores.ravel().tolist() == pytest.approx([0.02, 0.04])
    assert found.at_unix_ns == AT_MS * 1_000_000 + 1


def test_id_that_no_journal_has_is_not_found(tmp_path: Path) -> None:
    """Neither an id of another worker, nor one that was forged."""
    journal = tmp_path / "journal"
    write_segment(journal, served_batch(prediction_id(1)))
    decisions = JournalDecisions(tmp_path)
    for other in (prediction_id(2), prediction_id(1, boot_id=6), b"\x07" * 64, b"\x01" * 64):
        assert decisions.find_decision(other) is None
    assert JournalDecisions(tmp_path / "none").find_decision(prediction_id(1)) is None


def test_only_segments_of_the_worker_are_read(tmp_path: Path) -> None:
    """An id that is not sealed names its worker; others would be read for nothing."""
    journal = tmp_path / "journal"
    write_segment(journal, served_batch(prediction_id(1)))
    for boot_id in (6, 7):
        write_segment(journal, served_batch(prediction_id(1, boot_id=boot_id)), boot_id=boot_id)
    later = write_segment(journal, served_batch(prediction_id(9)), number=1, at_ms=AT_MS + 10**8)
    decisions = JournalDecisions(tmp_path)
    paths = [path.name for path in decisions._segments(prediction_id(1))]
    assert len(paths) == 1
    assert later.name not in paths
    sealed = decisions._segments(prediction_id(1, sealed=True))
    assert len(list(sealed)) == 4


def test_damage_hides_no_other_call(tmp_path: Path) -> None:
    """A flipped byte in one record, and a torn tail."""
    journal = tmp_path / "journal"
    path = write_segment(
        journal, served_batch(prediction_id(1)), served_batch(prediction_id(2), first=50)
    )
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(bytes(content[:-1]) + bytes(content[-1:]) + b"\x05\x00")
    decisions = JournalDecisions(tmp_path)
    assert decisions.find_decision(prediction_id(1)) is None
    found = decisions.find_decision(prediction_id(2))
    assert found is not None
    assert found.vectors.tolist() == [[50, 51]]


def test_search_is_bounded(tmp_path: Path) -> None:
    """A journal of terabytes is not read for one id; the message says what to do instead."""
    journal = tmp_path / "journal"
    write_segment(journal, served_batch(prediction_id(1)))
    with pytest.raises(NotExplainedError, match="no more is searched; give the row"):
        JournalDecisions(tmp_path, bytes_max=100).find_decision(prediction_id(1))
