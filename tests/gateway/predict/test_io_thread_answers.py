"""Calls that the I/O thread answers by itself get the answers and the records of a batch."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from gateway.models.native_scorer import load_tree_reader
from gateway.transport.native.server import NativeServer
from gateway.worker_identity import NO_SLOT
from journal.prediction_id import read_prediction_id
from protos import open_inference_pb2 as oip
from protos.predict_pb2 import PredictReply, PredictRequest, StreamReply
from protos.registry_pb2 import ServingPolicy
from tests.gateway.callers.test_callers import (
    bearer,
    caller_table,
    callers_file,
    predict_status,
)
from tests.gateway.gateway_fixture import KEY, GatewayFixture
from tests.gateway.predict.test_single_call import reply_text, window_sums
from tests.gateway.six_models import CopyList, copied_calls, served_calls
from tests.gateway.tree_models import (
    ANSWERED_HERE,
    CONTRACTS,
    all_calls,
    call,
    deployment_of,
    row,
    serving,
)
from tests.poll import wait_until

pytestmark = [
    pytest.mark.skipif(load_tree_reader() is None, reason="turnout_ingress is not built"),
    pytest.mark.parametrize("ingress", ["native"], indirect=True),
]

POLICIES = {
    "usual": ServingPolicy(),
    "half the journal and the evidence": ServingPolicy(
        journal_sampled_of_65536=32_768, evidence_sampled_of_65536=32_768
    ),
    "NaN is a default": ServingPolicy(nan_scores_defaulted=True, default_score=0.125),
    "NaN inputs are refused": ServingPolicy(nan_inputs_refused=True),
    "role hidden": ServingPolicy(hide_role=True),
}


async def text_of(gateway: GatewayFixture, message: PredictRequest) -> str:
    """Return the text of a reply or of an error."""
    try:
        reply = await gateway.predict(message, within_s=60.0)
    except grpc.aio.AioRpcError as error:
        return f"{error.code()} {re.sub('error .*', 'error', error.details() or '')}"
    if reply.version:
        return reply_text(reply)
    # A sealed id is read whole; only what the caller sees is compared.
    prediction = read_prediction_id(reply.prediction_id, KEY)
    reply.prediction_id = b""
    return f"{reply} {prediction.key_hash} {prediction.holdout} {prediction.score}"


async def observed(policy: ServingPolicy, *, here: bool) -> dict[str, Any]:
    """Answer all calls, most of them at once; return replies and everything that was recorded."""
    async with serving(policy, here=here) as gateway:
        replies = [await text_of(gateway, message) for message in all_calls()[:40]]
        replies += await asyncio.gather(*[text_of(gateway, m) for m in all_calls()[40:]])
        windows = {
            model: window_sums([w for w in gateway.close_windows() if w.model == model])
            for model in CONTRACTS
        }
        sink = cast("CopyList", gateway.recorder._copy_sink)
        metrics = gateway.metrics.snapshot()
        # Latencies and the sizes of batches differ between two runs.
        metrics.pop("turnout_call_seconds")
        rows = metrics.pop("turnout_batch_rows")
        return {
            "replies": replies,
            "windows": windows,
            "journal": sorted(served_calls(gateway.served.records)),
            "copies": sorted(text for copies in sink.copies for text in copied_calls(copies)),
            "metrics": {name: sorted(map(str, rows)) for name, rows in metrics.items()},
            "rows": rows[0][1][-1],
            "faults": len(gateway.faults),
        }


@pytest.mark.walk
@pytest.mark.parametrize("name", POLICIES)
def test_answers_of_the_io_thread_are_those_of_batches(name: str, answered_here: list[int]) -> None:
    """Replies, windows, journal, shadow copies and metrics are equal, and most need no Python."""
    from_batches = asyncio.run(observed(POLICIES[name], here=False))
    assert not answered_here
    from_thread = asyncio.run(observed(POLICIES[name], here=True))
    usual = [message for message in all_calls() if message.model in ANSWERED_HERE]
    assert sum(answered_here) > 0.8 * len(usual), "the I/O thread answered hardly any call"
    assert from_thread["copies"], "no shadow copied a call"
    for part, expected in from_batches.items():
        assert from_thread[part] == expected, part


async def here_and_by_python(
    ask: Callable[[GatewayFixture], Awaitable[object]], policy: ServingPolicy | None = None
) -> tuple[object, object]:
    """Return what *ask* returns with answers of the I/O thread, and with those of Python."""
    results = []
    for here in (True, False):
        async with serving(policy, here=here) as gateway:
            results.append(await ask(gateway))
            gateway.recorder.fold()
            assert gateway.ingress_server.rows_inside == 0
    return results[0], results[1]


def answered_calls(gateway: GatewayFixture) -> int:
    """Close all windows; return the number of calls that production answered in them."""
    return sum(window.calls.answered for window in gateway.close_windows())


def test_io_thread_answers_models_that_need_nothing_of_python() -> None:
    """A canary and a required journal need Python, and so does a model that is dropped."""

    async def walk() -> None:
        async with serving() as gateway:
            turns = gateway.parts.pipeline._turns
            assert turns is not None
            assert set(turns._numbers_now) == set(ANSWERED_HERE)
            gateway.routes.drop("plain")
            assert set(turns._numbers_now) == set(ANSWERED_HERE) - {"plain"}
            assert "not served any more" in await text_of(gateway, call("plain"))

    asyncio.run(walk())


def test_worker_without_a_slot_publishes_no_plan() -> None:
    """The slot is a part of prediction ids, and a spare has none until it serves."""

    async def walk() -> None:
        async with serving() as gateway:
            turns = gateway.parts.pipeline._turns
            assert turns is not None
            identity, published = turns._id_writer._identity, dict(turns._numbers_now)
            slot, identity.slot = identity.slot, NO_SLOT
            gateway.parts.pipeline.publish_plans()
            assert turns._numbers_now == published
            identity.slot = slot
            gateway.parts.pipeline.publish_plans()
            assert min(turns._numbers_now.values()) > max(published.values())

    asyncio.run(walk())


@pytest.mark.walk
def test_io_thread_answers_predict_stream_and_model_infer(answered_here: list[int]) -> None:
    """A stream of 300 messages and a typed and a raw ModelInfer get the answers of Python."""

    async def ask(gateway: GatewayFixture) -> object:
        stream = gateway.channel.stream_stream("/turnout.v1.Predictor/PredictStream")(timeout=60.0)
        for number in range(300):
            message = call("plain", f"S{number}", number / 300, request_id=f"r-{number}")
            await stream.write(message.SerializeToString())
        await stream.done_writing()
        texts = {}
        while (raw := await stream.read()) is not grpc.aio.EOF:
            reply = StreamReply.FromString(raw)
            texts[reply.request_id] = reply_text(reply.reply)
        assert await stream.code() == grpc.StatusCode.OK
        assert len(texts) == 300
        infer = [await infer_text(gateway, raw=raw) for raw in (False, True)]
        return sorted(texts.items()), infer

    from_thread, from_python = asyncio.run(here_and_by_python(ask))
    assert from_thread == from_python
    assert sum(answered_here) == 302


async def infer_text(gateway: GatewayFixture, *, raw: bool) -> str:
    """Return the text of a ModelInfer of one row, without its prediction id."""
    request = oip.ModelInferRequest(model_name="plain", id="i-1")
    request.inputs.add(name="keys", datatype="BYTES", shape=[1, 1])
    request.inputs.add(name="inputs", datatype="FP32", shape=[1, 2])
    if raw:
        values = np.array([0.1, 0.7], dtype=np.float32).tobytes()
        request.raw_input_contents.extend([b"\x02\0\0\0S1", values])
    else:
        request.inputs[0].contents.bytes_contents.append(b"S1")
        request.inputs[1].contents.fp32_contents.extend([0.1, 0.7])
    method = gateway.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    reply = oip.ModelInferResponse.FromString(await method(request.SerializeToString(), timeout=60))
    del reply.parameters["prediction_id"]
    return str(reply)


@pytest.mark.walk
def test_routes_that_were_replaced_answer_no_call(answered_here: list[int]) -> None:
    """While callers call, versions take turns. Each reply is of one of them, and counted for it."""

    async def walk() -> None:
        async with serving() as gateway:
            before = gateway.routes.get("plain")
            assert before is not None
            changed = deployment_of("plain", ServingPolicy(), revision=5)
            after = replace(before, deployment=changed)
            replies = list[PredictReply]()
            stopped = False

            async def caller(number: int) -> None:
                while not stopped:
                    replies.append(await gateway.predict(call("plain", f"S{number}"), 60.0))

            # Each call that follows a swap is answered by the new routes.
            callers = [asyncio.create_task(caller(number)) for number in range(6)]
            for routes in (after, before) * 15:
                gateway.routes.swap(routes)
                reply = await gateway.predict(call("plain", "S1"), 60.0)
                replies.append(reply)
                revision = read_prediction_id(reply.prediction_id, KEY).revision
                assert revision == routes.deployment.revision
            stopped = True
            await asyncio.gather(*callers)
            # Every call is counted at its revision, and has an id of its own.
            revisions = Counter(
                read_prediction_id(reply.prediction_id, KEY).revision for reply in replies
            )
            counted = Counter[int]()
            for window in gateway.close_windows():
                counted[window.revision] += window.calls.answered
            assert counted == revisions
            assert len({reply.prediction_id for reply in replies}) == len(replies)
            assert sum(answered_here) == len(replies)
            turns = gateway.parts.pipeline._turns
            assert turns is not None
            assert set(turns._published) == set(turns._numbers_now.values()), "old plans stay"

    asyncio.run(walk())


@pytest.mark.walk
def test_ids_have_the_key_of_the_moment(answered_here: list[int]) -> None:
    """Once a new key was published, no id is made with the old one. Python's ids differ, too."""

    async def walk() -> None:
        async with serving() as gateway:
            turns = gateway.parts.pipeline._turns
            assert turns is not None
            ids = set[bytes]()
            for number in range(20):
                key = bytes([number]) * 32
                turns._id_writer._identity.prediction_id_key = key
                gateway.parts.pipeline.publish_plans()
                for message in (call("plain"), call("journaled")):
                    reply = await gateway.predict(message, 60.0)
                    ids.add(reply.prediction_id)
                    assert read_prediction_id(reply.prediction_id, key).rows == 1
            sequences = {int.from_bytes(prediction_id[4:8], "little") for prediction_id in ids}
            assert len(sequences) == len(ids) == 40
            gateway.recorder.fold()
            assert sum(answered_here) == 20

    asyncio.run(walk())


