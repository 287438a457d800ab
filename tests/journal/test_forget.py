"""A person's calls and outcomes leave the journals; all other records stay byte for byte."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from journal.errors import SegmentDamagedError
from journal.forget import ForgottenJournals, forget_in_journals
from journal.moves import moves_file
from journal.person import Person
from journal.prediction_id import hash_model_name, write_prediction_id
from journal.reader import JournalReader
from journal.retention import Bounds, delete_old_segments
from journal.score_code import ScoreRule
from journal.segment import JournalKind, list_segments
from journal.served import read_served_batches
from journal.writer import JournalAppender
from protos.journal_pb2 import UNSEEN_SHADOW, OutcomeRecord, ServedBatch
from tests.journal.test_writer import poll_until

KEY = bytes(32)
CONTRACT = "c0"
HASHES = {"A": 11, "B": 22, "C": 33}
"""Evidence keys of three customers."""
PERSON = Person(
    ids={"customer": "A"},
    entities={("churn", CONTRACT): ("customer",), ("offers", "c1"): ("customer", "offer")},
    key_hashes={"churn": frozenset({HASHES["A"]})},
    prediction_id_key=KEY,
)


def prediction_id(number: int, customer: str = "C", *, sealed: bool = False) -> bytes:
    """Return an id of the model churn with the evidence key of a customer."""
    return write_prediction_id(
        KEY,
        sealed=sealed,
        role=1,
        slot=0,
        sequence=number,
        model_hash=hash_model_name("churn"),
        version=bytes(8),
        revision=1,
        at_ms=1,
        key_hash=HASHES[customer],
        boot_id=1,
        rows=1,
        score=0.25,
        rule=ScoreRule(probability=True, threshold=0.5),
    )


def served(*calls: tuple[int, str], contract: str = CONTRACT, model: str = "churn") -> bytes:
    """Return a record of sealed calls (number, customer of each row as letters)."""
    rows = [letter for _, letters in calls for letter in letters]
    ids = [prediction_id(number, letters[0], sealed=True) for number, letters in calls]
    return ServedBatch(
        model=model,
        version="1",
        at_unix_ns=np.array([number for number, _ in calls], "<i8").tobytes(),
        role=bytes(len(calls)),
        row_count=np.array([len(letters) for _, letters in calls], "<u4").tobytes(),
        prediction_ids=b"".join(ids),
        key_hash=np.array([HASHES[letters[0]] for _, letters in calls], "<u8").tobytes(),
        row_flags=np.arange(len(rows), dtype="<u4").tobytes(),
        width=2,
        vectors=np.arange(2 * len(rows), dtype="<f4").tobytes(),
        outputs=1,
        scores=np.arange(len(rows), dtype="<f4").tobytes(),
        entity_ids=rows,
        model_contract=contract,
    ).SerializeToString()


def outcome(about: bytes = b"", **fields: object) -> bytes:
    """Return a record of an outcome, by prediction id or by keys."""
    return OutcomeRecord(prediction_id=about, name="churned", **fields).SerializeToString()  # type: ignore[arg-type]


def write(folder: Path, kind: JournalKind, *payloads: bytes, boot_id: int = 1) -> Path:
    """Write one ended segment; return its file."""
    before = set(list_segments(folder, kind))
    with JournalAppender(folder, kind, boot_id=boot_id) as writer:
        for payload in payloads:
            writer.append(payload)
    (name,) = set(list_segments(folder, kind)) - before
    return folder / str(name)


def read(folder: Path, kind: JournalKind) -> list[bytes]:
    """Return every payload of a kind."""
    return [payload for payload, _ in JournalReader(folder, kind)]


def forget(folder: Path, *, dry_run: bool = False, person: Person = PERSON) -> ForgottenJournals:
    """Forget the person in one folder."""
    return forget_in_journals([folder], person, dry_run=dry_run)


def as_shadow(payload: bytes) -> bytes:
    """Return a record of a shadow about the same calls; production's scores are its own times 2."""
    record = ServedBatch.FromString(payload)
    record.version = "3"
    record.role = bytes([UNSEEN_SHADOW]) * len(record.role)
    scores = np.frombuffer(record.scores, "<f4") * np.float32(2)
    record.production_scores = scores.tobytes()
    return record.SerializeToString()


def test_records_of_shadows_lose_the_person_and_are_counted_apart(tmp_path: Path) -> None:
    """A call counts once, however many shadows scored it, and all columns lose its rows."""
    answered = served((1, "B"), (2, "BAC"), (3, "CB"))
    write(tmp_path, JournalKind.SERVED, answered, as_shadow(answered), as_shadow(answered))
    done = forget(tmp_path)
    assert (done.calls, done.rows, done.shadow_calls) == (1, 3, 2)
    for payload in read(tmp_path, JournalKind.SERVED)[1:]:
        left = ServedBatch.FromString(payload)
        assert left.entity_ids == ["B", "C", "B"]
        assert np.frombuffer(left.scores, "<f4").tolist() == [0, 4, 5]
        assert np.frombuffer(left.production_scores, "<f4").tolist() == [0, 8, 10]


