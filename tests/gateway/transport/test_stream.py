"""PredictStream over gRPC: any order, bad messages, a bound, and no leaks."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
import pytest

from gateway.caller import ANONYMOUS
from gateway.settings import Settings
from gateway.transport.grpcio.stream import PredictStream
from protos.predict_pb2 import PredictRequest, StreamReply
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture, predict_request
from tests.poll import wait_until
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

DEPLOYMENT = Deployment(
    model="churn", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
)


def open_stream(
    gateway: GatewayFixture, within_s: float | None = 10.0
) -> grpc.aio.StreamStreamCall:
    """Open a stream of raw bytes."""
    path = "/turnout.v1.Predictor/PredictStream"
    return gateway.channel.stream_stream(path)(timeout=within_s)


async def replies_of(call: grpc.aio.StreamStreamCall) -> AsyncIterator[StreamReply]:
    """Yield the replies until the stream ends."""
    while (raw := await call.read()) is not grpc.aio.EOF:
        yield StreamReply.FromString(raw)


async def send(call: grpc.aio.StreamStreamCall, requests: Iterable[PredictRequest | bytes]) -> None:
    """Send all requests, then half-close the stream."""
    for request in requests:
        await call.write(request if isinstance(request, bytes) else request.SerializeToString())
    await call.done_writing()


def test_predict_stream_answers_a_thousand_messages_each_with_its_score() -> None:
    """They are matched by request_id, and are more than a stream reads ahead."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            call = open_stream(gateway)
            requests = [
                predict_request(n, 2, 3, key=f"S{n}", request_id=f"r-{n}") for n in range(1_000)
            ]
            sending = asyncio.create_task(send(call, requests))
            replies = {r.request_id: r.reply.scores[0] async for r in replies_of(call)}
            await sending
            assert await call.code() == grpc.StatusCode.OK
            assert len(replies) == 1_000
            for number in range(1_000):
                assert replies[f"r-{number}"] == pytest.approx(0.1 * number + 1.3, rel=1e-5)
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


def test_predict_streams_at_the_same_time_get_their_own_answers() -> None:
    """Four streams of 1,000 messages; each answered message makes way for the next."""

    async def run_stream(gateway: GatewayFixture, name: str) -> None:
        call = open_stream(gateway)
        requests = [
            predict_request(n, 2, 3, key=f"S{n}", request_id=f"{name}-{n}") for n in range(1_000)
        ]
        sending = asyncio.create_task(send(call, requests))
        replies = {r.request_id: r.reply.scores[0] async for r in replies_of(call)}
        await sending
        assert replies.keys() == {request.request_id for request in requests}
        for number in range(1_000):
            assert replies[f"{name}-{number}"] == pytest.approx(0.1 * number + 1.3, rel=1e-5)

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            await asyncio.gather(*(run_stream(gateway, name) for name in "abcd"))
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


def test_predict_stream_answers_a_bad_message_with_its_status_and_goes_on() -> None:
    """Random bytes, an unknown model, too many rows and an unknown pin come between good ones."""
    # Good messages come first and last.
    requests = [
        predict_request(1, 2, 3, request_id="good-1"),
        b"\xff\xff\xff",
        predict_request(1, 2, request_id="short"),
        PredictRequest(model="fraud", request_id="unknown"),
        predict_request(1, 2, 3, rows=1_025, request_id="long"),
        predict_request(1, 2, 3, version="9", request_id="pin"),
        predict_request(1, 2, 3, request_id="i" * 5_000),
        predict_request(1, 2, 3, request_id="good-2"),
    ]

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            # Each message has a reply or a status; the stream itself ends OK.
            call = open_stream(gateway)
            await send(call, requests)
            replies = {r.request_id: r async for r in replies_of(call)}
            assert await call.code() == grpc.StatusCode.OK
            codes = {name: reply.status.code for name, reply in replies.items()}
            assert codes == {
                "good-1": 0,
                "": 3,
                "short": 3,
                "unknown": 5,
                "long": 8,
                "pin": 5,
                "i" * 128: 3,
                "good-2": 0,
            }
            assert round(replies["good-2"].reply.scores[0], 4) == 1.4
            assert sum(gateway.refusals().values()) == 5
            assert gateway.faults == []

    asyncio.run(walk())


