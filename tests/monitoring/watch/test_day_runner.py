"""Days are looked at once, in order, and a change is found and dated."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from monitoring.looks.day_looks import DayLook, DayOfVersion
from monitoring.looks.drift_look import DriftLook
from monitoring.store.look_store import AcceptedReference, LookOutcome
from monitoring.watch.day_runner import DayRunner, KnownVersions
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from tests.monitoring.watch.virtual_days import FIRST_DAY, VirtualDays, facts

DAY_S = 86_400
PERSONS = 1_500
KNOWN = KnownVersions({("churn", "7"): facts()}, {})


@pytest.fixture
def days(tmp_path: Path) -> Iterator[VirtualDays]:
    """Return an empty store."""
    made = VirtualDays(tmp_path)
    yield made
    made.store.close()


def normal_rows(seed: int, shift: float = 0.0, persons: int = PERSONS) -> NDArray[np.float32]:
    """Return rows of normal inputs, of which the first is shifted."""
    rows = np.random.default_rng(seed).standard_normal((persons, 3)).astype(np.float32)
    rows[:, 0] += shift
    return rows


def runner(days: VirtualDays, until_day: int, *looks: DayLook) -> DayRunner:
    """Return a runner whose clock is seven hours after the end of *until_day*."""
    now_s = (until_day + 1) * DAY_S + 7 * 3_600
    day_looks = looks or (DriftLook(days.looks),)
    return DayRunner(days.store, days.looks, days.rows, day_looks, lambda: now_s)


def look_at_all(given: DayRunner, known: KnownVersions = KNOWN) -> list[int]:
    """Look at all days that are due, and return them."""
    seen = []
    while (day := given.due_day()) is not None:
        assert given.look_at(day, given.versions_of(day, known.policies), known)
        seen.append(day)
    return seen


@pytest.mark.walk
def test_a_shift_is_found_and_dated_and_quiet_days_are_silent(days: VirtualDays) -> None:
    """Twenty days, of which the last six have one input moved by .6 standard deviations."""
    for number in range(20):
        days.push(FIRST_DAY + number, normal_rows(number, 0.6 if number >= 14 else 0.0))
    assert look_at_all(runner(days, FIRST_DAY + 13)) == [*range(FIRST_DAY, FIRST_DAY + 14)]
    assert days.looks.unreported_alarms() == []
    # A person accepts the first fourteen days, which have narrower tolerances.
    accepted = AcceptedReference("churn", "7", 1, FIRST_DAY, FIRST_DAY + 13)
    days.looks.accept_reference(accepted)
    look_at_all(runner(days, FIRST_DAY + 19))
    alarms = [item.alarm for item in days.looks.unreported_alarms()]
    assert {(item.stream, item.kind, item.view) for item in alarms} == {
        ("usage:data_gb", "features", "usage")
    }
    first = alarms[0]
    assert first.at <= (FIRST_DAY + 16) * DAY_S
    assert first.since == (FIRST_DAY + 14) * DAY_S
    # The figures say how far the input moved, and from what.
    found = {
        item.name: item.figure
        for item in days.looks.read_figures(FIRST_DAY + 18, FIRST_DAY + 19, model="churn")
    }
    moved = found["psi usage:data_gb against accepted days"]
    assert moved.value is not None
    assert moved.value > 0.2
    assert moved.n == PERSONS
    still = found["psi usage:calls against accepted days"]
    assert still.value is not None
    assert still.value < 0.02
    assert found["psi usage:data_gb against last week"].value == pytest.approx(moved.value, rel=0.5)


@pytest.mark.walk
def test_last_week_is_the_same_weekday_seven_days_before(days: VirtualDays) -> None:
    """One input is moved from the third day on, so the tenth day is the first that has not moved.

    Against training each of them has. The first seven days have no last week.
    """
    for number in range(10):
        days.push(FIRST_DAY + number, normal_rows(number, 0.6 if number >= 2 else 0.0))
    look_at_all(runner(days, FIRST_DAY + 9))
    found = {
        (item.last_day - FIRST_DAY, item.name.rpartition(" against ")[2]): item.figure.value
        for item in days.looks.read_figures(FIRST_DAY, FIRST_DAY + 10, model="churn")
        if item.days == 1 and item.name.startswith("psi usage:data_gb against")
    }
    assert {day for day, against in found if against == "last week"} == {7, 8, 9}
    for day, moved in ((7, True), (8, True), (9, False)):
        value = found[day, "last week"]
        assert value is not None
        assert (value > 0.2) if moved else (abs(value) < 0.03)
        training = found[day, "training"]
        assert training is not None
        assert training > 0.2


@pytest.mark.walk
def test_a_person_counts_once_a_day_and_once_a_week(days: VirtualDays) -> None:
    """The first call of the period counts; a person of seven days is one person of the week."""
    for number in range(7):
        days.push(FIRST_DAY + number, normal_rows(number, persons=100))
    look_at_all(runner(days, FIRST_DAY + 6))
    (day,) = days.looks.read_person_looks("churn", "7", FIRST_DAY, FIRST_DAY, 1, shadow=False)
    assert day.persons == 100
    # No second call is counted: its values would all be in the last bin.
    inputs = np.searchsorted([-1.28, 1.28], normal_rows(0, persons=100)[:, 1])
    assert day.counts.counts("feature:usage:calls")[9] == np.count_nonzero(inputs == 2)
    week = (FIRST_DAY, FIRST_DAY + 6, 7)
    (found,) = days.looks.read_person_looks("churn", "7", *week, shadow=False)
    assert (found.last_day, found.persons) == (FIRST_DAY + 6, 100)
    assert found.counts.counts("predicted").sum() == 100


def test_files_and_blocks_have_the_same_persons(days: VirtualDays) -> None:
    """Rows are counted before and after compaction to Parquet."""
    days.push(FIRST_DAY, normal_rows(1))
    waiting = dict(days.rows.day_rows("churn", FIRST_DAY))
    days.decisions.compact()
    stored = dict(days.rows.day_rows("churn", FIRST_DAY))
    assert waiting.keys() == stored.keys() == {"7"}
    before, after = waiting["7"], stored["7"]
    order = [np.lexsort((rows.at_unix_ns, rows.key_hash)) for rows in (before, after)]
    for name in ("key_hash", "at_unix_ns", "role", "row_flags", "vectors", "scores"):
        both = [
            getattr(rows, name)[kept] for rows, kept in zip((before, after), order, strict=True)
        ]
        np.testing.assert_array_equal(*both)
    assert sorted(before.entity_ids) == sorted(after.entity_ids)
    # Of a day with too many rows whole keys are read.
    for version, rows in days.rows.day_rows("churn", FIRST_DAY, rows_max=PERSONS):
        assert version == "7"
        assert 0 < len(rows) <= 1.2 * PERSONS
        assert (np.unique(rows.key_hash, return_counts=True)[1] == 2).all()


def test_a_day_waits_for_its_end_and_for_readers(days: VirtualDays) -> None:
    """A reader that has not read the end of the day is waited for, for six hours."""
    days.push(FIRST_DAY, normal_rows(1, persons=10))
    for hours, due in ((-1, None), (1, None), (5, None), (6, FIRST_DAY)):
        now_s = (FIRST_DAY + 1) * DAY_S + hours * 3_600.0
        given = DayRunner(days.store, days.looks, days.rows, (), partial(float, now_s))
        assert given.due_day() == due


@pytest.mark.walk
def test_the_first_look_goes_back_sixty_days_at_most(days: VirtualDays) -> None:
    """A gateway whose clock was wrong has counted rows of 1970."""
    days.push(3, normal_rows(1, persons=10))
    days.push(FIRST_DAY, normal_rows(2, persons=10))
    assert runner(days, FIRST_DAY).due_day() == FIRST_DAY + 1 - 60
    assert len(look_at_all(runner(days, FIRST_DAY))) == 60


class Failing:
    """A look that fails a number of times on one day."""

    name = "failing"
    after_service = False

    def __init__(self, times: int) -> None:
        self._times = times

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return how many days were looked at."""
        if day.day == FIRST_DAY + 1 and self._times:
            self._times -= 1
            raise ValueError("the counts contradict each other")
        return LookOutcome(state={"days": state.get("days", 0) + 1})


