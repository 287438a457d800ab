"""The contract of looks, figures and alarms, for both databases."""

from collections.abc import Iterator

import numpy as np
import pytest

from monitoring.cells.cell import CellCounts
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import (
    AcceptedReference,
    LookOutcome,
    LookStore,
    PersonLooks,
    StoredFigure,
)
from stats.figure import Figure, no_figure

DAY = 20_780
AT_S = DAY * 86_400


@pytest.fixture
def store(database_url: str) -> Iterator[LookStore]:
    """Return a store of an empty database."""
    database = MonitoringDatabase(database_url)
    yield LookStore(database)
    database.close()


def figure(value: float | None = 0.2, last_day: int = DAY, name: str = "psi score") -> StoredFigure:
    """Return a figure of version 7 of churn."""
    number = no_figure(12, "not enough data: 12 of 30 rows needed")
    if value is not None:
        number = Figure(value, value - 0.1, value + 0.1, 500)
    return StoredFigure(
        model="churn",
        version="7",
        kind="drift",
        name=name,
        last_day=last_day,
        days=1,
        figure=number,
        details={"against": "training"},
    )


def alarm(at: int = AT_S, stream: str = "usage:data_gb") -> MonitoringAlarm:
    """Return an alarm of version 7 of churn."""
    return MonitoringAlarm(
        model="churn",
        version="7",
        kind="features",
        stream=stream,
        at=at,
        since=at - 86_400,
        view="usage",
    )


def test_a_look_is_stored_once_with_all_that_it_found(store: LookStore) -> None:
    """Its figures, alarms and state are there together, and a second process adds nothing."""
    first = LookOutcome(figures=(figure(),), alarms=(alarm(),), state={"daily": {"m": 1.5}})
    assert store.look_state("churn", "7", "drift").position == -1
    assert store.save_look("churn", "7", "drift", DAY, first)
    # A second process that made the same look changes nothing.
    again = LookOutcome(figures=(figure(0.9),), alarms=(alarm(),), state={"daily": {"m": 9.0}})
    assert not store.save_look("churn", "7", "drift", DAY, again)
    assert store.look_state("churn", "7", "drift").state == {"daily": {"m": 1.5}}
    assert store.read_figures(DAY, DAY + 1) == [figure()]
    assert [item.alarm for item in store.unreported_alarms()] == [alarm()]
    # The next day goes on, and other looks have states of their own.
    assert store.save_look("churn", "7", "drift", DAY + 1, LookOutcome(state={"daily": {}}))
    assert store.look_state("churn", "7", "drift").position == DAY + 1
    assert store.look_state("churn", "7", "quality").position == -1
    assert store.look_state("churn", "8", "drift").position == -1


def test_figures_are_replaced_and_keep_their_reason(store: LookStore) -> None:
    """A figure of the same name and period takes the place of the earlier one."""
    store.save_figures([figure(0.1), figure(None, name="auc churned")])
    store.save_figures([figure(0.3), figure(0.2, DAY + 1)])
    found = store.read_figures(DAY, DAY + 1)
    assert [item.name for item in found] == ["auc churned", "psi score"]
    assert found[0].figure.lacking == "not enough data: 12 of 30 rows needed"
    assert found[1].figure.value == 0.3
    assert len(store.read_figures(DAY, DAY + 2)) == 3
    assert store.read_figures(DAY, DAY + 2, model="fraud") == []
    assert store.read_figures(DAY, DAY + 2, kind="quality") == []


def test_alarms_wait_for_an_incident(store: LookStore) -> None:
    """An alarm stays unreported until an incident is noted."""
    outcome = LookOutcome(
        alarms=(alarm(), alarm(stream="usage:calls")), details={alarm(): {"psi": 0.4}}
    )
    store.save_look("churn", "7", "drift", DAY, outcome)
    first, second = store.unreported_alarms()
    assert (first.details, second.details) == ({"psi": 0.4}, {})
    store.note_incident([first.number], "5f2a")
    assert store.unreported_alarms() == [second]
    assert [item.incident_id for item in store.read_alarms(AT_S, AT_S + 1)] == ["5f2a", ""]
    assert store.read_alarms(AT_S + 1, AT_S + 9) == []


def test_person_looks_of_a_day_take_the_place_of_earlier_ones(store: LookStore) -> None:
    """A count that is made again is not added."""
    for persons, shadow in ((3, False), (5, False), (2, True)):
        counts = CellCounts({"feature:x": np.array([persons, 0, 1])})
        counted = PersonLooks(DAY, 1, persons, counts)
        store.save_person_looks("churn", "7", counted, shadow=shadow)
    found = store.read_person_looks("churn", "7", DAY - 1, DAY, 1, shadow=False)
    assert [(item.last_day, item.persons) for item in found] == [(DAY, 5)]
    assert found[0].counts == CellCounts({"feature:x": np.array([5, 0, 1])})
    assert store.read_person_looks("churn", "7", DAY, DAY, 7, shadow=False) == []
    assert store.read_person_looks("churn", "7", DAY, DAY, 1, shadow=True)[0].persons == 2


def test_the_newest_accepted_reference_counts(store: LookStore) -> None:
    """Findings that come again, or in another order, change nothing."""
    newer = AcceptedReference("churn", "7", 9, DAY - 14, DAY)
    assert store.accept_reference(AcceptedReference("churn", "7", 5, DAY - 20, DAY - 6))
    assert store.accept_reference(newer)
    assert not store.accept_reference(AcceptedReference("churn", "7", 5, DAY - 20, DAY - 6))
    assert not store.accept_reference(newer)
    assert store.accepted_references() == [newer]
