"""A gateway in this process whose scores show which customer's stored row the model got."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import grpc
import numpy as np
import redis

from features.contract import ModelContract, ViewUse
from features.online.reader import OnlineReader, OnlineSettings
from features.rows import ViewRows
from features.views import Feature, View
from gateway.settings import Settings
from gateway.transport.native.server import NativeServer
from protos.predict_pb2 import DEFAULTED, DEGRADED, PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture
from tests.poll import wait_until
from tests.processor_waits import ProcessorClock
from tests.tiny_models import tiny_files

CUSTOMERS = 512
DAY_MS = 86_400_000
DEFAULT_SCORE = -1.0
RESULTS_MIN = 20
"""Fewer results say nothing; a busy machine needs longer for them."""
"""The score of a customer without a stored row; no customer has it otherwise."""

VIEW = View(
    name="who",
    entities=("subscriber",),
    features=(Feature(name="number", default=DEFAULT_SCORE), Feature(name="half", default=0.0)),
    ttl_ms=DAY_MS,
    transform="SELECT * FROM source",
)
ROWS = ViewRows(VIEW)


def customer_key(number: int) -> str:
    """Return the id of customer *number*."""
    return f"S{number:06d}"


def score_of(number: int) -> float:
    """Return the score of the customer's own row: its number plus minus half of it."""
    return number / 2


