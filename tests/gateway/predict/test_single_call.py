"""A call that is alone is answered, counted and kept exactly as a batch of one would be."""

import asyncio
import time
from typing import Any

import grpc
import numpy as np
import pytest

from features.contract import ModelContract, RequestInput, ViewUse
from features.errors import OnlineStoreError
from features.rows import ViewRows
from features.views import Feature, View
from gateway.predict.single_call import SingleCallPath
from gateway.transport.grpcio.batch_delay import BatchDelay
from journal.prediction_id import read_prediction_id
from protos import window_pb2
from protos.journal_pb2 import ServedBatch
from protos.predict_pb2 import PredictReply, PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import KEY, SALT, GatewayFixture, gateway_fixture
from tests.poll import wait_until
from tests.tiny_models import tiny_files

VIEW = View(
    name="usage",
    entities=("subscriber",),
    features=(Feature(name="calls"), Feature(name="data", default=0.5)),
    ttl_ms=60_000,
    transform="SELECT * FROM source",
)
CONTRACT = ModelContract(
    entities=("subscriber",),
    views=(ViewUse(view=VIEW, features=("data", "calls")),),
    inputs=(RequestInput(name="asked", default=0.0),),
)
LAYOUT = ViewRows(VIEW)
TIMES = ("at_unix_ns", "prediction_ids")
"""Fields of a journal record that two runs cannot share."""


