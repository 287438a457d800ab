"""The shipped client against a real grpc.aio server that does as the test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np
import pytest

from protos import predict_pb2_grpc
from protos.predict_pb2 import (
    DescribeRequest,
    ModelDescription,
    OutcomeReply,
    OutcomeRequest,
    PredictReply,
    PredictRequest,
    Role,
    RowFlag,
)
from tests.poll import until
from turnout_client import PredictClient, PredictError, Prediction, SyncPredictClient
from turnout_client._protos import predict_pb2 as client_pb2
from turnout_client.predict_client import prediction_of, rows_of

Context = grpc.aio.ServicerContext[PredictRequest, PredictReply]


class Scripted(predict_pb2_grpc.PredictorServicer):
    """Answers; the first *failures* calls end with *code* instead."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.OK, failures: int = 0) -> None:
        self.code = code
        self.failures = failures
        self.asked: list[PredictRequest] = []
        self.peers: set[str] = set()
        self.outcomes: list[OutcomeRequest] = []
        self.held = asyncio.Event()
        self.held.set()

    async def Predict(self, request: PredictRequest, context: Context) -> PredictReply:  # noqa: N802
        """Score each row .25 and .75."""
        self.asked.append(request)
        self.peers.add(context.peer())
        await self.held.wait()
        if len(self.asked) <= self.failures:
            await context.abort(self.code, "fixed words")
        rows = len(request.rows)
        return PredictReply(
            request_id=request.request_id,
            model=request.model,
            version="7",
            role=Role.CANARY,
            prediction_id=b"p" * 64,
            holdout=True,
            scores=[0.25, 0.75] * rows,
            outputs=2,
            row_flags=[RowFlag.STALE] + [0] * (rows - 1) if rows > 1 else [],
        )

    async def DescribeModel(self, request: DescribeRequest, _: Context) -> ModelDescription:  # noqa: N802
        """Describe any model."""
        return ModelDescription(model=request.model, rows_max=1_024)

    async def ReportOutcome(self, request: OutcomeRequest, _: Context) -> OutcomeReply:  # noqa: N802
        """Remember it."""
        self.outcomes.append(request)
        return OutcomeReply(attribution=OutcomeReply.BY_PREDICTION_ID)


@asynccontextmanager
async def served(scripted: Scripted, port: int = 0) -> AsyncIterator[str]:
    """Serve *scripted* on a free port; yields the target."""
    server = grpc.aio.server()
    predict_pb2_grpc.add_PredictorServicer_to_server(scripted, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def play(
    story: Callable[[PredictClient, Scripted], Awaitable[None]],
    code: grpc.StatusCode = grpc.StatusCode.OK,
    failures: int = 0,
) -> None:
    """Run *story* with a client of a server that fails its first *failures* calls."""

    async def stage() -> None:
        scripted = Scripted(code, failures)
        async with served(scripted) as target, PredictClient(target, timeout_s=5.0) as client:
            await story(client, scripted)

    asyncio.run(stage())


@pytest.mark.walk
def test_a_prediction_is_arrays_and_words() -> None:
    """Two rows, two outputs: shapes, dtypes, role, control group, flags a row."""

    async def story(client: PredictClient, scripted: Scripted) -> None:
        prediction = await client.predict(
            "churn", keys=["S1", "S2"], sticky_key="S1", version="7", request_id="r-1"
        )
        assert (prediction.version, prediction.role, prediction.holdout) == ("7", "canary", True)
        assert prediction.scores.dtype == np.float32
        assert prediction.scores.tolist() == [[0.25, 0.75]] * 2
        assert prediction.row_flags.tolist() == [RowFlag.STALE, 0]
        assert (prediction.prediction_id, prediction.request_id) == (b"p" * 64, "r-1")
        (asked,) = scripted.asked
        assert [list(row.keys) for row in asked.rows] == [["S1"], ["S2"]]
        assert (asked.sticky_key, asked.version) == ("S1", "7")

    play(story)


@pytest.mark.walk
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_what_a_restarting_worker_answers_is_asked_again(code: grpc.StatusCode) -> None:
    """A closing server answers CANCELLED to calls it caught, so UNAVAILABLE is not enough."""

    async def story(client: PredictClient, scripted: Scripted) -> None:
        assert (await client.predict("churn", keys="S1")).version == "7"
        assert len(scripted.asked) == 3

    play(story, code, failures=2)


@pytest.mark.walk
@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
    ],
)
def test_what_asking_again_cannot_mend_is_told_at_once(code: grpc.StatusCode) -> None:
    """One attempt; the error carries the code and the gateway's words."""

    async def story(client: PredictClient, scripted: Scripted) -> None:
        with pytest.raises(PredictError, match=f"{code.name}: fixed words") as caught:
            await client.predict("churn", keys="S1")
        assert (caught.value.code, caught.value.words) == (code, "fixed words")
        assert len(scripted.asked) == 1

    play(story, code, failures=99)


