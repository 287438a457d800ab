"""Receives the windows that gateways push.

A batch is acknowledged when it is in the checkpoint of every active rollout. Until then the gateway
keeps it and sends it again after a broken stream.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from access.bounds import BoundError, check_request
from access.streams import OpenStreams, TooManyStreamsError
from protos import window_pb2, window_pb2_grpc
from rollout.controller.controller import Controller
from rollout.errors import NotLeadingError
from rollout.evidence.inbox import source_name


class WindowSinkService(window_pb2_grpc.WindowSinkServicer):
    """The service turnout.v1.WindowSink of one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._streams = OpenStreams()

    async def Push(  # noqa: N802  the name in window.proto
        self,
        request_iterator: AsyncIterator[window_pb2.WindowBatch],
        context: "grpc.aio.ServicerContext[window_pb2.WindowBatch, window_pb2.WindowAck]",
    ) -> None:
        """Acknowledge what is saved of the source, then receive batches and acknowledge them."""
        try:
            with self._streams.opened(context):
                await self._push(request_iterator, context)
        except TooManyStreamsError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except BoundError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _push(
        self,
        request_iterator: AsyncIterator[window_pb2.WindowBatch],
        context: "grpc.aio.ServicerContext[window_pb2.WindowBatch, window_pb2.WindowAck]",
    ) -> None:
        # The opening message names the source.
        opening = await anext(aiter(request_iterator), None)
        if opening is None:
            return
        check_request(opening)
        if not opening.source.gateway or opening.windows or opening.sequence:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the first message names its source and carries nothing else",
            )
        if not self._controller.leading:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "this controller does not act now; try again"
            )
        # Tell the gateway where to go on, and read its batches in a task.
        source = source_name(opening.source)
        acknowledged = self._controller.acknowledged_sequence(source)
        await context.write(window_pb2.WindowAck(sequence=acknowledged))
        reading: asyncio.Future[Any] = asyncio.ensure_future(
            self._receive_batches(request_iterator, opening.source)
        )
        # Acknowledge whenever more was saved, until the stream ends.
        try:
            while not reading.done():
                await self._wait_for_change(reading)
                saved = self._controller.acknowledged_sequence(source)
                if saved > acknowledged:
                    acknowledged = saved
                    await context.write(window_pb2.WindowAck(sequence=acknowledged))
            reading.result()
        except NotLeadingError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            reading.cancel()

    async def _receive_batches(
        self, batches: AsyncIterator[window_pb2.WindowBatch], source: window_pb2.Source
    ) -> None:
        async for batch in batches:
            check_request(batch)
            if not batch.source.gateway:
                batch.source.CopyFrom(source)
            self._controller.receive(batch)

    async def _wait_for_change(self, reading: "asyncio.Future[Any]") -> None:
        """Return when something was saved or the stream ended.

        Raises NotLeadingError if another controller leads.
        """
        changed: asyncio.Future[Any] = asyncio.ensure_future(self._controller.status_changed.wait())
        try:
            await asyncio.wait({changed, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await changed
        if not self._controller.leading:
            raise NotLeadingError("another controller acts now; send the rest to it")
