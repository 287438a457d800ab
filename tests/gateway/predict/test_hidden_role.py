"""A model that hides the role: no reply and no prediction id tells which version answered.

Calls come over real gRPC, by Predict, by PredictStream and by ModelInfer.
"""

import asyncio
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace

import grpc
import pytest

from journal.prediction_id import SEALED_FORMAT, hash_model_name, read_prediction_id
from protos import open_inference_pb2 as oip
from protos.predict_pb2 import (
    CANARY,
    FALLBACK,
    PRODUCTION,
    ROLE_UNSPECIFIED,
    OutcomeReply,
    OutcomeRequest,
    PredictReply,
    StreamReply,
)
from protos.registry_pb2 import ServingPolicy
from tests.gateway.canary_at_half import (
    CANARY_AT_HALF,
    CUSTOMER_KEYS,
    DOUBLED_WEIGHTS,
    PRODUCTION_ONLY,
    canary_keys,
    predict_all_keys,
)
from tests.gateway.gateway_fixture import KEY, GatewayFixture, gateway_fixture, predict_request
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

POLICY = ServingPolicy(hide_role=True, canary_budget_ms=5_000)
"""The budget is long, so that the canary answers its keys on a busy machine, too."""
HIDDEN = replace(CANARY_AT_HALF, policy=POLICY)
VERSIONS = {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS)}


def roles_in_ids(replies: Sequence[PredictReply]) -> list[int]:
    """Check that nothing can be read in the replies; return the roles that the ids keep."""
    assert {(reply.role, reply.version) for reply in replies} == {(ROLE_UNSPECIFIED, "")}
    roles = []
    for reply in replies:
        assert (len(reply.prediction_id), reply.prediction_id[0]) == (64, SEALED_FORMAT)
        prediction = read_prediction_id(reply.prediction_id, KEY)
        assert prediction.model_hash == hash_model_name("churn")
        assert prediction.score == pytest.approx(reply.scores[0], rel=1 / 256)
        assert (prediction.rows, prediction.positive) == (1, reply.scores[0] >= 0.5)
        roles.append(prediction.role)
    return roles


async def predict_by_stream(gateway: GatewayFixture) -> list[PredictReply]:
    """Send one message for each of CUSTOMER_KEYS; return the replies in the order of the keys."""
    call = gateway.channel.stream_stream("/turnout.v1.Predictor/PredictStream")(timeout=10.0)
    for key in CUSTOMER_KEYS:
        await call.write(predict_request(1, 2, 3, key=key, request_id=key).SerializeToString())
    await call.done_writing()
    replies = {}
    while (raw := await call.read()) is not grpc.aio.EOF:
        answer = StreamReply.FromString(raw)
        replies[answer.request_id] = answer.reply
    return [replies[key] for key in CUSTOMER_KEYS]


async def infer(gateway: GatewayFixture, key: str) -> PredictReply:
    """Call ModelInfer; return what its reply says as a PredictReply."""
    request = oip.ModelInferRequest(model_name="churn")
    keys = request.inputs.add(name="keys", datatype="BYTES", shape=[1, 1])
    keys.contents.bytes_contents.append(key.encode())
    inputs = request.inputs.add(name="inputs", datatype="FP32", shape=[1, 3])
    inputs.contents.fp32_contents.extend([1, 2, 3])
    call = gateway.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    reply = oip.ModelInferResponse.FromString(await call(request.SerializeToString(), timeout=5.0))
    assert reply.parameters["role"].string_param == "role_unspecified"
    return PredictReply(
        version=reply.model_version,
        prediction_id=b64decode(reply.parameters["prediction_id"].string_param),
        scores=reply.outputs[0].contents.fp32_contents,
    )


def test_hidden_role_is_in_no_reply_of_any_method() -> None:
    """Both arms answer, and only the cluster's key says which one answered."""

    async def walk() -> None:
        expected = [CANARY if key in canary_keys() else PRODUCTION for key in CUSTOMER_KEYS]
        async with gateway_fixture(VERSIONS, HIDDEN) as gateway:
            by_predict = list((await predict_all_keys(gateway)).values())
            by_infer = await asyncio.gather(*(infer(gateway, key) for key in CUSTOMER_KEYS))
            for replies in (by_predict, await predict_by_stream(gateway), by_infer):
                assert roles_in_ids(replies) == expected
                assert {round(reply.scores[0], 4) for reply in replies} == {1.4, 2.8}

    asyncio.run(walk())


def test_sealed_ids_have_no_byte_that_stays_the_same() -> None:
    """Boot id, slot, model, version and revision are equal in all 60 ids, and unreadable."""

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, HIDDEN) as gateway:
            ids = [r.prediction_id for r in (await predict_all_keys(gateway)).values()]
            assert len(ids) == len(CUSTOMER_KEYS)
            for position in range(1, 64):
                assert len({identity[position] for identity in ids}) > 20, position

    asyncio.run(walk())


def test_hidden_fallback_and_single_call_have_no_role() -> None:
    """A canary that fails does not show, and neither does a call that is alone."""
    faulty = {"1": tiny_files(), "2": tiny_files(fault_when=5.0)}
    alone = replace(PRODUCTION_ONLY, policy=HIDDEN.policy)

    async def walk() -> None:
        async with gateway_fixture(faulty, HIDDEN) as gateway:
            replies = list((await predict_all_keys(gateway, first=9.0)).values())
            assert set(roles_in_ids(replies)) == {PRODUCTION, FALLBACK}
        async with gateway_fixture({"1": tiny_files()}, alone) as gateway:
            assert roles_in_ids([await gateway.predict(predict_request(1, 2, 3))]) == [PRODUCTION]

    asyncio.run(walk())


def test_outcome_of_a_hidden_prediction_counts_at_another_gateway() -> None:
    """The id names model and time to every gateway of the cluster; a changed byte is refused."""

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, HIDDEN) as gateway:
            sealed = (await gateway.predict(predict_request(1, 2, 3))).prediction_id
        async with gateway_fixture(VERSIONS, HIDDEN) as other:
            path = "/turnout.v1.Predictor/ReportOutcome"
            report = other.channel.unary_unary(path)
            request = OutcomeRequest(prediction_id=sealed, name="churned", value=1.0)
            reply = OutcomeReply.FromString(await report(request.SerializeToString(), timeout=5.0))
            assert reply.attribution == OutcomeReply.BY_PREDICTION_ID
            counted = {tuple(k): n for k, n in other.metrics.snapshot()["turnout_outcomes"]}
            assert counted == {("churn", "on_time"): 1}
            # The id with another format, with another byte inside, and with another MAC.
            for position in (0, 9, 63):
                changed = bytearray(sealed)
                changed[position] ^= 3
                request.prediction_id = bytes(changed)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await report(request.SerializeToString(), timeout=5.0)
                assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(walk())
