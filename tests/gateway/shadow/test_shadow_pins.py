"""Pins of shadows: by permission only, answered by the shadow's own process, on either server."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from gateway.settings import Settings
from journal.prediction_id import read_prediction_id
from protos import open_inference_pb2 as oip
from protos.predict_pb2 import PINNED, PRODUCTION, PredictReply, StreamReply
from protos.registry_pb2 import ServingPolicy
from protos.window_pb2 import Arm, HardGuard
from tests.fatal_models import crashing_files
from tests.gateway.callers.test_callers import bearer, caller_table, callers_file
from tests.gateway.canary_at_half import DOUBLED_WEIGHTS, PRODUCTION_ONLY
from tests.gateway.gateway_fixture import KEY, GatewayFixture, gateway_fixture, predict_request
from tests.poll import wait_until
from tests.tiny_models import tiny_files
from tests.walks.models.test_isolation import on_x86

pytestmark = pytest.mark.walk

SHADOWED = replace(PRODUCTION_ONLY, shadows=(("2", 0),))
VERSIONS = {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS)}


def callers(folder: Path) -> Settings:
    """Return settings with two callers: dana may pin every version of churn, crm may not."""
    return callers_file(folder, caller_table("dana", 'pins = ["churn"]'), caller_table("crm"))


async def predict(
    gateway: GatewayFixture, caller: str, version: str, first: float = 1.0, within_s: float = 20.0
) -> PredictReply:
    """Pin *version* as a caller."""
    call = gateway.channel.unary_unary("/turnout.v1.Predictor/Predict")
    request = predict_request(first, 2, 3, version=version)
    raw = await call(request.SerializeToString(), metadata=bearer(caller), timeout=within_s)
    return PredictReply.FromString(raw)


async def answer_once_started(gateway: GatewayFixture) -> PredictReply:
    """Pin the shadow as dana, again while its process starts, as the refusal says; return a reply.

    The first call starts the process, which takes long on a busy machine.
    """
    async with asyncio.timeout(60.0):
        while True:
            try:
                return await predict(gateway, "dana", "2")
            except grpc.aio.AioRpcError as error:
                if (error.code(), error.details()) != unavailable():
                    raise


async def refusal(
    gateway: GatewayFixture, caller: str, version: str, first: float = 1.0, within_s: float = 20.0
) -> tuple[grpc.StatusCode, str]:
    """Pin *version* as a caller; return the status, or fail if there is an answer."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await predict(gateway, caller, version, first, within_s)
    return refused.value.code(), refused.value.details() or ""


def no_answer(version: str) -> tuple[grpc.StatusCode, str]:
    """Return what a pin of a version that does not exist is told."""
    return (
        grpc.StatusCode.NOT_FOUND,
        f"version '{version}' of model 'churn' answers no pinned call; production, standby and "
        "canary do, and DescribeModel lists them",
    )


def unavailable() -> tuple[grpc.StatusCode, str]:
    """Return what a pin of a shadow is told whose process does not answer."""
    return (
        grpc.StatusCode.UNAVAILABLE,
        "the process of shadow '2' of model 'churn' is starting, busy or has ended, and no other "
        "process answers for it; retry",
    )


def test_pinned_shadow_is_answered_by_its_own_process_for_a_permitted_caller(
    tmp_path: Path,
) -> None:
    """It answers by each method, though the worker's copy of the version cannot score."""

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, SHADOWED, settings=callers(tmp_path)) as gateway:
            routes = gateway.routes.get("churn")
            assert routes is not None
            ((shadow, _),) = routes.shadows
            shadow.version.executor.close()
            shadow.version.executor.scorer = None  # type: ignore[assignment]
            # Predict.
            reply = await answer_once_started(gateway)
            assert (reply.version, reply.role) == ("2", PINNED)
            assert round(reply.scores[0], 4) == 2.8
            assert read_prediction_id(reply.prediction_id, KEY).role == PINNED
            assert gateway.parts.shadows.pids()["2"] not in (0, os.getpid())
            # PredictStream.
            path = "/turnout.v1.Predictor/PredictStream"
            stream = gateway.channel.stream_stream(path)(metadata=bearer("dana"), timeout=20.0)
            await stream.write(predict_request(1, 2, 3, version="2").SerializeToString())
            await stream.done_writing()
            answer = StreamReply.FromString(await stream.read())
            assert (answer.reply.version, answer.reply.role) == ("2", PINNED)
            # ModelInfer and ModelReady.
            request = oip.ModelInferRequest(model_name="churn", model_version="2")
            keys = request.inputs.add(name="keys", datatype="BYTES", shape=[1, 1])
            keys.contents.bytes_contents.append(b"S1")
            inputs = request.inputs.add(name="inputs", datatype="FP32", shape=[1, 3])
            inputs.contents.fp32_contents.extend([1, 2, 3])
            for caller, ready in (("dana", True), ("crm", False)):
                raw = await gateway.channel.unary_unary(
                    "/inference.GRPCInferenceService/ModelReady"
                )(
                    oip.ModelReadyRequest(name="churn", version="2").SerializeToString(),
                    metadata=bearer(caller),
                )
                assert oip.ModelReadyResponse.FromString(raw).ready == ready
            raw = await gateway.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
                request.SerializeToString(), metadata=bearer("dana"), timeout=20.0
            )
            assert oip.ModelInferResponse.FromString(raw).model_version == "2"
            # The calls are counted as pinned, and are no evidence.
            pinned = [w for w in gateway.close_windows() if Arm.Name(w.arm) == "ARM_PINNED"]
            assert sum(window.calls.answered for window in pinned) == 3

    asyncio.run(walk())


