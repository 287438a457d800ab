"""Windows on their way to one sink: numbered, kept until acknowledged, resumed after a break."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import grpc

from protos import window_pb2, window_pb2_grpc

log = logging.getLogger(__name__)

RETRY_S_MIN = 0.05
RETRY_S_MAX = 1.0


class WindowStream:
    """One sink's queue and connection. Everything waits here, nothing waits for it."""

    def __init__(
        self,
        address: str,
        source: window_pb2.Source,
        batches_waiting_max: int,
        on_dropped: Callable[[int], None],
    ) -> None:
        self._address = address
        self._source = source
        self._waiting_max = batches_waiting_max
        self._on_dropped = on_dropped
        self._waiting: deque[window_pb2.WindowBatch] = deque()
        self._sequence = 0
        self._wake = asyncio.Event()
        self._all_acknowledged = asyncio.Event()
        self._all_acknowledged.set()

    def offer(
        self,
        windows: Sequence[window_pb2.Window],
        guards: Sequence[window_pb2.HardGuard],
        unix_ns: int,
    ) -> None:
        """Queue one batch; when the sink has been silent too long the oldest one goes."""
        self._sequence += 1
        batch = window_pb2.WindowBatch(
            source=self._source,
            sequence=self._sequence,
            windows=windows,
            guards=guards,
            sent_unix_ns=unix_ns,
        )
        self._waiting.append(batch)
        if len(self._waiting) > self._waiting_max:
            self._waiting.popleft()
            self._on_dropped(1)
        self._all_acknowledged.clear()
        self._wake.set()

    async def wait_acknowledged(self, within_s: float) -> bool:
        """Return True once everything is acknowledged, False when that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._all_acknowledged.wait()
        return self._all_acknowledged.is_set()

    async def run(self) -> None:
        """Keep a stream open until cancelled."""
        pause_s = RETRY_S_MIN
        while True:
            try:
                async with grpc.aio.insecure_channel(self._address) as channel:
                    stub = window_pb2_grpc.WindowSinkStub(channel)  # type: ignore[no-untyped-call]
                    await self._push(stub)
                pause_s = RETRY_S_MIN
            except grpc.aio.AioRpcError as error:
                log.info("window_sink_lost address=%s code=%s", self._address, error.code())
                pause_s = min(pause_s * 2, RETRY_S_MAX)
            await asyncio.sleep(pause_s)

    async def _push(self, stub: window_pb2_grpc.WindowSinkStub) -> None:
        """Say who we are, hear what the sink holds, send the rest, and go on."""
        held = asyncio.get_running_loop().create_future()
        call = stub.Push(self._batches(held))
        async for ack in call:
            while self._waiting and self._waiting[0].sequence <= ack.sequence:
                self._waiting.popleft()
            if not self._waiting:
                self._all_acknowledged.set()
            if not held.done():
                held.set_result(ack.sequence)

    async def _batches(
        self, acknowledged: "asyncio.Future[int]"
    ) -> AsyncIterator[window_pb2.WindowBatch]:
        yield window_pb2.WindowBatch(source=self._source)
        sent = await acknowledged
        while True:
            self._wake.clear()
            for batch in [b for b in self._waiting if b.sequence > sent]:
                sent = batch.sequence
                yield batch
            await self._wake.wait()
