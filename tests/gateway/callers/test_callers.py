"""Callers with identities, on either server: who is served, with which models, and how much."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from gateway.settings import Settings
from protos.journal_pb2 import OutcomeRecord
from protos.open_inference_pb2 import ModelInferRequest, ModelMetadataRequest, ModelReadyRequest
from protos.predict_pb2 import (
    DescribeRequest,
    OutcomeRequest,
    PredictReply,
    PredictRequest,
    StreamReply,
)
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture, predict_request
from tests.gateway.transport.test_tls import Certificate, tls_channel, write_files
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

DEPLOYMENT = Deployment(
    model="churn", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
)
OTHER_MODEL = ({"1": tiny_files("nba")}, replace(DEPLOYMENT, model="nba"))
CALL = predict_request(1, 2, 3)
PREFIX = "/turnout.v1.Predictor/"
INFERENCE = "/inference.GRPCInferenceService/"
UNARY_METHODS = (
    PREFIX + "Predict",
    PREFIX + "ReportOutcome",
    PREFIX + "DescribeModel",
    INFERENCE + "ModelInfer",
    INFERENCE + "ServerLive",
    INFERENCE + "ServerReady",
    INFERENCE + "ModelReady",
    INFERENCE + "ServerMetadata",
    INFERENCE + "ModelMetadata",
)
STREAM_METHODS = (
    PREFIX + "PredictStream",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
Metadata = Sequence[tuple[str, str]]


def digest(token: str) -> str:
    """Return the SHA-256 of a token as the file has it."""
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(token: str) -> Metadata:
    """Return the metadata with a token."""
    return (("authorization", f"Bearer {token}"),)


def caller_table(name: str, more: str = "", token: str | None = None) -> str:
    """Return a caller of the file whose token is its name."""
    return f'[[callers]]\nname = "{name}"\ntoken_sha256 = ["{digest(token or name)}"]\n{more}\n'


def callers_file(folder: Path, *tables: str) -> Settings:
    """Write a callers file; return settings that name it."""
    path = folder / "callers.toml"
    path.with_suffix(".new").write_text("\n".join(tables))
    path.with_suffix(".new").rename(path)
    return Settings(callers_file=str(path))


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:  # noqa: ANN401  any call of grpc.aio
    """Return code and message with which a call ends."""
    return await call.code(), await call.details()


async def predict_status(
    channel: grpc.aio.Channel, metadata: Metadata, request: PredictRequest = CALL
) -> tuple[grpc.StatusCode, str]:
    """Return code and message of one Predict."""
    call = channel.unary_unary(PREFIX + "Predict")
    return await status_of(call(request.SerializeToString(), metadata=metadata, timeout=5.0))


def test_every_method_needs_an_identity_except_health(tmp_path: Path) -> None:
    """None, a wrong token, one without Bearer, an expired one, and two headers get one answer."""
    tables = [caller_table("crm"), caller_table("old", "expires = 2020-01-01T00:00:00Z")]
    strangers: list[Metadata] = [
        (),
        bearer("wrong"),
        bearer("old"),
        bearer(""),
        (("authorization", "crm"),),
        (("authorization", "Basic crm"),),
        (*bearer("crm"), *bearer("crm")),
        (("x-turnout-actor", "crm"),),
    ]

    async def walk() -> None:
        settings = callers_file(tmp_path, *tables)
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            # Every stranger asks each method.
            words = set()
            for metadata in strangers:
                for path in UNARY_METHODS:
                    call = gateway.channel.unary_unary(path)(b"\xff", metadata=metadata, timeout=5)
                    words.add(await status_of(call))
                for path in STREAM_METHODS:
                    stream = gateway.channel.stream_stream(path)(metadata=metadata, timeout=5)
                    words.add(await status_of(stream))
            ((code, message),) = words
            assert code == grpc.StatusCode.UNAUTHENTICATED
            assert message.startswith("this gateway serves callers that its callers file names")
            # Load balancers have no identity, and a known caller is served.
            check = gateway.channel.unary_unary("/grpc.health.v1.Health/Check")
            raw = await check(health_pb2.HealthCheckRequest().SerializeToString())
            assert health_pb2.HealthCheckResponse.FromString(raw).status == 1
            assert (await predict_status(gateway.channel, bearer("crm")))[0] == grpc.StatusCode.OK
            refused = {
                tuple(k): n for k, n in gateway.metrics.snapshot()["turnout_caller_refusals"]
            }
            assert refused == {("unknown", "UNAUTHENTICATED"): len(strangers) * 12}

    asyncio.run(walk())


def test_another_model_is_refused_in_the_same_words_whether_it_exists(tmp_path: Path) -> None:
    """A caller of churn asks for nba, which is served, and for a model that does not exist."""
    models = 'models = ["churn", "later"]'

    async def walk(gateway: GatewayFixture) -> None:
        # Each method is asked for a model that exists, and for one that does not.
        own = bearer("crm")
        words = set()
        for model in ("nba", "ghost"):
            predict = PredictRequest(model=model, rows=CALL.rows)
            entity = {"model": model, "keys": ["S1"], "event_time_ms": 1, "name": "churned"}
            for path, request in (
                (PREFIX + "Predict", predict),
                (PREFIX + "DescribeModel", DescribeRequest(model=model)),
                (PREFIX + "ReportOutcome", OutcomeRequest(**entity)),  # type: ignore[arg-type]
                (INFERENCE + "ModelInfer", ModelInferRequest(model_name=model)),
                (INFERENCE + "ModelReady", ModelReadyRequest(name=model)),
                (INFERENCE + "ModelMetadata", ModelMetadataRequest(name=model)),
            ):
                call = gateway.channel.unary_unary(path)
                words.add(await status_of(call(request.SerializeToString(), metadata=own)))
            # A stream goes on, with a status in the place of the reply.
            stream = gateway.channel.stream_stream(PREFIX + "PredictStream")(metadata=own)
            await stream.write(predict.SerializeToString())
            raw = await stream.read()
            assert isinstance(raw, bytes)
            status = StreamReply.FromString(raw).status
            words.add((grpc.StatusCode.PERMISSION_DENIED, status.message))
            assert status.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
            stream.cancel()
        ((code, _),) = words
        assert code == grpc.StatusCode.PERMISSION_DENIED
        # Its own models are served, or not found; a caller without a list may call all.
        assert (await predict_status(gateway.channel, own))[0] == grpc.StatusCode.OK
        later = PredictRequest(model="later", rows=CALL.rows)
        code, _ = await predict_status(gateway.channel, own, later)
        assert code == grpc.StatusCode.NOT_FOUND
        nba = PredictRequest(model="nba", rows=CALL.rows)
        code, _ = await predict_status(gateway.channel, bearer("all"), nba)
        assert code == grpc.StatusCode.OK

    async def run() -> None:
        settings = callers_file(tmp_path, caller_table("crm", models), caller_table("all"))
        async with gateway_fixture(
            {"1": tiny_files()}, DEPLOYMENT, settings=settings, others=[OTHER_MODEL]
        ) as gateway:
            await walk(gateway)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("quota", "rows", "what"),
    [("calls_s = 3", 1, "3 calls"), ("rows_s = 20", 10, "20 rows"), ("bytes_s = 100", 4, "bytes")],
)
def test_quota_refuses_with_a_pushback_and_others_go_on(
    tmp_path: Path, quota: str, rows: int, what: str
) -> None:
    """A caller above its rate waits; another caller is served; later the first is served again."""

    async def walk() -> None:
        settings = callers_file(tmp_path, caller_table("loud", quota), caller_table("other"))
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            request = predict_request(1, 2, 3, rows=rows).SerializeToString()
            predict = gateway.channel.unary_unary(PREFIX + "Predict")
            calls = [predict(request, metadata=bearer("loud"), timeout=5.0) for _ in range(40)]
            codes = [await call.code() for call in calls]
            assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            refused = calls[codes.index(grpc.StatusCode.RESOURCE_EXHAUSTED)]
            assert "caller 'loud' is above its quota of" in await refused.details()
            assert what in await refused.details()
            pushback = dict(await refused.trailing_metadata())["grpc-retry-pushback-ms"]
            assert 10 <= int(pushback) <= 5_000
            other = await predict_status(gateway.channel, bearer("other"))
            assert other[0] == grpc.StatusCode.OK
            # The quota is a rate, so the caller is served again.
            async with asyncio.timeout(10.0):
                while (await predict_status(gateway.channel, bearer("loud")))[0].value[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    asyncio.run(walk())


def test_streams_and_connections_of_a_caller_are_bounded(tmp_path: Path) -> None:
    """Two open streams over one connection are all that this caller may have."""

    async def walk() -> None:
        table = caller_table("crm", "streams = 2\nconnections = 1")
        settings = callers_file(tmp_path, table, caller_table("other"))
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            method = gateway.channel.stream_stream(PREFIX + "PredictStream")
            streams = []
            for _ in range(2):
                stream = method(metadata=bearer("crm"))
                await stream.write(CALL.SerializeToString())
                assert isinstance(await stream.read(), bytes)
                streams.append(stream)
            code, message = await predict_status(gateway.channel, bearer("crm"))
            assert (code, "2 open calls" in message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
            own = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", own) as second:
                code, message = await predict_status(second, bearer("crm"))
                assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "1 connections" in message
                assert (await predict_status(second, bearer("other")))[0] == grpc.StatusCode.OK
            # Its streams end, and there is room again.
            for stream in streams:
                stream.cancel()
            async with asyncio.timeout(10.0):
                while (await predict_status(gateway.channel, bearer("crm")))[0].value[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    asyncio.run(walk())


def test_changed_file_revokes_a_token_without_a_restart(tmp_path: Path) -> None:
    """A file that is not valid changes nothing; the next one takes the token away."""

    async def walk() -> None:
        settings = callers_file(tmp_path, caller_table("crm"), caller_table("nba"))
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            assert (await predict_status(gateway.channel, bearer("crm")))[0] == grpc.StatusCode.OK
            callers_file(tmp_path, "[[callers]]\nname = 7")
            callers_file(tmp_path, caller_table("nba"), caller_table("new"))

            async def refused() -> bool:
                code, _ = await predict_status(gateway.channel, bearer("crm"))
                return code == grpc.StatusCode.UNAUTHENTICATED

            async with asyncio.timeout(10.0):
                while not await refused():  # noqa: ASYNC110  no event announces the new file
                    await asyncio.sleep(0.05)
            for name in ("nba", "new"):
                code, _ = await predict_status(gateway.channel, bearer(name))
                assert code == grpc.StatusCode.OK

    asyncio.run(walk())


def test_outcome_record_and_window_name_the_caller(tmp_path: Path) -> None:
    """Two callers use one idempotency key; each report is kept under its caller's name."""

    async def walk() -> None:
        settings = callers_file(tmp_path, caller_table("crm"), caller_table("nba"))
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            predict = gateway.channel.unary_unary(PREFIX + "Predict")
            raw = await predict(CALL.SerializeToString(), metadata=bearer("crm"))
            request = OutcomeRequest(
                prediction_id=PredictReply.FromString(raw).prediction_id,
                name="churned",
                idempotency_key="order-1",
            )
            report = gateway.channel.unary_unary(PREFIX + "ReportOutcome")
            for name in ("crm", "nba", "nba"):
                await report(request.SerializeToString(), metadata=bearer(name))
            records = [OutcomeRecord.FromString(raw) for raw in gateway.outcomes.records]
            assert [record.caller for record in records] == ["crm", "nba"]

    asyncio.run(walk())


