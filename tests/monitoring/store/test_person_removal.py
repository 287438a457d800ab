"""A person's decisions and outcomes are removed, and nothing else changes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from journal.prediction_id import hash_model_name
from monitoring.api.decision_policy import day_of_id
from monitoring.api.removal import PersonRemoval
from monitoring.cells.decision_rows import SAMPLE_ALL, join_batches, sample_decisions
from monitoring.cells.outcome_columns import id_digest
from monitoring.decisions.decision_store import DecisionStore
from monitoring.errors import UnreadableDecisionsError
from monitoring.store.cell_rows import sum_of_cells
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import ServedBatch
from tests.monitoring.served import AT_NS, DIGEST8, churn_bins, served_batch

PERSON = "+49-170-5550100"
KEY_HASH = 2**63 + 11
"""What the person's id makes: above the numbers that databases have."""
ENTITIES = ("offer", "customer")
DAY_NS = 24 * 3_600 * 10**9


class Monitored:
    """The database and the decisions of monitoring, filled with calls of many persons."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder / "decisions"
        self.database = MonitoringDatabase(url)
        self.decisions = DecisionStore(self.folder, self.database, day_of_id)
        self.store = MonitoringStore(self.database, lambda: 0, self.decisions.add_batch)
        self.store.save_version(churn_bins())
        self.sequence = 0

    def push(self, *batches: ServedBatch) -> None:
        """Push the rows of all keys, and an outcome of each call."""
        self.sequence += 1
        blocks = [
            block
            for joined in join_batches(batches)
            for block in sample_decisions(joined, np.zeros(len(joined.role), bool), SAMPLE_ALL)
        ]
        events = [event for batch in batches for event in outcomes_of(batch)]
        name = pb.JournalName(gateway="gateway-1")
        self.store.push(
            pb.CellBatch(journal=name, sequence=self.sequence, decisions=blocks, outcomes=events)
        )

    def forget(self, request: pb.ForgetRequest) -> pb.ForgetReply:
        """Remove or count a person's rows."""
        with ThreadPoolExecutor(1) as thread:
            removal = PersonRemoval(self.store, self.decisions, thread, lambda: None)
            return asyncio.run(removal.forget(request))

    def calls(self, batches: list[ServedBatch]) -> list[str]:
        """Return what is kept of each call as text, in which NaN equals NaN; "[]": nothing is."""
        return [
            repr(self.decisions.find_decisions(prediction_id))
            for batch in batches
            for prediction_id in ids_in(batch)
        ]

    def outcomes(self) -> int:
        """Return how many outcomes have a row."""
        return sum(item.outcomes for item in self.store.coverage(0, 10**9))


def ids_in(batch: ServedBatch) -> list[bytes]:
    """Return the prediction ids of a batch."""
    content = batch.prediction_ids
    return [content[start : start + 64] for start in range(0, len(content), 64)]


def outcomes_of(batch: ServedBatch) -> list[pb.OutcomeEvent]:
    """Return a positive outcome of each call."""
    keys = np.frombuffer(batch.key_hash, "<u8").tolist()
    times = np.frombuffer(batch.at_unix_ns, "<i8").tolist()
    return [
        pb.OutcomeEvent(
            id_digest=id_digest(prediction_id),
            model_hash=hash_model_name("churn"),
            version_digest=DIGEST8,
            role=1,
            predicted_unix_ms=at_ns // 10**6,
            key_hash=key,
            name="churned",
            value=1.0,
            received_unix_ms=at_ns // 10**6,
        )
        for prediction_id, key, at_ns in zip(ids_in(batch), keys, times, strict=True)
    ]


def batch_of(
    number: int, *persons: str, keys: tuple[int, ...] = (), version: str = "7", day: int = 0
) -> ServedBatch:
    """Return calls of one row, each of one person; the first entity of a row is an offer."""
    batch = served_batch(
        np.random.default_rng(number),
        len(persons),
        first=100 * number,
        rows_max=1,
        at_ns=AT_NS + day * DAY_NS,
    )
    batch.version = version
    del batch.entity_ids[:]
    for place, person in enumerate(persons):
        batch.entity_ids.extend((f"offer-{place}", person))
    if keys:
        batch.key_hash = np.array(keys, "<u8").tobytes()
    return batch


