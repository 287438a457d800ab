"""gRPC server reflection, v1 and v1alpha; both use the same messages."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from protos import open_inference_pb2, predict_pb2

SERVICES = (
    "turnout.v1.Predictor",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
REFLECTION_SERVICES = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)


class MethodReflectionServicer(reflection.aio.ReflectionServicer):
    """The library's reflection, which also knows methods.

    The protocol counts `SERVICE.METHOD` among the symbols, and ghz and grpcurl ask for it. The
    descriptor pool finds services and messages only.
    """

    async def ServerReflectionInfo(  # noqa: N802  the name in reflection.proto
        self,
        request_iterator: AsyncIterable[reflection_pb2.ServerReflectionRequest],
        context: Any,  # noqa: ANN401  untyped
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answer each request. A method's file is the file of its service."""
        asked: list[reflection_pb2.ServerReflectionRequest] = []

        async def service_requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            async for request in request_iterator:
                asked.append(request)
                service = _service_of_method(request.file_containing_symbol)
                if service:
                    yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)
                else:
                    yield request

        async for answer in super().ServerReflectionInfo(service_requests(), context):
            # The library answers each request once, in order, and repeats the request.
            answer.original_request.CopyFrom(asked.pop(0))
            yield answer


def _service_of_method(symbol: str) -> str:
    """Return the service of "SERVICE.METHOD"; empty if *symbol* is no method of one of ours."""
    service, _, method = symbol.rpartition(".")
    if service not in SERVICES:
        return ""
    pool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    methods = pool.FindServiceByName(service).methods_by_name
    return service if method in methods else ""


def reflection_methods() -> list[tuple[str, str, "grpc.RpcMethodHandler[Any, Any]"]]:
    """Return (service, method, handler) of both versions of the reflection service."""
    # Importing these modules registers their services in protobuf's descriptor pool.
    assert predict_pb2.DESCRIPTOR
    assert open_inference_pb2.DESCRIPTOR
    servicer = MethodReflectionServicer(SERVICES)  # type: ignore[no-untyped-call]
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [(name, "ServerReflectionInfo", method) for name in REFLECTION_SERVICES]
