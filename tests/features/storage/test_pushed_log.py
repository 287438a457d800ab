"""Tests of the log of pushed rows, and of the ingests that are made of it."""

import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from features.contract import ModelContract, ViewUse
from features.errors import SourceError
from features.offline import OfflineStore, Spine
from features.push.row_checks import ReceivedRow, encode_rows
from features.storage import settle
from features.storage.forget import forget_offline
from features.storage.ingests import RECENT_MIN, stored_ingests
from features.storage.pushed_log import (
    EVENT_IDS_DAYS,
    FILE,
    FOLDER,
    LoggedRow,
    LogOutcome,
    PushedLog,
    RowToLog,
)
from tests.features.small_views import DAY_MS, NOW_MS, plan_view

VIEW = plan_view()
NEW, SUPERSEDED = LogOutcome.NEW, LogOutcome.SUPERSEDED
DUPLICATE, CONFLICT = LogOutcome.DUPLICATE, LogOutcome.CONFLICT


def row(event_id: str, entity: str = "S1", spend: float = 1.0, event_ms: int = NOW_MS) -> RowToLog:
    """An encoded row of the plan view."""
    received = ReceivedRow(event_id, (entity,), event_ms, {"spend": spend}, {"kind": "prepaid"})
    return encode_rows(VIEW, [received], NOW_MS)[0]


@pytest.fixture
def offline(tmp_path: Path) -> OfflineStore:
    """An empty offline store."""
    return OfflineStore(tmp_path / "offline")


@pytest.fixture
def log(offline: OfflineStore) -> Iterator[PushedLog]:
    """The log of the plan view."""
    opened = offline.open_log(VIEW)
    yield opened
    opened.close()


def outcomes(log: PushedLog, *rows: RowToLog, now_ms: int = NOW_MS) -> list[LogOutcome]:
    """Append rows, and return what became of them."""
    return [outcome for outcome, _ in log.append(rows, now_ms)]


def delivered(log: PushedLog) -> dict[bytes, int]:
    """Deliver everything; return entity -> number of the row."""
    seen: dict[bytes, int] = {}

    def write(rows: Sequence[LoggedRow]) -> list[int]:
        seen.update({item.entity_id: item.number for item in rows})
        return [1] * len(rows)

    log.deliver(None, write)
    return seen


def spends(offline: OfflineStore, *, at_ms: int = NOW_MS + 10) -> dict[str, float]:
    """Return entity -> the spend of its newest offline row."""
    newest = offline.latest(VIEW, as_of_ms=at_ms)
    return {
        entity.decode(): float(values[1])
        for entity, values in zip(newest.ids, newest.values, strict=True)
    }


def test_row_is_new_once_and_its_event_id_belongs_to_it(log: PushedLog) -> None:
    """A second one in the same batch or later is a duplicate; with other values it is refused."""
    assert outcomes(log, row("a"), row("a"), row("a", spend=2.0)) == [NEW, DUPLICATE, CONFLICT]
    assert outcomes(log, row("a"), row("b", "S2")) == [DUPLICATE, NEW]
    assert log.count_logged() == 2


def test_of_equal_events_the_row_that_came_last_is_delivered(log: PushedLog) -> None:
    """A row with an older event is stored and not delivered."""
    assert outcomes(log, row("a"), row("b"), row("c", event_ms=NOW_MS - 1)) == [
        SUPERSEDED,
        NEW,
        SUPERSEDED,
    ]
    assert delivered(log) == {b"S1": 2}
    assert delivered(log) == {}
    assert log.count_logged() == 3


def test_row_that_was_not_delivered_never_replaces_a_later_one(log: PushedLog) -> None:
    """The first row is sent again after the second one of its entity and instant was stored."""
    log.append([row("a")], NOW_MS)
    log.append([row("b", spend=2.0)], NOW_MS)
    assert delivered(log) == {b"S1": 2}
    assert outcomes(log, row("a")) == [DUPLICATE]
    assert delivered(log) == {}


