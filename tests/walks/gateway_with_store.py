"""A gateway in this process whose model says which customer's stored row it was given."""

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
from protos.predict_pb2 import DEFAULTED, DEGRADED, PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture
from tests.tiny_models import tiny_files

CUSTOMERS = 512
DAY_MS = 86_400_000
DEFAULT_SCORE = -1.0
"""The score of a customer nothing is known of; no customer's own."""

VIEW = View(
    name="who",
    entities=("subscriber",),
    features=(Feature(name="number", default=DEFAULT_SCORE), Feature(name="half", default=0.0)),
    ttl_ms=DAY_MS,
    transform="SELECT * FROM source",
)
ROWS = ViewRows(VIEW)


def customer_key(number: int) -> str:
    """A customer's id."""
    return f"S{number:06d}"


def score_of(number: int) -> float:
    """What only this customer's own, whole row scores: number and minus its half, added."""
    return number / 2


def stored_rows(numbers: Sequence[int], *, age_ms: int = 0) -> dict[bytes, bytes]:
    """Store key -> row of these customers, *age_ms* old."""
    ids = [customer_key(number).encode() for number in numbers]
    first = np.array(numbers, dtype=np.float32)
    packed = ROWS.pack(
        ids,
        np.full(len(ids), time.time_ns() // 1_000_000 - age_ms, dtype=np.int64),
        np.stack([first, -first / 2], axis=1),
        np.ones((len(ids), 2), dtype=np.bool_),
    )
    return dict(zip(ROWS.store_keys(ids), packed, strict=True))


def write_customer_rows(url: str) -> None:
    """Write every customer's row."""
    with redis.Redis.from_url(url) as client:
        client.mset(stored_rows(range(CUSTOMERS)))


def customer_model_files() -> dict[str, bytes]:
    """A version that adds the two stored features: each customer's score is its own."""
    contract = ModelContract(
        entities=("subscriber",),
        views=(ViewUse(view=VIEW, features=("number", "half")),),
        outputs=("score",),
    )
    weights = np.ones((2, 1), dtype=np.float32)
    return tiny_files("churn", contract=contract, weights=weights)


def production_only(**policy: object) -> Deployment:
    """Version 1 alone in production."""
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
    """The same beside a canary of half the keys: then each version scores on its own thread."""
    digests = (("1", "0" * 64), ("2", "1" * 64))
    return replace(production_only(), canary="2", canary_bp=5_000, digests=digests)


@dataclass(frozen=True, slots=True)
class CallResult:
    """What one caller was told."""

    at_s: float
    """When the answer came."""
    took_s: float
    code: str
    """OK, or the status' name."""
    degraded: bool
    defaulted: bool


class TimedReader:
    """The reader as the gateway has it; keeps how long each read held its batch up."""

    def __init__(self, reader: OnlineReader) -> None:
        self._reader = reader
        self.took_s: list[float] = []

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """As OnlineReader's."""
        began = time.perf_counter()
        try:
            return await self._reader.mget(keys, timeout_s)
        finally:
            self.took_s.append(time.perf_counter() - began)


@dataclass
class GatewayWithStore:
    """A house, its reader, and what its callers were told."""

    gateway: GatewayFixture
    reader: OnlineReader
    timed_reader: TimedReader
    results: list[CallResult] = field(default_factory=list)
    wrong_answers: list[str] = field(default_factory=list)
    """Answers that were not the customer's own, nor the default's."""

    async def predict(self, number: int, within_s: float = 1.0, rows: int = 1) -> None:
        """Predict for *rows* customers from *number* on; note what came."""
        numbers = [(number + step) % CUSTOMERS for step in range(rows)]
        request = PredictRequest(model="churn", rows=[Row(keys=[customer_key(n)]) for n in numbers])
        began, code, flags = time.perf_counter(), "OK", [0]
        try:
            reply = await self.gateway.predict(request, within_s)
            flags = list(reply.row_flags) or [0] * rows
            for one, score, flag in zip(numbers, reply.scores, flags, strict=True):
                expected = DEFAULT_SCORE if flag & DEFAULTED else score_of(one)
                if score != expected:
                    self.wrong_answers.append(f"{customer_key(one)} was told {score}, flags {flag}")
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        ended = time.perf_counter()
        degraded, defaulted = any(f & DEGRADED for f in flags), any(f & DEFAULTED for f in flags)
        self.results.append(CallResult(ended, ended - began, code, degraded, defaulted))

    @asynccontextmanager
    async def traffic(self, callers: int = 2, pause_s: float = 0.002) -> AsyncIterator[None]:
        """Random customers' calls, while the block lasts."""
        chance = random.Random(callers)

        async def call() -> None:
            while True:
                await self.predict(chance.randrange(CUSTOMERS))
                await asyncio.sleep(pause_s)

        calling = [asyncio.create_task(call()) for _ in range(callers)]
        try:
            yield
        finally:
            for task in calling:
                task.cancel()
            await asyncio.wait(calling)

    async def results_during(self, seconds: float) -> list[CallResult]:
        """What callers are told from now on, for *seconds*."""
        first = len(self.results)
        await asyncio.sleep(seconds)
        return self.results[first:]

    async def wait_for_result(
        self, condition: Callable[[CallResult], bool], within_s: float
    ) -> float:
        """Seconds until a caller is told what *condition* looks for."""
        first, began = len(self.results), time.perf_counter()
        while not any(map(condition, self.results[first:])):
            waited = time.perf_counter() - began
            assert waited < within_s, f"not within {within_s} s: {self.results[-3:]}"
            await asyncio.sleep(0.002)
        return time.perf_counter() - began

    def read_counts(self) -> dict[str, int]:
        """Online reads by outcome: turnout_feature_reads."""
        self.gateway.recorder.fold()
        counted = self.gateway.metrics.snapshot().get("turnout_feature_reads", [])
        return {labels[0]: count for labels, count in counted}


@asynccontextmanager
async def gateway_with_store(
    url: str,
    *,
    settings: Settings | None = None,
    online: OnlineSettings | None = None,
    **policy: object,
) -> AsyncIterator[GatewayWithStore]:
    """Serve the model with the real reader of the store at *url*."""
    reader = OnlineReader(url, settings=online)
    await reader.start()
    try:
        timed = TimedReader(reader)
        async with gateway_fixture(
            {"1": customer_model_files()}, production_only(**policy), settings=settings, store=timed
        ) as served:
            yield GatewayWithStore(served, reader, timed)
    finally:
        await reader.close()


def median_call_s(results: Sequence[CallResult]) -> float:
    """How long a call took."""
    return sorted(one.took_s for one in results)[len(results) // 2]


def open_descriptors() -> int:
    """Of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  a count, nothing of a path


def task_count() -> int:
    """Tasks of this loop."""
    return len(asyncio.all_tasks())


async def wait_until_at_most(count: Callable[[], int], at_most: int, within_s: float = 5.0) -> None:
    """Return once *count* is back where it was; fail with what it is."""
    give_up = time.monotonic() + within_s
    while count() > at_most:
        assert time.monotonic() < give_up, f"{count()} remain; there were {at_most}"
        await asyncio.sleep(0.01)


def resident_mb() -> float:
    """Of this process."""
    with suppress(OSError), open("/proc/self/statm") as pages:  # noqa: PTH123
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0
