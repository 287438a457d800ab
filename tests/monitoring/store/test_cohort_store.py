"""What looks at outcomes read, for both databases."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from monitoring.cells.cell import CellCounts, CellKey, cell_to_proto
from monitoring.store.cohort_store import CohortStore
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.window_counts import WindowBatchRows
from protos import monitoring_pb2 as pb
from tests.monitoring.outcome_world import report
from tests.monitoring.served import DIGEST8, churn_bins

DAY = 20_000
DAY_MS = 86_400_000


class Stores:
    """The store that readers push to, and what looks read."""

    def __init__(self, url: str) -> None:
        database = MonitoringDatabase(url)
        self.pushed = MonitoringStore(database, lambda: DAY * DAY_MS)
        self.cohorts = CohortStore(database)
        self.pushed.save_version(churn_bins())


@pytest.fixture
def stores(database_url: str) -> Iterator[Stores]:
    """Return the stores of an empty database."""
    opened = Stores(database_url)
    yield opened
    opened.pushed.close()


def cell_of(hour: int, version: str = "7") -> pb.Cell:
    """Return a cell of ten rows, with a column that looks at outcomes do not read."""
    counts = CellCounts({"rows": np.array([10]), "calls": np.array([10])})
    for name in ("score:churned", "feature:usage:f0", "outcome:churned:delay_days"):
        counts.add(name, np.array([3, 7]))
    return cell_to_proto(CellKey("churn", version, DIGEST8, 1, False, "", hour), counts)


def test_cells_of_whole_days_with_the_columns_that_are_asked_for(stores: Stores) -> None:
    """Neither the hours before and after, nor other versions, nor other columns."""
    hours = (DAY * 24 - 1, DAY * 24, DAY * 24 + 23, DAY * 24 + 24)
    cells = [cell_of(hour) for hour in hours] + [cell_of(DAY * 24, "8")]
    stores.pushed.push(pb.CellBatch(journal=pb.JournalName(gateway="g"), sequence=1, cells=cells))
    found = stores.cohorts.day_cells("churn", "7", DAY, DAY, ["score:", "outcome:churned:"])
    assert [item.key.hour for item in found] == [DAY * 24, DAY * 24 + 23]
    assert set(found[0].counts.columns) == {"score:churned", "outcome:churned:delay_days"}
    assert found[0].key.digest8 == DIGEST8
    assert len(stores.cohorts.day_cells("churn", "7", DAY - 1, DAY + 1, ["rows"])) == 4
    assert stores.cohorts.day_cells("churn", "9", DAY, DAY, ["rows"]) == []


def test_reported_outcomes_by_name_day_and_version(stores: Stores) -> None:
    """The value that stands, with the row's score and the key."""
    at_ms = DAY * DAY_MS
    events = [
        report(b"a" * 64, at_ms, 1.0, key_hash=2**63 + 5, holdout=True),
        report(b"b" * 64, at_ms + DAY_MS - 1, 0.0, score=None),
        report(b"c" * 64, at_ms + DAY_MS, 1.0),
        report(b"a" * 64, at_ms, 1.0, name="acted"),
        report(b"b" * 64, at_ms + DAY_MS - 1, 5.0, after_ms=2 * DAY_MS),
    ]
    journal = pb.JournalName(gateway="g")
    stores.pushed.push(pb.CellBatch(journal=journal, sequence=1, outcomes=events))
    found = stores.cohorts.reported("churn", DAY, DAY, ["churned"])
    assert [(item.value, item.score, item.holdout) for item in found] == [
        (1.0, 0.5, True),
        (5.0, None, False),
    ]
    assert found[0].key_hash == 2**63 + 5
    assert found[0].id_digest == events[0].id_digest
    assert len(stores.cohorts.reported("churn", DAY, DAY, ["churned", "acted"])) == 3
    assert stores.cohorts.reported("churn", DAY, DAY, ["churned"], version="8") == []
    assert stores.cohorts.reported("fraud", DAY, DAY, ["churned"]) == []


def test_counted_share_is_that_of_the_days(stores: Stores) -> None:
    """None where no gateway said how many rows it scored."""
    cells = [cell_of(DAY * 24), cell_of(DAY * 24, "8")]
    stores.pushed.push(pb.CellBatch(journal=pb.JournalName(gateway="g"), sequence=1, cells=cells))
    assert stores.cohorts.counted_share("churn", "7", DAY, DAY) is None
    rows = Counter({("churn", "7", DAY * 24): 40, ("churn", "7", DAY * 24 + 30): 99})
    stores.pushed.add_windows([WindowBatchRows("g/0/1", 1, rows, rows, DAY * 24)])
    assert stores.cohorts.counted_share("churn", "7", DAY, DAY) == 0.25
    assert stores.cohorts.counted_share("churn", "8", DAY, DAY) is None
