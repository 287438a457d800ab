"""The contract of the store, for both databases: all of a batch once, and sums that stay."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine

from journal.prediction_id import hash_model_name
from journal.tail import TailPosition
from monitoring.cells.cell import CellCounts, CellKey, cell_to_proto
from monitoring.cells.outcome_columns import OutcomeKind
from monitoring.errors import BadCellError, MonitoringStoreError, SequenceError
from monitoring.store.cell_rows import Retention, start_of, sum_of_cells
from monitoring.store.cohort_store import CohortStore
from monitoring.store.database import MIGRATIONS, REVISION, MonitoringDatabase, migrate, migrations
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.tables import DAY, HOUR, WEEK, outcomes, schema
from monitoring.store.window_counts import WindowBatchRows
from monitoring.watch.minute_counts import MinuteCounts
from protos import monitoring_pb2 as pb
from tests.monitoring.served import AT_NS, DIGEST8, churn_bins

JOURNAL = pb.JournalName(gateway="gateway-1")
HOUR_0 = AT_NS // (3_600 * 10**9)
AT_MS = AT_NS // 10**6
FOREVER = 10**9


@pytest.fixture
def store(database_url: str) -> Iterator[MonitoringStore]:
    """Return a store of an empty database."""
    opened = MonitoringStore(MonitoringDatabase(database_url), lambda: AT_MS)
    yield opened
    opened.close()


def cell(rows: int = 2, hour: int = HOUR_0, role: int = 1) -> pb.Cell:
    """Return a cell of version 7 of churn in which each row has one call."""
    key = CellKey("churn", "7", DIGEST8, role, False, "", hour)
    counts = CellCounts({"rows": np.array([rows]), "calls": np.array([rows])})
    counts.add("score:churned", np.array([0, rows]))
    return cell_to_proto(key, counts)


def batch(sequence: int, *cells: pb.Cell, offset: int = 100, **fields: object) -> pb.CellBatch:
    """Return a batch that read one segment up to *offset*."""
    position = pb.SegmentPosition(segment="served-1", offset=offset, check=7)
    return pb.CellBatch(
        journal=JOURNAL,
        sequence=sequence,
        cells=cells,
        positions=[position],
        **fields,  # type: ignore[arg-type]
    )


def outcome(number: int, value: float, *, received: int = 1, **fields: object) -> pb.OutcomeEvent:
    """Return a report about a prediction of version 7, *received* hours after it."""
    received_ms = AT_MS + received * 3_600_000
    return pb.OutcomeEvent(
        **{  # type: ignore[arg-type]
            "id_digest": bytes([number]) * 16,
            "model_hash": hash_model_name("churn"),
            "version_digest": DIGEST8,
            "role": 1,
            "predicted_unix_ms": AT_MS,
            "score": 0.25,
            "name": "churned",
            "value": value,
            "event_unix_ms": received_ms,
            "received_unix_ms": received_ms,
        }
        | fields
    )


def total(store: MonitoringStore) -> CellCounts:
    """Return the sum of all cells."""
    return sum_of_cells(store.read_cells(-FOREVER, FOREVER))


def engine_of(url: str) -> Engine:
    """Return an engine of SQLAlchemy for a database that monitoring has not opened."""
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


@pytest.mark.parametrize("migrated", [False, True], ids=["new", "migrated"])
def test_database_has_the_tables_of_this_release(database_url: str, migrated: bool) -> None:
    """Opening again changes nothing; what tables.py has and no migration makes is a breach."""
    if migrated:
        engine = engine_of(database_url)
        with engine.begin() as connection:
            migrate(connection)
        engine.dispose()
    for _ in range(2):
        database = MonitoringDatabase(database_url)
        with database.read_transaction() as connection:
            options = {"version_table": migrations.name, "compare_type": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, schema) == []
            assert context.get_current_heads() == (REVISION,)
        database.close()


def test_new_database_has_the_newest_migration() -> None:
    """Its number is read from the names of the files, so that no migration is imported for it."""
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [REVISION]


def test_segments_of_outcomes_may_be_long_after_the_migration(database_url: str) -> None:
    """Rows of the release before stay; PostgreSQL refused more than 128 characters."""
    columns = [column.name for column in outcomes.columns]
    row = dict.fromkeys(columns, 1) | {"id_digest": bytes(16), "holdout": False, "segment": ""}
    row |= dict.fromkeys(("name", "model", "version", "digest8", "key_hash"), "x")
    engine = engine_of(database_url)
    with engine.begin() as connection:
        migrate(connection, "0002")
        connection.execute(outcomes.insert().values(row))
    engine.dispose()
    database = MonitoringDatabase(database_url)
    with database.write_transaction() as connection:
        assert [dict(found) for found in connection.execute(outcomes.select()).mappings()] == [row]
        connection.execute(outcomes.insert().values(row | {"row": 2, "segment": "s=p," * 99}))
    database.close()


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite:////no/such/folder/file"])
def test_database_that_cannot_be_opened_is_named(url: str) -> None:
    """The error says what to give."""
    with pytest.raises(MonitoringStoreError, match="sqlite"):
        MonitoringDatabase(url)


def test_batch_counts_once_with_its_positions(store: MonitoringStore) -> None:
    """A batch that comes again is recognised; another one of its number is not taken for it."""
    assert store.open_reader(JOURNAL).sequence == 0
    first = batch(1, cell(), cell(3, role=2))
    assert [store.push(first) for _ in range(3)] == [1, 1, 1]
    assert store.push(batch(2, cell(5), offset=250)) == 2
    opened = store.open_reader(JOURNAL)
    assert opened.sequence == 2
    assert opened.positions == {"served-1": TailPosition(250, 7)}
    assert total(store).rows == 10
    # What does not follow changes nothing.
    for wrong in (batch(2, cell(4)), first, batch(4, cell(4)), batch(0, cell(4))):
        with pytest.raises(SequenceError, match="open the reader again"):
            store.push(wrong)
    assert total(store).rows == 10
    # Another journal has numbers of its own.
    other = batch(1, cell(7))
    other.journal.gateway = "gateway-2"
    assert store.push(other) == 1
    assert total(store).counts("score:churned").tolist() == [0, 17]


def test_rows_of_segments_are_counted_once_in_figures_of_all_rows(
    store: MonitoringStore,
) -> None:
    """They are in the cell of all rows too."""
    part = cell(4)
    part.segment = "tenure=new"
    store.push(batch(1, cell(10), part))
    assert total(store).rows == store.coverage(0, FOREVER)[0].rows == 10
    assert store.served_versions(HOUR_0 // 24, HOUR_0 // 24)[0].rows == 10
    assert store.rows_by_model(0, FOREVER) == {"churn": 10}
    days = HOUR_0 // 24, HOUR_0 // 24
    cohort = CohortStore(store._database).day_cells("churn", "7", *days, ["score:"])
    assert [item.counts.counts("score:churned").tolist() for item in cohort] == [[0, 10]]
    counts = MinuteCounts(store.find_version)
    counts.note_cells(batch(1, cell(10), part))
    assert counts.take_shares()["churn", "7", False].rows == {"gateway-1": 10}
    (found,) = store.read_cells(0, FOREVER, segment="tenure=new")
    assert found.counts.rows == 4
    assert len(store.read_cells(0, FOREVER, segment=None)) == 2


def test_refused_batch_leaves_nothing(store: MonitoringStore) -> None:
    """A bad column after good cells undoes the cells, the positions and the sequence number."""
    bad = cell()
    bad.columns[0].index.append(0)
    with pytest.raises(BadCellError):
        store.push(batch(1, cell(), bad))
    # A column of sums cannot be added to one of counts; that shows while it is written.
    store.push(batch(1, cell()))
    mixed = cell()
    del mixed.columns[:]
    mixed.columns.add(name="score:churned", index=[1], sum=[0.5])
    with pytest.raises(BadCellError, match="columns of their own"):
        store.push(batch(2, cell(8, hour=HOUR_0 + 1), mixed, offset=300))
    assert total(store).rows == 2
    opened = store.open_reader(JOURNAL)
    assert (opened.sequence, opened.positions["served-1"].offset) == (1, 100)


def test_batch_that_a_full_disk_refuses_counts_once_later(tmp_path: Path) -> None:
    """A limit on the pages of SQLite's file has the effect of a full disk."""
    database = MonitoringDatabase(f"sqlite:///{tmp_path}/monitoring.sqlite")
    store = MonitoringStore(database, lambda: AT_MS)
    store.push(batch(1, cell()))

    def limit_pages(pages: str) -> None:
        with database.write_transaction() as connection:
            now = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages.format(now=now)}")

    limit_pages("{now}")
    large = batch(2, *(cell(hour=HOUR_0 + number) for number in range(500)), offset=300)
    for _ in range(2):
        with pytest.raises(MonitoringStoreError, match="full; nothing of this change was written"):
            store.push(large)
    opened = store.open_reader(JOURNAL)
    assert (total(store).rows, opened.sequence) == (2, 1)
    assert opened.positions["served-1"].offset == 100
    # There is room again, and the reader does not know whether its batch arrived.
    limit_pages("1000000")
    assert [store.push(large) for _ in range(2)] == [2, 2]
    assert total(store).rows == 2 + 2 * 500
    assert store.open_reader(JOURNAL).positions["served-1"].offset == 300
    store.close()


