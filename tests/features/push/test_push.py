"""Tests of Push with real gRPC, a real online store and real files."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import redis

from access.identities import ROLES
from features.contract import ModelContract, ViewUse
from features.materialise import materialise
from features.offline import OfflineStore, Spine
from features.online.store_client import store_client
from features.online.store_server import StoreServer
from features.push import writer
from features.push.row_checks import ReceivedRow, encode_rows
from features.push.server import STORE_S
from features.push.writer import EditionWriter
from features.storage.ingests import RECENT_MIN, stored_ingests
from features.storage.pushed_log import FOLDER
from protos import features_pb2, features_pb2_grpc
from tests.access.identity_files import bearer_metadata, write_identities
from tests.features.push.push_servers import (
    DAY_MS,
    SYSTEM,
    VIEW,
    address_of,
    feature_row,
    in_event_loop,
    now_ms,
    offline_count,
    offline_spends,
    online_spends,
    push_client,
    push_process,
    push_server,
)
from tests.features.small_views import plan_view
from turnout_client import FeatureRow, FeaturesClient, PushError, RowResult, SyncFeaturesClient

pytestmark = pytest.mark.walk

WRITTEN, OLDER = RowResult("written", ""), RowResult("older", "")
DUPLICATE = RowResult("duplicate", "")


@in_event_loop
async def test_pushed_rows_are_online_and_offline_when_the_call_returns(
    store: StoreServer, tmp_path: Path
) -> None:
    """A gateway and a training set read the same bits, and a second push of the rows adds none."""
    at_ms = now_ms()
    rows = [
        FeatureRow("S1", at_ms, {"kind": "postpaid", "spend": 0.1, "balance": None}, "e1"),
        FeatureRow("S2", at_ms - 5, {"kind": "satellite", "spend": 1_000.5, "balance": 7}, "e2"),
        FeatureRow("S1", at_ms - 1, {"spend": 9.0}, "e3"),
    ]
    contract = ModelContract(
        entities=("subscriber",),
        views=(ViewUse(view=VIEW, features=("kind", "spend", "balance")),),
    )
    async with push_client(store.url, tmp_path) as client:
        assert await client.push("plan", rows) == [WRITTEN, WRITTEN, OLDER]
        assert await client.push("plan", rows) == [DUPLICATE] * 3
        assert await client.push("plan", []) == []
    spine = Spine(ids={"subscriber": ["S1", "S2"]}, as_of_ms=np.array([now_ms() + 1] * 2))
    trained = OfflineStore(tmp_path).training_set(contract, spine)
    assert np.array_equal(
        trained.values, np.array([[1, 0.1, np.nan], [2, 10.5, 7]], dtype=np.float32), equal_nan=True
    )
    with redis.Redis.from_url(store.url) as online:
        assert online_spends(online, "S1", "S2") == trained.values[:, 1].tolist()
        assert materialise(OfflineStore(tmp_path), VIEW, online).written == 2
        assert online_spends(online, "S1", "S2") == trained.values[:, 1].tolist()
    assert offline_count(tmp_path, "S1", "S2") == 3


def test_client_for_threads_sends_many_rows_in_parts(store: StoreServer, tmp_path: Path) -> None:
    """2,500 rows are three calls. A row without an event id has one made of its content."""
    with push_process(store.url, tmp_path) as (_, address), SyncFeaturesClient(address) as client:
        at_ms = now_ms()
        rows = [FeatureRow([f"S{number}"], at_ms, {"spend": 1}) for number in range(2_500)]
        assert client.push("plan", rows) == [WRITTEN] * 2_500
        assert client.push("plan", rows) == [DUPLICATE] * 2_500
        with pytest.raises(PushError, match=r"NOT_FOUND: no view is called 'plam'; there are plan"):
            client.push("plam", rows[:1])


@in_event_loop
async def test_bad_rows_cost_no_other_row(store: StoreServer, tmp_path: Path) -> None:
    """Each says in one sentence which row it is, and an event id belongs to one row for ever."""
    rows = [
        feature_row("good 1"),
        feature_row("bad", entity="S" * 129),
        feature_row("good 2", entity="S2", spend=2.0),
        feature_row("future", event_ms=now_ms() + DAY_MS),
        feature_row("good 1", spend=5.0),
    ]
    async with push_client(store.url, tmp_path) as client:
        results = await client.push("plan", rows)
    statuses = ["written", "refused", "written", "refused", "refused"]
    assert [result.status for result in results] == statuses
    assert results[1].reason.startswith("row 2: an entity id is 129 bytes long")
    assert results[3].reason.startswith("row 4: event_time_ms")
    assert results[4].reason.startswith("row 5: its event_id was used for a row with other values")
    with redis.Redis.from_url(store.url) as online:
        assert online_spends(online, "S1", "S2") == [1.0, 2.0]
    assert offline_count(tmp_path, "S1", "S2") == 2


@in_event_loop
async def test_bad_call_ends_with_a_status_and_stores_nothing(
    store: StoreServer, tmp_path: Path
) -> None:
    """5,000 rows, bytes that are no message, an unknown edition."""
    row = features_pb2.PushRow(event_id="e", ids=["S1"], event_time_ms=now_ms())
    many = features_pb2.PushRequest(view="plan", rows=[row] * 5_000)
    wide = features_pb2.PushRow(ids=["S1"], numbers={f"n{index}": 1.0 for index in range(200)})
    huge = features_pb2.PushRequest(view="plan", rows=[wide] * 1_001)
    hashed = features_pb2.PushRequest(view="plan", view_hash="0" * 16, rows=[row])
    async with (
        push_server(store.url, tmp_path) as server,
        grpc.aio.insecure_channel(address_of(server.port)) as channel,
    ):
        call: Any = channel.unary_unary("/turnout.v1.Features/Push")
        for content, code, sentence in (
            (
                many.SerializeToString(),
                "INVALID_ARGUMENT",
                "1,000 rows, and this one has 5,000",
            ),
            (huge.SerializeToString(), "INVALID_ARGUMENT", "the most; send the rows in parts"),
            (b"\xff\xff", "INVALID_ARGUMENT", "2 bytes that are no turnout.v1.PushRequest"),
            (hashed.SerializeToString(), "NOT_FOUND", "no edition of view 'plan' has the hash"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(content, timeout=20)
            assert refused.value.code().name == code, refused.value
            assert sentence in (refused.value.details() or "")
    assert not OfflineStore(tmp_path).folder(VIEW).exists()


@in_event_loop
async def test_rows_go_to_every_edition(store: StoreServer, tmp_path: Path) -> None:
    """Reformatting a view starves no deployed version, and one edition can be named."""
    newer = plan_view(ttl_ms=2 * DAY_MS)
    async with push_client(store.url, tmp_path, views=(VIEW, newer)) as client:
        assert await client.push("plan", [feature_row("e1")]) == [WRITTEN]
        only = [feature_row("e2", entity="S2", spend=2.0)]
        assert await client.push("plan", only, view_hash=newer.view_hash[:16]) == [WRITTEN]
        assert await client.push("plan", only) == [WRITTEN]
        assert await client.push("plan", only) == [DUPLICATE]
    with redis.Redis.from_url(store.url) as online:
        for view in (VIEW, newer):
            assert online_spends(online, "S1", "S2", view=view) == [1.0, 2.0]
            assert offline_spends(tmp_path, "S1", "S2", view=view) == [1.0, 2.0]


@in_event_loop
async def test_old_rows_are_stored_and_replace_nothing(store: StoreServer, tmp_path: Path) -> None:
    """A row older than two TTLs, and one that is older than the store's."""
    async with push_client(store.url, tmp_path) as client:
        await client.push("plan", [feature_row("e1", spend=3.0)])
        rows = [
            feature_row("e2", event_ms=now_ms() - 60_000),
            feature_row("e3", entity="S2", event_ms=now_ms() - 2 * DAY_MS - 60_000),
        ]
        assert await client.push("plan", rows) == [OLDER, OLDER]
    with redis.Redis.from_url(store.url) as online:
        assert online_spends(online, "S1", "S2") == [3.0, None]
    assert offline_count(tmp_path, "S1", "S2") == 3


