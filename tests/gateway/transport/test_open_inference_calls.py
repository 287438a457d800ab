"""The Open Inference Protocol over gRPC, on the same port as Predict."""

import asyncio
import json
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from journal.prediction_id import read_prediction_id
from protos import open_inference_pb2 as oip
from protos.predict_pb2 import CANARY, PredictRequest, Row
from registry.types import Deployment
from tests.gateway.canary_at_half import closed_windows
from tests.gateway.gateway_fixture import (
    KEY,
    SALT,
    GatewayFixture,
    gateway_fixture,
    predict_request,
)
from tests.poll import wait_until
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

DEPLOYMENT = Deployment(
    model="churn",
    revision=3,
    production="1",
    canary="2",
    canary_bp=5_000,
    split_salt=SALT,
    holdout_salt=SALT,
    holdout_bp=3_000,
)
VERSIONS = {"1": tiny_files(), "2": tiny_files(golden_rows=4)}


async def call(
    gateway: GatewayFixture, method: str, request: Message, reply: type[Message]
) -> Message:
    """Call one method of the service."""
    path = f"/inference.GRPCInferenceService/{method}"
    raw = await gateway.channel.unary_unary(path)(request.SerializeToString(), timeout=5.0)
    return reply.FromString(raw)


async def infer(gateway: GatewayFixture, key: str, **more: object) -> oip.ModelInferResponse:
    """Infer one row of (1, 2, 3), typed."""
    request = oip.ModelInferRequest(model_name="churn", **more)  # type: ignore[arg-type]
    keys = request.inputs.add(name="keys", datatype="BYTES", shape=[1, 1])
    keys.contents.bytes_contents.append(key.encode())
    inputs = request.inputs.add(name="inputs", datatype="FP32", shape=[1, 3])
    inputs.contents.fp32_contents.extend([1, 2, 3])
    reply = await call(gateway, "ModelInfer", request, oip.ModelInferResponse)
    assert isinstance(reply, oip.ModelInferResponse)
    return reply


def test_model_infer_and_predict_give_the_same_answer() -> None:
    """For 60 keys score, version, role and holdout are equal, and prediction_id is valid."""

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, DEPLOYMENT) as gateway:
            roles = set()
            for number in range(60):
                key = f"S{number:07d}"
                infer_reply, predict_reply = await asyncio.gather(
                    infer(gateway, key, id="r-1"),
                    gateway.predict(predict_request(1, 2, 3, key=key)),
                )
                role = infer_reply.parameters["role"].string_param
                assert (infer_reply.id, infer_reply.model_version) == ("r-1", predict_reply.version)
                assert list(infer_reply.outputs[0].contents.fp32_contents) == list(
                    predict_reply.scores
                )
                assert infer_reply.parameters["holdout"].bool_param == predict_reply.holdout
                assert (role == "canary") == (predict_reply.role == CANARY)
                prediction = read_prediction_id(
                    b64decode(infer_reply.parameters["prediction_id"].string_param), KEY
                )
                assert prediction.holdout == predict_reply.holdout
                roles.add((role, predict_reply.holdout))
            assert len(roles) == 4

    asyncio.run(walk())


def test_model_infer_pins_a_version_and_counts_refusals_once() -> None:
    """model_version pins a version; each refusal is counted once."""

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, DEPLOYMENT) as gateway:
            pinned = await infer(gateway, "S1", model_version="2")
            assert pinned.parameters["role"].string_param == "pinned"
            for more, code in (
                ({"model_version": "9"}, grpc.StatusCode.NOT_FOUND),
                ({"raw_input_contents": [b""]}, grpc.StatusCode.INVALID_ARGUMENT),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await infer(gateway, "S1", **more)
                assert refused.value.code() == code

            def counted() -> dict[tuple[str, ...], int]:
                return {tuple(k): n for k, n in gateway.metrics.snapshot()["turnout_refusals"]}

            # The I/O thread sends a refusal before the event loop counts it.
            await wait_until(lambda: len(counted()) == 2)
            assert counted() == {
                ("churn", "NOT_FOUND", "pipeline"): 1,
                ("churn", "INVALID_ARGUMENT", "ingress"): 1,
            }
            assert gateway.refusals() == {("churn", "INVALID_ARGUMENT"): 1}

    asyncio.run(walk())


def test_open_inference_hides_shadows_from_pins() -> None:
    """A shadow is neither ready nor described nor pinned, as a version outside the deployment."""
    shadowed = replace(DEPLOYMENT, canary="", canary_bp=0, shadows=(("2", 1),))

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, shadowed) as gateway:
            answers = set()
            for version in ("2", "9"):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await infer(gateway, "S1", model_version=version)
                answers.add((refused.value.code(), refused.value.details().replace(version, "N")))
                request = oip.ModelReadyRequest(name="churn", version=version)
                ready = await call(gateway, "ModelReady", request, oip.ModelReadyResponse)
                assert ready == oip.ModelReadyResponse(ready=False)
            assert len(answers) == 1
            about = oip.ModelMetadataRequest(name="churn")
            metadata = await call(gateway, "ModelMetadata", about, oip.ModelMetadataResponse)
            assert isinstance(metadata, oip.ModelMetadataResponse)
            assert list(metadata.versions) == ["1"]

    asyncio.run(walk())