@pytest.mark.parametrize(("times", "seen"), [(2, 3), (9, 2)])
def test_a_look_that_fails_is_tried_again_and_then_left_out(
    days: VirtualDays, times: int, seen: int
) -> None:
    """The other look of the day is made once."""
    for number in range(3):
        days.push(FIRST_DAY + number, normal_rows(number, persons=10))
    given = runner(days, FIRST_DAY + 2, Failing(times), DriftLook(days.looks))
    results = []
    while (day := given.due_day()) is not None:
        served = given.versions_of(day, {})
        results.append((day - FIRST_DAY, given.look_at(day, served, KNOWN)))
    assert results == [(0, True), (1, False), (1, False), (1, True), (2, True)]
    assert days.looks.look_state("churn", "7", "failing").state == {"days": seen}


@pytest.mark.walk
def test_a_shadow_is_looked_at_by_its_own_rows(days: VirtualDays) -> None:
    """Its alarms say that no caller got its scores."""
    known = KnownVersions({("churn", version): facts(version) for version in "78"}, {})
    for number in range(10):
        days.push(FIRST_DAY + number, normal_rows(number))
        days.push(FIRST_DAY + number, normal_rows(number, 1.5), role=5, version="8")
    look_at_all(runner(days, FIRST_DAY + 9), known)
    alarms = [item.alarm for item in days.looks.unreported_alarms()]
    assert alarms
    assert {(item.version, item.shadow) for item in alarms} == {("8", True)}


