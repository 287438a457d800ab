"""Both clients report outcomes by entity to a real gateway."""

import asyncio
import time
from collections.abc import Callable

import grpc
import pytest

from features.contract import ModelContract, RequestInput
from protos.journal_pb2 import OutcomeRecord
from registry.types import Deployment
from tests.gateway.gateway_fixture import gateway_fixture
from tests.tiny_models import tiny_files
from turnout_client import OutcomeReply, PredictClient, PredictError, SyncPredictClient

pytestmark = pytest.mark.walk

OFFERS = ModelContract(
    entities=("subscriber", "offer"),
    inputs=(RequestInput(name="price", default=0.0),),
    outputs=("taken",),
)
DEPLOYMENT = Deployment(model="churn", revision=1, production="1")
NOW_MS = int(time.time() * 1e3)
Report = Callable[..., OutcomeReply]
"""report_entity_outcome of either client."""


def story(report: Report) -> None:
    """Report outcomes of offers to a customer, some of which the gateway refuses."""
    keys = ["S1", "O7"]
    # The same event counts once, and a correction has a key of its own.
    for duplicate in (False, True):
        reply = report("churn", keys, "taken", 1.0, NOW_MS)
        assert (reply.attribution, reply.duplicate) == (OutcomeReply.BY_ENTITY_LATER, duplicate)
    with pytest.raises(PredictError, match="ALREADY_EXISTS"):
        report("churn", keys, "taken", 0.0, NOW_MS)
    assert not report("churn", keys, "taken", 0.0, NOW_MS, idempotency_key="undone").duplicate
    # Another time, name or offer is another event.
    assert not report("churn", keys, "taken", 1.0, event_time_ms=NOW_MS - 1).duplicate
    assert not report("churn", keys, "opened", 1.0, NOW_MS).duplicate
    assert not report("churn", ("S1", "O8"), "taken", 1.0, NOW_MS).duplicate
    # What is no report.
    for fields, code, words in (
        (("churn", "S1", "taken", 1.0, NOW_MS), "INVALID_ARGUMENT", "1 keys; model 'churn' has 2"),
        (("churn", keys, "taken", 1.0, 0), "INVALID_ARGUMENT", "with keys and event_time_ms"),
        (("churn", keys, "taken", float("nan"), NOW_MS), "INVALID_ARGUMENT", "NaN"),
        (("nothing", keys, "taken", 1.0, NOW_MS), "NOT_FOUND", "not served here"),
    ):
        with pytest.raises(PredictError, match=words) as refused:
            report(*fields)
        assert refused.value.code == grpc.StatusCode[code]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_outcomes_by_entity_are_on_disk_once(kind: str) -> None:
    """With keys and time and without a prediction id, from both clients."""

    async def walk() -> None:
        files = {"1": tiny_files(contract=OFFERS)}
        async with gateway_fixture(files, DEPLOYMENT) as gateway:
            # The client that is asked for tells the story.
            target = f"127.0.0.1:{gateway.port}"
            if kind == "sync":
                with SyncPredictClient(target, timeout_s=20) as client:
                    await asyncio.to_thread(story, client.report_entity_outcome)
            else:
                loop = asyncio.get_running_loop()
                async with PredictClient(target, timeout_s=20) as caller:

                    def report(*fields: object, **named: object) -> OutcomeReply:
                        call = caller.report_entity_outcome(*fields, **named)  # type: ignore[arg-type]
                        return asyncio.run_coroutine_threadsafe(call, loop).result()

                    await asyncio.to_thread(story, report)
            # What was refused or known is not on disk.
            records = [OutcomeRecord.FromString(raw) for raw in gateway.outcomes.records]
        assert [(list(item.keys), item.name, item.value) for item in records] == [
            (["S1", "O7"], "taken", 1.0),
            (["S1", "O7"], "taken", 0.0),
            (["S1", "O7"], "taken", 1.0),
            (["S1", "O7"], "opened", 1.0),
            (["S1", "O8"], "taken", 1.0),
        ]
        assert {(item.model, item.prediction_id) for item in records} == {("churn", b"")}
        assert len({item.idempotency_key for item in records}) == 5

    asyncio.run(walk())
