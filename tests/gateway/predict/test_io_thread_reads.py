"""Calls whose features the I/O thread reads get the answers and the records of a batch."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import grpc
import numpy as np
import pytest
import redis

from features.contract import time_columns
from features.online.store_server import StoreServer
from gateway.transport.native.server import NativeServer
from journal.prediction_id import read_prediction_id
from protos.journal_pb2 import ServedBatch
from protos.predict_pb2 import DEFAULTED, DEGRADED, PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.gateway.gateway_fixture import KEY, GatewayFixture
from tests.gateway.predict.test_single_call import reply_text, window_sums
from tests.gateway.six_models import (
    NAMES,
    CopyList,
    CountingStore,
    copied_calls,
    served_calls,
)
from tests.gateway.store_models import COMPARED, call, deployment_of, reads_here, serving
from tests.poll import wait_until
from tests.servers import redis_server

pytestmark = [
    pytest.mark.walk,
    NEEDS_NATIVE_INGRESS,
    pytest.mark.parametrize("ingress", ["native"], indirect=True),
]

POLICIES = {
    "usual": ServingPolicy(),
    "half the journal": ServingPolicy(journal_sampled_of_65536=32_768),
    "role hidden": ServingPolicy(hide_role=True),
    "features required": ServingPolicy(features_required=True),
}


@pytest.fixture
def store() -> Iterator[StoreServer]:
    """A store with rows in each state, which one test may stop."""
    with redis_server() as server:
        with redis.Redis.from_url(server.url) as client:
            client.mset(CountingStore()._rows)
        yield server


def all_calls() -> list[PredictRequest]:
    """Return calls in every state of a row and of a call, the models mixed."""
    calls = [call(model, name) for name in NAMES for model in COMPARED]
    calls += [call(model, "fresh", 0.3, rows=3, sticky_key=f"K{model}") for model in COMPARED]
    calls += [call(model, "stale", 0.2, request_id=f"r-{model}") for model in COMPARED]
    calls += [call(model, "fresh", version=v) for model in COMPARED for v in ("1", "9")]
    calls += [call("one_view", "fresh", float("nan"))]
    calls += [call("shadowed", f"S{number}", number / 100) for number in range(40)]
    mixed = PredictRequest(model="two_views")
    mixed.rows.extend([Row(keys=[f"H{n}", name]) for n, name in enumerate(NAMES)])
    return [*calls, mixed]


async def text_of(gateway: GatewayFixture, message: PredictRequest) -> str:
    """Return the text of a reply or of an error."""
    try:
        reply = await gateway.predict(message, within_s=60.0)
    except grpc.aio.AioRpcError as error:
        return f"{error.code()} {error.details()}"
    return reply_text(reply)


async def observed(url: str, policy: ServingPolicy, *, here: bool) -> dict[str, Any]:
    """Answer all calls, one by one and at once; return replies and everything that was recorded."""
    async with serving(url, policy, here=here) as (gateway, reader):
        replies = [await text_of(gateway, message) for message in all_calls()]
        replies += await asyncio.gather(*[text_of(gateway, m) for m in all_calls() * 3])
        windows = {
            model: window_sums([w for w in gateway.close_windows() if w.model == model])
            for model in COMPARED
        }
        sink = cast("CopyList", gateway.recorder._copy_sink)
        metrics = gateway.metrics.snapshot()
        # Latencies and the sizes of batches, which are reads, differ between two runs.
        metrics.pop("turnout_call_seconds")
        rows, reads = metrics.pop("turnout_batch_rows"), metrics.pop("turnout_feature_reads")
        assert [labels for labels, _ in reads] == [["ok"]]
        assert (reader.counts.answered > 0) or here
        return {
            "replies": replies,
            "windows": windows,
            "journal": sorted(served_calls(gateway.served.records)),
            "copies": sorted(text for copies in sink.copies for text in copied_calls(copies)),
            "metrics": {name: sorted(map(str, rows)) for name, rows in metrics.items()},
            "rows": rows[0][1][-1],
            "faults": len(gateway.faults),
        }


@contextmanager
def stopped(store: StoreServer) -> Iterator[None]:
    """Stop the store by SIGSTOP while the block lasts."""
    assert store.pid is not None
    os.kill(store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pid, signal.SIGCONT)


@pytest.mark.parametrize("name", POLICIES)
def test_answers_with_reads_of_the_io_thread_are_those_of_batches(
    name: str, store: StoreServer, answered_here: list[int]
) -> None:
    """Replies, windows, journal, shadow copies and metrics are equal, and most need no Python."""
    from_batches = asyncio.run(observed(store.url, POLICIES[name], here=False))
    assert not answered_here
    from_thread = asyncio.run(observed(store.url, POLICIES[name], here=True))
    assert sum(answered_here) > 0.5 * from_thread["rows"], "the I/O thread answered hardly any call"
    assert from_thread["copies"], "no shadow copied a call"
    for part, expected in from_batches.items():
        assert from_thread[part] == expected, part


def test_calls_that_come_while_reads_are_under_way_share_the_next_read(
    store: StoreServer, answered_here: list[int]
) -> None:
    """A hundred calls of three models, sent while the store is stopped, need a few reads."""

    async def walk() -> None:
        async with serving(store.url) as (gateway, _):
            with stopped(store):
                tasks = [
                    asyncio.create_task(gateway.predict(call(model, f"S{n}"), 60.0))
                    for n in range(34)
                    for model in COMPARED
                ]
                await wait_until(lambda: gateway.ingress_server.rows_inside == len(tasks))
            replies = await asyncio.gather(*tasks)
            assert not any(flags & DEGRADED for reply in replies for flags in reply.row_flags)
            with redis.Redis.from_url(store.url) as client:
                reads = client.info("commandstats")["cmdstat_mget"]["calls"]
            gateway.recorder.fold()
            assert sum(answered_here) > 0.5 * len(tasks)
            assert reads < len(tasks) / 4

    asyncio.run(walk())


@pytest.mark.parametrize("required", [False, True])
def test_read_that_is_late_costs_the_budget_once(
    required: bool, store: StoreServer, answered_here: list[int]
) -> None:
    """The call gets defaults from the I/O thread, or is refused by Python if it needs features."""

    async def walk() -> None:
        policy = ServingPolicy(features_required=required)
        async with serving(store.url, policy, budget_ms=50) as (gateway, _):
            with stopped(store):
                text = await text_of(gateway, call("one_view", "fresh"))
                server = cast("NativeServer", gateway.ingress_server)
                assert server.store_state() == (False, "the store did not answer in time")
            gateway.recorder.fold()
            counts = gateway.metrics.snapshot()
            if required:
                assert "UNAVAILABLE" in text
                assert answered_here == []
            else:
                assert f"row_flags: {DEFAULTED | DEGRADED}" in text
                assert answered_here == [1]
                assert counts["turnout_feature_reads"] == [[["timeout"], 1]]
                rows = {labels[1]: count for labels, count in counts["turnout_feature_rows"]}
                assert rows == {"defaulted": 1, "degraded": 1}
            # The thread reads again once the store answers.
            await wait_until(lambda: reads_here(gateway))
            assert "scores" in await text_of(gateway, call("one_view", "fresh"))

    asyncio.run(walk())


def test_each_late_read_costs_its_own_budget(store: StoreServer, answered_here: list[int]) -> None:
    """Three calls get defaults from the I/O thread, and Python reads none of them again."""

    async def walk() -> None:
        async with serving(store.url, budget_ms=300) as (gateway, reader):
            with stopped(store):
                tasks = []
                for number in range(3):
                    tasks.append(asyncio.create_task(text_of(gateway, call("one_view", "fresh"))))
                    await wait_until(
                        lambda inside=number + 1: gateway.ingress_server.rows_inside == inside
                    )
                texts = await asyncio.gather(*tasks)
            assert all(f"row_flags: {DEFAULTED | DEGRADED}" in text for text in texts)
            gateway.recorder.fold()
            assert sum(answered_here) == 3
            assert (reader.counts.timeout, reader.counts.breaker) == (0, 0)

    asyncio.run(walk())


def test_read_with_little_time_does_not_end_the_connection(
    store: StoreServer, answered_here: list[int]
) -> None:
    """A call with a read of 9 ms gets defaults, and the thread keeps its connection."""

    async def walk() -> None:
        async with serving(store.url, budget_ms=9) as (gateway, _):
            with stopped(store):
                reply = await gateway.predict(call("one_view", "fresh"), 60.0)
                assert list(reply.row_flags) == [DEFAULTED | DEGRADED]
            await gateway.predict(call("one_view", "fresh"), 60.0)
            gateway.recorder.fold()
            assert answered_here == [1, 1]
            thread = gateway.parts.io_thread_store
            assert thread is not None
            assert (reads_here(gateway), thread.connections) == (True, 1)

    asyncio.run(walk())


def test_call_without_a_finite_score_leaves_the_others_to_the_thread(
    store: StoreServer, answered_here: list[int]
) -> None:
    """Calls that shared a read with a NaN are read once more, and the NaN is refused by Python."""

    async def walk() -> None:
        async with serving(store.url) as (gateway, _):
            with stopped(store):
                first = asyncio.create_task(text_of(gateway, call("one_view", "stale")))
                second = asyncio.create_task(text_of(gateway, call("shadowed", "fresh")))
                await wait_until(lambda: gateway.ingress_server.rows_inside == 2)
                messages = [call("one_view", "fresh", n / 10) for n in range(10)]
                messages.append(call("one_view", "fresh", float("nan")))
                tasks = [asyncio.create_task(text_of(gateway, m)) for m in messages]
                await wait_until(lambda: gateway.ingress_server.rows_inside == 13)
            texts = await asyncio.gather(first, second, *tasks)
            assert all("scores" in text for text in texts[:-1])
            assert "INVALID_ARGUMENT" in texts[-1]
            gateway.recorder.fold()
            assert sum(answered_here) == 12

    asyncio.run(walk())


def test_time_of_the_request_is_that_of_the_read(
    store: StoreServer, answered_here: list[int]
) -> None:
    """The journal has the vector that was scored: its last columns are the day and the second."""

    async def walk() -> None:
        async with serving(store.url) as (gateway, _):
            await gateway.predict(call("timed", "fresh"), 60.0)
            gateway.recorder.fold()
            assert answered_here == [1]
            (record,) = gateway.served.records
            served = ServedBatch.FromString(record)
            read_ns = np.frombuffer(served.at_unix_ns, dtype=np.int64)
            vector = np.frombuffer(served.vectors, dtype=np.float32)
            assert vector[-2:].tolist() == time_columns(read_ns // 1_000_000)[0].tolist()

    asyncio.run(walk())


def test_plan_that_was_withdrawn_while_the_store_was_asked_answers_no_call(
    store: StoreServer, answered_here: list[int]
) -> None:
    """The reply is of the new revision, and is counted there."""

    async def walk() -> None:
        async with serving(store.url) as (gateway, _):
            before = gateway.routes.get("one_view")
            assert before is not None
            with stopped(store):
                waiting = asyncio.create_task(gateway.predict(call("one_view", "fresh"), 60.0))
                await wait_until(lambda: gateway.ingress_server.rows_inside == 1)
                changed = deployment_of("one_view", ServingPolicy(), revision=5)
                gateway.routes.swap(replace(before, deployment=changed))
            reply = await waiting
            assert read_prediction_id(reply.prediction_id, KEY).revision == 5
            assert {w.revision for w in gateway.close_windows() if w.calls.answered} == {5}

    asyncio.run(walk())
    assert answered_here == []


def test_caller_who_goes_while_the_store_is_asked_leaves_nothing_inside(
    store: StoreServer,
) -> None:
    """A cancelled call is not inside any more, and the next one is answered by the thread."""

    async def walk() -> None:
        async with serving(store.url) as (gateway, _):
            with stopped(store):
                waiting = asyncio.create_task(gateway.predict(call("one_view", "fresh"), 60.0))
                await wait_until(lambda: gateway.ingress_server.rows_inside == 1)
                waiting.cancel()
                await wait_until(lambda: gateway.ingress_server.rows_inside == 0)
            assert "scores" in await text_of(gateway, call("one_view", "fresh"))
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


def kill_all(client: "redis.Redis") -> None:
    """Close the connections of all other clients."""
    client.client_kill_filter(_type="normal", skipme=True)


def kill_newest(client: "redis.Redis") -> None:
    """Close the newest other connection, which is that of the I/O thread."""
    own = client.client_id()
    others = [int(entry["id"]) for entry in client.client_list() if int(entry["id"]) != own]
    client.client_kill_filter(_id=str(max(others)))


@pytest.mark.parametrize("kill", [kill_all, kill_newest])
def test_lost_connections_are_made_again(
    kill: "Callable[[redis.Redis], None]", store: StoreServer, answered_here: list[int]
) -> None:
    """The I/O thread reads the next call over the new connection."""

    async def walk() -> None:
        async with serving(store.url) as (gateway, reader):
            thread = gateway.parts.io_thread_store
            assert thread is not None
            with redis.Redis.from_url(store.url) as client:
                await asyncio.to_thread(kill, client)
            await wait_until(lambda: thread.connections == 2 and reads_here(gateway))
            assert reader.connected
            answered = len(answered_here)
            reply = await gateway.predict(call("one_view", "fresh"), 60.0)
            assert list(reply.row_flags) in ([], [0])
            gateway.recorder.fold()
            assert len(answered_here) == answered + 1

    asyncio.run(walk())