def test_a_runner_that_is_stopped_begins_no_further_look(days: VirtualDays) -> None:
    """The look that was under way is stored, and the next process makes the others."""
    days.push(FIRST_DAY, normal_rows(1, persons=10))
    counting = [Counting(name, after_service=False) for name in ("first", "second")]
    stopped = runner(days, FIRST_DAY, *counting)
    stopped.stop()
    assert not stopped.look_at(FIRST_DAY, stopped.versions_of(FIRST_DAY, {}), KNOWN)
    assert days.looks.look_state("churn", "7", "first").position == -1
    assert look_at_all(runner(days, FIRST_DAY, *counting)) == [FIRST_DAY]
    assert days.looks.look_state("churn", "7", "second").state == {"days": 1}


class Counting:
    """A look that counts its days."""

    def __init__(self, name: str, *, after_service: bool) -> None:
        self.name = name
        self.after_service = after_service

    def look(self, _day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return how many days were looked at."""
        return LookOutcome(state={"days": state.get("days", 0) + 1})


@pytest.mark.walk
def test_a_retired_version_is_looked_at_while_its_outcomes_come(days: VirtualDays) -> None:
    """Its policy has a horizon of five days, and the last period of uplift is four weeks."""
    outcome = OutcomePolicy(positive_when="any", horizon="5d")
    known = KnownVersions(
        {("churn", label): facts(label) for label in "78"},
        {"churn": MonitoringPolicy(outcomes={"churned": outcome})},
    )
    for number in range(45):
        label = "7" if number < 3 else "8"
        days.push(FIRST_DAY + number, normal_rows(number, persons=5), version=label)
    outcomes = Counting("outcomes", after_service=True)
    rows = Counting("rows", after_service=False)
    look_at_all(runner(days, FIRST_DAY + 44, outcomes, rows), known)
    assert days.looks.look_state("churn", "7", "rows").state == {"days": 3}
    assert days.looks.look_state("churn", "7", "outcomes").state == {"days": 3 + 5 + 28}
    assert days.looks.look_state("churn", "8", "outcomes").state == {"days": 42}
