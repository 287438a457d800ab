"""A person's rows leave the offline and the online store; all others stay, in their order."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
import redis

from features.errors import SourceError
from features.expectations import Expect
from features.ingest.load import ingest
from features.materialise import materialise, push_rows
from features.offline import OfflineStore
from features.online.forget import forget_online
from features.online.store_server import StoreServer
from features.pushed import PushedRow
from features.rows import ViewRows
from features.storage import forget as storage_forget
from features.storage.forget import ForgottenOffline, forget_offline
from features.storage.ingests import stored_ingests
from features.views import View
from features.writes.materialise_record import key_of, parse_record
from tests.features.small_views import DAY_MS, NOW_MS, plan_view, wide_view

pytestmark = pytest.mark.walk

VIEW = plan_view()
PAIRS = wide_view(2)


def add_rows(offline: OfflineStore, view: View, *ids: tuple[str, ...], event_ms: int = 5) -> None:
    """Store one ingest with a row for each of *ids*."""
    name = view.features[-1].name
    rows = [PushedRow(item, event_ms, {name: float(index)}) for index, item in enumerate(ids)]
    offline.append_pushed(view, rows, created_ms=event_ms)


def stored_ids(offline: OfflineStore, view: View) -> list[str]:
    """Return the joined ids of all rows in all Parquet files below the view's folder."""
    found: list[str] = []
    with duckdb.connect() as connection:
        for path in sorted(offline.folder(view).rglob("[0-9]*.parquet")):
            if path.parent.name != "quarantine":
                sql = f"SELECT entity_id FROM '{path}'"
                found += [row[0] for row in connection.execute(sql).fetchall()]
    return found


def forget(offline: OfflineStore, view: View, dry_run: bool = False, **named: str) -> int:
    """Forget in the folder of *view*; return the number of rows."""
    done = forget_offline(offline.folder(view), view.entities, named, dry_run=dry_run)
    return done.rows


def test_rows_leave_every_ingest_and_the_others_keep_their_order(tmp_path: Path) -> None:
    """A file without the person is the same file; manifest and digest tell what changed."""
    offline = OfflineStore(tmp_path)
    add_rows(offline, VIEW, ("S3",), ("S1",), ("S2",))
    add_rows(offline, VIEW, ("S4",))
    add_rows(offline, VIEW, ("S1",))
    before, digest = stored_ingests(offline.folder(VIEW)), offline.digest([VIEW])

    assert forget(offline, VIEW, subscriber="S1", dry_run=True) == 2
    assert (stored_ingests(offline.folder(VIEW)), offline.digest([VIEW])) == (before, digest)
    assert forget(offline, VIEW, subscriber="S1") == 2

    assert stored_ids(offline, VIEW) == ["S3", "S2", "S4"]
    after = stored_ingests(offline.folder(VIEW))
    assert [ingest.rows for ingest in after] == [2, 1, 0]
    assert after[1] == before[1]
    assert offline.digest([VIEW]) != digest
    assert [text.decode() for text in offline.latest(VIEW).ids] == ["S2", "S3", "S4"]
    assert forget(offline, VIEW, subscriber="S1") == 0
    # The next ingest gets a number of its own, and the rows of a person come back with it.
    add_rows(offline, VIEW, ("S1",))
    assert stored_ids(offline, VIEW) == ["S3", "S2", "S4", "S1"]


def test_one_entity_of_a_combination_takes_all_its_rows(tmp_path: Path) -> None:
    """Both named: that combination only. An id of the other entity is not the person's."""
    offline = OfflineStore(tmp_path)
    add_rows(offline, PAIRS, ("A", "1"), ("A", "2"), ("B", "1"), ("1", "A"), ("AA", "1"))

    assert forget(offline, PAIRS, subscriber="B", offer="2") == 0
    assert forget(offline, PAIRS, subscriber="A", offer="2") == 1
    assert forget(offline, PAIRS, subscriber="A") == 1
    assert stored_ids(offline, PAIRS) == ["B\x1f1", "1\x1fA", "AA\x1f1"]
    # A view without one of the entities has no such row.
    add_rows(offline, VIEW, ("B",))
    assert forget(offline, VIEW, subscriber="B", offer="1") == 0