@in_event_loop
async def test_many_pushes_make_few_files(store: StoreServer, tmp_path: Path) -> None:
    """Two hundred calls wait in the log, and a reader makes one ingest of them."""
    async with push_client(store.url, tmp_path) as client:
        for part in range(10):
            numbers = range(20 * part, 20 * part + 20)
            rows = [feature_row(f"e{number}", f"S{number}") for number in numbers]
            await asyncio.gather(*(client.push("plan", [row]) for row in rows))
    folder = OfflineStore(tmp_path).folder(VIEW)
    assert stored_ingests(folder) == []
    assert offline_count(tmp_path, *(f"S{number}" for number in range(200))) == 200
    assert len(stored_ingests(folder)) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["000001", FOLDER]


@in_event_loop
async def test_pusher_may_push_and_no_other_role(store: StoreServer, tmp_path: Path) -> None:
    """A token of every other role is refused, and so is a caller without one."""
    people = write_identities(tmp_path / "people.json", **{role: [role] for role in ROLES})
    request = features_pb2.PushRequest(view="plan")
    async with (
        push_server(store.url, tmp_path, identities=[people]) as server,
        grpc.aio.insecure_channel(address_of(server.port)) as channel,
    ):
        push = features_pb2_grpc.FeaturesStub(channel).Push  # type: ignore[no-untyped-call]
        for role in sorted(ROLES):
            code = await push(request, metadata=bearer_metadata(role), timeout=20).code()
            expected = "OK" if role == "pusher" else "PERMISSION_DENIED"
            assert (role, code.name) == (role, expected)
        for metadata in ([], bearer_metadata("eve"), [("x-turnout-actor", "pusher")]):
            code = await push(request, metadata=metadata, timeout=20).code()
            assert code == grpc.StatusCode.UNAUTHENTICATED


