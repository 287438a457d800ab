"""Tests of incremental materialise: only what came since, nothing lost, continued after a kill."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.errors import StoreChangedError
from features.materialise import materialise, plan_materialise
from features.offline import OfflineStore
from features.online.store_client import store_client
from features.online.store_server import StoreServer
from features.pushed import PushedRow
from features.rows import ViewRows
from features.writes.materialise_record import MaterialiseRecord, key_of, parse_record
from features.writes.row_pace import RowPace
from features.writes.row_scripts import StoreClient
from tests.features.small_views import plan_view
from tests.poll import wait_until

pytestmark = pytest.mark.walk

VIEW = plan_view()
ROWS = ViewRows(VIEW)
HOUR_MS = 3_600_000


def row(name: str, event_ms: int, spend: float = 1.0) -> PushedRow:
    """A row of one subscriber."""
    return PushedRow((name,), event_ms, {"kind": "prepaid", "spend": spend, "balance": 1.0})


def opened(store: StoreServer, namespace: str = "") -> StoreClient:
    """A client of *store* in a namespace."""
    return store_client(f"{store.url}?namespace={namespace}" if namespace else store.url)


def stored_rows(client: StoreClient, names: list[str]) -> list[bytes | None]:
    """The bytes of the rows of *names*."""
    keys = ViewRows(VIEW, client.namespace).store_keys([name.encode() for name in names])
    replies = client.mget(keys)
    assert isinstance(replies, list)
    return replies


def record_of(client: StoreClient) -> MaterialiseRecord | None:
    """The record of the view in the store."""
    value = client.get(key_of(VIEW, client.namespace))
    assert value is None or isinstance(value, bytes)
    return parse_record(value)


def now() -> int:
    """The present, Unix ms."""
    return time.time_ns() // 1_000_000


def test_only_rows_of_later_ingests_are_written(store: StoreServer, tmp_path: Path) -> None:
    """Unless the store was emptied, another offline store is used, or all rows are asked for."""
    now_ms = now()
    offline, other = OfflineStore(tmp_path / "one"), OfflineStore(tmp_path / "other")
    offline.append_pushed(VIEW, [row("S1", now_ms), row("S2", now_ms)], created_ms=now_ms)
    other.append_pushed(VIEW, [row(f"T{i}", now_ms) for i in range(3)], created_ms=now_ms)
    with opened(store) as client, opened(store, "dev") as elsewhere:
        first = materialise(offline, VIEW, client)
        assert (first.written, first.is_incremental, first.is_readable) == (2, False, True)
        # Nothing came since; a gateway goes on using the rows that are there.
        second = materialise(offline, VIEW, client)
        assert (second.written, second.is_incremental, second.is_readable) == (0, True, True)
        offline.append_pushed(VIEW, [row("S3", now_ms)], created_ms=now_ms)
        assert materialise(offline, VIEW, client).written == 1
        record = record_of(client)
        assert record is not None
        assert record.complete is not None
        assert (record.complete.ingests, record.complete.newest_event_ms) == (2, now_ms)
        assert materialise(offline, VIEW, client, full=True).written == 3
        # A namespace, an emptied store and another history begin anew.
        assert materialise(offline, VIEW, elsewhere).written == 3
        assert materialise(other, VIEW, client).written == 3
        client.flushall()
        assert materialise(offline, VIEW, client).written == 3


def test_late_event_is_written(store: StoreServer, tmp_path: Path) -> None:
    """What was ingested since decides, whatever its event time; an older row of S1 stays out."""
    now_ms = now()
    offline = OfflineStore(tmp_path)
    offline.append_pushed(VIEW, [row("S1", now_ms, 5.0)], created_ms=now_ms)
    with opened(store) as client:
        materialise(offline, VIEW, client)
        before = stored_rows(client, ["S1"])
        late = [row("S1", now_ms - HOUR_MS, 6.0), row("S2", now_ms - 9 * HOUR_MS)]
        offline.append_pushed(VIEW, late, created_ms=now_ms - 8 * HOUR_MS)
        assert materialise(offline, VIEW, client).written == 1
        assert stored_rows(client, ["S1"]) == before
        assert stored_rows(client, ["S2"]) != [None]
        # A correction has the same event time.
        offline.append_pushed(VIEW, [row("S1", now_ms, 7.0)], created_ms=now_ms)
        assert materialise(offline, VIEW, client).written == 1
        assert stored_rows(client, ["S1"]) != before


def test_row_that_became_known_later_is_written(store: StoreServer, tmp_path: Path) -> None:
    """It lay in the store at the first materialise, which left it out, and nothing came since."""
    now_ms = now()
    offline = OfflineStore(tmp_path)
    offline.append_pushed(VIEW, [row("S1", now_ms - 5, 5.0)], created_ms=now_ms - 5)
    offline.append_pushed(VIEW, [row("S1", now_ms - 1, 6.0)], created_ms=now_ms - 1)
    with opened(store) as client:
        assert materialise(offline, VIEW, client, as_of_ms=now_ms - 3).written == 1
        summary = materialise(offline, VIEW, client)
        assert (summary.written, summary.is_incremental) == (1, True)
        assert materialise(offline, VIEW, client).written == 0


def test_plan_counts_rows_and_bytes_and_writes_nothing(store: StoreServer, tmp_path: Path) -> None:
    """The bytes are those of the keys and rows that materialise then writes."""
    now_ms = now()
    offline = OfflineStore(tmp_path)
    offline.append_pushed(VIEW, [row("S1", now_ms), row("Sé2", now_ms)], created_ms=now_ms)
    with opened(store) as client:
        plan = plan_materialise(offline, VIEW, client)
        assert client.dbsize() == 0
        materialise(offline, VIEW, client)
        keys = ROWS.store_keys([b"S1", "Sé2".encode()])
        assert plan.bytes == sum(len(key) + ROWS.row_bytes for key in keys)
        assert (plan.rows, plan.is_incremental, plan.is_resumed) == (2, False, False)
        offline.append_pushed(VIEW, [row("S3", now_ms)], created_ms=now_ms)
        plan = plan_materialise(offline, VIEW, client)
        assert (plan.rows, plan.is_incremental) == (1, True)
        assert plan_materialise(offline, VIEW, client, full=True).rows == 3
    empty = OfflineStore(tmp_path / "empty")
    with opened(store) as client:
        assert plan_materialise(empty, VIEW, client).bytes == 0


class StopMaterialiseError(Exception):
    """Stands for the end of the process."""


def stop_after(rows: int) -> Callable[[int, int], None]:
    """A progress callback that ends the materialise when so many rows are written."""

    def stop(done: int, _rows: int) -> None:
        if done >= rows:
            raise StopMaterialiseError

    return stop


def test_store_that_is_emptied_meanwhile_is_noticed(store: StoreServer, tmp_path: Path) -> None:
    """No record claims rows that the store has lost; the next materialise writes all of them."""
    now_ms = now()
    offline = OfflineStore(tmp_path)
    names = [f"S{number:02d}" for number in range(30)]
    offline.append_pushed(VIEW, [row(name, now_ms) for name in names], created_ms=now_ms)
    with opened(store) as client:

        def empty(done: int, _rows: int) -> None:
            if done == 20:
                client.flushall()

        with pytest.raises(StoreChangedError, match=r"emptied or replaced .* view 'plan'"):
            materialise(offline, VIEW, client, batch_rows=10, progress=empty)
        assert record_of(client) is None
        assert materialise(offline, VIEW, client).written == 30


def test_second_process_takes_over(store: StoreServer, tmp_path: Path) -> None:
    """The first stops with an error, and the store has every row once the second has ended."""
    now_ms = now()
    offline = OfflineStore(tmp_path)
    names = [f"S{number:02d}" for number in range(30)]
    offline.append_pushed(VIEW, [row(name, now_ms) for name in names], created_ms=now_ms)
    with opened(store) as client:

        def run_another(done: int, _rows: int) -> None:
            if done == 10:
                assert materialise(offline, VIEW, client).is_resumed

        with pytest.raises(StoreChangedError, match="another process"):
            materialise(offline, VIEW, client, batch_rows=10, progress=run_another)
        assert None not in stored_rows(client, names)
        assert materialise(offline, VIEW, client).written == 0


def test_compaction_loses_nothing(store: StoreServer, tmp_path: Path) -> None:
    """Ingests that were compacted are still known by their digests, and new ones are written."""
    now_ms = now()
    offline = OfflineStore(tmp_path)
    for name in ("S1", "S2"):
        offline.append_pushed(VIEW, [row(name, now_ms)], created_ms=now_ms)
    with opened(store) as client:
        materialise(offline, VIEW, client)
        assert offline.compact(VIEW) == 2
        assert materialise(offline, VIEW, client).written == 0
        offline.append_pushed(VIEW, [row("S3", now_ms)], created_ms=now_ms)
        offline.compact(VIEW)
        summary = materialise(offline, VIEW, client)
        assert summary.is_incremental
        assert None not in stored_rows(client, ["S1", "S2", "S3"])


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_with_the_rows_of_a_full_one(
    store: StoreServer, tmp_path: Path, seed: int
) -> None:
    """Late rows, corrections, compactions, stops and instants of the past in any order."""
    random = np.random.default_rng(seed)
    offline, names = OfflineStore(tmp_path), [f"S{number}" for number in range(40)]
    with opened(store, "changes") as client, opened(store, "full") as whole:
        for _ in range(10):
            # Some rows come, late or not, and perhaps the ingests are compacted.
            now_ms = now()
            events = now_ms - random.integers(0, HOUR_MS, 6)
            rows = [
                row(str(random.choice(names)), int(event), float(random.integers(100)))
                for event in events
            ]
            known_ms = int(now_ms - random.integers(0, HOUR_MS))
            offline.append_pushed(VIEW, rows, created_ms=known_ms)
            if random.random() < 0.2:
                offline.compact(VIEW)
            # They are materialised, now or as of an instant, and perhaps the process ends.
            try:
                materialise(
                    offline,
                    VIEW,
                    client,
                    batch_rows=2,
                    as_of_ms=known_ms if random.random() < 0.2 else None,
                    progress=stop_after(int(random.integers(1, 12))),
                )
            except StopMaterialiseError:
                continue
        assert materialise(offline, VIEW, client).is_incremental
        materialise(offline, VIEW, whole)
        assert stored_rows(client, names) == stored_rows(whole, names)


WRITER = """
import sys
from pathlib import Path
from features.materialise import materialise
from features.offline import OfflineStore
from features.online.store_client import store_client
from features.writes.row_pace import RowPace
from tests.features.small_views import plan_view