def request(*, dry_run: bool = False, **fields: object) -> pb.ForgetRequest:
    """Return a request about the person, who is the second entity of versions 7 and 8."""
    versions = [pb.VersionEntities(versions=["7", "8"], entities=ENTITIES)]
    model = pb.ForgetModel(model="churn", versions=versions, key_hashes=[KEY_HASH])
    return pb.ForgetRequest(
        ids={"customer": PERSON},
        models=[model],
        dry_run=dry_run,
        **fields,  # type: ignore[arg-type]
    )


@pytest.fixture
def monitored(tmp_path: Path, database_url: str) -> Iterator[Monitored]:
    """Return an empty monitoring with either database."""
    opened = Monitored(tmp_path, database_url)
    yield opened
    opened.store.close()


@pytest.mark.walk
def test_person_is_removed_from_files_blocks_and_outcomes(monitored: Monitored) -> None:
    """By a row of theirs, by their key hash, and by ids that journals had; others keep all bits."""
    in_files = [
        batch_of(1, "other", PERSON, "other"),
        batch_of(2, "other", "other", keys=(5, KEY_HASH)),
        batch_of(3, "other", day=1),
        batch_of(4, PERSON, day=2),
    ]
    for batch in in_files:
        monitored.push(batch)
        monitored.decisions.compact()
    in_blocks = [batch_of(5, PERSON, "other"), batch_of(6, PERSON), batch_of(7, "other")]
    monitored.push(*in_blocks)
    batches = in_files + in_blocks
    before, files = monitored.calls(batches), set(monitored.folder.rglob("*.parquet"))
    counts = sum_of_cells(monitored.store.read_cells(0, 10**9))
    # The last call's id was in a journal; its row names another person.
    known = request(id_digests=id_digest(ids_in(batches[-1])[0]), dry_run=True)
    counted = monitored.forget(known)
    assert monitored.calls(batches) == before
    known.dry_run = False
    removed = monitored.forget(known)
    # The calls of the person by number of the batch: 1, 2, 4, 5, 6; and of 7 the outcome.
    assert (removed.calls, removed.rows, removed.outcomes) == (5, 5, 6)
    assert (removed.files, removed.unknown_rows) == (3, 0)
    assert (counted.calls, counted.rows, counted.outcomes) == (5, 5, 6)
    gone = {1, 4, 6, 7, 9}
    expected = ["[]" if number in gone else found for number, found in enumerate(before)]
    assert monitored.calls(batches) == expected
    assert monitored.decisions.rows() == len(expected) - len(gone)
    assert monitored.outcomes() == len(expected) - len(gone) - 1
    # Files of which nothing was left are gone, and those that have no such row are not touched.
    assert len(set(monitored.folder.rglob("*")) & files) == 1
    assert len(list(monitored.folder.rglob("*.parquet"))) == 3
    # Counts name nobody, so they stay.
    assert sum_of_cells(monitored.store.read_cells(0, 10**9)) == counts
    assert monitored.forget(request()) == pb.ForgetReply()
    # What compaction merges later is the rest.
    monitored.decisions.compact()
    assert monitored.calls(batches) == expected


def test_call_is_removed_with_all_its_rows_and_its_shadow(monitored: Monitored) -> None:
    """As in journals: an outcome names a call and a number of a row."""
    batch = served_batch(np.random.default_rng(2), 2, rows_max=1)
    batch.row_count = np.array([2, 0], "<u4").tobytes()
    del batch.entity_ids[:]
    batch.entity_ids.extend(["offer-1", "other", "offer-2", PERSON])
    shadow = ServedBatch.FromString(batch.SerializeToString())
    shadow.version, shadow.role = "8", bytes([5, 5])
    monitored.push(batch)
    monitored.decisions.compact()
    monitored.push(shadow)
    removed = monitored.forget(request())
    assert (removed.calls, removed.rows) == (1, 4)
    assert monitored.decisions.rows() == 0


def test_rows_of_an_unknown_version_are_counted_and_stay(monitored: Monitored) -> None:
    """Which of its entities the id is cannot be said; a key hash says it all the same."""
    unknown = batch_of(1, PERSON, "other", PERSON, version="9")
    by_key = batch_of(2, PERSON, version="9", keys=(KEY_HASH,))
    monitored.push(unknown)
    monitored.decisions.compact()
    monitored.push(batch_of(3, PERSON, version="9"), by_key)
    removed = monitored.forget(request())
    assert (removed.unknown_rows, removed.rows) == (3, 1)
    assert monitored.decisions.rows() == 4


