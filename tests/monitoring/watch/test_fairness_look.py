"""The look at groups: people once, small groups never, and attributes that stay inside."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.online.store_client import store_client
from features.rows import ViewRows
from features.views import Feature, View
from monitoring.cohorts.sensitive_attributes import (
    AttributeSource,
    AttributesUnknownError,
    OnlineAttributes,
    SensitiveView,
    StoreSilentError,
)
from monitoring.looks.fairness_look import FairnessLook, of_look
from monitoring.store.look_store import LookOutcome
from registry.watching.policy import HarmThresholds, MonitoringPolicy, OutcomePolicy
from stats.fairness.groups import DeclaredAttribute
from tests.monitoring.outcome_world import (
    DayRowsInMemory,
    OutcomeWorld,
    churn_day,
    churn_facts,
    decision_rows,
    report_rows,
)
from tests.servers import redis_server

MONDAY = 20_024
"""Unix day on which four weeks begin."""
DAYS = 2
"""Horizon and grace of the outcome."""
DUE = MONDAY + 27 + DAYS
CHURN = OutcomePolicy(positive_when=">= 1", horizon="36h", absent="negative")
POLICY = MonitoringPolicy(outcomes={"churned": CHURN}, sensitive=("protected",))
FACTS = replace(churn_facts(), entities=("subscriber",))
REGIONS = ("north", "south", "islands")
VIEW = View(
    name="protected",
    entities=("subscriber",),
    features=(
        Feature(name="region", dtype="category", dictionary=REGIONS, default=None),
        Feature(name="age", default=None),
    ),
    ttl_ms=10**15,
    transform="SELECT subscriber, event_time_ms, region, age FROM source",
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OutcomeWorld]:
    """Return an empty store."""
    opened = OutcomeWorld(tmp_path)
    yield opened
    opened.store.close()


class RegionsOfNumbers:
    """Says the region of a customer by the number in the name (AttributeSource)."""

    def __init__(self, islands: int = 40) -> None:
        self.islands = islands
        self.asked: list[str] = []

    def read_view(self, view: str, entity: str, customers: Sequence[str]) -> SensitiveView:
        """Return north and south by turns, and the first customers from the islands."""
        assert (view, entity) == ("protected", "subscriber")
        self.asked += customers
        numbers = np.array([int(name) for name in customers], dtype=np.int64)
        codes = np.where(numbers < self.islands, 2, numbers % 2)
        attribute = DeclaredAttribute("protected:region", codes, REGIONS)
        return SensitiveView((attribute,), ("protected:age",))


def add_people(
    world: OutcomeWorld, rows: DayRowsInMemory, day: int, first: int, count: int, south: float
) -> None:
    """Add calls of new people; those of the south are selected at *south*, others at .5."""
    rng = np.random.default_rng(day)
    numbers = np.arange(first, first + count)
    selected = rng.random(count) < np.where(numbers % 2, south, 0.5)
    scores = np.where(selected, rng.uniform(0.5, 1.0, count), rng.uniform(0.0, 0.4999, count))
    batch = decision_rows(day, [str(number) for number in numbers], scores)
    rows.add(day, batch)
    churned = np.flatnonzero(rng.random(count) < scores)
    world.add_reports(report_rows(batch, dict.fromkeys(churned.tolist(), 1.0)))


def look_at(
    world: OutcomeWorld,
    rows: DayRowsInMemory | None,
    source: AttributeSource | None,
    day: int = DUE,
    state: Mapping[str, Any] | None = None,
    policy: MonitoringPolicy = POLICY,
) -> LookOutcome:
    """Look at a day with a state that went through JSON."""
    look = FairnessLook(world.cohorts, source, rows)
    return look.look(churn_day(day, policy, FACTS), json.loads(json.dumps(state or {})))


@pytest.mark.walk
def test_unfair_decisions_are_an_alarm_that_names_no_group(world: OutcomeWorld) -> None:
    """The south is selected at .6 of the rate of the north; auditors see the ratio."""
    rows = DayRowsInMemory()
    add_people(world, rows, MONDAY + 3, 0, 16_000, south=0.3)
    found = look_at(world, rows, RegionsOfNumbers())
    figures = {item.name: item for item in found.figures}
    south = figures["selection_rate ratio protected:region=south"]
    assert (south.kind, south.days, south.last_day) == ("fairness", 28, MONDAY + 27)
    assert south.figure.value == pytest.approx(0.6, abs=0.05)
    assert south.details["verdict"] == "outside"
    assert figures["auc protected:region=north"].figure.value is not None
    assert "declare a category" in figures["selection_rate protected:age"].figure.lacking
    metrics = {alarm.stream for alarm in found.alarms}
    assert "selection_rate" in metrics
    text = json.dumps([str(found.alarms), *[dict(item) for item in found.details.values()]])
    assert "south" not in text
    assert {alarm.kind for alarm in found.alarms} == {"fairness"}
    # What was told is not told again.
    add_people(world, rows, MONDAY + 30, 16_000, 4_000, south=0.3)
    later = look_at(world, rows, RegionsOfNumbers(), DUE + 28, found.state)
    assert not metrics & {alarm.stream for alarm in later.alarms}


@pytest.mark.walk
def test_bounds_are_those_of_the_policy(world: OutcomeWorld) -> None:
    """Three fifths of the others' rate are within a policy that allows a half."""
    rows = DayRowsInMemory()
    add_people(world, rows, MONDAY, 0, 8_000, south=0.32)
    lenient = replace(POLICY, harm=HarmThresholds(fairness_ratio=0.5))
    found = look_at(world, rows, RegionsOfNumbers(), policy=lenient)
    figures = {item.name: item for item in found.figures}
    south = figures["selection_rate ratio protected:region=south"]
    assert south.details["verdict"] == "within"
    assert south.details["text"] == "within: the ratio is between 0.5 and 2"
    # Another bound needs evidence of its own, so that of the first look is left.
    add_people(world, rows, MONDAY + 28, 8_000, 8_000, south=0.32)
    later = look_at(world, rows, RegionsOfNumbers(), DUE + 28, found.state)
    rates = later.state["groups"]["protected:region=south"]["rates"]["selection_rate"]
    assert rates["ratio_min"] == 0.8
    assert rates["counts"][0] < 400