def test_positions_of_gone_segments_are_dropped(store: MonitoringStore) -> None:
    """And damage is counted once, however often it is found."""
    damage = pb.JournalDamage(segment="served-1", offset=10, next_offset=25, kind="damaged")
    store.push(batch(1, damages=[damage]))
    gone = batch(2, damages=[damage])
    gone.positions[0].gone = True
    store.push(gone)
    assert store.open_reader(JOURNAL).positions == {}
    (status,) = store.reader_statuses()
    assert (status.damages, status.lost_bytes, status.sequence) == (1, 15, 2)
    assert status.newest_damages[0].kind == "damaged"


@pytest.mark.parametrize("together", [1, 3, 11])
def test_outcomes_count_once_and_corrections_replace(store: MonitoringStore, together: int) -> None:
    """The newest report counts, in whatever order hosts push and however batches are cut."""
    store.save_version(churn_bins())
    reports = [
        outcome(1, 1.0),
        outcome(1, 1.0, received=2),
        outcome(2, 1.0, received=5),
        outcome(2, 0.0, received=3),
        outcome(3, 0.0),
        outcome(3, 1.0, received=30),
        outcome(3, 1.0, received=31),
        outcome(4, 1.0, version_digest=99),
        outcome(5, 1.0, forged=True),
        outcome(6, 1.0, event_unix_ms=AT_MS - 10**9),
        outcome(7, float("nan")),
    ]
    for number, start in enumerate(range(0, len(reports), together)):
        part = reports[start : start + together]
        store.push(batch(number + 1, outcomes=part, offset=100 + number))
    # Three predictions are counted, each with its newest value.
    counts = total(store)
    assert counts.counts("outcome:churned:positive").sum() == 3
    assert counts.counts("outcome:churned:negative").sum() == 0
    events = counts.counts("outcome:churned:events", len(OutcomeKind))
    assert {kind.name: int(events[kind]) for kind in OutcomeKind if events[kind]} == {
        "COUNTED": 3,
        "DUPLICATE": 2,
        "CORRECTED": 2,
        "ORPHAN": 2,
        "BEFORE_PREDICTION": 1,
        "NO_NUMBER": 1,
    }
    assert counts.counts("outcome:churned:delay_days").sum() == 3
    # Orphans are in a cell without a version.
    without = [item for item in store.read_cells(-FOREVER, FOREVER) if not item.key.version]
    assert sum_of_cells(without).counts("outcome:churned:events")[OutcomeKind.ORPHAN] == 2