@pytest.mark.walk
def test_a_late_answer_is_deadline_exceeded() -> None:
    """The caller's timeout is the call's deadline."""

    async def story(client: PredictClient, scripted: Scripted) -> None:
        scripted.held.clear()
        with pytest.raises(PredictError) as caught:
            await client.predict("churn", keys="S1", timeout_s=0.05)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        scripted.held.set()

    play(story)


@pytest.mark.walk
def test_a_client_with_a_bound_turns_the_next_call_away_itself() -> None:
    """Two open of two: the third is UNAVAILABLE at once and never sent; then there is room."""

    async def stage() -> None:
        scripted = Scripted()
        async with served(scripted) as target, PredictClient(target, calls_max=2) as client:
            scripted.held.clear()
            two = [asyncio.create_task(client.predict("churn", keys="S1")) for _ in range(2)]
            await until(lambda: len(scripted.asked) == 2)
            with pytest.raises(PredictError, match="2 calls open") as caught:
                await client.predict("churn", keys="S2")
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
            scripted.held.set()
            await asyncio.gather(*two)
            await client.predict("churn", keys="S3")
            assert len(scripted.asked) == 3

    asyncio.run(stage())


@pytest.mark.walk
def test_calls_are_spread_over_connections() -> None:
    """Four connections, eight calls: four peers; each connection is one worker's."""

    async def story(client: PredictClient, scripted: Scripted) -> None:
        await asyncio.gather(*(client.predict("churn", keys=f"S{n}") for n in range(8)))
        assert len(scripted.peers) == 4

    play(story)


@pytest.mark.walk
def test_a_client_outlives_its_server() -> None:
    """The server goes and comes back on its port: calls wait for it instead of failing."""

    async def stage() -> None:
        async with served(Scripted()) as target:
            client = PredictClient(target, timeout_s=10.0)
            await client.predict("churn", keys="S1")
        waiting = asyncio.create_task(client.predict("churn", keys="S2"))
        async with served(Scripted(), port=int(target.partition(":")[2])):
            assert (await waiting).version == "7"
            await client.close()

    asyncio.run(stage())


@pytest.mark.walk
def test_outcomes_and_descriptions() -> None:
    """An outcome carries the prediction's id, and one idempotency key however often it is sent."""

    async def story(client: PredictClient, scripted: Scripted) -> None:
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
def test_the_sync_client_does_the_same() -> None:
    """Same answers, same errors, no loop of its own."""

    async def stage() -> None:
        scripted = Scripted(grpc.StatusCode.UNAVAILABLE, failures=1)
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


def test_rows_may_be_said_in_the_way_that_is_at_hand() -> None:
    """One id, ids, composite ids; one vector, a matrix; numbers and words by name."""
    assert list(rows_of("S1", None, None)) == [client_pb2.Row(keys=["S1"])]
    assert list(rows_of([["S1", "offer-9"]], None, None)) == [
        client_pb2.Row(keys=["S1", "offer-9"])
    ]
    assert list(rows_of("S1", [1.0, 2.0], None)) == [client_pb2.Row(keys=["S1"], inputs=[1.0, 2.0])]
    assert (
        list(rows_of(None, np.ones((2, 3)), None)) == [client_pb2.Row(inputs=[1.0, 1.0, 1.0])] * 2
    )
    assert list(rows_of("S1", None, {"amount": 3, "channel": "app"})) == [
        client_pb2.Row(keys=["S1"], named={"amount": 3.0}, named_text={"channel": "app"})
    ]
    assert list(rows_of(None, None, None)) == []


def test_rows_that_contradict_each_other_never_leave() -> None:
    """Two ids and three vectors: the message says so; so does naming inputs twice."""
    with pytest.raises(ValueError, match=r"'keys': 2, 'inputs': 3"):
        list(rows_of(["a", "b"], np.zeros((3, 1)), None))
    with pytest.raises(ValueError, match="not both"):
        list(rows_of("a", [1.0], {"x": 1.0}))


def test_flags_left_out_are_zeros() -> None:
    """The wire leaves them out when every row is well."""
    prediction = prediction_of(
        client_pb2.PredictReply(scores=[0.1, 0.2, 0.3], outputs=1, role=client_pb2.Role.FALLBACK)
    )
    assert prediction.row_flags.tolist() == [0, 0, 0]
    assert (prediction.scores.shape, prediction.role) == ((3, 1), "fallback")