def test_fair_decisions_are_within(world: OutcomeWorld) -> None:
    """No group is outside, and none has an alarm."""
    rows = DayRowsInMemory()
    add_people(world, rows, MONDAY, 0, 8_000, south=0.5)
    found = look_at(world, rows, RegionsOfNumbers())
    figures = {item.name: item for item in found.figures}
    verdicts = {item.details.get("verdict") for item in found.figures}
    assert figures["selection_rate ratio protected:region=south"].details["verdict"] == "within"
    assert "outside" not in verdicts
    assert found.alarms == ()


def test_small_groups_are_in_nothing_that_is_stored(world: OutcomeWorld) -> None:
    """Six islanders of whom some belong to the look: neither figure nor state has the word."""
    rows = DayRowsInMemory()
    add_people(world, rows, MONDAY, 0, 2_000, south=0.5)
    found = look_at(world, rows, RegionsOfNumbers(islands=6))
    stored = json.dumps([str(item) for item in found.figures]) + json.dumps(found.state)
    assert "islands" not in stored
    assert "region=north" in stored
    # A policy may ask for larger groups.
    harm = HarmThresholds(group_people_min=100)
    strict = replace(POLICY, harm=harm)
    names = {
        item.name for item in look_at(world, rows, RegionsOfNumbers(60), policy=strict).figures
    }
    assert not any("islands" in name for name in names)


def test_each_person_counts_in_one_look_of_a_year() -> None:
    """Half of all people belong to the first look, and all of them to one."""
    names = tuple(str(number) for number in range(5_000))
    looks = np.array([of_look(names, "00", number) for number in range(13)])
    assert (looks.sum(axis=0) == 1).all()
    assert looks[0].mean() == pytest.approx(0.5, abs=0.03)
    assert looks[1:].mean() == pytest.approx(1 / 24, abs=0.005)
    assert (of_look(names, "01", 0) != looks[0]).any()


def test_looks_go_on_with_people_who_were_in_none(world: OutcomeWorld) -> None:
    """People come in both periods, and the second look is at others of them."""
    rows, source = DayRowsInMemory(), RegionsOfNumbers()
    add_people(world, rows, MONDAY, 0, 2_000, south=0.5)
    add_people(world, rows, MONDAY + 28, 0, 2_000, south=0.5)
    first = look_at(world, rows, source)
    seen = set(source.asked)
    second = look_at(world, rows, source, DUE + 28, first.state)
    assert first.state["looks"] == 1
    assert second.state["looks"] == 2
    later = set(source.asked[len(seen) :])
    assert len(seen) > 900
    assert 30 < len(later) < 150
    assert not seen & later
    # After 13 looks a year is over, and the evidence begins anew.
    again = look_at(world, rows, source, DUE + 28, {**second.state, "looks": 13}).state
    assert again["looks"] == 1
    north = "protected:region=north"
    counts = [
        item["groups"][north]["rates"]["selection_rate"]["counts"] for item in (first.state, again)
    ]
    assert counts[0][0] == counts[1][0]


