"""Next best action: one customer, twenty offers, one call, one round trip to the store."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
import redis

from features.materialise import materialise
from features.offline import OfflineStore, Spine
from features.online.reader import OnlineReader
from features.sources import offers
from protos.journal_pb2 import ServedBatch
from protos.predict_pb2 import PredictRequest, Row
from registry.types import Deployment
from tests.demo_models import VIEWS, demo_store
from tests.gateway.gateway_fixture import SALT, gateway_fixture
from tests.servers import redis_server
from training.export.onnx_model import OnnxModel
from training.recipes import nba
from training.train import TrainedVersion, train_version

pytestmark = pytest.mark.walk

PLAN = Deployment(model="nba", revision=1, production="1", split_salt=SALT, holdout_salt=SALT)


def asked(store: OfflineStore, customer: str, names: list[str], now_ms: int) -> np.ndarray:
    """What the offline store knows of the pairs, in order: (N, 10)."""
    spine = Spine(
        ids={"subscriber": [customer] * len(names), "offer": names},
        as_of_ms=np.full(len(names), now_ms),
    )
    return store.training_set(nba.recipe().contract, spine).values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sources lie."""
    return tmp_path_factory.mktemp("offers")


@pytest.fixture(scope="module")
def now_ms() -> int:
    """The present: online rows are judged stale by the gateway's own clock."""
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def store(folder: Path, now_ms: int) -> OfflineStore:
    """400 customers, 20 offers, 8,000 pairs."""
    return demo_store(folder, "nba", now_ms=now_ms)


@pytest.fixture(scope="module")
def version(store: OfflineStore, now_ms: int) -> TrainedVersion:
    """The recipe's model."""
    return train_version(nba.recipe(), store, nba.labels(now_ms=now_ms))


def test_one_call_ranks_twenty_offers_by_one_read_bit_for_bit_as_trained(
    store: OfflineStore, version: TrainedVersion, now_ms: int
) -> None:
    """Scores in the rows' order, one MGET of 60 keys, vectors equal to the offline join's bits."""
    names = offers.offer_ids(20)[::-1]
    customers = [f"S{number:07d}" for number in (1, 17, 400)]

    async def walk(url: str, client: redis.Redis) -> None:
        reader = OnlineReader(url)
        await reader.start()
        async with gateway_fixture({"1": version.files}, PLAN, store=reader) as gateway:
            for customer in customers:
                before = reads(client)
                reply = await gateway.predict(
                    PredictRequest(
                        model="nba", rows=[Row(keys=[customer, offer]) for offer in names]
                    )
                )
                assert reads(client) - before == 1
                gateway.recorder.fold()
                served = ServedBatch.FromString(gateway.served.records[-1])
                offline = asked(store, customer, names, now_ms)
                assert served.vectors == offline.astype("<f4").tobytes()
                expected = OnnxModel(version.files["model.onnx"]).scores(offline)[:, 0]
                np.testing.assert_allclose(list(reply.scores), expected, rtol=0, atol=1e-6)
                pairs = [one for offer in names for one in (customer, offer)]
                assert list(served.entity_ids) == pairs
                assert len(set(reply.scores)) > 10
        await reader.close()

    with redis_server() as server, redis.Redis.from_url(server.url) as client:
        for view in VIEWS["nba"]:
            materialise(store, view, client)
        asyncio.run(walk(server.url, client))


def reads(client: redis.Redis) -> int:
    """How many MGETs the store has seen."""
    said = client.info("commandstats")
    assert isinstance(said, dict)
    return int(said.get("cmdstat_mget", {"calls": 0})["calls"])


def test_neighbouring_calls_in_one_batch_keep_their_own_pairs(
    store: OfflineStore, version: TrainedVersion, now_ms: int
) -> None:
    """40 customers at once, each with other offers in another order."""
    draw = np.random.default_rng(5)
    calls = {
        f"S{number:07d}": draw.permutation(offers.offer_ids(20))[: draw.integers(1, 21)].tolist()
        for number in range(1, 41)
    }

    async def walk(url: str) -> None:
        reader = OnlineReader(url)
        await reader.start()
        async with gateway_fixture({"1": version.files}, PLAN, store=reader) as gateway:
            replies = await asyncio.gather(
                *(
                    gateway.predict(
                        PredictRequest(model="nba", rows=[Row(keys=[who, o]) for o in names])
                    )
                    for who, names in calls.items()
                )
            )
            model = OnnxModel(version.files["model.onnx"])
            for (customer, names), reply in zip(calls.items(), replies, strict=True):
                expected = model.scores(asked(store, customer, names, now_ms))[:, 0]
                np.testing.assert_allclose(list(reply.scores), expected, rtol=0, atol=1e-6)
        await reader.close()

    with redis_server() as server, redis.Redis.from_url(server.url) as client:
        for view in VIEWS["nba"]:
            materialise(store, view, client)
        asyncio.run(walk(server.url))