@pytest.mark.walk
def test_roll_up_keeps_every_sum(store: MonitoringStore) -> None:
    """Hours become days and days weeks; repeated, and with late cells, nothing is lost."""
    retention = Retention(hour_days=2, day_days=20, week_days=10_000)
    now = HOUR_0 + 38 * 24
    hours = [HOUR_0 + 26 * step for step in range(35)]
    for number, hour in enumerate(hours):
        store.push(batch(number + 1, cell(number, hour=hour), offset=number))
    before = total(store)
    assert store.roll_up(now, retention) > 0
    assert store.roll_up(now, retention) == 0
    assert total(store) == before
    # Each grain has the hours that it should have.
    stored = store.read_cells(-FOREVER, FOREVER)
    starts = {
        grain: [item.key.hour for item in stored if item.grain == grain]
        for grain in (HOUR, DAY, WEEK)
    }
    assert min(starts[HOUR]) >= start_of(DAY, now - 48)
    assert min(starts[DAY]) >= start_of(WEEK, now - 20 * 24)
    assert all(start % 24 == 0 for start in starts[DAY])
    mondays = {datetime.fromtimestamp(start * 3_600, UTC).weekday() for start in starts[WEEK]}
    assert mondays == {0}
    # A reader that was away pushes an old hour, which is added to its week.
    store.push(batch(36, cell(1_000, hour=HOUR_0 + 1), offset=1))
    store.roll_up(now, retention)
    assert total(store).rows == before.rows + 1_000
    assert len(store.read_cells(-FOREVER, FOREVER)) == len(stored)


