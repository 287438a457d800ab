"""Decisions: each row once, found by its prediction id, bit for bit as it was scored."""

import math
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from monitoring.api.decision_policy import DecisionPolicy, day_of_id
from monitoring.cells.decision_rows import (
    SAMPLE_ALL,
    join_batches,
    sample_decisions,
    unpack_decisions,
)
from monitoring.decisions.day_rows import DayRows
from monitoring.decisions.decision_store import DecisionStore
from monitoring.errors import BadDecisionsError, MonitoringError
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import ServedBatch
from tests.monitoring.served import AT_NS, HOUR_NS, ids_of, served_batch

DAY = AT_NS // (24 * HOUR_NS)


class Stores:
    """A store and its decisions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "decisions"
        self.database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
        self.decisions = DecisionStore(self.folder, self.database, day_of_id)
        self.store = MonitoringStore(self.database, lambda: 0, self.decisions.add_batch)
        self.sequence = 0

    def push(self, *batches: ServedBatch) -> None:
        """Push the rows of all keys."""
        self.sequence += 1
        blocks = [
            block
            for joined in join_batches(batches)
            for block in sample_decisions(joined, no_holdout(joined), SAMPLE_ALL)
        ]
        name = pb.JournalName(gateway="gateway-1")
        batch = pb.CellBatch(journal=name, sequence=self.sequence, decisions=blocks)
        self.store.push(batch)
        self.store.push(batch)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Return an empty store."""
    opened = Stores(tmp_path)
    yield opened
    opened.store.close()


def no_holdout(batch: ServedBatch) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return that no call is of the control group."""
    return np.zeros(len(batch.role), dtype=np.bool_)


def check_found(stores: Stores, batch: ServedBatch) -> None:
    """Look every call of *batch* up, and compare its rows bit by bit."""
    vectors = np.frombuffer(batch.vectors, "<f4").reshape(-1, batch.width)
    scores = np.frombuffer(batch.scores, "<f4")
    row = 0
    for call, count in enumerate(np.frombuffer(batch.row_count, "<u4").tolist()):
        prediction_id = batch.prediction_ids[64 * call : 64 * call + 64]
        found, *_shadows = stores.decisions.find_decisions(prediction_id)
        assert (found.model, found.version, len(found.rows)) == ("churn", "7", count)
        for number, item in enumerate(found.rows):
            assert item.row == number
            vector = np.array(item.vector, dtype=np.float32)
            np.testing.assert_array_equal(vector, vectors[row])
            assert np.float32(item.scores[0]) == scores[row]
            assert item.entity_ids == (batch.entity_ids[row],)
            row += 1


@pytest.mark.walk
def test_decisions_are_found_before_and_after_they_are_in_files(stores: Stores) -> None:
    """Blocks, then a file, then files that are merged: each row is there once."""
    rng = np.random.default_rng(5)
    batches = [served_batch(rng, 5, first=5 * number) for number in range(9)]
    stores.push(batches[0], batches[1])
    check_found(stores, batches[1])
    for batch in batches[2:]:
        stores.decisions.compact()
        stores.push(batch)
    stores.decisions.compact()
    # A missing input is NaN in a file, as it was when it was scored.
    values = [item for batch in batches for item in np.frombuffer(batch.vectors, "<f4").tolist()]
    missing = sum(map(math.isnan, values))
    parts = DayRows(stores.folder, stores.database).day_rows("churn", DAY)
    assert missing == sum(np.isnan(part.vectors).sum() for _, part in parts) > 0
    rows = sum(len(batch.row_flags) // 4 for batch in batches)
    assert stores.decisions.rows() == rows
    for batch in batches:
        check_found(stores, batch)
    files = list(stores.folder.rglob("*.parquet"))
    assert len(files) == 1
    unknown = ids_of(np.array([1], np.uint64), np.array([False]), first=99)
    assert stores.decisions.find_decisions(unknown) == []


@pytest.mark.walk
def test_files_of_one_size_are_merged(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file is not written again with every few small ones."""
    monkeypatch.setattr("monitoring.decisions.decision_store.SMALLEST_SIZE_ROWS", 20)
    rng = np.random.default_rng(6)
    batches = [served_batch(rng, 5, first=5 * number) for number in range(16)]
    for batch in batches:
        stores.push(batch)
        stores.decisions.compact()
    sizes = [len(batch.row_flags) // 4 for batch in batches]
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT count(*) FROM read_parquet($1, filename = true) GROUP BY filename",
            [[str(path) for path in stores.folder.rglob("*.parquet")]],
        ).fetchall()
    assert sorted(rows for (rows,) in found) == sorted((sum(sizes[:8]), sum(sizes[8:])))
    check_found(stores, batches[3])