def test_failed_delivery_leaves_the_rows_for_the_next(log: PushedLog) -> None:
    """Also after the log was opened again."""
    log.append([row("a"), row("b", "S2")], NOW_MS)

    def fail(rows: Sequence[LoggedRow]) -> list[int]:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        log.deliver({b"S1"}, fail)
    assert log.deliver({b"S1"}, lambda rows: [0] * len(rows)) == {1: False}
    assert delivered(log) == {b"S2": 2}


def test_two_processes_that_deliver_take_turns(offline: OfflineStore, log: PushedLog) -> None:
    """While rows are written online, nothing is logged by another connection."""
    log.append([row("a")], NOW_MS)
    other = offline.open_log(VIEW)
    order: list[str] = []
    begun = threading.Event()

    def append_meanwhile() -> None:
        begun.set()
        other.append([row("b", spend=2.0)], NOW_MS)
        order.append("logged")

    appending = threading.Thread(target=append_meanwhile)

    def write(rows: Sequence[LoggedRow]) -> list[int]:
        appending.start()
        assert begun.wait(10)
        order.append("written")
        return [1] * len(rows)

    log.deliver(None, write)
    appending.join()
    other.close()
    assert order == ["written", "logged"]
    assert delivered(log) == {b"S1": 2}


@pytest.mark.walk
def test_readers_have_every_pushed_row(offline: OfflineStore, log: PushedLog) -> None:
    """Each reading method makes an ingest of the log first. A tie is won by the later row."""
    log.append([row("a"), row("b", spend=2.0), row("c", "S2", spend=3.0)], NOW_MS)
    assert spends(offline) == {"S1": 2.0, "S2": 3.0}
    log.append([row("d", spend=4.0)], NOW_MS)
    contract = ModelContract(
        entities=("subscriber",), views=(ViewUse(view=VIEW, features=("spend",)),)
    )
    spine = Spine(ids={"subscriber": ["S1", "S3"]}, as_of_ms=np.array([NOW_MS, NOW_MS]))
    assert offline.training_set(contract, spine).values.tolist() == [[4.0], [10.5]]
    log.append([row("e", spend=5.0)], NOW_MS)
    assert offline.history(VIEW, ["S1"]).values[:, 1].tolist() == [1.0, 2.0, 4.0, 5.0]
    assert offline.ingested(VIEW)[0] == 3
    assert log.count_logged() == 0


@pytest.mark.walk
def test_clock_that_was_set_back_changes_no_order(offline: OfflineStore, log: PushedLog) -> None:
    """The later row has the later created time, or an equal one. A day's jump is believed."""
    log.append([row("a")], NOW_MS)
    log.append([row("b", spend=2.0)], NOW_MS - 60_000)
    assert spends(offline) == {"S1": 2.0}
    log.append([row("c", "S2")], NOW_MS - DAY_MS)
    assert [item.instant_ms for item in log.logged_rows(10)] == [NOW_MS - DAY_MS]


