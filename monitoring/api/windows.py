"""Receives the windows that gateways push, where monitoring runs as a process of its own.

In the control process the controller of rollouts receives them, and hands each batch on.
"""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from access.bounds import BoundError
from access.identities import ForbiddenError
from access.interceptor import abort_refused, caller_identity
from access.requests import parse_request
from access.streams import OpenStreams, TooManyStreamsError
from monitoring.api.component import MonitoringComponent
from protos import window_pb2

Context = Any  # grpc.aio.ServicerContext, which is generic in the messages of each RPC


class WindowListener:
    """The service turnout.v1.WindowSink of a server of monitoring.

    A batch is acknowledged when it is received. It is written within seconds, and one that a kill
    loses shows as a gap in the numbers.
    """

    def __init__(self, component: MonitoringComponent) -> None:
        self._component = component
        self._streams = OpenStreams()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on *server*, which must not have started yet."""
        push: Any = grpc.stream_stream_rpc_method_handler(
            self.push, response_serializer=window_pb2.WindowAck.SerializeToString
        )
        service = window_pb2.DESCRIPTOR.services_by_name["WindowSink"].full_name
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Push": push}),)
        )

    async def push(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """Receive serialized turnout.v1.WindowBatch, and acknowledge each."""
        try:
            with self._streams.opened(context):
                source = window_pb2.Source()
                async for message in messages:
                    batch = parse_request(window_pb2.WindowBatch, message)
                    if not source.gateway:
                        caller_identity().check_speaks_for(batch.source.gateway)
                        source = batch.source
                    batch.source.CopyFrom(source)
                    if batch.sequence:
                        self._component.note_windows(batch)
                    await context.write(window_pb2.WindowAck(sequence=batch.sequence))
        except TooManyStreamsError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except ForbiddenError as error:
            await abort_refused(context, error)
        except (BoundError, DecodeError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