def test_rows_leave_compacted_ingests_and_those_that_they_replaced(tmp_path: Path) -> None:
    """The former files stay for readers; killed loads leave unfinished folders."""
    offline = OfflineStore(tmp_path)
    for _ in range(3):
        add_rows(offline, VIEW, ("S1",), ("S2",))
    offline.compact(VIEW)
    killed = offline.folder(VIEW) / ".0011223344556677.part"
    killed.mkdir()
    (killed / "0001.parquet").write_bytes(b"S1")

    assert forget(offline, VIEW, subscriber="S1") == 3

    assert stored_ids(offline, VIEW) == ["S2"] * 3
    assert {path.name for path in offline.folder(VIEW).iterdir()} == {"000001-000003"}
    assert len(stored_ingests(offline.folder(VIEW))[0].digests) == 3


def test_rows_leave_the_quarantine(tmp_path: Path) -> None:
    """A file with no other row is deleted."""
    strict = replace(VIEW, expect={"spend": Expect(high=10, on_breach="quarantine")}, is_new=False)
    offline = OfflineStore(tmp_path / "offline")
    for ids in (("S1", "S2", "S3"), ("S1", "S3")):
        rows = " UNION ALL ".join(
            f"SELECT '{name}' AS subscriber, {NOW_MS - DAY_MS}::BIGINT AS event_time_ms, "
            f"'prepaid' AS kind, {1 if name == 'S3' else 99}::DOUBLE AS spend, 0.0 AS balance"
            for name in ids
        )
        source = tmp_path / "source.parquet"
        with duckdb.connect() as connection:
            connection.execute(f"COPY ({rows}) TO '{source}' (FORMAT parquet)")
        ingest(strict, offline, source, created_ms=NOW_MS, now_ms=NOW_MS)
    quarantine = offline.folder(strict) / "quarantine"
    assert len(list(quarantine.iterdir())) == 2

    named = {"subscriber": "S1"}
    done = forget_offline(offline.folder(strict), strict.entities, named)

    assert done == ForgottenOffline(rows=0, quarantined=2)
    (left,) = quarantine.iterdir()
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT subscriber FROM '{left}'").fetchall()
    assert rows == [("S2",)]


def _forget_and_die(folder: Path, at: str) -> None:
    """Forget in a process that ends before or after the manifest is replaced."""
    genuine = storage_forget.replace_files

    def dying(*arguments: object) -> None:
        if at == "after":
            genuine(*arguments)  # type: ignore[arg-type]
        os._exit(9)

    storage_forget.replace_files = dying  # type: ignore[assignment]
    forget_offline(folder, ("subscriber",), {"subscriber": "S1"})


@pytest.mark.parametrize("at", ["before", "after"])
def test_killed_removal_leaves_whole_files_and_may_be_repeated(tmp_path: Path, at: str) -> None:
    """Before the first manifest is replaced, or between two ingests."""
    offline = OfflineStore(tmp_path)
    for _ in range(2):
        add_rows(offline, VIEW, ("S1",), ("S2",))
    process = multiprocessing.get_context("fork").Process(
        target=_forget_and_die, args=(offline.folder(VIEW), at)
    )
    process.start()
    process.join(20)
    assert process.exitcode == 9
    assert [text.decode() for text in offline.latest(VIEW).ids] == ["S1", "S2"]

    assert forget(offline, VIEW, subscriber="S1") == (2 if at == "before" else 1)
    assert stored_ids(offline, VIEW) == ["S2", "S2"]