@pytest.mark.walk
def test_calls_without_time_or_with_many_rows_are_pythons(answered_here: list[int]) -> None:
    """A deadline nearer than any answer is refused by Python, and 1,024 rows are scored there."""

    async def walk() -> None:
        async with serving() as gateway:
            many = PredictRequest(model="plain", rows=[row("plain", "S1", 0.1)] * 1_024)
            reply = await gateway.predict(many, 60.0)
            assert len(reply.scores) == 1_024
            assert answered_calls(gateway) == 1
        async with serving(deadline_left_us_min=5_000_000) as gateway:
            error = await gateway.refusal(call("plain"), within_s=4.0)
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert gateway.metrics.snapshot()["turnout_refusals"] == [
                [["plain", "DEADLINE_EXCEEDED", "pipeline"], 1]
            ]

    asyncio.run(walk())
    assert not answered_here


@pytest.mark.walk
def test_quarantined_version_answers_as_production(answered_here: list[int]) -> None:
    """A quarantine takes no production away, whichever thread answers."""

    async def walk() -> None:
        async with serving() as gateway:
            routes = gateway.routes.get("plain")
            assert routes is not None
            digest = routes.production.version.bundle.digest
            gateway.routes.quarantined[digest] = ("scripted", 1)
            assert "scores" in await text_of(gateway, call("plain"))
            assert answered_calls(gateway) == 1

    asyncio.run(walk())
    assert answered_here == [1]


