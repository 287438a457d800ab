"""Both clients against a real grpc.aio server that answers or fails as the test says."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
import pytest

from protos.predict_pb2 import OutcomeReply, RowFlag
from tests.clients.scripted_server import ScriptedServer, served
from tests.poll import wait_until
from turnout.processes.port_checks import free_tcp_port
from turnout_client import PredictClient, PredictError, Prediction, SyncPredictClient


def play(
    story: Callable[[PredictClient, ScriptedServer], Awaitable[None]],
    code: grpc.StatusCode = grpc.StatusCode.OK,
    failures: int = 0,
) -> None:
    """Run *story* with a client of a server that fails its first *failures* calls."""

    async def stage() -> None:
        scripted = ScriptedServer(code, failures)
        async with served(scripted) as target, PredictClient(target, timeout_s=5.0) as client:
            await story(client, scripted)

    asyncio.run(stage())


@pytest.mark.walk
def test_predict_client_returns_arrays_and_the_fields_of_the_reply() -> None:
    """Two rows, two outputs: shapes, dtypes, role, control group, one flag per row."""

    async def story(client: PredictClient, scripted: ScriptedServer) -> None:
        prediction = await client.predict(
            "churn", keys=["S1", "S2"], sticky_key="S1", version="7", request_id="r-1"
        )
        assert (prediction.version, prediction.role, prediction.holdout) == ("7", "canary", True)
        assert prediction.scores.dtype == np.float32
        assert prediction.scores.tolist() == [[0.25, 0.75]] * 2
        assert prediction.row_flags.tolist() == [RowFlag.STALE, 0]
        assert (prediction.prediction_id, prediction.request_id) == (b"p" * 64, "r-1")
        (request,) = scripted.requests
        assert [list(row.keys) for row in request.rows] == [["S1"], ["S2"]]
        assert (request.sticky_key, request.version) == ("S1", "7")

    play(story)


@pytest.mark.walk
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_predict_client_repeats_calls_that_a_closing_server_ends(code: grpc.StatusCode) -> None:
    """A closing server ends open calls with CANCELLED, so UNAVAILABLE alone is not enough."""

    async def story(client: PredictClient, scripted: ScriptedServer) -> None:
        assert (await client.predict("churn", keys="S1")).version == "7"
        assert len(scripted.requests) == 3

    play(story, code, failures=2)


@pytest.mark.walk
def test_predict_client_repeats_the_calls_of_a_whole_pool() -> None:
    """128 calls are refused twice: four full connections that end are no reason for throttling."""

    async def story(client: PredictClient, scripted: ScriptedServer) -> None:
        calls = [client.predict("churn", keys=f"S{number}") for number in range(128)]
        assert {prediction.version for prediction in await asyncio.gather(*calls)} == {"7"}
        assert len(scripted.requests) >= 3 * 128

    play(story, grpc.StatusCode.UNAVAILABLE, failures=2 * 128)


@pytest.mark.walk
@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
    ],
)
def test_predict_client_does_not_repeat_calls_that_would_fail_again(code: grpc.StatusCode) -> None:
    """The server sees one attempt. The error carries its code and its message."""

    async def story(client: PredictClient, scripted: ScriptedServer) -> None:
        with pytest.raises(PredictError, match=f"{code.name}: fixed words") as caught:
            await client.predict("churn", keys="S1")
        assert (caught.value.code, caught.value.message) == (code, "fixed words")
        assert len(scripted.requests) == 1

    play(story, code, failures=99)


@pytest.mark.walk
def test_predict_client_raises_deadline_exceeded_after_timeout_s() -> None:
    """The argument timeout_s of predict becomes the deadline of the call."""

    async def story(client: PredictClient, scripted: ScriptedServer) -> None:
        scripted.may_answer.clear()
        with pytest.raises(PredictError) as caught:
            await client.predict("churn", keys="S1", timeout_s=0.05)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        scripted.may_answer.set()

    play(story)


@pytest.mark.walk
def test_predict_client_refuses_calls_beyond_calls_max_without_sending_them() -> None:
    """With calls_max=2 and two calls open, the third fails at once. Later calls are sent."""

    async def stage() -> None:
        scripted = ScriptedServer()
        async with served(scripted) as target, PredictClient(target, calls_max=2) as client:
            scripted.may_answer.clear()
            two = [asyncio.create_task(client.predict("churn", keys="S1")) for _ in range(2)]
            await wait_until(lambda: len(scripted.requests) == 2)
            with pytest.raises(PredictError, match="2 calls open") as caught:
                await client.predict("churn", keys="S2")
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
            scripted.may_answer.set()
            await asyncio.gather(*two)
            await client.predict("churn", keys="S3")
            assert len(scripted.requests) == 3

    asyncio.run(stage())


@pytest.mark.walk
def test_predict_client_spreads_calls_over_its_connections() -> None:
    """Four connections and eight calls: the server sees four peers."""

    async def story(client: PredictClient, scripted: ScriptedServer) -> None:
        await asyncio.gather(*(client.predict("churn", keys=f"S{n}") for n in range(8)))
        assert len(scripted.peers) == 4

    play(story)


@pytest.mark.walk
def test_predict_client_waits_while_its_server_restarts() -> None:
    """The server stops and starts again on its port. A call made meanwhile is answered."""

    async def stage() -> None:
        async with served(ScriptedServer()) as target:
            client = PredictClient(target, timeout_s=10.0)
            await client.predict("churn", keys="S1")
        waiting = asyncio.create_task(client.predict("churn", keys="S2"))
        async with served(ScriptedServer(), port=int(target.partition(":")[2])):
            assert (await waiting).version == "7"
            await client.close()

    asyncio.run(stage())


@pytest.mark.walk
def test_predict_client_reports_one_outcome_under_one_idempotency_key() -> None:
    """A report that is sent twice has the same key; a report about another row has another."""

    async def story(client: PredictClient, scripted: ScriptedServer) -> None:
        prediction = await client.predict("churn", keys="S1")
        await client.report_outcome(prediction, "churned", 1.0, row=0)
        reply = await client.report_outcome(prediction.prediction_id, "churned", 1.0, row=0)
        await client.report_outcome(prediction, "churned", 1.0, row=1)
        assert reply.attribution == OutcomeReply.BY_PREDICTION_ID
        first, again, other = (outcome.idempotency_key for outcome in scripted.outcomes)
        assert first == again != other
        assert len(first) <= 128
        assert (await client.describe("churn")).rows_max == 1_024

    play(story)


@pytest.mark.walk
def test_sync_client_answers_retries_and_raises_like_predict_client() -> None:
    """Same answers and errors, called from a thread without an event loop."""

    async def stage() -> None:
        scripted = ScriptedServer(grpc.StatusCode.UNAVAILABLE, failures=1)
        async with served(scripted) as target:

            def ask() -> Prediction:
                with SyncPredictClient(target, timeout_s=5.0) as client:
                    prediction = client.predict("churn", keys="S1")
                    client.report_outcome(prediction, "churned", 0.0)
                    assert client.describe("churn").model == "churn"
                    scripted.code, scripted.failures = grpc.StatusCode.NOT_FOUND, 99
                    with pytest.raises(PredictError, match="NOT_FOUND: fixed words"):
                        client.predict("nothing", keys="S1")
                    return prediction

            prediction = await asyncio.to_thread(ask)
            assert prediction.scores.shape == (1, 2)
            assert len(scripted.outcomes) == 1

    asyncio.run(stage())


@pytest.mark.walk
def test_clients_send_their_token_with_each_call_and_never_over_a_network_in_plain_text() -> None:
    """The token may be a function, which is asked for each call."""
    tokens = iter(["one", "two"])

    async def stage() -> None:
        scripted = ScriptedServer()
        async with served(scripted) as target:
            async with PredictClient(target, timeout_s=5.0, token=lambda: next(tokens)) as client:
                await client.predict("churn", keys="S1")
                await client.describe("churn")
            with SyncPredictClient(target, timeout_s=5.0, token="fixed") as sync_client:
                await asyncio.to_thread(sync_client.predict, "churn", keys="S1")
        assert scripted.authorizations == ["Bearer one", "Bearer two", "Bearer fixed"]

    asyncio.run(stage())
    for client_type in (PredictClient, SyncPredictClient):
        with pytest.raises(ValueError, match="over TLS only"):
            client_type("gateway.example:8500", token="secret")


@pytest.mark.walk
def test_clients_go_through_a_proxy_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the environment answers nothing. The error of a call through it names it."""
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{free_tcp_port()}")

    async def story(client: PredictClient, scripted: ScriptedServer) -> None:
        assert (await client.predict("churn", keys="S1")).version == "7"

    play(story)

    async def through_proxy() -> None:
        async with (
            served(ScriptedServer()) as target,
            PredictClient(target, timeout_s=1.0, use_proxy=True) as client,
        ):
            words = r"the call went through the proxy 127\.0\.0\.1 of http_proxy$"
            with pytest.raises(PredictError, match=words) as caught:
                await client.predict("churn", keys="S1")
            assert "secret" not in str(caught.value)
        async with PredictClient(target, timeout_s=1.0) as client:
            with pytest.raises(PredictError, match="only use_proxy=True sends calls through it"):
                await client.predict("churn", keys="S1")

    asyncio.run(through_proxy())