def test_read_served_batches_leaves_out_records_of_shadows(tmp_path: Path) -> None:
    """Each answer is read once: labels, replays and certificates count what callers got."""
    answered = served((1, "B"), (2, "A"))
    write(tmp_path / "journal", JournalKind.SERVED, as_shadow(answered), answered)
    assert [batch.SerializeToString() for batch in read_served_batches(tmp_path)] == [
        ServedBatch.FromString(answered).SerializeToString()
    ]


def test_calls_with_a_row_of_the_person_leave_their_record(tmp_path: Path) -> None:
    """The columns of the other calls are as they were; other records are the same bytes."""
    others = served((4, "C"), (5, "BB"))
    path = write(
        tmp_path,
        JournalKind.SERVED,
        served((1, "B"), (2, "BAC"), (3, "CB")),
        others,
        served((6, "A")),
    )
    os.utime(path, (1e9, 1e9))

    dry = forget(tmp_path, dry_run=True)
    assert (dry.calls, dry.rows, dry.segments) == (2, 4, 1)
    assert len(read(tmp_path, JournalKind.SERVED)) == 3
    assert forget(tmp_path) == dry

    first, second = read(tmp_path, JournalKind.SERVED)
    assert second == others
    left, whole = ServedBatch.FromString(first), ServedBatch.FromString(served((1, "B"), (3, "CB")))
    assert left.entity_ids == ["B", "C", "B"]
    assert np.frombuffer(left.vectors, "<f4").tolist() == [0, 1, 8, 9, 10, 11]
    assert np.frombuffer(left.scores, "<f4").tolist() == [0, 4, 5]
    for column in ("at_unix_ns", "row_count", "prediction_ids", "key_hash", "model", "width"):
        assert getattr(left, column) == getattr(whole, column)
    assert path.stat().st_mtime == 1e9
    assert forget(tmp_path) == ForgottenJournals()


def test_outcomes_leave_by_keys_by_call_and_by_evidence_key(tmp_path: Path) -> None:
    """Ids of calls that the journal does not have are found by their key, sealed or not."""
    write(tmp_path, JournalKind.SERVED, served((1, "A"), (2, "B")), served((3, "CA")))
    gone = [
        outcome(prediction_id(1, "A", sealed=True)),
        outcome(prediction_id(3, "C", sealed=True)),
        outcome(prediction_id(99, "A")),
        outcome(prediction_id(97, "A", sealed=True)),
        outcome(model="churn", keys=["A"]),
        outcome(model="offers", keys=["A", "x"]),
    ]
    stay = [
        outcome(prediction_id(2, "B", sealed=True)),
        outcome(prediction_id(98, "B")),
        outcome(bytes(64)),
        outcome(model="churn", keys=["B"]),
        outcome(model="offers", keys=["x", "A"]),
    ]
    write(tmp_path, JournalKind.OUTCOMES, gone[0], *stay, *gone[1:])

    assert (done := forget(tmp_path)).outcomes == 6
    assert (done.calls, done.rows) == (2, 3)
    assert read(tmp_path, JournalKind.OUTCOMES) == stay


def test_calls_of_a_model_without_entities_leave_by_their_sticky_key(tmp_path: Path) -> None:
    """Only the evidence key says whose they are."""
    person = replace(PERSON, entities={("churn", CONTRACT): ()})
    batch = ServedBatch.FromString(served((1, "A"), (2, "B")))
    del batch.entity_ids[:]
    write(tmp_path, JournalKind.SERVED, batch.SerializeToString())
    assert forget(tmp_path, person=person).calls == 1
    (left,) = read(tmp_path, JournalKind.SERVED)
    assert ServedBatch.FromString(left).prediction_ids == prediction_id(2, "B", sealed=True)


def test_segment_without_records_left_is_deleted(tmp_path: Path) -> None:
    """Neither segments nor files beside them stay, those of an earlier killed removal included."""
    path = write(tmp_path, JournalKind.SERVED, served((1, "A")))
    (tmp_path / f".{path.name}.0123456789abcdef.part").write_bytes(b"A")
    (tmp_path / f".{path.name}.end").touch()
    assert forget(tmp_path).segments == 1
    assert list(tmp_path.iterdir()) == [moves_file(path)]


def test_record_of_an_unknown_contract_stays_and_is_counted(tmp_path: Path) -> None:
    """No contract says which of the record's ids is the customer's."""
    write(
        tmp_path,
        JournalKind.SERVED,
        served((1, "A"), contract="c9"),
        served((1, "B"), contract="c9"),
    )
    done = forget(tmp_path)
    assert (done.unknown_records, done.calls) == (1, 0)
    assert len(read(tmp_path, JournalKind.SERVED)) == 2


