"""A worker's stream of windows to a sink that refuses it, and that then takes it."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from gateway.telemetry.window_stream import WindowStream
from protos import window_pb2, window_pb2_grpc
from tests.poll import wait_until

pytestmark = pytest.mark.walk

REFUSALS = 4


class RefusingSink(window_pb2_grpc.WindowSinkServicer):
    """Refuses the first streams at once, then loses one after its first batch, then takes all."""

    def __init__(self) -> None:
        self.streams = 0
        self.opened_s: list[float] = []
        self.sequences: list[int] = []

    async def Push(  # noqa: N802  the name in window.proto
        self,
        requests: AsyncIterator[window_pb2.WindowBatch],
        context: Any,  # noqa: ANN401  untyped
    ) -> AsyncIterator[window_pb2.WindowAck]:
        """Do what this stream gets."""
        self.streams += 1
        self.opened_s.append(asyncio.get_running_loop().time())
        if self.streams <= REFUSALS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "256 streams are open")
        yield window_pb2.WindowAck(sequence=max(self.sequences, default=0))
        async for batch in requests:
            if batch.sequence:
                self.sequences.append(batch.sequence)
                yield window_pb2.WindowAck(sequence=batch.sequence)
                if self.streams == REFUSALS + 1:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the sink stops")


def test_window_stream_leaves_no_task_behind_and_says_a_refusal_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It tries again after longer and longer pauses, and loses no batch."""
    sink, complaints = RefusingSink(), []

    async def walk() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
        server = grpc.aio.server()
        window_pb2_grpc.add_WindowSinkServicer_to_server(sink, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        source = window_pb2.Source(gateway="g", slot=0, boot_id=7)
        stream = WindowStream(f"127.0.0.1:{port}", source, 1_000, lambda _: None, time.time_ns)
        stream.offer((), (), 1)
        running = asyncio.create_task(stream.run())
        # Refused, then lost behind the first batch, then open.
        await wait_until(lambda: sink.sequences == [1], 20.0)
        stream.offer((), (), 2)
        assert await stream.wait_acknowledged(20.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop(None)
        gc.collect()
        await asyncio.sleep(0)

    with caplog.at_level(logging.INFO):
        asyncio.run(walk())
    gc.collect()
    assert sink.sequences == [1, 2]
    # asyncio says through its logger too what a task that is destroyed has left.
    assert [*complaints, *(r.getMessage() for r in caplog.records if r.name == "asyncio")] == []
    said = [r.getMessage() for r in caplog.records if "window_sink_lost" in r.getMessage()]
    # grpcio gives this code of its own to a write that the end of its stream overtakes, and the
    # sink's code is lost with it. It too is said once.
    overtaken = [line for line in said if "Internal error from Core" in line]
    assert len(overtaken) <= 1
    said = [line for line in said if line not in overtaken]
    assert len(said) == 2
    assert "RESOURCE_EXHAUSTED" in said[0]
    assert "UNAVAILABLE" in said[1]
    pauses_s = [b - a for a, b in zip(sink.opened_s, sink.opened_s[1:], strict=False)]
    # 0.1, 0.2, 0.4 and 0.8 s after a refusal; a stream that lasted is tried again sooner.
    assert pauses_s[3] > 2 * pauses_s[0] > 0.2
    assert pauses_s[4] < pauses_s[3]