@pytest.mark.walk
def test_python_that_takes_no_records_answers_the_rest_itself(
    answered_here: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 16 MiB of records the I/O thread leaves the calls to Python. No call is lost."""
    bound = 16 << 20
    key = "K" * 128
    message = PredictRequest(model="plain", rows=[row("plain", key, 0.1)] * 64)
    row_bytes = 128 + 4 + 4 + 8 + 4

    async def walk() -> None:
        async with serving() as gateway:
            with monkeypatch.context() as stalled:
                stalled.setattr(NativeServer, "take_records", lambda _: [])
                calls = bound // (64 * row_bytes) + 200
                for _ in range(0, calls, 50):
                    await asyncio.gather(*[gateway.predict(message, 60.0) for _ in range(50)])
                in_python = answered_calls(gateway)
                assert in_python >= 150, "the records have no bound"
            made = len(range(0, calls, 50)) * 50
            assert answered_calls(gateway) == made - in_python
            assert sum(answered_here) == 64 * (made - in_python)
            # Python takes records again, so the thread answers again.
            assert "scores" in await text_of(gateway, call("plain"))
            gateway.recorder.fold()
            assert answered_here[-1] == 1

    asyncio.run(walk())


@pytest.mark.walk
def test_records_are_folded_soon_and_at_a_drain(answered_here: list[int]) -> None:
    """A timer folds the records of an answer, and a server that is closed has no record left."""

    async def walk() -> None:
        async with serving() as gateway:
            await gateway.predict(call("plain"), 60.0)
            await wait_until(lambda: answered_here == [1])
            await wait_until(lambda: len(gateway.served.records) == 1)
            await asyncio.gather(*[gateway.predict(call("plain"), 60.0) for _ in range(20)])
            await gateway.parts.server.close(5.0)
            assert answered_calls(gateway) == 21
        assert sum(answered_here) == 21

    asyncio.run(walk())


@pytest.mark.walk
def test_quota_and_models_of_a_caller_hold_on_the_io_thread(
    tmp_path: Path, answered_here: list[int]
) -> None:
    """Calls above the quota are refused, the others answered; another model does not exist."""
    table = caller_table("loud", 'rows_s = 20\nmodels = ["plain"]')
    settings = callers_file(tmp_path, table)
    many = PredictRequest(model="plain", rows=[row("plain", "S1", 0.1)] * 10)

    async def walk() -> None:
        async with serving(callers_file=settings.callers_file) as gateway:
            codes = [
                (await predict_status(gateway.channel, bearer("loud"), many))[0] for _ in range(8)
            ]
            assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            forbidden = call("without_entity")
            code, _ = await predict_status(gateway.channel, bearer("loud"), forbidden)
            assert code == grpc.StatusCode.PERMISSION_DENIED
            assert answered_calls(gateway) == codes.count(grpc.StatusCode.OK)
            assert answered_here == [10] * codes.count(grpc.StatusCode.OK)

    asyncio.run(walk())
