"""PredictStream over real gRPC: any order, bad messages, a bound, and nothing left behind."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
import pytest

from gateway.settings import Settings
from gateway.transport.grpcio.stream import PredictStream
from protos.predict_pb2 import PredictRequest, StreamReply
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture, predict_request
from tests.poll import wait_until
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

PLAN = Deployment(model="churn", revision=1, production="1", split_salt=SALT, holdout_salt=SALT)


def opened(gateway: GatewayFixture, within_s: float | None = 10.0) -> grpc.aio.StreamStreamCall:
    """Open a stream of raw bytes."""
    path = "/turnout.v1.Predictor/PredictStream"
    return gateway.channel.stream_stream(path)(timeout=within_s)


async def replies_of(call: grpc.aio.StreamStreamCall) -> AsyncIterator[StreamReply]:
    """Every reply until the stream's end."""
    while (raw := await call.read()) is not grpc.aio.EOF:
        yield StreamReply.FromString(raw)


async def send(call: grpc.aio.StreamStreamCall, requests: Iterable[PredictRequest | bytes]) -> None:
    """Send them all, then say that no more will come."""
    for request in requests:
        await call.write(request if isinstance(request, bytes) else request.SerializeToString())
    await call.done_writing()


def test_a_thousand_messages_are_answered_each_once_with_its_own_score() -> None:
    """Matched by request_id; more than the stream holds at a time."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, PLAN) as gateway:
            call = opened(gateway)
            asked = [
                predict_request(n, 2, 3, key=f"S{n}", request_id=f"r-{n}") for n in range(1_000)
            ]
            sending = asyncio.create_task(send(call, asked))
            got = {r.request_id: r.reply.scores[0] async for r in replies_of(call)}
            await sending
            assert await call.code() == grpc.StatusCode.OK
            assert len(got) == 1_000
            for number in range(1_000):
                assert got[f"r-{number}"] == pytest.approx(0.1 * number + 1.3, rel=1e-5)
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


def test_streams_side_by_side_get_their_own_answers_and_no_others() -> None:
    """Four of 1,000 messages: an answer's place is taken by the next message at once."""

    async def one(gateway: GatewayFixture, name: str) -> None:
        call = opened(gateway)
        asked = [
            predict_request(n, 2, 3, key=f"S{n}", request_id=f"{name}-{n}") for n in range(1_000)
        ]
        sending = asyncio.create_task(send(call, asked))
        got = {r.request_id: r.reply.scores[0] async for r in replies_of(call)}
        await sending
        assert got.keys() == {request.request_id for request in asked}
        for number in range(1_000):
            assert got[f"{name}-{number}"] == pytest.approx(0.1 * number + 1.3, rel=1e-5)

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, PLAN) as gateway:
            await asyncio.gather(*(one(gateway, name) for name in "abcd"))
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


def test_a_bad_message_gets_its_status_and_never_ends_the_stream() -> None:
    """Garbage, an unknown model, too many rows, an unknown pin: between good ones."""
    asked = [
        predict_request(1, 2, 3, request_id="good-1"),
        b"\xff\xff\xff",
        predict_request(1, 2, request_id="short"),
        PredictRequest(model="fraud", request_id="nobody"),
        predict_request(1, 2, 3, rows=1_025, request_id="long"),
        predict_request(1, 2, 3, version="9", request_id="pin"),
        predict_request(1, 2, 3, request_id="i" * 5_000),
        predict_request(1, 2, 3, request_id="good-2"),
    ]

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, PLAN) as gateway:
            call = opened(gateway)
            await send(call, asked)
            got = {r.request_id: r async for r in replies_of(call)}
            assert await call.code() == grpc.StatusCode.OK
            codes = {name: reply.status.code for name, reply in got.items()}
            assert codes == {
                "good-1": 0,
                "": 3,
                "short": 3,
                "nobody": 5,
                "long": 8,
                "pin": 5,
                "i" * 128: 3,
                "good-2": 0,
            }
            assert round(got["good-2"].reply.scores[0], 4) == 1.4
            assert sum(gateway.refusals().values()) == 5
            assert gateway.faults == []

    asyncio.run(walk())


