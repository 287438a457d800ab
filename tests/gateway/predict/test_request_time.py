"""The time of a request is a model input, in batches and in single calls alike."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from features.contract import ModelContract, time_columns
from gateway.transport.grpcio.batch_delay import BatchDelay
from protos.journal_pb2 import ServedBatch
from protos.predict_pb2 import PredictRequest, Row
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, gateway_fixture
from tests.gateway.predict.test_single_call import CONTRACT, ScriptedStore
from tests.tiny_models import tiny_files

BY_KEY = replace(CONTRACT, request_time=True)
IN_REQUEST = replace(BY_KEY, views=())


def weights(contract: ModelContract) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Weights of a model whose score is the day of the call, in thousands, and its balance."""
    table = np.zeros((contract.width, 1), dtype=np.float32)
    table[contract.names.index("now:day")] = 1e-3
    table[contract.names.index("balance")] = 1.0
    return table


def test_time_columns_are_exact() -> None:
    """Days since 1970 and seconds of the day, to the last second of each day."""
    instants = np.array([0, 86_399_999, 86_400_000, 1_764_471_270_123], dtype=np.int64)
    assert time_columns(instants).tolist() == [[0, 0], [0, 86_399], [1, 0], [20_422, 10_470]]


@pytest.mark.parametrize("single_calls", [True, False])
@pytest.mark.parametrize("contract", [BY_KEY, IN_REQUEST])
def test_models_read_the_time_of_the_call(
    contract: ModelContract, single_calls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the instant at which the age of features counts, which the journal has too."""
    monkeypatch.setattr(BatchDelay, "should_wait", lambda _, waiting: waiting > 1)

    async def walk() -> None:
        deployment = Deployment(model="churn", revision=4, production="1", split_salt=SALT)
        files = tiny_files(contract=contract, weights=weights(contract))
        began_ns = time.time_ns()
        async with gateway_fixture(
            {"1": files}, deployment, store=ScriptedStore(), single_calls=single_calls
        ) as gateway:
            # The store has a row for the first call, and does not answer the second one.
            for key in ("fresh", "down"):
                reply = await gateway.predict(
                    PredictRequest(model="churn", rows=[Row(keys=[key], inputs=[0.25])])
                )
                day = time.time_ns() // 86_400_000_000_000
                assert abs(reply.scores[0] - 0.25 - day / 1e3) < 1.5e-3
            # The journal has the very vectors that were scored.
            gateway.recorder.fold()
            records = [ServedBatch.FromString(record) for record in gateway.served.records]
        assert sum(len(record.role) for record in records) == 2
        for record in records:
            at_ns = np.frombuffer(record.at_unix_ns, dtype=np.int64)
            vectors = np.frombuffer(record.vectors, dtype=np.float32).reshape(-1, record.width)
            assert record.width == contract.width
            assert (at_ns >= began_ns).all()
            assert vectors[:, -2:].tolist() == time_columns(at_ns // 1_000_000).tolist()
            assert vectors[:, -3].tolist() == [0.25] * len(at_ns)

    asyncio.run(walk())


def test_a_canary_may_read_the_time_when_production_does_not() -> None:
    """Each version is given its own columns of the batch."""

    async def walk() -> None:
        deployment = Deployment(
            model="churn",
            revision=4,
            production="1",
            canary="2",
            canary_bp=5_000,
            split_salt=SALT,
        )
        versions = {
            "1": tiny_files(contract=CONTRACT, weights=np.array([[0], [0], [1]], dtype=np.float32)),
            "2": tiny_files(contract=BY_KEY, weights=weights(BY_KEY)),
        }
        day = time.time_ns() / 86_400_000_000_000
        scores: dict[str, set[bool]] = {"1": set(), "2": set()}
        async with gateway_fixture(versions, deployment, store=ScriptedStore()) as gateway:
            for number in range(40):
                row = Row(keys=[f"S{number}"], inputs=[0.25])
                reply = await gateway.predict(PredictRequest(model="churn", rows=[row]))
                expected = 0.25 + (day / 1e3 if reply.version == "2" else 0.0)
                scores[reply.version].add(abs(reply.scores[0] - expected) < 2e-3)
        assert scores == {"1": {True}, "2": {True}}

    asyncio.run(walk())
