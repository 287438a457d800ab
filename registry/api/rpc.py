"""Connects gRPC to RegistryService: parses, calls the method, translates errors.

Every RPC of the service descriptor gets the same wrapper. The server's AccessInterceptor has let
the call in. Bytes that do not parse are INVALID_ARGUMENT. Of an unexpected error the caller sees an
id only, and the log has the cause.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from access.bounds import BoundError
from access.identities import ForbiddenError
from access.interceptor import abort_refused, caller_identity
from access.requests import parse_request
from access.streams import OpenStreams, TooManyStreamsError
from protos import registry_pb2
from registry.api.service import RegistryService
from registry.status import ERROR_METADATA_KEY, status_of_error
from registry.types import BadRequestError, RegistryFaultError

SERVICE = registry_pb2.DESCRIPTOR.services_by_name["Registry"]
RpcContext = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)


def registry_handlers(service: RegistryService) -> grpc.GenericRpcHandler:
    """Return the handler with which a grpc.aio server serves every RPC of turnout.v1.Registry."""
    streams = OpenStreams()
    return grpc.method_handlers_generic_handler(
        SERVICE.full_name,
        {method.name: _handler(method, service, streams) for method in SERVICE.methods},
    )


def _handler(
    method: MethodDescriptor, service: RegistryService, streams: OpenStreams
) -> "grpc.RpcMethodHandler[Any, Any]":
    request_type: type[Message] = GetMessageClass(method.input_type)
    behaviour: Any = getattr(service, method.name)
    name = method.name

    parse: Any = _parse_each if method.client_streaming else _parse

    # *content* is bytes, or a stream of bytes.
    async def reply_once(content: Any, context: RpcContext) -> Message:  # noqa: ANN401
        try:
            reply: Message = await behaviour(parse(request_type, content), caller_identity())
        except Exception as error:  # noqa: BLE001  callers must see a status only
            return await _abort_with(name, context, error)
        return reply

    async def reply_stream(content: bytes, context: RpcContext) -> None:
        try:
            replies = behaviour(parse(request_type, content), caller_identity())
            with streams.opened(context):
                async with aclosing(replies):
                    async for reply in replies:
                        await context.write(reply)
        except TooManyStreamsError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except Exception as error:  # noqa: BLE001  callers must see a status only
            await _abort_with(name, context, error)

    # Requests are parsed above: with a request_deserializer grpcio makes bad bytes UNKNOWN.
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(reply_once, None, _serialize)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(reply_stream, None, _serialize)
    return grpc.unary_unary_rpc_method_handler(reply_once, None, _serialize)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _parse(request_type: type[Message], content: bytes) -> Message:
    try:
        return parse_request(request_type, content)
    except BoundError as error:
        raise BadRequestError(str(error)) from error
    except DecodeError as error:
        raise BadRequestError(
            f"the request has {len(content)} bytes that are not a "
            f"{request_type.DESCRIPTOR.full_name}"
        ) from error


async def _parse_each(
    request_type: type[Message], contents: AsyncIterator[bytes]
) -> AsyncIterator[Message]:
    async for content in contents:
        yield _parse(request_type, content)


async def _abort_with(rpc: str, context: RpcContext, error: Exception) -> Message:
    """End the call with the status of *error*, or with INTERNAL and an id that is in the log."""
    if isinstance(error, grpc.RpcError | asyncio.CancelledError):
        raise error
    if isinstance(error, ForbiddenError):
        await abort_refused(context, error)
    status = status_of_error(error)
    if status is None:
        error_id = secrets.token_hex(6)
        log.error("%s failed; error id %s", rpc, error_id, exc_info=error)
        error = RegistryFaultError(f"the registry failed; its log has the cause, error {error_id}")
        status = grpc.StatusCode.INTERNAL
    await context.abort(status, str(error), ((ERROR_METADATA_KEY, type(error).__name__),))
    raise AssertionError("abort raises")  # type checkers do not know that abort never returns