@in_event_loop
async def test_caller_above_its_rate_waits_for_the_pushback(
    store: StoreServer, tmp_path: Path
) -> None:
    """The refusal says when to go on, and the client goes on by itself."""
    rows = [feature_row(f"e{number}") for number in range(30)]
    async with push_server(store.url, tmp_path, rows_s=20) as server:
        async with FeaturesClient(address_of(server.port)) as client:
            assert len(await client.push("plan", rows)) == 30
            began_ms = now_ms()
            assert len(await client.push("plan", rows[:1])) == 1
            assert now_ms() - began_ms >= 100
        # Another connection of the same address is the same caller.
        async with grpc.aio.insecure_channel(address_of(server.port)) as channel:
            push = features_pb2_grpc.FeaturesStub(channel).Push  # type: ignore[no-untyped-call]
            row = features_pb2.PushRow(event_id="e", ids=["S1"], event_time_ms=now_ms())
            full = features_pb2.PushRequest(view="plan", rows=[row] * 100)
            assert await push(full, timeout=20).code() in (
                grpc.StatusCode.OK,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )
            call = push(full, timeout=20)
            assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "above its rate of 20 rows a second" in (await call.details())
            pushback = dict(await call.trailing_metadata())["grpc-retry-pushback-ms"]
            assert 10 <= int(pushback) <= 5_000


def test_writer_makes_ingests_when_it_is_time(
    store: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that it makes none. Small ones are joined, and no row is lost."""
    offline, online = OfflineStore(tmp_path), store_client(store.url, timeout_s=STORE_S)
    edition = EditionWriter(VIEW, offline, online, SYSTEM)

    def write(number: int) -> None:
        received = ReceivedRow(f"e{number}", ("S1",), now_ms(), {"spend": float(number)}, {})
        edition.write(encode_rows(VIEW, [received], now_ms()))

    write(0)
    assert edition.settle_when_due() == 0
    monkeypatch.setattr(writer, "SETTLE_ROWS", 1)
    assert edition.settle_when_due() == 1
    assert edition.settle_when_due() == 0
    for number in range(1, RECENT_MIN + 2):
        write(number)
        assert edition.settle_when_due() == 1
    edition.close()
    assert len(stored_ingests(offline.folder(VIEW))) < RECENT_MIN
    assert offline_count(tmp_path, "S1") == RECENT_MIN + 2
    assert offline_spends(tmp_path, "S1") == online_spends(online, "S1") == [RECENT_MIN + 1]
    online.close()
