"""A pass over many models gives each call the answer and the records of a batch of its model."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from features.contract import TIME_NAMES, ModelContract, RequestInput, ViewUse
from features.errors import OnlineStoreError
from features.rows import ViewRows
from features.views import Feature, View
from gateway.predict.turns import TurnPath
from gateway.settings import Settings
from gateway.telemetry.shadow_copies import ShadowCopies
from gateway.transport.native.server import NativeServer
from protos.predict_pb2 import DEGRADED, PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture
from tests.gateway.predict.test_single_call import (
    VIEW,
    ScriptedStore,
    record_fields,
    reply_text,
    window_sums,
)
from tests.poll import wait_until
from tests.tiny_models import linear_weights, tiny_files

INPUT = RequestInput(name="balance", default=0.0)
TARIFF = View(
    name="tariff",
    entities=("subscriber",),
    features=(Feature(name="price", default=0.25),),
    ttl_ms=60_000,
    transform="SELECT * FROM source",
)
CONTRACTS = {
    "by_key": ModelContract(
        entities=("subscriber",),
        views=(ViewUse(view=VIEW, features=("data", "calls")),),
        inputs=(INPUT,),
    ),
    "two_views": ModelContract(
        entities=("household", "subscriber"),
        views=(
            ViewUse(view=VIEW, features=("calls", "data")),
            ViewUse(view=TARIFF, features=("price",)),
        ),
        inputs=(INPUT,),
        request_time=True,
    ),
    "in_request": ModelContract(entities=("subscriber",), inputs=(INPUT,), outputs=("a", "b")),
    "without_entity": ModelContract(entities=(), inputs=(INPUT,)),
}
CONTRACTS |= {"shadowed": CONTRACTS["by_key"], "rolling": CONTRACTS["by_key"]}
NAMES = ("fresh", "stale", "expired", "partly_valid", "swapped", "short", "absent")
POLICIES = {
    "plain": ServingPolicy(),
    "features required": ServingPolicy(features_required=True),
    "NaN is a default": ServingPolicy(nan_scores_defaulted=True, default_score=0.125),
    "half the journal": ServingPolicy(journal_sampled_of_65536=32_768),
    "role hidden": ServingPolicy(hide_role=True),
}


class CountingStore(ScriptedStore):
    """A store that counts reads, fails while `down`, and waits for `unblocked`."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.down = 0, False
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        layout, now_ms = ViewRows(TARIFF), np.array([time.time_ns() // 1_000_000])
        for name in NAMES[::2]:
            values = np.array([[0.75]], dtype=np.float32)
            (row,) = layout.pack([name.encode()], now_ms, values, np.ones((1, 1), dtype=np.bool_))
            self._rows[layout.store_key(name.encode())] = row

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """Return one row or None a key, or fail."""
        self.reads += 1
        await self.unblocked.wait()
        if self.down:
            raise OnlineStoreError("timeout", "scripted")
        return await super().mget(keys, timeout_s)


class CopyList:
    """Takes shadow copies in place of the shadows' processes."""

    def __init__(self) -> None:
        self.copies: list[ShadowCopies] = []

    def offer(self, copies: ShadowCopies) -> None:
        """Append the copies."""
        self.copies.append(copies)

    def send_pending(self) -> None:
        """Do nothing: no copies wait here."""


def deployment_of(model: str, policy: ServingPolicy) -> Deployment:
    """Return a deployment with half the customers in the holdout, and the roles of its name."""
    deployment = Deployment(
        model=model,
        revision=4,
        production="1",
        split_salt=SALT,
        holdout_salt=SALT[::-1],
        holdout_bp=0 if model == "two_views" else 5_000,
        policy=policy,
    )
    if model == "shadowed":
        return replace(deployment, shadows=(("2", 5_000),))
    return replace(deployment, canary="2", canary_bp=5_000) if model == "rolling" else deployment


def versions_of(model: str) -> dict[str, dict[str, bytes]]:
    """Return the versions of a model; some stored rows score NaN or raise, and time counts 0."""
    contract = CONTRACTS[model]
    weights = linear_weights(contract.width, len(contract.outputs))
    if contract.request_time:
        weights[-len(TIME_NAMES) :] = 0
    limits = {"nan_when": 1.0, "fault_when": 3.0} if model == "by_key" else {}
    labels = ("1", "2") if model in ("shadowed", "rolling") else ("1",)
    return {
        label: tiny_files(model, contract=contract, weights=weights * int(label), **limits)
        for label in labels
    }


@asynccontextmanager
async def serving(
    policy: ServingPolicy, store: CountingStore, *, one_pass: bool = True
) -> AsyncIterator[GatewayFixture]:
    """Serve all models over one native server that takes one turn at a time."""
    (first, files), *others = [
        (deployment_of(model, policy), versions_of(model)) for model in CONTRACTS
    ]
    async with gateway_fixture(
        files,
        first,
        others=[(more, plan) for plan, more in others],
        store=store,
        settings=Settings(batches_in_flight_max=1, streams_max=1_000),
        single_calls=False,
        fault_free_path=one_pass,
    ) as gateway:
        gateway.recorder._copy_sink = CopyList()
        yield gateway


def call(model: str, name: str, value: float = 0.1, rows: int = 1, **more: Any) -> PredictRequest:  # noqa: ANN401
    """Return a call of *rows* rows; a model without an entity is called by request id."""
    if not CONTRACTS[model].entities:
        more = {"request_id": f"r-{name}-{value}", **more}
    entities = len(CONTRACTS[model].entities)
    keys = ["H1", name][-entities:] if entities else []
    row = Row(keys=keys, inputs=[value])
    return PredictRequest(model=model, rows=[row] * rows, **more)


def calls_for_all_models() -> list[PredictRequest]:
    """Return calls in every state of a row and of a call, the models mixed."""
    calls = [call(model, name) for name in NAMES for model in CONTRACTS]
    calls += [call(model, "fresh", 0.3, rows=3, sticky_key=f"K{model}") for model in CONTRACTS]
    calls += [call(model, "stale", 0.2, request_id=f"r-{model}") for model in CONTRACTS]
    calls += [call("without_entity", "", 0.4, request_id=f"r-{number}") for number in range(3)]
    calls += [call("shadowed", f"S{number}", number / 100) for number in range(40)]
    calls += [call("rolling", f"S{number}", number / 100) for number in range(40)]
    return calls


async def in_one_turn(gateway: GatewayFixture, calls: Sequence[PredictRequest]) -> list[str]:
    """Send all calls before the gateway takes any of them. Return texts of replies and errors."""
    slots = gateway.parts.pipeline._slots
    rows = gateway.ingress_server.rows_inside + sum(len(message.rows) for message in calls)
    await slots.acquire()
    tasks = [asyncio.create_task(_text_of(gateway, message)) for message in calls]
    await wait_until(lambda: gateway.ingress_server.rows_inside == rows)
    slots.release()
    return await asyncio.gather(*tasks)


async def _text_of(gateway: GatewayFixture, message: PredictRequest) -> str:
    try:
        reply = await gateway.predict(message)
    except grpc.aio.AioRpcError as error:
        return f"{error.code()} {error.details()}"
    return reply_text(reply)


async def observed(
    policy: ServingPolicy, calls: Sequence[PredictRequest], *, one_pass: bool
) -> Any:  # noqa: ANN401
    """Answer *calls* in one turn; return replies, windows, journal, copies, metrics and errors."""
    async with serving(policy, CountingStore(), one_pass=one_pass) as gateway:
        replies = await in_one_turn(gateway, calls)
        windows = {
            model: window_sums([w for w in gateway.close_windows() if w.model == model])
            for model in CONTRACTS
        }
        sink = cast("CopyList", gateway.recorder._copy_sink)
        metrics = gateway.metrics.snapshot()
        metrics.pop("turnout_call_seconds")
        return {
            "replies": replies,
            "windows": windows,
            "journal": sorted(_served_calls(gateway.served.records)),
            "copies": sorted(text for copies in sink.copies for text in _copied_calls(copies)),
            "metrics": {name: sorted(map(str, rows)) for name, rows in metrics.items()},
            "faults": len(gateway.faults),
        }


def _served_calls(records: Sequence[bytes]) -> list[str]:
    """Return one text for each call of the journal, because records are cut by time."""
    texts = []
    for record in records:
        served = record_fields(record)
        rows = np.frombuffer(served["row_count"], np.uint32)
        ends = np.cumsum(rows)
        vectors = _rows(served["vectors"], int(ends[-1]))
        scores = _rows(served["scores"], int(ends[-1]))
        flags = np.frombuffer(served["row_flags"], np.uint32)
        entities = len(served.get("entity_ids", ())) // int(ends[-1])
        for number, (count, end) in enumerate(zip(rows.tolist(), ends.tolist(), strict=True)):
            own = slice(end - count, end)
            ids = served.get("entity_ids", ())[(end - count) * entities : end * entities]
            key = np.frombuffer(served["key_hash"], np.uint64)[number]
            time_columns = len(TIME_NAMES) if served["model"] == "two_views" else 0
            inputs = vectors[own, : vectors.shape[1] - time_columns].tolist()
            texts.append(
                f"{served['model']} {served['version']} {served['role'][number]} {key} {list(ids)} "
                f"{flags[own].tolist()} {inputs} {scores[own].tolist()}"
            )
    return texts


def _rows(column: bytes, rows: int) -> NDArray[np.float32]:
    return np.frombuffer(column, np.float32).reshape(rows, -1)


def _copied_calls(copies: ShadowCopies) -> list[str]:
    ids = copies.entity_ids.to_list()
    offsets = copies.row_offsets.tolist()
    return [
        f"{copies.version.label} {copies.key_hash[call]} {ids[first:last]} "
        f"{copies.matrix[first:last].tolist()} {copies.production_scores[first:last].tolist()} "
        f"{copies.flags[first:last].tolist()}"
        for call, (first, last) in enumerate(itertools.pairwise(offsets))
    ]


@pytest.mark.walk
@pytest.mark.parametrize("name", POLICIES)
def test_pass_over_many_models_gives_the_results_of_batches(name: str) -> None:
    """Replies, windows, journal, shadow copies and metrics are equal, with and without faults."""
    faulty = [call("by_key", "nan_score"), call("by_key", "fault")]
    for calls in (calls_for_all_models(), calls_for_all_models() + faulty):
        from_batches = asyncio.run(observed(POLICIES[name], calls, one_pass=False))
        from_pass = asyncio.run(observed(POLICIES[name], calls, one_pass=True))
        assert from_pass["copies"], "no shadow copied a call"
        for part, expected in from_batches.items():
            assert from_pass[part] == expected, part


@pytest.mark.walk
def test_turn_reads_the_store_once_for_all_models_but_those_with_a_canary() -> None:
    """Three models share a read; the rolling one makes a batch. grpcio's server has no turns."""

    async def walk() -> None:
        store = CountingStore()
        async with serving(ServingPolicy(), store) as gateway:
            await in_one_turn(gateway, [call(model, "fresh") for model in CONTRACTS])
        assert store.reads == (2 if isinstance(gateway.ingress_server, NativeServer) else 4)

    asyncio.run(walk())


@pytest.mark.walk
def test_models_without_stored_features_do_not_wait_for_the_store() -> None:
    """Their calls of the same turn are answered while the store is silent."""

    async def walk() -> None:
        store = CountingStore()
        store.unblocked.clear()
        async with serving(ServingPolicy(), store) as gateway:
            waiting = asyncio.create_task(
                in_one_turn(gateway, [call("by_key", "fresh"), call("in_request", "fresh")])
            )
            # The turn may read by key only once both calls are inside.
            await wait_until(lambda: store.reads == 1 and gateway.ingress_server.rows_inside == 1)
            store.unblocked.set()
            replies = await waiting
        assert all("OK" not in reply and "scores" in reply for reply in replies)

    asyncio.run(walk())


@pytest.mark.walk
def test_store_outage_degrades_each_model_by_its_own_policy() -> None:
    """With the store down, stored features are defaults, and no model waits for another."""

    async def replies(policy: ServingPolicy) -> dict[str, str]:
        store = CountingStore()
        store.down = True
        models = ("by_key", "two_views", "in_request", "shadowed")
        async with serving(policy, store) as gateway:
            texts = await in_one_turn(gateway, [call(model, "fresh") for model in models])
        return dict(zip(models, texts, strict=True))

    for model, text in asyncio.run(replies(ServingPolicy())).items():
        degraded = f"row_flags: {DEGRADED | 4}"
        assert (degraded in text) == (model != "in_request"), (model, text)
    for model, text in asyncio.run(replies(ServingPolicy(features_required=True))).items():
        assert ("UNAVAILABLE" in text) == (model != "in_request"), (model, text)


@pytest.mark.walk
def test_mistake_in_one_model_ends_that_models_calls_only() -> None:
    """Its calls end INTERNAL; the other models of the turn are answered."""

    async def walk() -> None:
        async with serving(ServingPolicy(), CountingStore()) as gateway:
            routes = gateway.routes.get("shadowed")
            assert routes is not None
            routes.production.version.executor.scorer = cast("Any", _Raising())
            calls = [call(m, "fresh") for m in ("by_key", "shadowed", "two_views", "in_request")]
            calls.append(call("without_entity", "", request_id=""))  # under a random key
            texts = await in_one_turn(gateway, calls)
            for message, text in zip(calls, texts, strict=True):
                assert ("INTERNAL" in text) == (message.model == "shadowed"), text
                assert ("scores" in text) == (message.model != "shadowed"), text
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


class _Raising:
    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        raise ZeroDivisionError(str(matrix.shape))


@pytest.mark.walk
def test_calls_that_the_pass_cannot_answer_are_refused_without_harm_to_others() -> None:
    """A model that is not served any more, a pin without a version, and a deadline that passed."""

    async def walk() -> None:
        async with serving(ServingPolicy(), CountingStore()) as gateway:
            # The server still has the shape of a model that the routes have lost.
            gateway.routes.drop("without_entity")
            calls = [
                call("without_entity", "", request_id="r-1"),
                call("by_key", "fresh", version="9"),
                call("two_views", "fresh"),
                call("by_key", "fresh"),
                call("in_request", "fresh", version="1"),
            ]
            texts = await in_one_turn(gateway, calls)
            assert "NOT_FOUND" in texts[0]
            assert "not served any more" in texts[0]
            assert "version '9'" in texts[1]
            assert all("scores" in text for text in texts[2:]), texts

    asyncio.run(walk())


@pytest.mark.walk
def test_unexpected_error_in_the_pass_leaves_no_call_without_an_end(
    ingress: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches answer groups that cannot be assigned; groups that cannot be sent end INTERNAL.

    The server of grpcio has no turns, so nothing fails there.
    """
    native = ingress == "native"

    def fail(*_: object) -> None:
        raise ZeroDivisionError("scripted")

    async def walk(place: type, name: str) -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fail)
            async with serving(ServingPolicy(), CountingStore()) as gateway:
                models = ("by_key", "two_views", "in_request")
                texts = await in_one_turn(gateway, [call(model, "fresh") for model in models])
                assert bool(gateway.faults) == native
                await wait_until(lambda: gateway.ingress_server.rows_inside == 0)
                return texts

    assert all("scores" in text for text in asyncio.run(walk(TurnPath, "assign")))
    texts = asyncio.run(walk(NativeServer, "answer_groups"))
    assert all(("INTERNAL" in text) == native for text in texts)