def stored(
    entity: str, *, age_ms: int = 0, valid: bool = True, of: str = "", data: float = 0.5
) -> bytes:
    """One row of the view, as the store holds it."""
    event_ms = np.array([time.time_ns() // 1_000_000 - age_ms])
    values = np.array([[0.25, data]], dtype=np.float32)
    flags = np.array([[valid, True]])
    return LAYOUT.pack([(of or entity).encode()], event_ms, values, flags)[0]


class Scripted:
    """A store that holds one row in every state there is, and breaks where it is told to."""

    def __init__(self) -> None:
        rows = {
            "fresh": stored("fresh"),
            "stale": stored("stale", age_ms=90_000),
            "forgotten": stored("forgotten", age_ms=150_000),
            "half": stored("half", valid=False),
            "swapped": stored("swapped", of="other"),
            "short": stored("short")[:-1],
            "unscored": stored("unscored", data=2.0),
            "poisoned": stored("poisoned", data=4.0),
        }
        self._rows = {LAYOUT.store_key(name.encode()): row for name, row in rows.items()}

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """As OnlineReader's."""
        del timeout_s
        if any(b"{down}" in key for key in keys):
            raise OnlineStoreError("timeout", "scripted")
        return [self._rows.get(key) for key in keys]


def request(key: str, value: float = 0.1, **more: Any) -> PredictRequest:  # noqa: ANN401
    """One row."""
    return PredictRequest(model="churn", rows=[Row(keys=[key], inputs=[value])], **more)


REQUESTS = [
    *(request(key) for key in ("fresh", "stale", "forgotten", "half", "swapped", "short")),
    request("nobody"),
    request("down"),
    request("fresh", sticky_key="house 7"),
    request("fresh", request_id="r-1"),
    request("fresh", float("nan")),
    request("unscored"),
    request("poisoned"),
    request("fresh", version="1"),
    request("fresh", version="9"),
    request("fresh", contract=3),
]


def normal(reply: PredictReply) -> str:
    """A reply without what differs from call to call."""
    known = read_prediction_id(reply.prediction_id, KEY)
    named = (known.role, known.holdout, known.version, known.revision, known.key_hash)
    reply.prediction_id = b""
    return f"{reply} {named}"


def told(record: bytes) -> dict[str, Any]:
    """A journal record likewise."""
    batch = ServedBatch.FromString(record)
    return {f.name: v for f, v in batch.ListFields() if f.name not in TIMES}


def sums(windows: list[window_pb2.Window]) -> list[str]:
    """Windows added up over their seconds, without times."""
    added: dict[tuple[str, int], Any] = {}
    for one in windows:
        calls, rows = one.calls, one.features
        counts = [calls.answered, calls.holdout, calls.refused, one.rows, calls.nan]
        counts += [rows.missing, rows.stale, rows.defaulted, rows.degraded, rows.broken]
        scores = np.zeros(64, dtype=int)
        scores[np.array(one.scores.index, dtype=int)] += np.array(one.scores.count, dtype=int)
        counts += [*scores.tolist(), sum(one.latency.count)]
        before = added.get((one.version, one.arm), [0] * len(counts))
        added[one.version, one.arm] = [a + b for a, b in zip(before, counts, strict=True)]
    return [f"{key}: {value}" for key, value in sorted(added.items())]


async def ask_all(gateway: GatewayFixture) -> list[str]:
    """What each request is answered, one after the other."""
    said = []
    for one in REQUESTS:
        try:
            said.append(normal(await gateway.predict(one)))
        except grpc.aio.AioRpcError as error:
            said.append(f"{error.code()} {error.details()}")
    return said


async def play(policy: ServingPolicy, *, lone: bool) -> dict[str, Any]:
    """Everything a caller, the controller, the journal and the metrics hear of REQUESTS."""
    split = Deployment(
        model="churn",
        revision=4,
        production="1",
        split_salt=SALT,
        holdout_salt=SALT,
        holdout_bp=5_000,
        policy=policy,
    )
    files = tiny_files(contract=CONTRACT, nan_when=1.0, fault_when=3.0)
    async with gateway_fixture({"1": files}, split, store=Scripted(), single_calls=lone) as gateway:
        said = await ask_all(gateway)
        gateway.recorder.fold()
        records = [told(record) for record in gateway.served.records]
        metrics = gateway.metrics.snapshot()
        metrics.pop("turnout_call_seconds")
        return {
            "said": [line.replace("00000001", "id") for line in said],
            "windows": sums(gateway.windows.close_windows(0, everything=True)),
            "journal": {
                name: [record[name] for record in records] and _joined(records, name)
                for name in sorted({name for record in records for name in record})
            },
            "metrics": {name: sorted(map(str, rows)) for name, rows in metrics.items()},
            "faults": gateway.faults,
            "refused by the server": gateway.refusals(),
        }


def _joined(records: list[dict[str, Any]], name: str) -> object:
    """One field over all records: how answers are cut into records is nobody's business."""
    values = [record.get(name) for record in records]
    if isinstance(values[0], bytes):
        return sorted(b"".join(v or b"" for v in values))
    if isinstance(values[0], str | int):
        return values[0]
    return sorted(item for value in values for item in value or ())


POLICIES = {
    "plain": ServingPolicy(),
    "features required": ServingPolicy(features_required=True),
    "NaN is a default": ServingPolicy(nan_scores_defaulted=True, default_score=0.125),
    "half the journal": ServingPolicy(journal_sampled_of_65536=32_768),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_lone_call_is_answered_counted_and_kept_as_a_batch_of_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies, refusals, windows, journal and metrics are equal, whatever the row's state."""
    monkeypatch.setattr(BatchDelay, "should_wait", lambda _, waiting: waiting > 1)
    alone = []
    answer = SingleCallPath.answer_call

    async def spied(*args: Any, **more: Any) -> PredictReply | None:  # noqa: ANN401
        reply = await answer(*args, **more)
        alone.append(reply is not None)
        return reply

    monkeypatch.setattr(SingleCallPath, "answer_call", spied)
    in_batches = asyncio.run(play(POLICIES[name], lone=False))
    assert not alone
    by_itself = asyncio.run(play(POLICIES[name], lone=True))
    assert sum(alone) >= 8, "nothing was answered alone"
    assert by_itself == in_batches


def test_a_lone_call_counts_as_inside_until_it_is_answered() -> None:
    """A second call that comes meanwhile is not alone, and a drain waits for both."""

    class Slow(Scripted):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.go = asyncio.Event(), asyncio.Event()

        async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
            self.asked.set()
            await self.go.wait()
            return await super().mget(keys, timeout_s)

    async def walk() -> None:
        split = Deployment(model="churn", revision=4, production="1", split_salt=SALT)
        store, files = Slow(), tiny_files(contract=CONTRACT)
        async with gateway_fixture({"1": files}, split, store=store) as gateway:
            gateway.ingress_server._batch_delay._left = 10
            first = asyncio.create_task(gateway.predict(request("fresh")))
            await store.asked.wait()
            assert gateway.ingress_server.rows_inside == 1
            second = asyncio.create_task(gateway.predict(request("fresh")))
            await wait_until(lambda: gateway.ingress_server.rows_inside == 2)
            gone = asyncio.create_task(gateway.predict(request("fresh")))
            await wait_until(lambda: gateway.ingress_server.rows_inside == 3)
            gone.cancel()
            store.go.set()
            assert (await first).scores == (await second).scores
            await wait_until(lambda: gateway.ingress_server.rows_inside == 0)

    asyncio.run(walk())
