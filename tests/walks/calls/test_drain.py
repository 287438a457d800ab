"""The gateway answers a hundred calls that are in flight at SIGTERM."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import grpc.aio
import pytest

from benchmarks.standalone_gateway import (
    MODEL,
    PREDICT,
    StandaloneGateway,
    standalone_gateway,
    write_gateway_folder,
)
from protos.predict_pb2 import PredictReply, PredictRequest, Row
from tests.features.online.network_proxy import NetworkProxy, network_proxy_to
from tests.servers import redis_server
from tests.walks.calls.test_rolling_restart import OWN_CONNECTION
from tests.walks.gateway_with_store import customer_model_files

pytestmark = pytest.mark.walk

CALLS = 100
REPLY_BYTES = len(b"*1\r\n$-1\r\n")
"""Bytes of the reply to an MGET of one key that the store does not have."""
SLOWEST_S = 5.0
GRACE_S = 12.0
SETTINGS = {
    "workers": 1,
    "drain_grace_s": GRACE_S,
    # One call a batch, all in flight at once, each waiting for a store reply of its own.
    "batch_rows_max": 1,
    "batches_in_flight_max": CALLS,
    "feature_budget_ms": 15_000,
    "deadline_ms_default": 20_000,
}


async def send_predict(channel: grpc.aio.Channel, number: int) -> PredictReply:
    """Call once for customer *number*."""
    message = PredictRequest(model=MODEL, rows=[Row(keys=[f"S{number}"])]).SerializeToString()
    return PredictReply.FromString(await channel.unary_unary(PREDICT)(message, timeout=20.0))


async def wait_calls_in_flight(gateway: StandaloneGateway, rows: int) -> None:
    """Wait until *rows* rows are in flight; fail after 10 s."""
    deadline_s = time.monotonic() + 10
    while True:
        workers = await asyncio.to_thread(gateway.workers)
        inside = sum(row.get("rows_inside", 0) for row in workers)
        if inside >= rows:
            return
        assert time.monotonic() < deadline_s, f"{inside} rows inside"
        await asyncio.sleep(0.02)


async def wait_refused(port: int) -> float:
    """Wait until a new connection is refused; return that moment (monotonic)."""
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        with socket.socket() as caller:
            if await asyncio.to_thread(caller.connect_ex, ("127.0.0.1", port)):
                return time.monotonic()
        await asyncio.sleep(0.01)
    raise AssertionError("new connections are still accepted")


async def drain_with_calls_in_flight(
    gateway: StandaloneGateway, proxy: NetworkProxy
) -> tuple[list[PredictReply], float, float]:
    """Return the calls' replies, and the seconds from SIGTERM to the first refusal and to exit."""
    # Connect, and read the store's first reply, before the store becomes slow.
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=OWN_CONNECTION)
        for _ in range(5)
    ]
    for number, channel in enumerate(channels):
        await send_predict(channel, number)
    # Put a hundred calls in flight.
    proxy.piece_bytes, proxy.delay_s = REPLY_BYTES, SLOWEST_S / CALLS
    calls = [
        asyncio.create_task(send_predict(channels[number % 5], number)) for number in range(CALLS)
    ]
    await wait_calls_in_flight(gateway, CALLS * 9 // 10)
    # Drain.
    began = time.monotonic()
    os.kill(gateway.program.pid, signal.SIGTERM)
    refused_s = await wait_refused(gateway.port) - began
    replies = await asyncio.gather(*calls)
    code = await asyncio.to_thread(gateway.program.wait, GRACE_S + 5)
    ended_s = time.monotonic() - began
    assert code == 0
    for channel in channels:
        await channel.close()
    return replies, refused_s, ended_s


def test_gateway_answers_a_hundred_calls_in_flight_at_sigterm(tmp_path: Path) -> None:
    """All replies come, after 50 ms to 5 s; new connections are refused at once; exit code 0."""

    async def walk(url: str) -> None:
        async with network_proxy_to(url) as proxy:
            settings = {**SETTINGS, "redis_url": proxy.url}
            running = standalone_gateway(tmp_path, settings)
            gateway = await asyncio.to_thread(running.__enter__)
            try:
                assert await asyncio.to_thread(gateway.wait_settled, 1)
                replies, refused_s, ended_s = await drain_with_calls_in_flight(gateway, proxy)
            finally:
                proxy.delay_s = 0.0
                await asyncio.to_thread(running.__exit__, None, None, None)
        assert len(replies) == CALLS
        assert refused_s < 1.0
        assert ended_s < GRACE_S + 1.0

    write_gateway_folder(tmp_path, customer_model_files())
    with redis_server() as store:
        asyncio.run(walk(store.url))