def test_another_entity_with_the_same_id_stays(monitored: Monitored) -> None:
    """An offer that is named as the person is no person."""
    batch = batch_of(1, "other")
    batch.entity_ids[0] = PERSON
    monitored.push(batch)
    assert monitored.forget(request()) == pb.ForgetReply()
    monitored.decisions.compact()
    assert monitored.forget(request()) == pb.ForgetReply()


def test_unreadable_file_ends_the_removal_before_it_begins(monitored: Monitored) -> None:
    """Nothing is removed, and the message names the file."""
    monitored.push(batch_of(1, PERSON))
    monitored.decisions.compact()
    monitored.push(batch_of(2, PERSON))
    (file,) = monitored.folder.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UnreadableDecisionsError, match=file.name):
        monitored.forget(request())
    assert (monitored.decisions.rows(), monitored.outcomes()) == (2, 2)


def test_deleted_rows_are_overwritten(tmp_path: Path) -> None:
    """The files of SQLite have neither the key hash nor the digest of the id any more."""
    monitored = Monitored(tmp_path, f"sqlite:///{tmp_path}/monitoring.sqlite")
    batch = batch_of(1, PERSON, keys=(KEY_HASH,))
    monitored.push(batch)
    marks = [f"{KEY_HASH:016x}".encode(), id_digest(batch.prediction_ids)]

    def found() -> list[bool]:
        content = b"".join(path.read_bytes() for path in tmp_path.glob("monitoring.sqlite*"))
        return [mark in content for mark in marks]

    assert found() == [True, True]
    monitored.forget(request())
    assert found() == [False, False]
    monitored.store.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from monitoring.decisions import decision_store, person_rows
from tests.monitoring.store.test_person_removal import Monitored, request

def killed(*_arguments, **_named):
    os.kill(os.getpid(), signal.SIGKILL)

folder, point = Path(sys.argv[1]), sys.argv[2]
monitored = Monitored(folder, sys.argv[3])
if point == "unfinished file":
    person_rows.replacing_file.__wrapped__.__globals__["_fsync_file"] = killed
elif point == "file without a name":
    decision_store.insert = killed
elif point == "old file without a name":
    decision_store.DecisionStore._unlink = killed
elif point == "outcomes gone":
    decision_store.DecisionStore.remove_calls_from_blocks = killed
elif point == "blocks gone":
    decision_store.DecisionStore.remove_calls_from_next_file = killed
monitored.forget(request())
"""


@pytest.mark.walk
@pytest.mark.parametrize(
    "point",
    [
        "outcomes gone",
        "blocks gone",
        "unfinished file",
        "file without a name",
        "old file without a name",
    ],
)
def test_killed_removal_loses_and_doubles_nothing(tmp_path: Path, point: str) -> None:
    """Others' rows are there once; what is left of the person is removed by the next removal."""
    url = f"sqlite:///{tmp_path}/monitoring.sqlite"
    monitored = Monitored(tmp_path, url)
    batches = [batch_of(number, "other", PERSON, "other") for number in range(1, 4)]
    for batch in batches[:2]:
        monitored.push(batch)
        monitored.decisions.compact()
    monitored.push(batches[2])
    before = monitored.calls(batches)
    monitored.store.close()
    command = [sys.executable, "-c", KILLED, str(tmp_path), point, url]
    child = subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    assert child.returncode == -signal.SIGKILL

    # Monitoring starts again.
    monitored = Monitored(tmp_path, url)
    monitored.decisions.delete_unnamed_files()
    named = len(list(monitored.folder.rglob("*part-*")))
    assert named == len(list(monitored.folder.rglob("part-*.parquet"))) == 2
    after = monitored.calls(batches)
    for number, found in enumerate(after):
        assert found == before[number] or (number % 3 == 1 and found == "[]")
    monitored.forget(request())
    expected = ["[]" if number % 3 == 1 else found for number, found in enumerate(before)]
    assert monitored.calls(batches) == expected
    assert (monitored.decisions.rows(), monitored.outcomes()) == (6, 6)
    monitored.store.close()