def test_open_inference_health_and_metadata_describe_the_deployment() -> None:
    """Models and versions that are not deployed are not ready; their metadata is NOT_FOUND."""

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, DEPLOYMENT) as gateway:
            # Check liveness, readiness and the server's name.
            for request, reply, field, expected in (
                (oip.ServerLiveRequest(), oip.ServerLiveResponse, "live", True),
                (oip.ServerReadyRequest(), oip.ServerReadyResponse, "ready", True),
                (oip.ModelReadyRequest(name="churn"), oip.ModelReadyResponse, "ready", True),
                (
                    oip.ModelReadyRequest(name="churn", version="2"),
                    oip.ModelReadyResponse,
                    "ready",
                    True,
                ),
                (
                    oip.ModelReadyRequest(name="churn", version="9"),
                    oip.ModelReadyResponse,
                    "ready",
                    False,
                ),
                (oip.ModelReadyRequest(name="fraud"), oip.ModelReadyResponse, "ready", False),
                (oip.ServerMetadataRequest(), oip.ServerMetadataResponse, "name", "turnout"),
            ):
                method = type(request).__name__.removesuffix("Request")
                answer = await call(gateway, method, request, reply)
                assert getattr(answer, field) == expected, request
            # A deployed model has metadata.
            request = oip.ModelMetadataRequest(name="churn")
            metadata = await call(gateway, "ModelMetadata", request, oip.ModelMetadataResponse)
            assert isinstance(metadata, oip.ModelMetadataResponse)
            tensors = [
                (t.name, t.datatype, list(t.shape)) for t in (*metadata.inputs, *metadata.outputs)
            ]
            assert tensors == [
                ("keys", "BYTES", [-1, 1]),
                ("inputs", "FP32", [-1, 3]),
                ("scores", "FP32", [-1, 1]),
            ]
            assert list(metadata.versions) == ["1", "2"]
            assert json.loads(metadata.properties["keys"]) == ["subscriber"]
            # Other models and versions have none.
            for absent in (
                oip.ModelMetadataRequest(name="fraud"),
                oip.ModelMetadataRequest(name="churn", version="9"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call(gateway, "ModelMetadata", absent, oip.ModelMetadataResponse)
                assert refused.value.code() == grpc.StatusCode.NOT_FOUND

    asyncio.run(walk())


def test_reflection_describes_the_open_inference_service() -> None:
    """Tools such as grpcurl find its methods."""

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files()}, Deployment(model="churn", production="1")
        ) as gateway:
            stub = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)  # type: ignore[no-untyped-call]
            request = reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="inference.GRPCInferenceService"
            )
            async for reply in stub.ServerReflectionInfo(iter([request])):
                files = reply.file_descriptor_response.file_descriptor_proto
                assert any(b"ModelInferRequest" in file for file in files)

    asyncio.run(walk())


def test_model_infer_and_predict_count_into_the_same_window() -> None:
    """One call of each protocol makes two answered calls."""

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files()}, Deployment(model="churn", production="1")
        ) as gateway:
            await infer(gateway, "S1")
            row = Row(keys=["S1"], inputs=[1, 2, 3])
            await gateway.predict(PredictRequest(model="churn", rows=[row]))
            assert closed_windows(gateway)["PRODUCTION"].calls.answered == 2

    asyncio.run(walk())


def test_methods_of_triton_that_the_page_lists_are_not_there() -> None:
    """A tool that needs one learns it at once; docs/calling.md says what to use instead."""
    page = (Path(__file__).parents[3] / "docs" / "calling.md").read_text(encoding="utf-8")
    table = page.partition("| method of Triton | use |\n")[2].partition("\n\n")[0]
    methods = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row)[:3]]
    methods = [name for name in methods if name.startswith(("Model", "Repository"))]
    methods.remove("ModelMetadata")  # named as the way out
    assert len(methods) == 6

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, DEPLOYMENT) as gateway:
            for method in methods:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call(gateway, method, oip.ModelMetadataRequest(), oip.ModelInferResponse)
                assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(walk())
