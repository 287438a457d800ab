"""Tests of materialise and push_rows: equal bits online and offline, and newer rows win."""

import time
from pathlib import Path

import numpy as np
import pytest
import redis

from features.contract import ModelContract, ViewUse
from features.entity_ids import id_hashes
from features.errors import EntityIdError, SourceError
from features.materialise import materialise, push_rows
from features.offline import OfflineStore, Spine
from features.online.store_server import StoreServer
from features.pushed import PushedRow
from features.rows import DEFAULTED, MISSING, ViewRows
from features.staleness import CLOCK_SKEW_MS_MAX
from features.views import View
from features.writes.row_scripts import EXPIRY_SLACK_MS, expiry_ms, key_life_ms
from tests.features.small_views import DAY_MS, plan_view

pytestmark = pytest.mark.walk

VIEW = plan_view()
ROWS = ViewRows(VIEW)


def redis_client(store: StoreServer) -> redis.Redis:
    """A client that returns bytes."""
    return redis.Redis.from_url(store.url)


def test_materialise_counts_rows_that_are_too_old_to_read(
    store: StoreServer, tmp_path: Path
) -> None:
    """A load that no gateway would use is not readable, though each row was written."""
    now_ms = time.time_ns() // 1_000_000
    offline = OfflineStore(tmp_path)
    ages = {"S1": DAY_MS + 60_000, "S2": 2 * DAY_MS + 60_000, "S3": 3 * DAY_MS}
    rows = [PushedRow((name,), now_ms - age, {"spend": 1.0}) for name, age in ages.items()]
    offline.append_pushed(VIEW, rows, created_ms=now_ms)
    with redis_client(store) as client:
        summary = materialise(offline, VIEW, client)
        assert (summary.written, summary.stale, summary.forgotten) == (3, 1, 2)
        assert not summary.is_readable
        offline.append_pushed(VIEW, [plan_row(now_ms, 1.0)], created_ms=now_ms)
        assert materialise(offline, VIEW, client).is_readable
    with redis_client(store) as client:
        assert not materialise(OfflineStore(tmp_path / "empty"), VIEW, client).is_readable


def test_materialise_loads_its_script_again_when_the_store_lost_it(
    store: StoreServer, tmp_path: Path
) -> None:
    """SCRIPT FLUSH between two batches loses no row."""
    now_ms = time.time_ns() // 1_000_000
    offline = OfflineStore(tmp_path)
    rows = [PushedRow((f"S{number}",), now_ms, {"spend": 1.0}) for number in range(50)]
    offline.append_pushed(VIEW, rows, created_ms=now_ms)

    class FlushedClient(redis.Redis):
        """A client whose store is flushed after each load of a script, three times."""

        flushes = 0

        def script_load(self, script: str) -> object:
            sha = super().script_load(script)
            if self.flushes < 3:
                self.flushes += 1
                self.script_flush()
            return sha

    with FlushedClient.from_url(store.url) as client:
        summary = materialise(offline, VIEW, client, batch_rows=20)
        assert (summary.written, summary.older_than_stored) == (50, 0)
        assert len(client.keys("{S*")) == 50
        assert client.dbsize() == 51  # the rows and their record


def test_materialise_names_a_stored_file_that_it_cannot_read(
    store: StoreServer, tmp_path: Path
) -> None:
    """A truncated file is an error of one sentence."""
    offline = OfflineStore(tmp_path)
    folder = offline.append_pushed(VIEW, [plan_row(5, 1.0)], created_ms=5).path
    (folder / "0001.parquet").write_bytes(b"PAR1")
    with redis_client(store) as client, pytest.raises(SourceError, match=r"cannot be used: .*0001"):
        materialise(offline, VIEW, client)


def stored_spend(client: redis.Redis, entity_id: bytes) -> float:
    """The spend in the stored row of *entity_id*."""
    value = client.get(ROWS.store_key(entity_id))
    assert isinstance(value, bytes)
    now_ms = time.time_ns() // 1_000_000
    return float(ROWS.decode([value], id_hashes([entity_id]), now_ms).values[0, 1])


