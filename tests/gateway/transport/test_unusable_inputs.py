"""Inputs that are NaN or infinite: the call at fault learns which, and no other call fails."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence

import grpc
import pytest

from protos.window_pb2 import METRIC_SCHEMA, Arm, Window
from tests.gateway.canary_at_half import CANARY_AT_HALF
from tests.gateway.gateway_fixture import GatewayFixture, gateway_fixture, predict_request
from tests.gateway.transport.test_bad_calls import INVALID, deployment
from tests.tiny_models import tiny_files


@pytest.mark.walk
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_server_refuses_or_scores_nan_inputs_by_policy(value: float) -> None:
    """Without nan_inputs_refused they are scored; a NaN score names the input that made it so."""

    async def walk(gateway: GatewayFixture, words: str) -> None:
        error, reply = await asyncio.gather(
            gateway.refusal(predict_request(value, 2, 3)), gateway.predict(predict_request(1, 2, 3))
        )
        assert (error.code(), words in error.details()) == (INVALID, True), error.details()
        assert round(reply.scores[0], 4) == 1.4

    async def walk_with_both_policies() -> None:
        async with gateway_fixture(
            {"1": tiny_files()}, deployment(nan_inputs_refused=True)
        ) as gateway:
            await walk(gateway, "1 inputs are NaN or infinite")
        async with gateway_fixture({"1": tiny_files()}, deployment()) as gateway:
            await walk(gateway, f"row 0: input 'f0' is {value}, and model 'churn' has no finite")

    asyncio.run(walk_with_both_policies())


@pytest.mark.walk
def test_dispatcher_refuses_only_the_calls_whose_own_inputs_make_scores_nan() -> None:
    """Three calls of a batch of 40 are at fault, and each learns its row and its input."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, deployment()) as gateway:
            late_row = predict_request(1, 2, 3)
            late_row.rows.add(keys=["S2"], inputs=[1, 2, 3])
            late_row.rows.add(keys=["S3"], inputs=[1, math.nan, math.inf])
            named = predict_request(1, 2, 3)
            del named.rows[0].inputs[:]
            named.rows[0].named["f2"] = -math.inf
            good = [gateway.predict(predict_request(1, 2, 3, key=f"S{n}")) for n in range(37)]
            *errors, first = await asyncio.gather(
                *map(gateway.refusal, (late_row, named, predict_request(math.nan, 2, 3))),
                asyncio.gather(*good),
            )
            assert {error.code() for error in errors} == {INVALID}
            details = [error.details() for error in errors]
            assert details[0].startswith("row 2: input 'f1' is nan (1 more are not finite), and")
            assert details[1].startswith("row 0: input 'f2' is -inf, and model 'churn'")
            assert details[2].endswith("leave the input out by name for its default, 0")
            assert {round(reply.scores[0], 4) for reply in first} == {1.4}
            # It is no fault of the gateway, so no error has an id.
            samples = gateway.metrics.snapshot()["turnout_refusals"]
            assert {tuple(labels): calls for labels, calls in samples} == {
                ("churn", "INVALID_ARGUMENT", "input"): 3
            }

    asyncio.run(walk())


@pytest.mark.walk
def test_dispatcher_blames_the_model_for_a_nan_score_of_finite_inputs() -> None:
    """Each call is judged by its own inputs, whatever is in the same batch."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files(nan_when=5.0)}, deployment()) as gateway:
            mine, callers = await asyncio.gather(
                gateway.refusal(predict_request(9, 2, 3)),
                gateway.refusal(predict_request(1, math.nan, 3)),
            )
            assert mine.code() == grpc.StatusCode.INTERNAL
            assert callers.code() == INVALID

    asyncio.run(walk())


@pytest.mark.walk
def test_dispatcher_replaces_a_nan_score_by_the_default_of_the_policy() -> None:
    """The score is .25 instead of NaN, and the row is flagged DEFAULTED (4)."""

    async def walk() -> None:
        policy = deployment(nan_scores_defaulted=True, default_score=0.25)
        async with gateway_fixture({"1": tiny_files()}, policy) as gateway:
            reply = await gateway.predict(predict_request(math.nan, 2, 3))
            assert (list(reply.scores), list(reply.row_flags)) == ([0.25], [4])
            calls = gateway.window("PRODUCTION").calls
            assert (calls.answered, calls.nan, calls.bad_input) == (0, 0, 1)

    asyncio.run(walk())


def outcomes(gateway: GatewayFixture) -> dict[tuple[str, str], int]:
    """Return (role, outcome) -> calls of the metric."""
    samples = gateway.metrics.snapshot()["turnout_calls"]
    return {(labels[2], labels[3]): calls for labels, calls in samples}


def counted_by_arm(windows: Sequence[Window]) -> tuple[Counter[str], Counter[str]]:
    """Return arm -> calls with a caller's NaN, and arm -> calls with a version's."""
    bad_input, nan = Counter[str](), Counter[str]()
    for window in windows:
        bad_input[Arm.Name(window.arm)] += window.calls.bad_input
        nan[Arm.Name(window.arm)] += window.calls.nan
    return bad_input, nan


@pytest.mark.walk
def test_windows_count_a_callers_nan_apart_from_a_models() -> None:
    """Only the version's own NaN makes an instant bad and a call `nan`."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files(nan_when=5.0)}, deployment()) as gateway:
            await gateway.refusal(predict_request(1, math.nan, 3))
            window = gateway.window("PRODUCTION")
            calls = window.calls
            assert (calls.bad_input, calls.nan, calls.answered) == (1, 0, 0)
            assert (window.first_bad_unix_ns, window.last_bad_unix_ns) == (0, 0)
            await gateway.refusal(predict_request(9, 2, 3))
            window = gateway.window("PRODUCTION")
            assert (window.calls.bad_input, window.calls.nan) == (0, 1)
            assert window.first_bad_unix_ns > 0
            assert outcomes(gateway) == {
                ("production", "bad_input"): 1,
                ("production", "not_finite"): 1,
            }

    asyncio.run(walk())


@pytest.mark.walk
def test_callers_nan_is_no_evidence_in_a_rollout() -> None:
    """Against neither arm; a NaN of the canary alone still is."""

    async def walk() -> None:
        versions = {"1": tiny_files(), "2": tiny_files(nan_when=5.0)}
        async with gateway_fixture(versions, CANARY_AT_HALF) as gateway:
            keys = [f"S{number}" for number in range(40)]
            for key in keys:
                error = await gateway.refusal(predict_request(1, math.nan, 3, key=key))
                assert error.code() == INVALID
            windows = gateway.close_windows()
            bad_input, nan = counted_by_arm(windows)
            assert bad_input.total() == len(keys)
            assert min(bad_input["ARM_PRODUCTION"], bad_input["ARM_CANARY"]) > 0 == nan.total()
            metrics = {record.metric for window in windows for record in window.records}
            assert METRIC_SCHEMA not in metrics
            routes = gateway.routes.get("churn")
            assert routes is not None
            assert not routes.breaker.open
            # Production answers in the canary's place, so the input is one that a version can use.
            for key in keys:
                await gateway.predict(predict_request(9, 2, 3, key=key))
            windows = gateway.close_windows()
            bad_input, nan = counted_by_arm(windows)
            assert nan["ARM_CANARY"] > 0 == bad_input.total()
            metrics = {record.metric for window in windows for record in window.records}
            assert METRIC_SCHEMA in metrics

    asyncio.run(walk())
