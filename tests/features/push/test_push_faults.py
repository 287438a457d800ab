"""Tests of Push while processes are killed, stores are gone, and two servers write at once."""

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc

from features.offline import OfflineStore
from features.online.store_marker import claim_store
from features.online.store_server import StoreServer
from features.push.view_editions import ServedViews
from features.storage.pushed_log import PushedLog
from protos import features_pb2, features_pb2_grpc
from tests.features.push.push_servers import (
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
from tests.poll import wait_until
from tests.servers import redis_server
from turnout_client import FeatureRow, FeaturesClient, PushError, RowResult

pytestmark = pytest.mark.walk

WRITTEN, OLDER = RowResult("written", ""), RowResult("older", "")
DUPLICATE = RowResult("duplicate", "")


@in_event_loop
async def test_two_servers_have_one_winner_of_equal_events_on_both_sides(
    store: StoreServer, tmp_path: Path
) -> None:
    """All rows are sent twice, in two orders, through two processes at once."""
    at_ms = now_ms()
    rows = [
        feature_row(f"e{entity}/{value}", f"S{entity}", float(value), at_ms)
        for entity in range(20)
        for value in range(5)
    ]
    # Each process gets all rows, in an order of its own.
    orders = [random.Random(seed).sample(rows, len(rows)) for seed in range(2)]
    entities = [f"S{entity}" for entity in range(20)]
    with (
        push_process(store.url, tmp_path) as (_, first),
        push_process(store.url, tmp_path) as (_, second),
    ):
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(FeaturesClient(address, timeout_s=60))
                for address in (first, second)
            ]

            async def send(client: FeaturesClient, some: list[FeatureRow]) -> list[RowResult]:
                results: list[RowResult] = []
                for start in range(0, len(some), 7):
                    results += await client.push("plan", some[start : start + 7])
                return results

            both = await asyncio.gather(*map(send, clients, orders))
        # Each row was stored once, by whichever process came first.
        stored = [result for results in both for result in results if result != DUPLICATE]
        assert len(stored) == len(rows)
        with redis.Redis.from_url(store.url) as online:
            assert online_spends(online, *entities) == offline_spends(tmp_path, *entities)
    assert offline_count(tmp_path, *entities) == len(rows)


@in_event_loop
async def test_kill_between_offline_and_online_is_mended_by_the_resend(
    store: StoreServer, tmp_path: Path
) -> None:
    """The online store stands still while rows are on the disk, and the process gets SIGKILL."""
    rows = [feature_row("e1"), feature_row("e2", "S2", 2.0)]
    folder = OfflineStore(tmp_path).folder(VIEW)
    assert store.process is not None
    with redis.Redis.from_url(store.url) as online:
        with push_process(store.url, tmp_path) as (process, address):
            async with FeaturesClient(address) as client:
                assert await client.push("plan", [feature_row("e0", "S0")]) == [WRITTEN]
                os.kill(store.process.pid, signal.SIGSTOP)
                try:
                    pushing = asyncio.create_task(client.push("plan", rows, timeout_s=3))
                    watched = PushedLog(folder)
                    await wait_until(lambda: watched.count_logged() == 3)
                    watched.close()
                    process.kill()
                    process.wait()
                    with pytest.raises(PushError) as failed:
                        await pushing
                    assert failed.value.code in (
                        grpc.StatusCode.UNAVAILABLE,
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                    )
                finally:
                    os.kill(store.process.pid, signal.SIGCONT)
        assert online_spends(online, "S1", "S2") == [None, None]
        # The new process is called at once, before it has caught up by itself.
        async with push_client(store.url, tmp_path) as client:
            assert await client.push("plan", rows[:1]) == [DUPLICATE]
            assert online_spends(online, "S1") == [1.0]
            # A row that is sent no second time is written by the server.
            await wait_until(lambda: online_spends(online, "S2") == [2.0])
    assert offline_count(tmp_path, "S0", "S1", "S2") == 3