def stored_rows(numbers: Sequence[int], *, age_ms: int = 0) -> dict[bytes, bytes]:
    """Return store key -> row of these customers, written *age_ms* ago."""
    ids = [customer_key(number).encode() for number in numbers]
    number_column = np.array(numbers, dtype=np.float32)
    packed = ROWS.pack(
        ids,
        np.full(len(ids), time.time_ns() // 1_000_000 - age_ms, dtype=np.int64),
        np.stack([number_column, -number_column / 2], axis=1),
        np.ones((len(ids), 2), dtype=np.bool_),
    )
    return dict(zip(ROWS.store_keys(ids), packed, strict=True))


def write_customer_rows(url: str) -> None:
    """Write every customer's row to the store at *url*."""
    with redis.Redis.from_url(url) as client:
        client.mset(stored_rows(range(CUSTOMERS)))


def customer_model_files() -> dict[str, bytes]:
    """Return a version that adds the two stored features, so each customer's score is its own."""
    contract = ModelContract(
        entities=("subscriber",),
        views=(ViewUse(view=VIEW, features=("number", "half")),),
        outputs=("score",),
    )
    weights = np.ones((2, 1), dtype=np.float32)
    return tiny_files("churn", contract=contract, weights=weights)


def production_only(**policy: object) -> Deployment:
    """Return a deployment with version 1 alone, under *policy*."""
    return Deployment(
        model="churn",
        revision=1,
        production="1",
        split_salt=SALT,
        holdout_salt=SALT,
        digests=(("1", "0" * 64),),
        policy=ServingPolicy(**policy),
    )


def with_half_canary() -> Deployment:
    """Return `production_only` with a canary of half the keys: each scores on its own thread."""
    digests = (("1", "0" * 64), ("2", "1" * 64))
    return replace(production_only(), canary="2", canary_bp=5_000, digests=digests)


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of one call."""

    at_s: float
    """When the answer came (perf_counter)."""
    took_s: float
    code: str
    """Name of the gRPC status."""
    degraded: bool
    defaulted: bool


class TimedReader(OnlineReader):
    """The gateway's reader, which keeps how long each read delayed its batch.

    What the thread, and the processes that its clock has, waited for a processor is taken off.
    """

    def __init__(self, url: str, settings: OnlineSettings | None = None) -> None:
        super().__init__(url, settings=settings)
        self.clock = ProcessorClock()
        self.took_s: list[float] = []

    async def mget(self, keys: Sequence[bytes], timeout_s: float) -> list[bytes | None]:
        """Read as OnlineReader.mget does, and note the time."""
        began = self.clock()
        try:
            return await super().mget(keys, timeout_s)
        finally:
            self.took_s.append(self.clock() - began)


@asynccontextmanager
async def timed_reader(
    url: str, settings: OnlineSettings | None = None
) -> AsyncIterator[TimedReader]:
    """A started reader, closed at the end."""
    reader = TimedReader(url, settings)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.close()


@dataclass
class GatewayWithStore:
    """A gateway fixture, its reader, and the results of its callers."""

    gateway: GatewayFixture
    reader: TimedReader
    results: list[CallResult] = field(default_factory=list)
    wrong_answers: list[str] = field(default_factory=list)
    """Answers that were neither the customer's own score nor the default's."""

    async def predict(self, number: int, within_s: float = 1.0, rows: int = 1) -> None:
        """Predict for *rows* customers from *number* on, and note the result."""
        numbers = [(number + step) % CUSTOMERS for step in range(rows)]
        request = PredictRequest(model="churn", rows=[Row(keys=[customer_key(n)]) for n in numbers])
        began, code, flags = time.perf_counter(), "OK", [0]
        try:
            reply = await self.gateway.predict(request, within_s)
            flags = list(reply.row_flags) or [0] * rows
            for customer, score, flag in zip(numbers, reply.scores, flags, strict=True):
                expected = DEFAULT_SCORE if flag & DEFAULTED else score_of(customer)
                if score != expected:
                    key = customer_key(customer)
                    self.wrong_answers.append(f"{key} got the score {score}, flags {flag}")
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        ended = time.perf_counter()
        degraded, defaulted = any(f & DEGRADED for f in flags), any(f & DEFAULTED for f in flags)
        self.results.append(CallResult(ended, ended - began, code, degraded, defaulted))

    @asynccontextmanager
    async def traffic(self, callers: int = 2, pause_s: float = 0.002) -> AsyncIterator[None]:
        """Call for random customers while the block lasts."""
        rng = random.Random(callers)

        async def call() -> None:
            while True:
                await self.predict(rng.randrange(CUSTOMERS))
                await asyncio.sleep(pause_s)

        calling = [asyncio.create_task(call()) for _ in range(callers)]
        try:
            yield
        finally:
            for task in calling:
                task.cancel()
            await asyncio.wait(calling)

    async def results_during(self, seconds: float) -> list[CallResult]:
        """Return the results of the next *seconds*, or longer until there are RESULTS_MIN."""
        first = len(self.results)
        await asyncio.sleep(seconds)
        await wait_until(lambda: len(self.results) >= first + RESULTS_MIN)
        return self.results[first:]

    async def wait_for_result(
        self, condition: Callable[[CallResult], bool], within_s: float
    ) -> float:
        """Return the seconds until a result meets *condition*; fail after *within_s*."""
        first, began = len(self.results), time.perf_counter()
        while not any(map(condition, self.results[first:])):
            waited = time.perf_counter() - began
            assert waited < within_s, f"not within {within_s} s: {self.results[-3:]}"
            await asyncio.sleep(0.002)
        return time.perf_counter() - began

    def read_counts(self) -> dict[str, int]:
        """Return the online reads by outcome: turnout_feature_reads."""
        self.gateway.recorder.fold()
        samples = self.gateway.metrics.snapshot().get("turnout_feature_reads", [])
        return {labels[0]: count for labels, count in samples}


@asynccontextmanager
async def gateway_with_store(
    url: str,
    *,
    settings: Settings | None = None,
    online: OnlineSettings | None = None,
    io_thread: bool = True,
    **policy: object,
) -> AsyncIterator[GatewayWithStore]:
    """Serve the model under *policy*, with the real reader of the store at *url*.

    io_thread  whether the I/O thread of the native server may read and answer by itself.
    """
    async with (
        timed_reader(url, online) as reader,
        gateway_fixture(
            {"1": customer_model_files()},
            production_only(**policy),
            settings=settings,
            store=reader,
            io_thread_answers=io_thread,
        ) as gateway,
    ):
        server = gateway.ingress_server
        if isinstance(server, NativeServer) and io_thread and reader.connected:
            await wait_until(lambda: server.store_state()[0])
        yield GatewayWithStore(gateway, reader)


def median_call_s(results: Sequence[CallResult]) -> float:
    """Return the median seconds of a call."""
    return sorted(result.took_s for result in results)[len(results) // 2]


def open_descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  only counted


def task_count() -> int:
    """Return the number of tasks of this event loop."""
    return len(asyncio.all_tasks())


async def wait_until_at_most(count: Callable[[], int], at_most: int, within_s: float = 5.0) -> None:
    """Wait until *count* is at most *at_most*; fail with the count after *within_s*."""
    give_up = time.monotonic() + within_s
    while count() > at_most:
        assert time.monotonic() < give_up, f"{count()} remain; there were {at_most}"
        await asyncio.sleep(0.01)


def resident_mb() -> float:
    """Return the resident memory of this process in MB."""
    with suppress(OSError), open("/proc/self/statm") as pages:  # noqa: PTH123
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0
