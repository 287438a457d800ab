"""A pass over many models gives each call the answer and the records of a batch of its model."""

import asyncio
import mmap
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, cast

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from features.contract import ModelContract, RequestInput
from gateway.isolation.breadcrumbs import (
    CELL_BYTES,
    CELLS_MAX,
    IO_BYTE,
    LOOP_BYTE,
    BreadcrumbPage,
    BreadcrumbScorer,
    create_breadcrumb_page,
    read_running_versions,
)
from gateway.models.native_scorer import choose_scorer
from gateway.native_library import IngressLibrary, load_native_library
from gateway.predict.turns import TurnPath
from gateway.settings import Settings
from gateway.transport.native.server import NativeServer
from protos.predict_pb2 import DEGRADED, PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from tests.gateway.gateway_fixture import GatewayFixture, gateway_fixture
from tests.gateway.models.test_native_trees import bundle_of, onnx_of, session_of
from tests.gateway.predict.test_single_call import (
    reply_text,
    window_sums,
)
from tests.gateway.six_models import (
    CONTRACTS,
    CopyList,
    CountingStore,
    call,
    calls_for_all_models,
    copied_calls,
    deployment_of,
    served_calls,
    versions_of,
)
from tests.poll import wait_until
from tests.tiny_models import tiny_files

POLICIES = {
    "plain": ServingPolicy(),
    "features required": ServingPolicy(features_required=True),
    "NaN is a default": ServingPolicy(nan_scores_defaulted=True, default_score=0.125),
    "half the journal": ServingPolicy(journal_sampled_of_65536=32_768),
    "role hidden": ServingPolicy(hide_role=True),
}


@asynccontextmanager
async def serving(
    policy: ServingPolicy, store: CountingStore, *, one_pass: bool = True, rows_max: int = 512
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
        settings=Settings(batches_in_flight_max=1, streams_max=1_000, batch_rows_max=rows_max),
        single_calls=False,
        fault_free_path=one_pass,
        io_thread_answers=False,
    ) as gateway:
        gateway.recorder._copy_sink = CopyList()
        yield gateway


async def in_one_turn(gateway: GatewayFixture, calls: Sequence[PredictRequest]) -> list[str]:
    """Send all calls before the gateway takes any of them. Return texts of replies and errors."""
    slots = gateway.parts.pipeline._slots
    rows = gateway.ingress_server.rows_inside + sum(len(message.rows) for message in calls)
    await slots.acquire()
    tasks = [asyncio.create_task(_text_of(gateway, message)) for message in calls]
    await wait_until(lambda: gateway.ingress_server.rows_inside == rows, within_s=30.0)
    slots.release()
    return await asyncio.gather(*tasks)


async def _text_of(gateway: GatewayFixture, message: PredictRequest) -> str:
    try:
        reply = await gateway.predict(message, within_s=60.0)
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
            "journal": sorted(served_calls(gateway.served.records)),
            "copies": sorted(text for copies in sink.copies for text in copied_calls(copies)),
            "metrics": {name: sorted(map(str, rows)) for name, rows in metrics.items()},
            "faults": len(gateway.faults),
        }


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
def test_turn_has_at_most_as_many_rows_as_a_batch() -> None:
    """Eleven rows of two models are read in turns of four, four and three rows."""

    async def walk() -> None:
        store = CountingStore()
        calls = [call(model, "fresh") for model in ("by_key", "two_views") * 4 + ("by_key",) * 3]
        async with serving(ServingPolicy(), store, rows_max=4) as gateway:
            texts = await in_one_turn(gateway, calls)
        assert all("scores" in text for text in texts)
        # A batch of grpcio's server has one model: 4 and 3 calls, and 4.
        assert store.reads == 3

    asyncio.run(walk())


@pytest.mark.walk
def test_models_without_stored_features_do_not_wait_for_the_store(ingress: str) -> None:
    """Their calls of the same turn are answered while the store is silent.

    With grpcio's server the batch of one model may hold the only slot.
    """
    inside = {1} if ingress == "native" else {1, 2}

    async def walk() -> None:
        store = CountingStore()
        store.unblocked.clear()
        async with serving(ServingPolicy(), store) as gateway:
            waiting = asyncio.create_task(
                in_one_turn(gateway, [call("by_key", "fresh"), call("in_request", "fresh")])
            )
            await wait_until(
                lambda: store.reads == 1 and gateway.ingress_server.rows_inside in inside
            )
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


@contextmanager
def watched_byte(descriptor: int, at: int) -> Iterator[threading.Event]:
    """Yield an event that is set once a byte of a page is not 0."""
    seen, ended = threading.Event(), threading.Event()

    def watch() -> None:
        with mmap.mmap(descriptor, CELL_BYTES * CELLS_MAX) as view:
            while not ended.is_set():
                if view[at]:
                    seen.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


@pytest.mark.walk
@pytest.mark.parametrize(
    ("io_thread", "offset", "count"), [(False, LOOP_BYTE, 256), (True, IO_BYTE, 4)]
)
def test_native_models_leave_a_breadcrumb_while_they_run(
    ingress: str, monkeypatch: pytest.MonkeyPatch, io_thread: bool, offset: int, count: int
) -> None:
    """The wrapped scorer is never called, and another thread sees the version's byte at 1."""
    if ingress != "native":
        pytest.skip("the server of grpcio has no turns")
    map_page = cast("IngressLibrary", load_native_library()).SharedPage
    # A model without entities, and trees that take long enough to be seen.
    contract = ModelContract(
        entities=(), inputs=tuple(RequestInput(name=f"i{n}", default=0.0) for n in range(3))
    )
    leaf = [{"feature": 1, "threshold": 0.5, "yes": 1, "no": 2}, {"weight": 0.5}, {"weight": 1.5}]
    onnx = onnx_of([leaf] * 500, sigmoid=False)
    trees = choose_scorer(bundle_of(onnx), session_of(onnx))
    rows = [Row(inputs=(0.0, number / count, 0.0)) for number in range(count)]
    request = PredictRequest(model="in_request", rows=rows, request_id="r-1")

    def fail(*_: object) -> None:
        raise ZeroDivisionError("the pass has to score")

    async def walk() -> None:
        files = {"1": tiny_files("in_request", contract=contract)}
        plan = deployment_of("in_request", ServingPolicy())
        async with gateway_fixture(
            files, plan, single_calls=False, io_thread_answers=io_thread
        ) as gateway:
            # Let the trees score, with a cell of a page.
            descriptor, routes = create_breadcrumb_page(), gateway.routes.get("in_request")
            assert routes is not None
            page = BreadcrumbPage(os.dup(descriptor), map_page)
            marked = page.wrap_scorer("ab" * 32, trees)
            routes.production.version.executor.scorer = marked
            gateway.routes.swap(replace(routes))
            monkeypatch.setattr(BreadcrumbScorer, "run", fail)
            # Answer calls until the byte of the thread was seen to be 1.
            at = CELL_BYTES * page._cells["ab" * 32] + offset
            async with asyncio.timeout(60.0):
                with watched_byte(descriptor, at) as seen:
                    while not seen.is_set():
                        reply = await gateway.predict(request, within_s=30.0)
                        expected = trees.run(np.array([row.inputs for row in rows], np.float32))
                        assert list(reply.scores) == expected.ravel().tolist()
            # The byte is 0 again when no run is under way.
            with mmap.mmap(descriptor, CELL_BYTES * CELLS_MAX) as view:
                assert view[at] == 0
            assert read_running_versions(descriptor) == []
            os.close(descriptor)

    asyncio.run(walk())