def plan_row(event_ms: int, spend: float) -> PushedRow:
    """A row of S1 with an event time and a spend."""
    return PushedRow(("S1",), event_ms, {"kind": "prepaid", "spend": spend, "balance": 1.0})


def mixed_rows(now_ms: int, count: int, seed: int) -> list[PushedRow]:
    """Rows at and around the age limits, with unknown, missing and out-of-bounds values."""
    generator = np.random.default_rng(seed)
    ages = [0, 5, DAY_MS, DAY_MS + 1, 2 * DAY_MS, 2 * DAY_MS + 1]
    kinds = ["prepaid", "postpaid", "satellite", None]
    spends = [0.1, 1e-40, -0.0, 999.99999, 1_000.5, float("nan"), None, 7]
    return [
        PushedRow(
            (f"S{number}",),
            now_ms - ages[generator.integers(len(ages))],
            {
                "kind": kinds[generator.integers(len(kinds))],
                "spend": spends[generator.integers(len(spends))],
                "balance": None if generator.random() < 0.2 else float(generator.normal(0, 1e6)),
            },
        )
        for number in range(count)
    ]


def test_materialise_writes_rows_that_equal_the_offline_rows(
    store: StoreServer, tmp_path: Path
) -> None:
    """2,000 rows of all kinds, and ids without rows, have equal bytes and flags at one instant."""
    now_ms = time.time_ns() // 1_000_000
    offline = OfflineStore(tmp_path)
    offline.append_pushed(VIEW, mixed_rows(now_ms - 10, 1_500, seed=1), created_ms=now_ms - 5)
    offline.append_pushed(VIEW, mixed_rows(now_ms, 2_000, seed=2), created_ms=now_ms)
    ids = [f"S{number}" for number in range(2_100)]
    contract = ModelContract(
        entities=("subscriber",),
        views=(ViewUse(view=VIEW, features=("kind", "spend", "balance")),),
    )
    spine = Spine(ids={"subscriber": ids}, as_of_ms=np.full(len(ids), now_ms))
    with redis_client(store) as client:
        done: list[int] = []
        materialise(
            offline, VIEW, client, batch_rows=300, progress=lambda rows, _all: done.append(rows)
        )
        keys = ROWS.store_keys([entity_id.encode() for entity_id in ids])
        replies = client.mget(keys)
    assert done == [300, 600, 900, 1_200, 1_500, 1_800, 2_000]

    trained = offline.training_set(contract, spine)
    served = ROWS.decode(replies, id_hashes([entity_id.encode() for entity_id in ids]), now_ms)

    assert served.values.tobytes() == trained.values.tobytes()
    assert served.flags.tolist() == trained.flags.tolist()
    assert set(np.unique(trained.flags)) == {0, 4, 5, 6}
    assert served.broken == 0


def test_online_row_is_never_replaced_by_an_older_row(store: StoreServer, tmp_path: Path) -> None:
    """Pushed and materialised rows are compared. At equal event times the later write wins."""
    now_ms = time.time_ns() // 1_000_000
    offline = OfflineStore(tmp_path)
    offline.append_pushed(VIEW, [plan_row(now_ms - 100, 1.0)], created_ms=now_ms)
    with redis_client(store) as client:
        assert push_rows(VIEW, client, [plan_row(now_ms, 2.0)]).written == 1
        summary = materialise(offline, VIEW, client)
        assert (summary.written, summary.older_than_stored) == (0, 1)
        assert push_rows(VIEW, client, [plan_row(now_ms - 1, 3.0)]).older_than_stored == 1
        assert stored_spend(client, b"S1") == 2.0
        assert push_rows(VIEW, client, [plan_row(now_ms, 4.0)]).written == 1
        assert stored_spend(client, b"S1") == 4.0
        assert (
            push_rows(
                VIEW, client, [plan_row(now_ms + 256, 5.0), plan_row(now_ms + 255, 6.0)]
            ).written
            == 1
        )
        assert stored_spend(client, b"S1") == 5.0


