"""Pushes windows of gateway `flood` as fast as a controller takes them, until it is killed.

    python -m tests.rollout.live.window_flood ADDRESS STREAMS

Each message has windows of an invented version, as many as a message may have, or one window with
as many keys as fit in a message. It prints "pushing" when all streams are open.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import grpc

from protos import window_pb2, window_pb2_grpc

MANY = [
    window_pb2.Window(model="churn", version="9", arm="ARM_CANARY", revision=1, second=1)
] * 4_096
LARGE = window_pb2.Window(
    model="churn",
    version="1",
    arm="ARM_PRODUCTION",
    revision=1,
    records=[window_pb2.KeyRecords(metric="METRIC_ERROR", key_hash=range(500_000))],
)


async def _batches(source: window_pb2.Source) -> AsyncIterator[window_pb2.WindowBatch]:
    yield window_pb2.WindowBatch(source=source)
    sequence = 0
    while True:
        sequence += 1
        now_ns = time.time_ns()
        LARGE.second = now_ns // 1_000_000_000
        yield window_pb2.WindowBatch(
            sequence=sequence,
            windows=MANY if sequence % 2 else [LARGE],
            sent_unix_ns=now_ns,
            clock_unix_ns=now_ns,
        )


async def _push(address: str, boot_id: int) -> None:
    source = window_pb2.Source(gateway="flood", boot_id=boot_id)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = window_pb2_grpc.WindowSinkStub(channel)  # type: ignore[no-untyped-call]
        async for _ in stub.Push(_batches(source)):
            pass


async def _flood(address: str, streams: int) -> None:
    pushing = [asyncio.ensure_future(_push(address, boot_id)) for boot_id in range(1, streams + 1)]
    sys.stdout.write("pushing\n")
    sys.stdout.flush()
    await asyncio.gather(*pushing)


if __name__ == "__main__":
    asyncio.run(_flood(sys.argv[1], int(sys.argv[2])))
