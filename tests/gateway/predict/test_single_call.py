"""A single call gets the reply, the counts and the journal record of a batch of one."""

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
from gateway.predict import prediction_ids, single_call
from gateway.predict.single_call import AnsweredCall, SingleCallPath, SingleRow, StartedCall
from gateway.transport.grpcio.batch_delay import BatchDelay
from journal.prediction_id import complete_prediction_id, read_prediction_id
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
    inputs=(RequestInput(name="balance", default=0.0),),
)
LAYOUT = ViewRows(VIEW)
TIMES = ("at_unix_ns", "prediction_ids")
"""Fields of a journal record that differ between two runs."""


def stored_row(entity: str, *, age_ms: int = 0, valid: bool = True, data: float = 0.5) -> bytes:
    """Return the bytes of one row of the view as the store has them."""
    event_ms = np.array([time.time_ns() // 1_000_000 - age_ms])
    values = np.array([[0.25, data]], dtype=np.float32)
    flags = np.array([[valid, True]])
    return LAYOUT.pack([entity.encode()], event_ms, values, flags)[0]


class ScriptedStore:
    """A store with one row in each state. It fails for the key "down"."""

    def __init__(self) -> None:
        rows = {
            "fresh": stored_row("fresh"),
            "stale": stored_row("stale", age_ms=90_000),
            "expired": stored_row("expired", age_ms=150_000),
            "partly_valid": stored_row("partly_valid", valid=False),
            "swapped": stored_row("other"),
            "short": stored_row("short")[:-1],
            "nan_score": stored_row("nan_score", data=2.0),
            "fault": stored_row("fault", data=4.0),
        }
        self._rows = {LAYOUT.store_key(name.encode()): row for name, row in rows.items()}

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """Return one row or None a key, as OnlineReader does."""
        del timeout_s
        if any(b"{down}" in key for key in keys):
            raise OnlineStoreError("timeout", "scripted")
        return [self._rows.get(key) for key in keys]


def request(key: str, value: float = 0.1, **more: Any) -> PredictRequest:  # noqa: ANN401
    """Return a call of one row."""
    return PredictRequest(model="churn", rows=[Row(keys=[key], inputs=[value])], **more)


REQUESTS = [
    *(request(key) for key in ("fresh", "stale", "expired", "partly_valid", "swapped", "short")),
    request("absent"),
    request("down"),
    request("fresh", sticky_key="household 7"),
    request("fresh", request_id="r-1"),
    request("fresh", float("nan")),
    request("nan_score"),
    request("fault"),
    request("fresh", version="1"),
    request("fresh", version="9"),
    request("fresh", contract=3),
]


def reply_text(reply: PredictReply) -> str:
    """Return the text of a reply without the parts that differ between two runs."""
    prediction = read_prediction_id(reply.prediction_id, KEY)
    stable_parts = (
        prediction.role,
        prediction.holdout,
        prediction.version,
        prediction.revision,
        prediction.key_hash,
        prediction.rows,
        prediction.score,
        prediction.positive,
    )
    assert prediction.score == pytest.approx(reply.scores[0], rel=1 / 256)
    reply.prediction_id = b""
    return f"{reply} {stable_parts}"


def record_fields(record: bytes) -> dict[str, Any]:
    """Return the fields of a journal record that do not differ between two runs."""
    batch = ServedBatch.FromString(record)
    return {field.name: value for field, value in batch.ListFields() if field.name not in TIMES}


def window_sums(windows: list[window_pb2.Window]) -> list[str]:
    """Return the counts of each version and arm, added up over the seconds."""
    sums: dict[tuple[str, int], list[int]] = {}
    for window in windows:
        calls, features = window.calls, window.features
        counts = [calls.answered, calls.holdout, calls.refused, window.rows, calls.nan]
        counts += [features.missing, features.stale, features.defaulted]
        counts += [features.degraded, features.broken]
        scores = np.zeros(64, dtype=int)
        scores[np.array(window.scores.index, dtype=int)] += np.array(window.scores.count, dtype=int)
        counts += [*scores.tolist(), sum(window.latency.count)]
        earlier = sums.get((window.version, window.arm), [0] * len(counts))
        sums[window.version, window.arm] = [a + b for a, b in zip(earlier, counts, strict=True)]
    return [f"{key}: {value}" for key, value in sorted(sums.items())]


async def replies_to_requests(gateway: GatewayFixture) -> list[str]:
    """Send REQUESTS one after the other, and return the texts of the replies and errors."""
    replies = []
    for message in REQUESTS:
        try:
            replies.append(reply_text(await gateway.predict(message)))
        except grpc.aio.AioRpcError as error:
            replies.append(f"{error.code()} {error.details()}")
    return replies


async def observed_results(policy: ServingPolicy, *, single_calls: bool) -> dict[str, Any]:
    """Send REQUESTS to a gateway; return replies, windows, journal, metrics and errors."""
    # Half the customers are in the holdout; some rows score NaN or raise.
    deployment = Deployment(
        model="churn",
        revision=4,
        production="1",
        split_salt=SALT,
        holdout_salt=SALT,
        holdout_bp=5_000,
        policy=policy,
    )
    files = tiny_files(contract=CONTRACT, nan_when=1.0, fault_when=3.0)
    async with gateway_fixture(
        {"1": files}, deployment, store=ScriptedStore(), single_calls=single_calls
    ) as gateway:
        replies = await replies_to_requests(gateway)
        gateway.recorder.fold()
        records = [record_fields(record) for record in gateway.served.records]
        # Latencies differ between two runs.
        metrics = gateway.metrics.snapshot()
        metrics.pop("turnout_call_seconds")
        return {
            "replies": [line.replace("00000001", "id") for line in replies],
            "windows": window_sums(gateway.windows.close_windows(0, everything=True)),
            "journal": {
                name: [record[name] for record in records] and _joined(records, name)
                for name in sorted({name for record in records for name in record})
            },
            "metrics": {name: sorted(map(str, rows)) for name, rows in metrics.items()},
            "faults": gateway.faults,
            "refused by the server": gateway.refusals(),
        }


def _joined(records: list[dict[str, Any]], name: str) -> object:
    """Join one field over all records, because the number of records is not promised."""
    values = [record.get(name) for record in records]
    if isinstance(values[0], bytes):
        return sorted(b"".join(value or b"" for value in values))
    if isinstance(values[0], str | int):
        return values[0]
    return sorted(item for value in values for item in value or ())


POLICIES = {
    "plain": ServingPolicy(),
    "features required": ServingPolicy(features_required=True),
    "NaN is a default": ServingPolicy(nan_scores_defaulted=True, default_score=0.125),
    "half the journal": ServingPolicy(journal_sampled_of_65536=32_768),
    "role hidden": ServingPolicy(hide_role=True),
}


@pytest.mark.parametrize("name", POLICIES)
def test_single_call_path_gives_the_results_of_a_batch_of_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies, refusals, windows, journal and metrics are equal for each state of the row."""
    monkeypatch.setattr(BatchDelay, "should_wait", lambda _, waiting: waiting > 1)
    answered = []
    answer = SingleCallPath.answer

    def noted_answer(
        path: SingleCallPath, started: StartedCall, row: SingleRow
    ) -> AnsweredCall | None:
        result = answer(path, started, row)
        answered.append(result is not None)
        return result

    monkeypatch.setattr(SingleCallPath, "answer", noted_answer)
    from_batches = asyncio.run(observed_results(POLICIES[name], single_calls=False))
    assert not answered
    from_single_calls = asyncio.run(observed_results(POLICIES[name], single_calls=True))
    assert sum(answered) >= 8, "the single call path answered too few calls"
    assert from_single_calls == from_batches


@pytest.mark.parametrize("name", ["plain", "half the journal"])
def test_single_calls_leave_the_same_records_without_the_native_library(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fold in Python and the native one give the same windows, journal and metrics."""
    monkeypatch.setattr(BatchDelay, "should_wait", lambda _, waiting: waiting > 1)
    with_library = asyncio.run(observed_results(POLICIES[name], single_calls=True))
    monkeypatch.setattr(single_call, "NATIVE_SINGLE_ANSWERS", None)
    assert asyncio.run(observed_results(POLICIES[name], single_calls=True)) == with_library


def test_single_call_without_the_native_ids_has_the_same_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ids of the library are those of the reference."""
    monkeypatch.setattr(BatchDelay, "should_wait", lambda _, waiting: waiting > 1)
    policy = POLICIES["plain"]
    with_library = asyncio.run(observed_results(policy, single_calls=True))
    monkeypatch.setattr(prediction_ids, "COMPLETE_ID", complete_prediction_id)
    assert asyncio.run(observed_results(policy, single_calls=True)) == with_library


def test_single_call_is_recorded_after_its_reply_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends a reply in the step of the call's handler, which comes first."""
    monkeypatch.setattr(BatchDelay, "should_wait", lambda _, waiting: waiting > 1)
    events = []

    async def walk() -> None:
        deployment = Deployment(model="churn", revision=4, production="1", split_salt=SALT)
        files = tiny_files(contract=CONTRACT)
        async with gateway_fixture({"1": files}, deployment, store=ScriptedStore()) as gateway:
            finish_call, record = gateway.ingress_server.finish_call, gateway.recorder.record

            def finished(handle: int) -> None:
                events.append("handler")
                finish_call(handle)

            def recorded(answered: AnsweredCall) -> None:
                events.append("record")
                record(answered)

            monkeypatch.setattr(gateway.ingress_server, "finish_call", finished)
            monkeypatch.setattr(gateway.recorder, "record", recorded)
            for _ in range(3):
                await gateway.predict(request("fresh"))

    asyncio.run(walk())
    assert events == ["handler", "record"] * 3


class BlockedStore(ScriptedStore):
    """A store that does not answer before `unblocked` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.unblocked = asyncio.Event(), asyncio.Event()

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """Wait until the store is unblocked, and return the rows."""
        self.reading.set()
        await self.unblocked.wait()
        return await super().mget(keys, timeout_s)


def test_server_counts_a_single_call_as_inside_until_it_is_answered() -> None:
    """Calls that come meanwhile are counted with it; a cancelled call is released, too."""

    async def walk() -> None:
        deployment = Deployment(model="churn", revision=4, production="1", split_salt=SALT)
        store, files = BlockedStore(), tiny_files(contract=CONTRACT)
        async with gateway_fixture({"1": files}, deployment, store=store) as gateway:
            server = gateway.ingress_server
            # The batch delay skips its next 10 waits, so the first call is a single call.
            server._batch_delay._skips_left = 10
            first = asyncio.create_task(gateway.predict(request("fresh")))
            await store.reading.wait()
            assert server.rows_inside == 1
            # Two more calls come, and the caller of the last one cancels it.
            second = asyncio.create_task(gateway.predict(request("fresh")))
            await wait_until(lambda: server.rows_inside == 2)
            cancelled = asyncio.create_task(gateway.predict(request("fresh")))
            await wait_until(lambda: server.rows_inside == 3)
            cancelled.cancel()
            # The store answers.
            store.unblocked.set()
            assert (await first).scores == (await second).scores
            await wait_until(lambda: server.rows_inside == 0)

    asyncio.run(walk())