with store_client(sys.argv[1]) as client:
    materialise(OfflineStore(Path(sys.argv[2])), plan_view(), client, pace=RowPace(500))
"""


def test_killed_materialise_is_continued(store: StoreServer, tmp_path: Path) -> None:
    """SIGKILL in the middle: what was written is not written again, and what came since is."""
    now_ms = now()
    offline = OfflineStore(tmp_path)
    names = [f"S{number:05d}" for number in range(2_000)]
    offline.append_pushed(VIEW, [row(name, now_ms) for name in names], created_ms=now_ms)
    with opened(store) as client:
        process = subprocess.Popen([sys.executable, "-c", WRITER, store.url, str(tmp_path)])

        def written_until() -> str:
            record = record_of(client)
            return record.begun.after_id if record is not None and record.begun is not None else ""

        try:
            asyncio.run(wait_until(lambda: bool(written_until()), 30.0))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert record_of(client) is not None
        after_id = written_until()
        assert names[0] <= after_id < names[-1]
        # A row of the recorded parts is taken away, to see that nobody writes it again.
        client.delete(ROWS.store_key(names[0].encode()))
        offline.append_pushed(VIEW, [row(names[1], now_ms + 1, 9.0)], created_ms=now_ms)
        plan = plan_materialise(offline, VIEW, client)
        summary = materialise(offline, VIEW, client)
        rest = len(names) - 1 - names.index(after_id)
        assert (plan.is_resumed, summary.is_resumed) == (True, True)
        assert plan.rows == summary.written == rest + 1
        rows = stored_rows(client, names)
        assert [name for name, value in zip(names, rows, strict=True) if value is None] == names[:1]
        # All is there with --full, which never continues.
        full = materialise(offline, VIEW, client, full=True)
        assert (full.written, full.is_resumed) == (len(names), False)


def test_pace_bounds_the_rows_of_two_views_together(store: StoreServer, tmp_path: Path) -> None:
    """60 rows at 60 a second, in two editions, take at least the second that the bound means."""
    now_ms = now()
    offline = OfflineStore(tmp_path)
    editions = (VIEW, plan_view(ttl_ms=2 * VIEW.ttl_ms))
    for edition in editions:
        rows = [row(f"S{number}", now_ms) for number in range(33)]
        offline.append_pushed(edition, rows, created_ms=now_ms)
    pace = RowPace(60)
    with opened(store) as client:
        began = time.monotonic()
        assert sum(materialise(offline, one, client, pace=pace).written for one in editions) == 66
        assert time.monotonic() - began >= 1.0