def test_shadow_answers_no_pin_without_permission(tmp_path: Path) -> None:
    """Another caller gets the words of a version that does not exist; so does a role."""

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, SHADOWED, settings=callers(tmp_path)) as gateway:
            for caller, version in (("crm", "2"), ("crm", "9"), ("dana", "9"), ("dana", "shadow")):
                assert await refusal(gateway, caller, version) == no_answer(version)
            assert (await predict(gateway, "crm", "1")).role == PINNED
            assert not gateway.parts.shadows.pids()

    asyncio.run(walk())


def test_shadow_without_room_is_unavailable_at_once(tmp_path: Path) -> None:
    """The bound on rows that wait for shadows holds for pinned calls, too."""
    settings = replace(callers(tmp_path), shadow_rows_waiting_max=0)

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, SHADOWED, settings=settings) as gateway:
            assert await refusal(gateway, "dana", "2") == unavailable()
            assert not gateway.parts.shadows.pids()

    asyncio.run(walk())


def test_pinned_call_of_a_stopped_shadow_delays_no_other_call(tmp_path: Path) -> None:
    """With one batch slot, calls are answered while it waits; it is refused before its deadline."""
    settings = replace(callers(tmp_path), batches_in_flight_max=1)

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, SHADOWED, settings=settings) as gateway:
            await answer_once_started(gateway)
            pid = gateway.parts.shadows.pids()["2"]
            os.kill(pid, signal.SIGSTOP)
            try:
                waiting = asyncio.create_task(refusal(gateway, "dana", "2", within_s=3.0))
                await wait_until(lambda: gateway.parts.shadows.rows_waiting == 1)
                for _ in range(5):
                    assert (await predict(gateway, "crm", "", within_s=2.0)).role == PRODUCTION
                assert not waiting.done()
                assert await waiting == unavailable()
                assert gateway.parts.shadows.rows_waiting == 0
                assert gateway.ingress_server.rows_inside == 0
            finally:
                os.kill(pid, signal.SIGCONT)
            assert (await predict(gateway, "dana", "2")).version == "2"

    asyncio.run(walk())


@on_x86
def test_pinned_shadow_that_crashes_ends_its_process_only(tmp_path: Path) -> None:
    """Two crashes condemn it on this worker, with one guard; production answers throughout."""
    versions = {"1": tiny_files(), "2": crashing_files(when=5.0)}

    async def walk() -> None:
        async with gateway_fixture(versions, SHADOWED, settings=callers(tmp_path)) as gateway:

            async def crash() -> bool:
                answer = await refusal(gateway, "dana", "2", first=9.0)
                assert answer in (unavailable(), no_answer("2"))
                assert (await predict(gateway, "crm", "", first=9.0)).role == PRODUCTION
                return answer == no_answer("2")

            async with asyncio.timeout(60.0):
                while not await crash():
                    pass
            (guard,) = gateway.guards
            assert (guard.kind, guard.version) == (HardGuard.PROCESS_DIED, "2")

    asyncio.run(walk())


def test_model_that_hides_its_role_answers_pins_of_permitted_callers_only(tmp_path: Path) -> None:
    """Otherwise a caller could compare two versions' scores with the one that it got."""
    hidden = replace(SHADOWED, policy=ServingPolicy(hide_role=True))

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, hidden, settings=callers(tmp_path)) as gateway:
            for version in ("1", "production", "2", "9"):
                code, words = await refusal(gateway, "crm", version)
                assert code == grpc.StatusCode.PERMISSION_DENIED
                assert words.startswith("model 'churn' hides which version answers")
            assert await refusal(gateway, "dana", "9") == no_answer("9")
            await answer_once_started(gateway)
            for version, score in (("1", 1.4), ("2", 2.8)):
                reply = await predict(gateway, "dana", version)
                assert (reply.version, reply.role, round(reply.scores[0], 4)) == ("", 0, score)
                assert read_prediction_id(reply.prediction_id, KEY).role == PINNED

    asyncio.run(walk())
