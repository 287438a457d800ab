"""gRPC server reflection, v1 and v1alpha; both use the same messages."""

from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

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


def reflection_methods() -> list[tuple[str, str, "grpc.RpcMethodHandler[Any, Any]"]]:
    """Return (service, method, handler) of both versions of the reflection service."""
    # Importing these modules registers their services in protobuf's descriptor pool.
    assert predict_pb2.DESCRIPTOR
    assert open_inference_pb2.DESCRIPTOR
    servicer: reflection_pb2_grpc.ServerReflectionServicer = reflection.aio.ReflectionServicer(  # type: ignore[no-untyped-call]
        SERVICES
    )
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [(name, "ServerReflectionInfo", method) for name in REFLECTION_SERVICES]
