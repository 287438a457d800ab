"""The standard services of a gRPC server: health with its watch, and both reflections."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

DEPLOYMENT = Deployment(
    model="churn", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def watch(gateway: GatewayFixture, service: str) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
    """Open Health.Watch."""
    method = gateway.channel.unary_stream("/grpc.health.v1.Health/Watch")
    return method(health_pb2.HealthCheckRequest(service=service).SerializeToString())


async def status_of(call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> int:
    """Read the next status of a watch."""
    async with asyncio.timeout(5.0):
        answer = await call.read()
    assert isinstance(answer, bytes)
    return health_pb2.HealthCheckResponse.FromString(answer).status


def test_health_service_answers_check_and_watch_by_service_name() -> None:
    """The server and "churn" serve, "fraud" is NOT_FOUND; a watch sees each change."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            check = gateway.channel.unary_unary("/grpc.health.v1.Health/Check")
            for name in ("", "churn"):
                raw = await check(health_pb2.HealthCheckRequest(service=name).SerializeToString())
                assert health_pb2.HealthCheckResponse.FromString(raw).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await check(health_pb2.HealthCheckRequest(service="fraud").SerializeToString())
            assert raised.value.code() == grpc.StatusCode.NOT_FOUND

            known, unknown = watch(gateway, "churn"), watch(gateway, "fraud")
            assert (await status_of(known), await status_of(unknown)) == (SERVING, UNKNOWN)
            await gateway.ingress_server.show_health({"churn": False, "fraud": True})
            assert (await status_of(known), await status_of(unknown)) == (NOT_SERVING, SERVING)

    asyncio.run(walk())


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_services_and_describes_predict(version: str) -> None:
    """A tool like grpcurl first requests the list, then the file that defines a symbol."""
    reflect = reflection_pb2.ServerReflectionRequest
    requests = [
        reflect(list_services=""),
        reflect(file_containing_symbol="turnout.v1.Predictor"),
        reflect(file_containing_symbol="turnout.v1.Unknown"),
        # ghz and `grpcurl describe` ask for methods.
        reflect(file_containing_symbol="turnout.v1.Predictor.Predict"),
        reflect(file_containing_symbol="grpc.health.v1.Health.Check"),
        reflect(file_containing_symbol="turnout.v1.Predictor.Unknown"),
    ]

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            name = f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            call = gateway.channel.stream_stream(f"/{name}")(
                iter(request.SerializeToString() for request in requests)
            )
            answers = [
                reflection_pb2.ServerReflectionResponse.FromString(raw) async for raw in call
            ]
            # The list, and files of services and methods.
            services = {service.name for service in answers[0].list_services_response.service}
            assert {"turnout.v1.Predictor", "grpc.health.v1.Health"} <= services
            files = answers[1].file_descriptor_response.file_descriptor_proto
            assert any(b"PredictRequest" in file for file in files)
            # What no service has.
            for unknown in (answers[2], answers[5]):
                assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
            assert answers[3].file_descriptor_response == answers[1].file_descriptor_response
            (health, *_) = answers[4].file_descriptor_response.file_descriptor_proto
            assert b"HealthCheckRequest" in health
            assert [answer.original_request for answer in answers] == requests

    asyncio.run(walk())