def test_few_rows_of_a_day_wait_for_more(stores: Stores) -> None:
    """A file is written for as many rows as are asked for, and for the rest when all is asked."""
    rng = np.random.default_rng(7)
    few = served_batch(rng, 3, rows_max=1)
    many = served_batch(rng, 5, rows_max=1, first=3, at_ns=AT_NS + 24 * HOUR_NS)
    stores.push(few, many)
    assert stores.decisions.compact(rows_min=4) == 5
    assert stores.decisions.compact(rows_min=4) == 0
    for batch in (few, many):
        check_found(stores, batch)
    assert stores.decisions.compact() == 3
    check_found(stores, few)


def test_shadow_is_found_beside_the_answer(stores: Stores) -> None:
    """It has the prediction id of the answer that it shadows."""
    batch = served_batch(np.random.default_rng(1), 1)
    shadow = ServedBatch.FromString(batch.SerializeToString())
    shadow.version, shadow.role = "8", bytes([5])
    stores.push(shadow, batch)
    for _ in range(2):
        found = stores.decisions.find_decisions(batch.prediction_ids)
        assert [(item.version, item.role) for item in found] == [("7", 1), ("8", 5)]
        stores.decisions.compact()


def test_sealed_id_is_found_without_a_key(stores: Stores) -> None:
    """Its day cannot be read, so every day is searched."""
    batch = served_batch(np.random.default_rng(1), 1)
    batch.prediction_ids = ids_of(np.array([1], np.uint64), np.array([False]), sealed=True)
    stores.push(batch)
    stores.decisions.compact()
    assert day_of_id(batch.prediction_ids) is None
    check_found(stores, batch)


def test_killed_compaction_leaves_each_row_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is there and no row names it, as a kill before the transaction would leave it."""
    batch = served_batch(np.random.default_rng(1), 4)
    stores.push(batch)
    with monkeypatch.context() as patch:
        patch.setattr("monitoring.decisions.decision_store.insert", None)
        with pytest.raises(TypeError):
            stores.decisions.compact()
    assert len(list(stores.folder.rglob("*.parquet"))) == 1
    check_found(stores, batch)
    stores.decisions.delete_unnamed_files()
    assert list(stores.folder.rglob("*.parquet")) == []
    stores.decisions.compact()
    check_found(stores, batch)


def test_old_days_are_deleted(stores: Stores) -> None:
    """Retention deletes files of whole days."""
    old, new = (
        served_batch(np.random.default_rng(1), 2, at_ns=AT_NS + d * 24 * HOUR_NS) for d in (0, 3)
    )
    stores.push(old, new)
    stores.decisions.compact()
    assert stores.decisions.delete_before(DAY + 3) == 1
    assert len(list(stores.folder.rglob("*.parquet"))) == 1
    check_found(stores, new)


def test_sample_keeps_all_rows_of_a_key_or_none() -> None:
    """The hash of the key decides, so both sides of a comparison have the same keys."""
    batch = served_batch(np.random.default_rng(2), 200)
    (block,) = sample_decisions(batch, no_holdout(batch), SAMPLE_ALL // 4)
    kept = unpack_decisions(block)
    assert (kept.key_hash % np.uint64(SAMPLE_ALL) < SAMPLE_ALL // 4).all()
    keys = np.frombuffer(batch.key_hash, "<u8") % np.uint64(SAMPLE_ALL) < SAMPLE_ALL // 4
    row_count = np.frombuffer(batch.row_count, "<u4")
    assert len(kept) == row_count[keys].sum()
    assert list(sample_decisions(batch, no_holdout(batch), 0)) == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "more rows", "no model", "long"])
def test_bad_block_is_refused_and_nothing_is_stored(stores: Stores, damage: str) -> None:
    """A truncated or lying block undoes its batch."""
    batch = served_batch(np.random.default_rng(2), 3)
    (block,) = sample_decisions(batch, no_holdout(batch), SAMPLE_ALL)
    content = bytearray(block.content)
    if damage == "truncated":
        block.content = bytes(content[:-5])
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        block.content = bytes(content)
    elif damage == "more rows":
        block.rows += 1
    elif damage == "no model":
        block.model = "../etc"
    else:
        block.content = block.content + b"more"
        block.width += 1
    name = pb.JournalName(gateway="gateway-1")
    with pytest.raises(BadDecisionsError):
        stores.store.push(pb.CellBatch(journal=name, sequence=1, decisions=[block]))
    assert stores.decisions.rows() == 0


def test_policy_outside_of_its_bounds_is_refused() -> None:
    """More keys than there are, and no day."""
    for bad in ({"sampled_of_65536": 65_537}, {"by_model": {"churn": -1}}, {"days": 0}):
        with pytest.raises(MonitoringError, match="give 0 to 65536"):
            DecisionPolicy(**bad)
