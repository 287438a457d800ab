"""Shares of rows and silent minutes, looked at every five minutes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monitoring.cells.cell import CellCounts, CellKey, cell_to_proto
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.looks.day_looks import SealedFacts
from monitoring.store.call_minutes import minute_bits
from monitoring.watch.day_runner import KnownVersions
from monitoring.watch.minute_counts import MinuteCounts
from monitoring.watch.minute_look import MinuteLook
from protos import monitoring_pb2 as pb
from protos import window_pb2
from tests.monitoring.watch.virtual_days import DIGEST8, FIRST_DAY, VirtualDays, facts

NOON_S = FIRST_DAY * 86_400 + 12 * 3_600
LOOK_S = 300
FEATURES = "usage:data_gb", "usage:calls", "billing:amount"


@pytest.fixture
def days(tmp_path: Path) -> Iterator[VirtualDays]:
    """Return an empty store."""
    made = VirtualDays(tmp_path)
    yield made
    made.store.close()


def coded_facts() -> SealedFacts:
    """Return a version whose first input is a code of nine categories."""
    made = facts()
    first, *others = made.bins.features
    bins = replace(made.bins, features=(replace(first, categories=9), *others))
    return replace(made, bins=bins)


def batch(rows: int, hits: dict[str, tuple[int, int]], host: str = "gw-1") -> pb.CellBatch:
    """Return a batch of one cell, with (missing, unknown) rows of inputs."""
    counts = CellCounts({"rows": np.array([rows]), "calls": np.array([rows])})
    for name in FEATURES:
        missing, unknown = hits.get(name, (0, 0))
        column = np.zeros(12, dtype=np.int64)
        column[5], column[10], column[11] = rows - missing, missing, unknown
        counts.add(f"feature:{name}", column)
    key = CellKey("churn", "7", DIGEST8, 1, False, "", NOON_S // 3_600)
    return pb.CellBatch(
        journal=pb.JournalName(gateway=host), sequence=1, cells=[cell_to_proto(key, counts)]
    )


def alarms_of_looks(
    days: VirtualDays, rows: int, hits: dict[str, tuple[int, int]], *hosts: str, looks: int = 3
) -> list[MonitoringAlarm]:
    """Return the alarms of some looks in which the last of the hosts has the hits."""
    made = coded_facts()
    counts = MinuteCounts(lambda _model, _digest8: made.bins)
    look = MinuteLook(days.store, days.looks)
    known = KnownVersions({("churn", "7"): made}, {})
    for number in range(looks):
        for host in hosts or ("gw-1",):
            own = hits if host == (hosts or ("gw-1",))[-1] else {}
            counts.note_cells(batch(rows, own, host))
        look.look_at_shares(counts.take_shares(), known, NOON_S + number * LOOK_S)
    return [item.alarm for item in days.looks.unreported_alarms()]


def test_missing_values_are_found_within_ten_minutes(days: VirtualDays) -> None:
    """A third of the rows of 100,000 calls a day lacks a feature: its view is named."""
    (alarm, *_) = alarms_of_looks(days, 347, {"usage:calls": (104, 0)})
    assert (alarm.kind, alarm.stream) == ("quality", "missing usage:calls")
    assert (alarm.view, alarm.host) == ("usage", "")
    assert alarm.at <= NOON_S + LOOK_S
    assert alarm.since == NOON_S - LOOK_S


@pytest.mark.walk
def test_few_missing_values_are_nothing_to_wake_anybody_for(days: VirtualDays) -> None:
    """One of two hundred rows, where training had none, is tolerated for eight hours."""
    assert alarms_of_looks(days, 400, {"usage:calls": (2, 0)}, looks=100) == []


def test_a_stale_dictionary_of_one_host_is_named(days: VirtualDays) -> None:
    """The host with the unknown categories is in the alarm."""
    hits = {"usage:data_gb": (0, 150)}
    (alarm, *_) = alarms_of_looks(days, 400, hits, "gw-1", "gw-2", "gw-3")
    assert alarm.stream == "unknown usage:data_gb"
    assert (alarm.view, alarm.host) == ("usage", "gw-3")


def test_a_fault_of_all_hosts_names_none(days: VirtualDays) -> None:
    """Two hosts with the same share."""
    made = coded_facts()
    counts = MinuteCounts(lambda _model, _digest8: made.bins)
    look = MinuteLook(days.store, days.looks)
    for number in range(3):
        for host in ("gw-1", "gw-2"):
            counts.note_cells(batch(400, {"usage:calls": (200, 0)}, host))
        known = KnownVersions({("churn", "7"): made}, {})
        look.look_at_shares(counts.take_shares(), known, NOON_S + number * LOOK_S)
    alarms = [item.alarm for item in days.looks.unreported_alarms()]
    assert {(alarm.stream, alarm.host) for alarm in alarms} == {("missing usage:calls", "")}


def test_a_look_that_is_made_again_finds_nothing_new(days: VirtualDays) -> None:
    """A second process in the same five minutes stores nothing."""
    hits = {"usage:calls": (390, 0)}
    first = alarms_of_looks(days, 400, hits)
    assert first
    assert alarms_of_looks(days, 400, hits) == first


@pytest.mark.parametrize(("stale", "found"), [(240, True), (12, False)])
def test_a_new_model_is_compared_with_what_training_found(
    days: VirtualDays, stale: int, found: bool
) -> None:
    """Four percent of its training rows were stale. Most rows now are an alarm, a few are not."""
    joined = {"usage": {"missing": 0.0, "stale": 0.04, "defaulted": 0.04}}
    made = replace(coded_facts(), card={"joined": joined, "data": {"rows": 5_000}})
    counts = MinuteCounts(lambda _model, _digest8: made.bins)
    look = MinuteLook(days.store, days.looks)
    known = KnownVersions({("churn", "7"): made}, {})
    for number in range(3):
        cells = batch(400, {})
        flags = cells.cells[0].columns.add(name="row_flags")
        flags.index.append(1)
        flags.count.append(stale)
        counts.note_cells(cells)
        look.look_at_shares(counts.take_shares(), known, NOON_S + number * LOOK_S)
    streams = {item.alarm.stream for item in days.looks.unreported_alarms()}
    assert streams == ({"rows with stale features"} if found else set())


def test_rows_that_answered_calls_are_looked_at_before_copies(days: VirtualDays) -> None:
    """A version that was a shadow in the first of the five minutes and serves in the last."""
    made = coded_facts()
    counts = MinuteCounts(lambda _model, _digest8: made.bins)
    copies = batch(400, {})
    copies.cells[0].role = 5
    for part in (copies, batch(400, {"usage:calls": (390, 0)})):
        counts.note_cells(part)
    known = KnownVersions({("churn", "7"): made}, {})
    MinuteLook(days.store, days.looks).look_at_shares(counts.take_shares(), known, NOON_S)
    alarms = [item.alarm for item in days.looks.unreported_alarms()]
    assert [(alarm.stream, alarm.shadow) for alarm in alarms] == [("missing usage:calls", False)]


def called(days: VirtualDays, model: str, minutes: range) -> None:
    """Note that a model was called in each of some Unix minutes, and that workers sent windows."""
    days.store.add_call_minutes({model: minutes, "": minutes})


def silent_alarms(days: VirtualDays, silent_from: int, *, windows: bool = True) -> list[int]:
    """Return when a model that falls silent at a minute of the last day is found, in minutes."""
    hour = NOON_S // 60
    for day in range(1, 29):
        called(days, "churn", range(hour - 1_440 * day - 60, hour - 1_440 * day + 120))
    called(days, "churn", range(hour - 60, hour + silent_from))
    if windows:
        days.store.add_call_minutes({"": range(hour - 60, hour + 60)})
    look = MinuteLook(days.store, days.looks)
    known = KnownVersions({("churn", "7"): facts()}, {})
    for minute in range(5, 60, 5):
        look.look_at_silence({"churn": "7"}, known, NOON_S + minute * 60)
    alarms = [item.alarm for item in days.looks.unreported_alarms()]
    assert {(item.kind, item.version) for item in alarms} <= {("silence", "7")}
    return [(item.at - NOON_S) // 60 for item in alarms]


def test_a_silent_model_is_found_within_a_quarter_of_an_hour(days: VirtualDays) -> None:
    """It is called each minute at this hour, and then no more."""
    found = silent_alarms(days, 10)
    assert found
    assert 15 <= found[0] <= 25


def test_a_called_model_is_not_silent(days: VirtualDays) -> None:
    """It is called to the end."""
    assert silent_alarms(days, 60) == []


def test_nothing_is_known_while_no_window_comes(days: VirtualDays) -> None:
    """Gateways cannot be heard, which is no silence of a model."""
    assert silent_alarms(days, 10, windows=False) == []


def test_minutes_are_those_in_which_a_version_answered() -> None:
    """A shadow's window is no call, and an empty batch says that windows come."""
    counts = MinuteCounts(lambda _model, _digest8: None)
    answered = window_pb2.CallCounts(answered=3)
    production, shadow = window_pb2.ARM_PRODUCTION, window_pb2.ARM_SHADOW
    windows = [
        window_pb2.Window(
            model="churn", version="7", second=NOON_S, arm=production, calls=answered
        ),
        window_pb2.Window(model="fraud", version="2", second=NOON_S, arm=shadow, calls=answered),
        window_pb2.Window(
            model="upsell", version="1", second=NOON_S, arm=window_pb2.ARM_PRODUCTION
        ),
    ]
    sent = (NOON_S + 60) * 10**9
    counts.note_windows(window_pb2.WindowBatch(windows=windows, sent_unix_ns=sent))
    assert counts.take_minutes() == {"churn": {NOON_S // 60}, "": {NOON_S // 60 + 1}}
    assert counts.production == {"churn": "7", "upsell": "1"}
    assert minute_bits([60 * 7 + 59, 60 * 7, 60 * 8]) == {7: 1 << 59 | 1, 8: 1}