def test_killed_roll_up_changes_nothing(
    store: MonitoringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle of its transaction, as a kill would be, leaves the hours."""
    store.push(batch(1, cell(4), cell(5, hour=HOUR_0 + 1)))
    before = store.read_cells(-FOREVER, FOREVER)
    monkeypatch.setattr("monitoring.store.cell_rows.delete", None)
    with pytest.raises(TypeError):
        store.roll_up(HOUR_0 + 10_000, Retention(hour_days=1))
    assert store.read_cells(-FOREVER, FOREVER) == before


def test_old_weeks_expire(store: MonitoringStore) -> None:
    """After five years a week is deleted."""
    store.push(batch(1, cell(4)))
    store.roll_up(HOUR_0 + 1_000 * 24, Retention())
    assert total(store).rows == 4
    store.roll_up(HOUR_0 + 1_840 * 24, Retention())
    assert total(store).rows == 0


def test_windows_count_once_and_say_what_is_lost(store: MonitoringStore) -> None:
    """A batch that a gateway sends again is not added; a gap in its numbers is counted."""

    def window(sequence: int, rows: int) -> WindowBatchRows:
        counted = Counter({("churn", "7", HOUR_0): rows})
        return WindowBatchRows("gateway-1/0/5", sequence, counted, counted, HOUR_0)

    store.add_windows([window(1, 10), window(2, 20)])
    store.add_windows([window(2, 20), window(3, 5)])
    assert store.lost_window_batches(HOUR_0, HOUR_0 + 1) == 0
    store.add_windows([window(6, 1)])
    assert store.lost_window_batches(HOUR_0, HOUR_0 + 1) == 2
    store.push(batch(1, cell(18)))
    (coverage,) = store.coverage(HOUR_0, HOUR_0 + 1)
    assert (coverage.rows, coverage.window_rows, coverage.share) == (18, 36, 0.5)
    assert store.coverage(HOUR_0 + 1, HOUR_0 + 2) == []
