"""The contract of pages of figures, alarms, looks and cells, for both databases."""

from collections.abc import Iterator

import numpy as np
import pytest

from monitoring.cells.cell import CALLS, ROW_FLAGS, ROWS, CellCounts, CellKey
from monitoring.errors import BadPageError
from monitoring.store.cell_rows import add_to_cells
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import AcceptedReference, LookOutcome, LookStore
from monitoring.store.pages import INT_MAX, PageStore, page_token
from monitoring.store.tables import DAY as DAY_GRAIN
from monitoring.store.tables import HOUR
from tests.monitoring.stored import AT_S, DAY, raised_alarm, stored_figure


@pytest.fixture
def database(database_url: str) -> Iterator[MonitoringDatabase]:
    """Return an empty database."""
    database = MonitoringDatabase(database_url)
    yield database
    database.close()


def test_pages_go_on_behind_the_last_figure(database: MonitoringDatabase) -> None:
    """Each figure comes once, in one order, also when others are stored between two pages."""
    names = [f"psi f{number:02}" for number in range(7)]
    figures = [stored_figure(name, last_day=DAY + number) for number, name in enumerate(names)]
    looks, pages = LookStore(database), PageStore(database)
    looks.save_figures(figures)
    first = list(pages.figures(0, INT_MAX, limit=3))
    assert [figure for figure, _ in first] == figures[:3]
    # One that belongs before the page does not move it, one behind it is read.
    looks.save_figures([stored_figure("early", last_day=DAY - 9), stored_figure("z", last_day=DAY)])
    token = first[-1][1]
    rest = [figure for figure, _ in pages.figures(0, INT_MAX, token=token, limit=50)]
    assert rest == figures[3:]
    assert list(pages.figures(0, INT_MAX, token=page_token(iter(_key(figures[-1]))), limit=9)) == []


def _key(figure: object) -> list[object]:
    names = ("last_day", "model", "version", "kind", "segment", "name", "days")
    return [getattr(figure, name) for name in names]


def test_figures_are_chosen_by_model_kind_and_day(database: MonitoringDatabase) -> None:
    """What is left out is read by nobody, and the newest of each name can be asked for."""
    old, new = stored_figure(last_day=DAY), stored_figure(value=0.4, last_day=DAY + 1)
    fair = stored_figure("ratio", kind="fairness", last_day=DAY + 1)
    other = stored_figure(model="fraud", value=None, last_day=DAY + 1)
    LookStore(database).save_figures([old, new, fair, other])
    pages = PageStore(database)

    def found(since: int = 0, until: int = INT_MAX, **chosen: object) -> list[object]:
        return [item for item, _ in pages.figures(since, until, **chosen)]  # type: ignore[arg-type]

    assert found(DAY, DAY + 1) == [old]
    assert found(model="fraud") == [other]
    assert found(kind="fairness") == [fair]
    assert fair not in found(without=("fairness",))
    assert pages.newest_figures(DAY, ["drift"]) in ([new, other], [other, new])
    assert pages.newest_figures(DAY + 2, ["drift"]) == []


def test_alarms_and_their_numbers_come_in_pages(database: MonitoringDatabase) -> None:
    """Alarms of one second are told apart by their numbers."""
    alarms = tuple(raised_alarm(f"f{number}") for number in range(5))
    looks, pages = LookStore(database), PageStore(database)
    looks.save_look("churn", "7", "drift", DAY, LookOutcome(alarms=alarms))
    (first, token), *_ = pages.alarms(AT_S, AT_S + 1, limit=1)
    rest = pages.alarms(AT_S, AT_S + 1, token=token, limit=50)
    assert [first.alarm, *(item.alarm for item, _ in rest)] == list(alarms)
    assert list(pages.alarms(AT_S + 1, INT_MAX, limit=9)) == []
    assert list(pages.alarms(0, INT_MAX, model="fraud", limit=9)) == []
    assert pages.alarm_counts() == {("churn", "features"): 5}


def test_looks_say_until_when_they_looked_and_what_they_cannot_watch(
    database: MonitoringDatabase,
) -> None:
    """A position is a Unix day, or the number of five minutes."""
    looks, pages = LookStore(database), PageStore(database)
    reason = "not enough data: 40 of 100 rows"
    state = {"unwatched": {"usage:data_gb": reason}}
    looks.save_look("churn", "7", "drift", DAY, LookOutcome(state=state))
    looks.save_look("churn", "7", "windows", DAY * 288, LookOutcome(state={"unwatched": 3}))
    looks.accept_reference(AcceptedReference("churn", "7", 5, DAY - 14, DAY))
    (drift, token), (windows, _) = pages.looks(limit=9)
    assert (drift.until_unix_s, drift.unwatched) == (AT_S + 86_400, {"usage:data_gb": reason})
    assert (windows.until_unix_s, windows.unwatched) == (AT_S, {})
    assert [row.name for row, _ in pages.looks(token=token, limit=9)] == ["windows"]
    assert list(pages.looks(model="fraud", limit=9)) == []
    assert pages.references(model="churn") == looks.accepted_references()
    assert pages.references(model="fraud") == []


def test_cells_come_with_their_flags_by_name(database: MonitoringDatabase) -> None:
    """Hours and days are told apart, and a flag without rows is left out."""
    counts = CellCounts(
        {CALLS: np.array([3]), ROWS: np.array([4]), ROW_FLAGS: np.array([2, 0, 1, 0])}
    )
    with database.write_transaction() as connection:
        for grain, hour in ((HOUR, 500), (HOUR, 501), (DAY_GRAIN, 480)):
            key = CellKey("churn", "7", 2**63 + 1, 1, False, "", hour)
            add_to_cells(connection, grain, [(key, counts)])
    pages = PageStore(database)
    (day, token), *_ = pages.cells(0, INT_MAX, limit=1)
    assert (day.hours, day.hour, day.calls, day.rows) == (24, 480, 3, 4)
    assert day.row_flags == {"missing": 2, "defaulted": 1}
    rest = pages.cells(0, INT_MAX, token=token, limit=9)
    assert [(cell.hours, cell.hour) for cell, _ in rest] == [(1, 500), (1, 501)]
    assert [cell.hour for cell, _ in pages.cells(501, 502, limit=9)] == [501]


@pytest.mark.parametrize(
    "token",
    [
        "no token",
        "AAAA",
        page_token(iter([1, 2])),
        page_token(iter(["churn", 2, "drift"])),
        page_token(iter(["churn", "7", "a\0b"])),
        page_token(iter([True, "7", "drift"])),
        page_token(iter([[1]] * 3)),
    ],
)
def test_token_of_another_list_is_refused(database: MonitoringDatabase, token: str) -> None:
    """Before it reaches the database."""
    with pytest.raises(BadPageError, match="page token is none of this list"):
        list(PageStore(database).looks(token=token, limit=9))