@pytest.mark.walk
@pytest.mark.parametrize("killed_in", ["begin_settling", "publish", "end_settling"])
def test_settling_that_was_killed_stores_each_row_once(
    offline: OfflineStore, log: PushedLog, killed_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the ingest is noted, before it appears, or before its rows leave the log."""
    log.append([row("a"), row("b", "S2")], NOW_MS)

    class KilledError(BaseException):
        """The process ends here."""

    def kill(*arguments: object, **options: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        if killed_in == "publish":
            patched.setattr(settle, "publish", kill)
        elif killed_in == "begin_settling":
            patched.setattr(PushedLog, "begin_settling", kill)
        else:
            # The first call finishes an earlier settling, the second one this one.
            once = iter([PushedLog.end_settling])
            patched.setattr(PushedLog, "end_settling", lambda *some: next(once, kill)(*some))
        with pytest.raises(KilledError):
            offline.settle(VIEW)
    assert log.count_logged() == 2
    log.append([row("c", "S3")], NOW_MS)
    assert len(offline.history(VIEW, ["S1", "S2", "S3"]).ids) == 3
    assert spends(offline) == {"S1": 1.0, "S2": 1.0, "S3": 1.0}


def test_log_that_cannot_be_written_is_named(offline: OfflineStore, log: PushedLog) -> None:
    """A reader without the right to make the ingest gets one sentence."""
    log.append([row("a")], NOW_MS)
    shutil.rmtree(offline.folder(VIEW) / FOLDER)
    (offline.folder(VIEW) / FOLDER).mkdir()
    (offline.folder(VIEW) / FOLDER / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(SourceError, match=r"pushed rows in .*cannot be stored.*not a database"):
        offline.latest(VIEW)


def test_log_that_another_process_began_to_make_is_made(offline: OfflineStore) -> None:
    """Its file is there, and has no table yet."""
    path = offline.folder(VIEW) / FOLDER / FILE
    path.parent.mkdir(parents=True)
    path.touch()
    opened = offline.open_log(VIEW)
    assert outcomes(opened, row("a")) == [NEW]
    opened.close()


def test_event_ids_are_forgotten_after_a_week(log: PushedLog) -> None:
    """Until then a row that is sent again is known."""
    log.append([row("a")], NOW_MS)
    log.delete_expired_events(NOW_MS + EVENT_IDS_DAYS * DAY_MS)
    assert outcomes(log, row("a")) == [DUPLICATE]
    log.delete_expired_events(NOW_MS + EVENT_IDS_DAYS * DAY_MS + 1)
    assert outcomes(log, row("a")) == [NEW]


@pytest.mark.walk
def test_forget_removes_a_persons_rows_from_the_log(offline: OfflineStore, log: PushedLog) -> None:
    """A dry run counts them. The bytes are gone, and the row that is sent again stays unknown."""
    log.append([row("a", "S123456789"), row("b", "S123456789"), row("c", "S2")], NOW_MS)
    folder, named = offline.folder(VIEW), {"subscriber": "S123456789"}
    assert forget_offline(folder, VIEW.entities, named, dry_run=True).rows == 2
    assert forget_offline(folder, VIEW.entities, named).rows == 2
    assert forget_offline(folder, VIEW.entities, named).rows == 0
    for file in (folder / FOLDER).iterdir():
        assert b"S123456789" not in file.read_bytes(), file.name
    assert outcomes(log, row("a", "S123456789")) == [DUPLICATE]
    assert delivered(log) == {b"S2": 3}
    assert spends(offline) == {"S2": 1.0}


@pytest.mark.walk
def test_forget_after_a_killed_settling_stores_no_other_row_twice(
    offline: OfflineStore, log: PushedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ingest gets another digest, by which the log would not know it."""
    log.append([row("a"), row("b", "S2")], NOW_MS)
    once = iter([PushedLog.end_settling])
    with monkeypatch.context() as patched:
        patched.setattr(PushedLog, "end_settling", lambda *some: next(once)(*some))
        with pytest.raises(StopIteration):
            offline.settle(VIEW)
    assert forget_offline(offline.folder(VIEW), VIEW.entities, {"subscriber": "S1"}).rows == 1
    assert offline.history(VIEW, ["S1", "S2"]).ids.tolist() == ["S2"]


@pytest.mark.walk
def test_recent_compaction_leaves_few_ingests(offline: OfflineStore, log: PushedLog) -> None:
    """40 ingests of equal size become a few, with all rows in their order, and each rewritten a
    few times at most.
    """
    rewritten = 0
    for number in range(40):
        log.append([row(f"e{number}", spend=float(number))], NOW_MS)
        offline.settle(VIEW)
        before = stored_ingests(offline.folder(VIEW))
        if joined := offline.compact(VIEW, recent=True):
            rewritten += sum(ingest.rows for ingest in before[-joined:])
    ingests = stored_ingests(offline.folder(VIEW))
    assert len(ingests) < 2 * RECENT_MIN
    assert sum(ingest.rows for ingest in ingests) == 40
    assert rewritten < 160
    assert spends(offline) == {"S1": 39.0}
    assert offline.ingested(VIEW)[0] == 40
    assert offline.history(VIEW, ["S1"]).values[:, 1].tolist() == list(range(40))