def test_row_of_the_future_is_replaced_and_never_written(
    store: StoreServer, tmp_path: Path
) -> None:
    """A row dated 2^53 - 1 is missing and broken for readers, and an honest row replaces it."""
    now_ms = time.time_ns() // 1_000_000
    one, valid = np.ones((1, ROWS.width), np.float32), np.ones((1, ROWS.width), np.bool_)
    (forged,) = ROWS.pack([b"S1"], np.array([2**53 - 1]), 9 * one, valid)
    decoded = ROWS.decode([forged], id_hashes([b"S1"]), now_ms)
    assert (decoded.flags.tolist(), decoded.broken) == ([MISSING | DEFAULTED], 1)
    assert ROWS.decode_row(forged, b"S1", now_ms)[1:] == (MISSING | DEFAULTED, 1)

    offline = OfflineStore(tmp_path)
    late = now_ms + CLOCK_SKEW_MS_MAX + 60_000
    offline.append_pushed(VIEW, [plan_row(now_ms, 2.0), plan_row(late, 3.0)], created_ms=now_ms)
    with redis_client(store) as client:
        client.set(ROWS.store_key(b"S1"), forged)
        summary = materialise(offline, VIEW, client)
        assert (summary.written, summary.from_future) == (1, 1)
        assert stored_spend(client, b"S1") == 2.0
        with pytest.raises(SourceError, match="more than an hour in the future"):
            push_rows(VIEW, client, [plan_row(now_ms, 4.0), plan_row(late, 5.0)])
        assert stored_spend(client, b"S1") == 2.0


@pytest.mark.parametrize("broken", [b"", b"x" * 16, b"x" * ROWS.row_bytes])
def test_online_row_that_is_broken_is_replaced(store: StoreServer, broken: bytes) -> None:
    """A value that is no row of this entity has no event time to compare."""
    now_ms = time.time_ns() // 1_000_000
    with redis_client(store) as client:
        client.set(ROWS.store_key(b"S1"), broken)
        assert push_rows(VIEW, client, [plan_row(now_ms, 2.0)]).written == 1
        assert stored_spend(client, b"S1") == 2.0


def test_online_key_expires_two_ttls_and_an_hour_after_the_event(store: StoreServer) -> None:
    """A TTL beyond the clock's range gives keys that never expire."""
    now_ms = time.time_ns() // 1_000_000
    with redis_client(store) as client:
        push_rows(VIEW, client, [plan_row(now_ms - DAY_MS, 2.0)])
        left_ms = client.pttl(ROWS.store_key(b"S1"))
        assert abs(left_ms - (DAY_MS + EXPIRY_SLACK_MS)) < 60_000
        never_stale = plan_view(ttl_ms=2**60)
        push_rows(never_stale, client, [plan_row(now_ms, 2.0)])
        assert client.pttl(ViewRows(never_stale).store_key(b"S1")) == -1
    assert (key_life_ms(never_stale), expiry_ms(never_stale, now_ms)) == (0, 0)


def test_push_rows_writes_no_row_if_one_is_invalid(store: StoreServer) -> None:
    """A bad id, or a value of a wrong type, stops the whole push."""
    now_ms = time.time_ns() // 1_000_000
    with redis_client(store) as client:
        with pytest.raises(EntityIdError):
            push_rows(VIEW, client, [plan_row(now_ms, 1.0), PushedRow(("",), now_ms, {})])
        with pytest.raises(SourceError):
            push_rows(
                VIEW, client, [plan_row(now_ms, 1.0), PushedRow(("S2",), now_ms, {"kind": 1.0})]
            )
        assert client.dbsize() == 0


def test_materialise_writes_nothing_for_an_empty_view(store: StoreServer, tmp_path: Path) -> None:
    """An empty push writes nothing either."""
    with redis_client(store) as client:
        summary = materialise(OfflineStore(tmp_path), VIEW, client)
        assert (summary.written, summary.older_than_stored) == (0, 0)
        assert push_rows(VIEW, client, []).written == 0


def test_redefined_view_has_other_online_keys(store: StoreServer) -> None:
    """A changed view has another hash, so it never reads rows of the former definition."""
    now_ms = time.time_ns() // 1_000_000
    redefined: View = plan_view(ttl_ms=DAY_MS * 2)
    with redis_client(store) as client:
        push_rows(VIEW, client, [plan_row(now_ms, 2.0)])
        assert client.get(ViewRows(redefined).store_key(b"S1")) is None