class SlowReader:
    """The caller's end of a stream: it sends *messages*, and reads once `reading` is set."""

    def __init__(self, messages: int) -> None:
        self.remaining = messages
        self.sent = 0
        self.reading = asyncio.Event()
        self.received = 0

    async def read(self) -> object:
        """Return the next message, or the end (StreamContext)."""
        if self.remaining == 0:
            return grpc.aio.EOF
        self.remaining -= 1
        self.sent += 1
        return predict_request(1, 2, 3).SerializeToString()

    async def write(self, message: bytes) -> None:
        """Wait until the caller reads (StreamContext)."""
        assert message
        await self.reading.wait()
        self.received += 1

    def time_remaining(self) -> float | None:
        """Return None: the stream has no deadline (StreamContext)."""
        return None


@pytest.mark.grpcio
def test_predict_stream_stops_reading_from_a_caller_that_does_not_read() -> None:
    """The fifth of 400 messages is not read until a reply is; then all are answered."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            caller = SlowReader(400)
            stream = PredictStream(gateway.ingress_server, caller, 4, ANONYMOUS)
            running = asyncio.create_task(stream.run(asyncio.Event()))
            await wait_until(lambda: caller.sent == 4 and gateway.ingress_server.rows_inside == 0)
            for _ in range(100):
                await asyncio.sleep(0)
            assert caller.sent == 4
            caller.reading.set()
            assert await running is None
            assert (caller.sent, caller.received) == (400, 400)

    asyncio.run(walk())


def test_predict_stream_releases_everything_when_it_is_cancelled() -> None:
    """The caller goes while 60 messages wait for a model; rows and tasks are released."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            tasks = len(asyncio.all_tasks())
            for _ in range(5):
                call = open_stream(gateway)
                for number in range(60):
                    await call.write(predict_request(1, 2, 3, key=f"S{number}").SerializeToString())
                call.cancel()
            await wait_until(lambda: gateway.ingress_server.rows_inside == 0)
            await wait_until(lambda: len(asyncio.all_tasks()) <= tasks)
            assert (await gateway.predict(predict_request(1, 2, 3))).version == "1"
            assert gateway.faults == []

    asyncio.run(walk())


def test_predict_stream_gives_a_message_the_models_default_deadline() -> None:
    """On a stream without a deadline a model's default of 1 ms is too short: DEADLINE_EXCEEDED."""
    deployment = Deployment(
        model="churn",
        revision=1,
        production="1",
        split_salt=SALT,
        holdout_salt=SALT,
        policy=ServingPolicy(deadline_ms_default=1),
    )
    slow = Settings(deadline_left_us_min=1_500)

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, deployment, settings=slow) as gateway:
            call = open_stream(gateway, None)
            await send(call, [predict_request(1, 2, 3, request_id="r-1")])
            replies = [reply async for reply in replies_of(call)]
            assert [reply.status.code for reply in replies] == [4]
            assert await call.code() == grpc.StatusCode.OK

    asyncio.run(walk())


def test_predict_stream_answers_what_it_read_and_ends_unavailable_at_a_drain() -> None:
    """An idle stream ends UNAVAILABLE, after every reply."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            call = open_stream(gateway)
            for number in range(10):
                await call.write(
                    predict_request(1, 2, 3, request_id=f"r-{number}").SerializeToString()
                )
            replies = [StreamReply.FromString(await call.read()) for _ in range(10)]
            assert {reply.status.code for reply in replies} == {0}
            closing = asyncio.create_task(gateway.ingress_server.close(5.0))
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
            assert await call.code() == grpc.StatusCode.UNAVAILABLE
            assert "open the stream again" in (await call.details() or "")
            await closing

    asyncio.run(walk())
