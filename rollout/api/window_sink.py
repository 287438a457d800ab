"""Where gateways push their windows: taken, kept in the registry, and only then acknowledged."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from protos import window_pb2, window_pb2_grpc
from rollout.controller.controller import Controller
from rollout.errors import NotLeadingError
from rollout.evidence.inbox import source_name


class WindowSinkService(window_pb2_grpc.WindowSinkServicer):
    """turnout.v1.WindowSink of one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def Push(  # noqa: N802  the name in window.proto
        self,
        request_iterator: AsyncIterator[window_pb2.WindowBatch],
        context: "grpc.aio.ServicerContext[window_pb2.WindowBatch, window_pb2.WindowAck]",
    ) -> None:
        """Say what is held of the source, then take batches and acknowledge what is kept."""
        hello = await anext(aiter(request_iterator), None)
        if hello is None:
            return
        if not hello.source.gateway or hello.windows or hello.sequence:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the first message names its source and carries nothing else",
            )
        if not self._controller.leading:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "this controller does not act now; try again"
            )
        source = source_name(hello.source)
        acked = self._controller.acknowledged_sequence(source)
        await context.write(window_pb2.WindowAck(sequence=acked))
        reading: asyncio.Future[Any] = asyncio.ensure_future(
            self._receive_batches(request_iterator, hello.source)
        )
        try:
            while not reading.done():
                await self._wait_for_change(reading)
                kept = self._controller.acknowledged_sequence(source)
                if kept > acked:
                    acked = kept
                    await context.write(window_pb2.WindowAck(sequence=acked))
            reading.result()
        except NotLeadingError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            reading.cancel()

    async def _receive_batches(
        self, batches: AsyncIterator[window_pb2.WindowBatch], source: window_pb2.Source
    ) -> None:
        async for batch in batches:
            if not batch.source.gateway:
                batch.source.CopyFrom(source)
            self._controller.receive(batch)

    async def _wait_for_change(self, reading: "asyncio.Future[Any]") -> None:
        """Return when something was kept, leadership passed on, or the stream ended."""
        told: asyncio.Future[Any] = asyncio.ensure_future(self._controller.status_changed.wait())
        try:
            await asyncio.wait({told, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await told
        if not self._controller.leading:
            raise NotLeadingError("another controller acts now; send the rest to it")