def test_forget_waits_for_a_running_materialise_which_writes_nothing_back(
    store: StoreServer, tmp_path: Path
) -> None:
    """The rows that it read are written before they are deleted, in both stores."""
    offline, now_ms = OfflineStore(tmp_path), time.time_ns() // 1_000_000
    add_rows(offline, VIEW, ("S1",), ("S2",), event_ms=now_ms)
    # A materialise stops after its first batch, and the removal begins.
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def pause(done: int, _rows: int) -> None:
        begun.set()
        assert go_on.wait(10)
        order.append(f"written {done}")

    def run_materialise() -> None:
        with redis.Redis.from_url(store.url) as client:
            materialise(offline, VIEW, client, batch_rows=1, progress=pause)

    def run_forget() -> None:
        forget(offline, VIEW, subscriber="S1")
        order.append("forgotten")

    threads = [threading.Thread(target=run_materialise), threading.Thread(target=run_forget)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    threads[1].join(0.5)
    assert threads[1].is_alive()
    # It ends after the materialise, whose rows are then deleted online; the next writes none back.
    go_on.set()
    for thread in threads:
        thread.join(20)

    assert order == ["written 1", "written 2", "forgotten"]
    with redis.Redis.from_url(store.url) as client:
        done = forget_online(client, entities_of(VIEW), {"subscriber": "S1"})
        assert done.rows == 1
        assert materialise(offline, VIEW, client).older_than_stored == 0
        # Beside the row of the other entity there is the record of the materialise.
        assert set(client.scan_iter()) == {ViewRows(VIEW).store_key(b"S2"), key_of(VIEW, "")}


def entities_of(*views: View) -> Callable[[str], tuple[str, ...] | None]:
    """Return the function that forget_online asks for the entities of an edition."""
    entities = {view.name: view.entities for view in views}
    return lambda edition: entities.get(edition.partition("@")[0])


def push(client: redis.Redis, view: View, *ids: Sequence[str]) -> None:
    """Write one online row for each of *ids*."""
    now_ms = time.time_ns() // 1_000_000
    push_rows(view, client, [PushedRow(tuple(item), now_ms, {}) for item in ids])


def test_online_rows_of_all_editions_are_deleted(store: StoreServer) -> None:
    """Ids with the pattern's own characters too; rows of unknown views are told."""
    former = plan_view(ttl_ms=2 * DAY_MS)
    with redis.Redis.from_url(store.url) as client:
        push(client, VIEW, ["S*"], ["S1"], ["xS*"], ["a}:b"])
        push(client, former, ["S*"])
        push(client, PAIRS, ["S*", "1"], ["S1", "S*"])
        client.set("{S*}:lost@0123456789abcdef", "x")
        client.set("{xS*}:lost2@0123456789abcdef", "x")
        known = entities_of(VIEW, PAIRS)

        dry = forget_online(client, known, {"subscriber": "S*"}, dry_run=True)
        assert (dry.rows, dry.unknown) == (3, ("lost@0123456789abcdef",))
        assert client.dbsize() == 9 + 3  # with what is noted of pushes to each edition
        assert forget_online(client, known, {"subscriber": "S*"}).rows == 3
        assert forget_online(client, known, {"subscriber": "a}:b"}).rows == 1

        others = {*client.scan_iter(match="*lost*"), *client.scan_iter(match="*:pushed")}
        left = {*client.scan_iter()} - others
        assert left == {
            *ViewRows(VIEW).store_keys([b"S1", b"xS*"]),
            ViewRows(PAIRS).store_key(b"S1\x1fS*"),
        }


def test_folder_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """An operator must look at it, as a person's rows may be in it."""
    offline = OfflineStore(tmp_path)
    add_rows(offline, VIEW, ("S1",))
    (stored_ingests(offline.folder(VIEW))[0].path / "manifest.json").write_text("{")
    with pytest.raises(SourceError, match="manifest"):
        forget(offline, VIEW, subscriber="S1")


def test_forget_removes_the_place_at_which_a_materialise_ended_early(
    store: StoreServer, tmp_path: Path
) -> None:
    """The record of what is written names the last id, until the next materialise."""
    offline = OfflineStore(tmp_path)
    add_rows(offline, VIEW, ("S1",), ("S2",), event_ms=time.time_ns() // 1_000_000)

    def stop(_done: int, _rows: int) -> None:
        raise InterruptedError

    with redis.Redis.from_url(store.url) as client:
        for other, left in (("S2", True), ("S1", False)):
            with pytest.raises(InterruptedError):
                materialise(offline, VIEW, client, batch_rows=1, progress=stop)
            record = parse_record(client.get(key_of(VIEW, "")))
            assert record is not None
            assert record.begun is not None
            assert record.begun.after_id == "S1"
            forget_online(client, entities_of(VIEW), {"subscriber": other}, dry_run=True)
            assert client.exists(key_of(VIEW, ""))
            forget_online(client, entities_of(VIEW), {"subscriber": other})
            assert client.exists(key_of(VIEW, "")) == left
            client.delete(key_of(VIEW, ""))
        assert materialise(offline, VIEW, client).written >= 1