def test_client_certificate_identifies_its_caller(tmp_path: Path) -> None:
    """The DNS name of the verified certificate counts; a token, if there is one, comes first."""
    authority = Certificate("authority")
    server = Certificate("localhost", authority)
    crm, stranger = Certificate("a", authority, "crm.example"), Certificate("b", authority, "x.org")
    table = '[[callers]]\nname = "crm"\ncertificates = ["crm.example"]\n'

    async def walk() -> None:
        named = callers_file(tmp_path, table, caller_table("nba"))
        settings = replace(
            write_files(tmp_path, server, authority), callers_file=named.callers_file
        )
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            for client, metadata, expected in (
                (crm, (), grpc.StatusCode.OK),
                (stranger, (), grpc.StatusCode.UNAUTHENTICATED),
                (stranger, bearer("nba"), grpc.StatusCode.OK),
                (crm, bearer("wrong"), grpc.StatusCode.UNAUTHENTICATED),
            ):
                async with tls_channel(gateway.port, authority, client) as channel:
                    assert (await predict_status(channel, metadata))[0] == expected

    asyncio.run(walk())


def test_client_certificate_with_a_uri_identifies_its_caller(tmp_path: Path) -> None:
    """SPIFFE names are compared whole; another authority's certificate proves nothing."""
    authority, evil = Certificate("authority"), Certificate("authority")
    server = Certificate("localhost", authority)
    uri = "spiffe://example.org/crm"
    table = f'[[callers]]\nname = "crm"\ncertificates = ["{uri}"]\n'
    strangers = [
        Certificate("b", authority, uri=text)
        for text in (uri + "2", uri + "/x", uri[:-1], "spiffe://example.com/crm")
    ]

    async def walk() -> None:
        named = callers_file(tmp_path, table)
        settings = replace(
            write_files(tmp_path, server, authority), callers_file=named.callers_file
        )
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            crm = Certificate("a", authority, uri=uri)
            async with tls_channel(gateway.port, authority, crm) as channel:
                assert (await predict_status(channel, ()))[0] == grpc.StatusCode.OK
            for stranger in strangers:
                async with tls_channel(gateway.port, authority, stranger) as channel:
                    status, _ = await predict_status(channel, ())
                    assert status == grpc.StatusCode.UNAUTHENTICATED
            async with tls_channel(
                gateway.port, authority, Certificate("a", evil, uri=uri)
            ) as channel:
                assert (await predict_status(channel, ()))[0] == grpc.StatusCode.UNAVAILABLE

    asyncio.run(walk())


def test_made_up_tokens_are_refused(tmp_path: Path) -> None:
    """600 made-up tokens are refused, and the caller is served as before."""

    async def walk() -> None:
        settings = callers_file(tmp_path, caller_table("crm"))
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            for _ in range(20):
                made_up = [bearer(os.urandom(8).hex()) for _ in range(30)]
                codes = await asyncio.gather(
                    *(predict_status(gateway.channel, token) for token in made_up)
                )
                assert {code for code, _ in codes} == {grpc.StatusCode.UNAUTHENTICATED}
            assert (await predict_status(gateway.channel, bearer("crm")))[0] == grpc.StatusCode.OK

    asyncio.run(walk())