def test_outcomes_are_those_of_the_holdout_where_there_is_one(world: OutcomeWorld) -> None:
    """Acting changes the outcomes of the others, and so their rates of errors."""
    rows = DayRowsInMemory()
    rng = np.random.default_rng(1)
    scores = rng.random(2_000)
    holdout = rng.random(2_000) < 0.1
    rows.add(MONDAY, decision_rows(MONDAY, [str(n) for n in range(2_000)], scores, holdout=holdout))
    found = look_at(world, rows, RegionsOfNumbers())
    north = found.state["groups"]["protected:region=north"]
    people = north["rates"]["selection_rate"]["counts"][0]
    assert 0 < north["rates"]["fpr"]["counts"][0] < people / 5


def test_sentences_say_why_nobody_knows_the_groups(world: OutcomeWorld) -> None:
    """No store, no decisions, another task; and no figure at all where nothing was asked for."""
    rows = DayRowsInMemory()
    add_people(world, rows, MONDAY, 0, 100, south=0.5)
    source = RegionsOfNumbers()
    assert "no online store was given" in look_at(world, rows, None).figures[0].figure.lacking
    assert "--decisions" in look_at(world, None, source).figures[0].figure.lacking
    assert look_at(world, rows, source, policy=replace(POLICY, sensitive=())).figures == ()
    assert look_at(world, rows, source, DUE + 1).figures == ()
    shadow = FairnessLook(world.cohorts, source, DayRowsInMemory())
    assert shadow.look(churn_day(DUE, POLICY, shadow=True), {}).figures == ()
    # Without an outcome only decisions are compared.
    none = look_at(world, rows, source, MONDAY + 28, policy=replace(POLICY, outcomes={}))
    assert any(item.name.startswith("selection_rate ratio") for item in none.figures)
    other = churn_day(DUE, POLICY, churn_facts(task="regression"))
    found = FairnessLook(world.cohorts, source, rows).look(other, {})
    assert "the task is regression" in found.figures[0].figure.lacking


def test_silent_store_is_asked_again_the_next_day(world: OutcomeWorld) -> None:
    """Four weeks are not lost for an hour without the store."""
    rows = DayRowsInMemory()
    add_people(world, rows, MONDAY, 0, 200, south=0.5)
    silent = OnlineAttributes(
        lambda: store_client("redis://127.0.0.1:1", timeout_s=0.2), lambda _: VIEW
    )
    found = look_at(world, rows, silent)
    assert "does not answer" in found.figures[0].figure.lacking
    again = look_at(world, rows, RegionsOfNumbers(), DUE + 1, found.state)
    assert again.state["looks"] == 1
    assert "again" not in again.state
    assert again.figures[0].last_day == MONDAY + 27
    assert look_at(world, rows, RegionsOfNumbers(), DUE + 9, found.state).figures == ()


@pytest.mark.walk
def test_attributes_are_read_from_a_real_online_store() -> None:
    """Rows as materialise writes them: known, unknown, missing, and of another view's entity."""
    rows = ViewRows(VIEW)
    ids = [b"a", b"b", b"c", b"d"]
    values = np.array([[0, 30], [1, 31], [3, 32], [np.nan, 33]], dtype=np.float32)
    valid = np.array([[True, True], [True, False], [True, True], [False, True]])
    packed = rows.pack(ids, np.full(4, 1_700_000_000_000), values, valid)
    with redis_server() as server:
        with store_client(server.url) as client:
            client.mset(dict(zip(rows.store_keys(ids), packed, strict=True)))
        source = OnlineAttributes(
            lambda: store_client(server.url, timeout_s=5.0),
            lambda name: VIEW if name == "protected" else None,
        )
        found = source.read_view("protected", "subscriber", ["a", "b", "c", "d", "e"])
        (region,) = found.attributes
        assert (region.name, region.values) == ("protected:region", REGIONS)
        # The text of c is in no dictionary, d has no region, and e has no row.
        assert region.codes.tolist() == [0, 1, -1, -1, -1]
        assert found.numbers == ("protected:age",)
        with pytest.raises(AttributesUnknownError, match="no applied project"):
            source.read_view("other", "subscriber", ["a"])
        with pytest.raises(AttributesUnknownError, match="known by household"):
            source.read_view("protected", "household", ["a"])
    with pytest.raises(StoreSilentError, match="does not answer"):
        source.read_view("protected", "subscriber", ["a"])
