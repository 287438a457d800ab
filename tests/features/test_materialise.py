"""Online rows are the offline rows, bit for bit; a newer row is never replaced by an older."""

import time
from pathlib import Path

import numpy as np
import pytest
import redis

from features.contract import ModelContract, ViewUse
from features.entity_ids import id_hashes
from features.errors import EntityIdError, SourceError
from features.materialise import EXPIRY_SLACK_MS, expiries_ms, materialise, push_rows
from features.offline import OfflineStore, Spine
from features.online.store_server import StoreServer
from features.pushed import PushedRow
from features.rows import ViewRows
from features.views import View
from tests.features.small_views import DAY_MS, plan_view

pytestmark = pytest.mark.walk

VIEW = plan_view()
ROWS = ViewRows(VIEW)


def client_of(store: StoreServer) -> redis.Redis:
    """A client in bytes."""
    return redis.Redis.from_url(store.url)


def stored(client: redis.Redis, entity_id: bytes) -> float:
    """The spend that is online."""
    value = client.get(ROWS.store_key(entity_id))
    assert isinstance(value, bytes)
    now_ms = time.time_ns() // 1_000_000
    return float(ROWS.decode([value], id_hashes([entity_id]), now_ms).values[0, 1])


def row(event_ms: int, spend: float) -> PushedRow:
    """A row of S1."""
    return PushedRow(("S1",), event_ms, {"kind": "prepaid", "spend": spend, "balance": 1.0})


def mixed_rows(now_ms: int, count: int, seed: int) -> list[PushedRow]:
    """Rows of all kinds: fresh, at the TTL, stale, forgotten; unknown, missing, out of bounds."""
    chance = np.random.default_rng(seed)
    ages = [0, 5, DAY_MS, DAY_MS + 1, 2 * DAY_MS, 2 * DAY_MS + 1]
    kinds = ["prepaid", "postpaid", "satellite", None]
    spends = [0.1, 1e-40, -0.0, 999.99999, 1_000.5, float("nan"), None, 7]
    return [
        PushedRow(
            (f"S{number}",),
            now_ms - ages[chance.integers(len(ages))],
            {
                "kind": kinds[chance.integers(len(kinds))],
                "spend": spends[chance.integers(len(spends))],
                "balance": None if chance.random() < 0.2 else float(chance.normal(0, 1e6)),
            },
        )
        for number in range(count)
    ]


def test_offline_and_online_are_bit_equal(store: StoreServer, tmp_path: Path) -> None:
    """2,000 rows of every kind, and ids never seen: the same bytes and flags at one instant."""
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
    with client_of(store) as client:
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


def test_an_older_row_never_replaces_a_newer(store: StoreServer, tmp_path: Path) -> None:
    """Whoever comes last; at the same event time the later write wins."""
    now_ms = time.time_ns() // 1_000_000
    offline = OfflineStore(tmp_path)
    offline.append_pushed(VIEW, [row(now_ms - 100, 1.0)], created_ms=now_ms)
    with client_of(store) as client:
        assert push_rows(VIEW, client, [row(now_ms, 2.0)]).written == 1
        summary = materialise(offline, VIEW, client)
        assert (summary.written, summary.older_than_stored) == (0, 1)
        assert push_rows(VIEW, client, [row(now_ms - 1, 3.0)]).older_than_stored == 1
        assert stored(client, b"S1") == 2.0
        assert push_rows(VIEW, client, [row(now_ms, 4.0)]).written == 1
        assert stored(client, b"S1") == 4.0
        assert (
            push_rows(VIEW, client, [row(now_ms + 256, 5.0), row(now_ms + 255, 6.0)]).written == 1
        )
        assert stored(client, b"S1") == 5.0


@pytest.mark.parametrize("broken", [b"", b"x" * 16, b"x" * ROWS.row_bytes])
def test_a_broken_row_is_replaced(store: StoreServer, broken: bytes) -> None:
    """What is no row of this entity has no event time to respect."""
    now_ms = time.time_ns() // 1_000_000
    with client_of(store) as client:
        client.set(ROWS.store_key(b"S1"), broken)
        assert push_rows(VIEW, client, [row(now_ms, 2.0)]).written == 1
        assert stored(client, b"S1") == 2.0


def test_keys_go_after_two_ttls_and_an_hour(store: StoreServer) -> None:
    """Counted from the event; a view for ever has keys for ever."""
    now_ms = time.time_ns() // 1_000_000
    with client_of(store) as client:
        push_rows(VIEW, client, [row(now_ms - DAY_MS, 2.0)])
        left_ms = client.pttl(ROWS.store_key(b"S1"))
        assert abs(left_ms - (DAY_MS + EXPIRY_SLACK_MS)) < 60_000
        for_ever = plan_view(ttl_ms=2**60)
        push_rows(for_ever, client, [row(now_ms, 2.0)])
        assert client.pttl(ViewRows(for_ever).store_key(b"S1")) == -1
    assert expiries_ms(for_ever, np.array([now_ms])) == [0]


def test_a_row_that_does_not_fit_writes_nothing(store: StoreServer) -> None:
    """Neither it nor its neighbours."""
    now_ms = time.time_ns() // 1_000_000
    with client_of(store) as client:
        with pytest.raises(EntityIdError):
            push_rows(VIEW, client, [row(now_ms, 1.0), PushedRow(("",), now_ms, {})])
        with pytest.raises(SourceError):
            push_rows(VIEW, client, [row(now_ms, 1.0), PushedRow(("S2",), now_ms, {"kind": 1.0})])
        assert client.dbsize() == 0


def test_an_empty_view_is_nothing_to_write(store: StoreServer, tmp_path: Path) -> None:
    """Neither offline nor pushed."""
    with client_of(store) as client:
        summary = materialise(OfflineStore(tmp_path), VIEW, client)
        assert (summary.written, summary.older_than_stored) == (0, 0)
        assert push_rows(VIEW, client, []).written == 0


def test_a_redefined_view_reads_nothing_of_the_old(store: StoreServer) -> None:
    """Another default is another hash: other keys, so never a row under a wrong definition."""
    now_ms = time.time_ns() // 1_000_000
    redefined: View = plan_view(ttl_ms=DAY_MS * 2)
    with client_of(store) as client:
        push_rows(VIEW, client, [row(now_ms, 2.0)])
        assert client.get(ViewRows(redefined).store_key(b"S1")) is None