class Unread:
    """The far end of a stream that sends *messages* and reads nothing until it is told to."""

    def __init__(self, messages: int) -> None:
        self.left = messages
        self.sent = 0
        self.reading = asyncio.Event()
        self.got = 0

    async def read(self) -> object:
        """The next message, or the end."""
        if self.left == 0:
            return grpc.aio.EOF
        self.left -= 1
        self.sent += 1
        return predict_request(1, 2, 3).SerializeToString()

    async def write(self, message: bytes) -> None:
        """Full, until it reads."""
        assert message
        await self.reading.wait()
        self.got += 1

    def time_remaining(self) -> float | None:
        """No end."""
        return None


@pytest.mark.grpcio
def test_a_caller_who_does_not_read_is_not_read_either() -> None:
    """4 messages a stream: the fifth is not read while no reply is; then all 400 are answered."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, PLAN) as gateway:
            caller = Unread(400)
            stream = PredictStream(gateway.ingress_server, caller, 4)
            running = asyncio.create_task(stream.run(asyncio.Event()))
            await wait_until(lambda: caller.sent == 4 and gateway.ingress_server.rows_inside == 0)
            for _ in range(100):
                await asyncio.sleep(0)
            assert caller.sent == 4
            caller.reading.set()
            assert await running is None
            assert (caller.sent, caller.got) == (400, 400)

    asyncio.run(walk())


def test_a_cancelled_stream_leaves_nothing_inside() -> None:
    """60 messages waiting for a model when the caller goes: rows, tasks and answers are freed."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, PLAN) as gateway:
            tasks = len(asyncio.all_tasks())
            for _ in range(5):
                call = opened(gateway)
                for number in range(60):
                    await call.write(predict_request(1, 2, 3, key=f"S{number}").SerializeToString())
                call.cancel()
            await wait_until(lambda: gateway.ingress_server.rows_inside == 0)
            await wait_until(lambda: len(asyncio.all_tasks()) <= tasks)
            assert (await gateway.predict(predict_request(1, 2, 3))).version == "1"
            assert gateway.faults == []

    asyncio.run(walk())


def test_a_message_has_a_calls_default_deadline_not_the_streams() -> None:
    """A stream without end, a model whose default is 1 ms behind a held batch: late, in words."""
    hasty = Deployment(
        model="churn",
        revision=1,
        production="1",
        split_salt=SALT,
        holdout_salt=SALT,
        policy=ServingPolicy(deadline_ms_default=1),
    )
    slow = Settings(deadline_left_us_min=1_500)

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, hasty, settings=slow) as gateway:
            call = opened(gateway, None)
            await send(call, [predict_request(1, 2, 3, request_id="r-1")])
            got = [reply async for reply in replies_of(call)]
            assert [reply.status.code for reply in got] == [4]
            assert await call.code() == grpc.StatusCode.OK

    asyncio.run(walk())


def test_a_worker_that_leaves_answers_what_it_took_and_says_open_again() -> None:
    """Drained with a stream open and idle: UNAVAILABLE, after every reply."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, PLAN) as gateway:
            call = opened(gateway)
            for number in range(10):
                await call.write(
                    predict_request(1, 2, 3, request_id=f"r-{number}").SerializeToString()
                )
            got = [StreamReply.FromString(await call.read()) for _ in range(10)]
            assert {reply.status.code for reply in got} == {0}
            closing = asyncio.create_task(gateway.ingress_server.close(5.0))
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
            assert await call.code() == grpc.StatusCode.UNAVAILABLE
            assert "open the stream again" in (await call.details() or "")
            await closing

    asyncio.run(walk())