def test_bytes_that_nobody_can_search_are_removed(tmp_path: Path) -> None:
    """A damaged record may be the person's. Intact ones around it stay."""
    stay = [served((1, "B")), served((2, "C"))]
    path = write(tmp_path, JournalKind.SERVED, stay[0], served((3, "A")), stay[1])
    content = bytearray(path.read_bytes())
    content[len(stay[0]) + 60] ^= 1
    path.write_bytes(content + b"torn")
    with pytest.raises(SegmentDamagedError):
        read(tmp_path, JournalKind.SERVED)

    done = forget(tmp_path)

    assert (done.calls, done.unreadable_bytes) == (0, len(served((3, "A"))) + 8 + 4)
    assert read(tmp_path, JournalKind.SERVED) == stay


@pytest.mark.walk
def test_segment_that_a_worker_writes_is_ended_first(tmp_path: Path) -> None:
    """The worker goes on in a new segment and loses nothing. Segments of others are not ended."""
    stay = served((1, "B"))
    with (
        JournalAppender(tmp_path, JournalKind.SERVED, boot_id=1) as writer,
        JournalAppender(tmp_path, JournalKind.SERVED, boot_id=2) as other,
    ):
        for payload in (stay, served((2, "A"))):
            writer.append(payload)
        other.append(stay)
        poll_until(lambda: (writer.written, other.written) == (2, 1))
        done = forget(tmp_path)
        writer.append(stay)

    assert (done.calls, done.still_written) == (1, 0)
    assert read(tmp_path, JournalKind.SERVED) == [stay] * 3
    boots = [name.boot_id for name in list_segments(tmp_path, JournalKind.SERVED)]
    assert sorted(boots) == [1, 1, 2]
    assert {path.suffix for path in tmp_path.glob(".*")} == {".moves"}


def test_segment_that_a_worker_does_not_end_stays_and_is_counted(tmp_path: Path) -> None:
    """Its calls stay and can be found again, so the outcomes of these calls stay as well."""
    write(tmp_path, JournalKind.OUTCOMES, outcome(prediction_id(1, "C", sealed=True)))
    with JournalAppender(tmp_path, JournalKind.SERVED) as writer:
        writer.append(served((1, "CA")))
        poll_until(lambda: writer.written == 1)
        done = forget_in_journals([tmp_path], PERSON, end_s_max=0)
        assert (done.still_written, done.calls, done.outcomes) == (1, 0, 0)
    assert forget(tmp_path).calls == 1
    assert read(tmp_path, JournalKind.OUTCOMES) == []


def test_nothing_is_deleted_by_age_while_a_person_is_forgotten(tmp_path: Path) -> None:
    """A reader, a removal and retention hold the lock of the folder in turn."""
    path = write(tmp_path, JournalKind.SERVED, served((1, "A")))
    os.utime(path, (1e9, 1e9))
    reading = iter(JournalReader(tmp_path, JournalKind.SERVED))
    next(reading)
    assert forget(tmp_path, dry_run=True).calls == 1
    assert delete_old_segments(tmp_path, Bounds(days_max=1), 2e9).deleted == {}
    reading.close()  # type: ignore[attr-defined]
    assert forget(tmp_path).calls == 1


@pytest.mark.walk
@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_killed_removal_leaves_whole_segments_and_may_be_repeated(
    tmp_path: Path, renames: int
) -> None:
    """The process ends before the moves of the first or second segment are there, or after."""
    # Two segments with the person's calls, and one with an outcome.
    stay = served((2, "B"))
    for _ in range(2):
        write(tmp_path, JournalKind.SERVED, served((1, "A")), stay)
    write(tmp_path, JournalKind.OUTCOMES, outcome(prediction_id(1, "A", sealed=True)), outcome())
    # A process forgets the person and ends in the middle of it.
    script = f"""
import os
from pathlib import Path
from tests.journal.test_forget import forget
genuine, left = Path.replace, {renames}
def replace(self, target):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    return genuine(self, target)
Path.replace = replace
forget(Path({str(tmp_path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert len(read(tmp_path, JournalKind.SERVED)) == 4
    assert len(read(tmp_path, JournalKind.OUTCOMES)) == 2 - renames // 2

    # The next removal does the rest.
    done = forget(tmp_path)
    assert (done.calls, done.outcomes) == (2, 1 - renames // 2)
    assert read(tmp_path, JournalKind.SERVED) == [stay, stay]
    assert read(tmp_path, JournalKind.OUTCOMES) == [outcome()]
    assert {path.suffix for path in tmp_path.glob(".*")} == {".moves"}