@in_event_loop
async def test_outage_of_the_online_store_is_unavailable_and_the_resend_completes_it(
    tmp_path: Path,
) -> None:
    """The store is gone, comes back empty, and takes the rows. Offline they are stored once."""
    row = feature_row("e1")
    with redis_server() as first:
        port, url = urlsplit(first.url).port, first.url
        async with push_client(url, tmp_path) as client:
            assert await client.push("plan", [feature_row("e0", "S0")]) == [WRITTEN]
            first.stop()
            with pytest.raises(PushError, match=r"stored offline only; send the same rows"):
                await client.push("plan", [row])
            assert offline_spends(tmp_path, "S1") == [1.0]
            with redis_server(port), redis.Redis.from_url(url) as online:
                assert await client.push("plan", [row], timeout_s=20) == [DUPLICATE]
                assert online_spends(online, "S1") == [1.0]
    assert offline_count(tmp_path, "S1") == 1


@in_event_loop
async def test_store_that_hangs_is_unavailable_and_health_answers(
    store: StoreServer, tmp_path: Path
) -> None:
    """The server waits for the store for a bounded time, and answers others meanwhile."""
    assert store.process is not None
    async with (
        push_server(store.url, tmp_path, store_s=0.3) as server,
        grpc.aio.insecure_channel(address_of(server.port)) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        push = features_pb2_grpc.FeaturesStub(channel).Push  # type: ignore[no-untyped-call]
        row = features_pb2.PushRow(event_id="e", ids=["S1"], event_time_ms=now_ms())
        os.kill(store.process.pid, signal.SIGSTOP)
        try:
            pushing = push(features_pb2.PushRequest(view="plan", rows=[row]), timeout=20)
            request = health_pb2.HealthCheckRequest(service="turnout.v1.Features")
            reply = await health.Check(request, timeout=10)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
            assert await pushing.code() == grpc.StatusCode.UNAVAILABLE
        finally:
            os.kill(store.process.pid, signal.SIGCONT)


@in_event_loop
async def test_foreign_store_is_refused(store: StoreServer, tmp_path: Path) -> None:
    """No row is written into the store of another system."""
    with redis.Redis.from_url(store.url) as online:
        claim_store(online, "another system")
        async with push_client(store.url, tmp_path) as client:
            with pytest.raises(PushError, match=r"FAILED_PRECONDITION.*another system"):
                await client.push("plan", [feature_row("e1")])
        assert online_spends(online, "S1") == [None]


@in_event_loop
async def test_stop_loses_no_acknowledged_row(store: StoreServer, tmp_path: Path) -> None:
    """SIGTERM comes while rows are pushed. What was acknowledged is on both sides."""
    acknowledged: list[str] = []
    with push_process(store.url, tmp_path) as (process, address):

        async def push_until_refused(first: int) -> None:
            async with FeaturesClient(address, timeout_s=2.0) as client:
                for number in range(first, first + 10_000):
                    try:
                        await client.push("plan", [feature_row(f"e{number}", f"S{number}")])
                    except PushError:
                        return
                    acknowledged.append(f"S{number}")

        calling = [asyncio.create_task(push_until_refused(10_000 * index)) for index in range(4)]
        await wait_until(lambda: len(acknowledged) > 20, 30)
        process.terminate()
        await asyncio.gather(*calling)
        assert process.wait(20) == 0
    with redis.Redis.from_url(store.url) as online:
        assert None not in online_spends(online, *acknowledged)
    assert offline_count(tmp_path, *acknowledged) == len(acknowledged)


@in_event_loop
async def test_server_without_a_registry_is_not_serving_and_unavailable(
    store: StoreServer, tmp_path: Path
) -> None:
    """It starts all the same, and takes rows once the views are known."""
    answers = [None, None, ServedViews(SYSTEM, (VIEW,))]

    async def read() -> ServedViews | None:
        return answers.pop(0)

    async with (
        push_server(store.url, tmp_path, read=read) as server,
        grpc.aio.insecure_channel(address_of(server.port)) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        push = features_pb2_grpc.FeaturesStub(channel).Push  # type: ignore[no-untyped-call]
        reply = await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
        row = features_pb2.PushRow(event_id="e", ids=["S1"], event_time_ms=now_ms())
        request = features_pb2.PushRequest(view="plan", rows=[row])
        call = push(request, timeout=20)
        assert await call.code() == grpc.StatusCode.UNAVAILABLE
        assert "the registry does not answer" in (await call.details())
        assert (await push(request, timeout=20)).results[
            0
        ].status == features_pb2.PushResult.WRITTEN
