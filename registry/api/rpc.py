"""From bytes on the wire to RegistryService and back: parse, admit, call, translate errors.

One wrapper for every RPC of the descriptor: an RPC without a rule in access.py is refused, a bad
request is INVALID_ARGUMENT, and of what nobody foresaw only an id leaves.
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

from protos import registry_pb2
from registry.api.access import Access
from registry.api.service import RegistryService
from registry.status import ERROR_METADATA_KEY, status_of_error
from registry.types import BadRequestError, RegistryFaultError

SERVICE = registry_pb2.DESCRIPTOR.services_by_name["Registry"]
RpcContext = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)


def registry_handlers(service: RegistryService, access: Access) -> grpc.GenericRpcHandler:
    """Return what a grpc.aio server needs to serve every RPC of turnout.v1.Registry."""
    return grpc.method_handlers_generic_handler(
        SERVICE.full_name,
        {method.name: _handler(method, service, access) for method in SERVICE.methods},
    )


def _handler(
    method: MethodDescriptor, service: RegistryService, access: Access
) -> "grpc.RpcMethodHandler[Any, Any]":
    kind: type[Message] = GetMessageClass(method.input_type)
    behaviour: Any = getattr(service, method.name)
    name = method.name

    async def unary(content: bytes, context: RpcContext) -> Message:
        try:
            who = access.authorise(name, _metadata(context))
            reply: Message = await behaviour(_parse(kind, content), who)
        except Exception as error:  # noqa: BLE001  nothing may leave but a status
            return await _abort_with(name, context, error)
        return reply

    async def taking_stream(contents: AsyncIterator[bytes], context: RpcContext) -> Message:
        try:
            who = access.authorise(name, _metadata(context))
            reply: Message = await behaviour(_parse_each(kind, contents), who)
        except Exception as error:  # noqa: BLE001  nothing may leave but a status
            return await _abort_with(name, context, error)
        return reply

    async def giving_stream(content: bytes, context: RpcContext) -> None:
        try:
            who = access.authorise(name, _metadata(context))
            async with aclosing(behaviour(_parse(kind, content), who)) as replies:
                async for reply in replies:
                    await context.write(reply)
        except Exception as error:  # noqa: BLE001  nothing may leave but a status
            await _abort_with(name, context, error)

    # No request_deserializer: grpcio would turn a bad protobuf into UNKNOWN, out of our hands.
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(taking_stream, None, _serialize)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(giving_stream, None, _serialize)
    return grpc.unary_unary_rpc_method_handler(unary, None, _serialize)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _metadata(context: RpcContext) -> list[tuple[str, str | bytes]]:
    return [(key, value) for key, value in context.invocation_metadata() or ()]


def _parse(kind: type[Message], content: bytes) -> Message:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise BadRequestError(
            f"{len(content)} bytes that are not a {kind.DESCRIPTOR.full_name}"
        ) from error


async def _parse_each(
    kind: type[Message], contents: AsyncIterator[bytes]
) -> AsyncIterator[Message]:
    async for content in contents:
        yield _parse(kind, content)


async def _abort_with(rpc: str, context: RpcContext, error: Exception) -> Message:
    """End the call: our errors in their own words, any other one as an id that the log explains."""
    if isinstance(error, grpc.RpcError | asyncio.CancelledError):
        raise error
    status = status_of_error(error)
    if status is None:
        error_id = secrets.token_hex(6)
        log.error("%s failed; error id %s", rpc, error_id, exc_info=error)
        error = RegistryFaultError(f"the registry failed; its log has the cause, error {error_id}")
        status = grpc.StatusCode.INTERNAL
    await context.abort(status, str(error), ((ERROR_METADATA_KEY, type(error).__name__),))
    raise AssertionError("abort raises")  # for readers and type checkers
