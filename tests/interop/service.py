"""grpc.testing.TestService as handlers for both ingresses, and its message classes."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from gateway.errors import SettingsError
from gateway.internal_error_log import InternalErrorLog
from gateway.native_library import load_native_library
from gateway.settings import Settings
from gateway.status import Refusal
from gateway.transport.grpcio.server import GrpcioServer, Handlers
from gateway.transport.native.server import NativeServer
from host.clock import SystemClock

HERE = Path(__file__).parent
SERVICE = "grpc.testing.TestService"
ECHO_INITIAL, ECHO_TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}

Context = Any
"""grpc.aio.ServicerContext, or the context of the native ingress."""


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    """Compile interop.proto once a process and in memory, so that no package contains it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "interop.pb"
        include = str(files("grpc_tools") / "_proto")
        line = ["protoc", f"-I{HERE}", f"-I{include}", f"--descriptor_set_out={out}"]
        assert protoc.main([*line, "interop.proto"]) == 0  # type: ignore[no-untyped-call]
        file_set = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in file_set.file:
        pool.Add(file)  # type: ignore[no-untyped-call]
    return pool


@cache
def message_class(name: str) -> Any:  # noqa: ANN401  a class that protobuf makes
    """Return the message class grpc.testing.*name*."""
    descriptor = _pool().FindMessageTypeByName(f"grpc.testing.{name}")  # type: ignore[no-untyped-call]
    return message_factory.GetMessageClass(descriptor)


def zero_payload(size: int) -> Any:  # noqa: ANN401
    """Return a payload of *size* bytes."""
    return message_class("Payload")(body=bytes(size))


async def _echo_metadata(context: Context) -> None:
    """Send back the metadata of the custom_metadata case."""
    received = {name: value for name, value in context.invocation_metadata() or ()}  # noqa: C416
    if ECHO_INITIAL in received:
        await context.send_initial_metadata(((ECHO_INITIAL, received[ECHO_INITIAL]),))
    if ECHO_TRAILING in received:
        context.set_trailing_metadata(((ECHO_TRAILING, received[ECHO_TRAILING]),))


async def _echo_status(request: Any, context: Context) -> None:  # noqa: ANN401
    status = request.response_status
    if status.code:
        await context.abort(CODES[status.code], status.message)


async def empty_call(request: object, context: Context) -> Any:  # noqa: ANN401
    """Return an empty message."""
    del request
    await _echo_metadata(context)
    return message_class("Empty")()


async def unary_call(request: Any, context: Context) -> Any:  # noqa: ANN401
    """Return a payload of the requested size, or end with the requested status."""
    await _echo_metadata(context)
    await _echo_status(request, context)
    return message_class("SimpleResponse")(payload=zero_payload(request.response_size))


async def streaming_output(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
    """Yield a message of each requested size, after its requested interval."""
    del context
    for parameters in request.response_parameters:
        await asyncio.sleep(parameters.interval_us / 1e6)
        yield message_class("StreamingOutputCallResponse")(payload=zero_payload(parameters.size))


async def streaming_input(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401
    """Return the total size of all payloads."""
    del context
    total = 0
    async for request in requests:
        total += len(request.payload.body)
    return message_class("StreamingInputCallResponse")(aggregated_payload_size=total)


async def full_duplex(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
    """Answer each message when it comes, as streaming_output does."""
    await _echo_metadata(context)
    async for request in requests:
        await _echo_status(request, context)
        async for reply in streaming_output(request, context):
            yield reply


def test_service_handlers() -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
    """Return method -> handler of the service; UnimplementedCall is left out on purpose."""
    unary_unary, unary_stream = (
        grpc.unary_unary_rpc_method_handler,
        grpc.unary_stream_rpc_method_handler,
    )
    stream_unary, stream_stream = (
        grpc.stream_unary_rpc_method_handler,
        grpc.stream_stream_rpc_method_handler,
    )
    methods: dict[str, tuple[Any, Any, str]] = {
        "EmptyCall": (unary_unary, empty_call, "Empty"),
        "UnaryCall": (unary_unary, unary_call, "SimpleRequest"),
        "StreamingOutputCall": (unary_stream, streaming_output, "StreamingOutputCallRequest"),
        "StreamingInputCall": (stream_unary, streaming_input, "StreamingInputCallRequest"),
        "FullDuplexCall": (stream_stream, full_duplex, "StreamingOutputCallRequest"),
    }
    return {
        name: kind(
            behaviour,
            request_deserializer=message_class(request).FromString,
            response_serializer=_bytes,
        )
        for name, (kind, behaviour, request) in methods.items()
    }


def _bytes(reply: Any) -> bytes:  # noqa: ANN401
    serialized: bytes = reply.SerializeToString()
    return serialized


class _GrpcioServerWithTestService(GrpcioServer):
    """The grpcio ingress with one more service."""

    def _handlers(self) -> Handlers:
        test_service: Any = {SERVICE: test_service_handlers()}
        return {**super()._handlers(), **test_service}


def _ignore_refusals(model: str, refusal: Refusal, count: int) -> None:
    """Take a count of refused predictions, of which there are none here."""


def ingress_with_test_service(
    ingress: str, faults: InternalErrorLog
) -> GrpcioServer | NativeServer:
    """Return an ingress that serves the test service and no Predict."""
    # Cases of the interop test send 271,828 bytes to methods that score nothing.
    settings = Settings(unscored_message_bytes_max=4 * 1024 * 1024)
    clock = SystemClock()
    methods: Mapping[str, Any] = {}
    if ingress == "grpcio":
        return _GrpcioServerWithTestService(settings, clock, faults, _ignore_refusals, methods)
    module = load_native_library()
    if module is None:
        raise SettingsError("turnout_ingress is not built; tests.front_doors marks what needs it")
    extra = {f"/{SERVICE}/{name}": handler for name, handler in test_service_handlers().items()}
    return NativeServer(module, settings, clock, faults, _ignore_refusals, methods, extra)
