"""Next best action: one call ranks twenty offers for one customer with one read of the store."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
import redis

from features.materialise import materialise
from features.offline import OfflineStore, Spine
from features.online.reader import OnlineReader
from protos.journal_pb2 import ServedBatch
from protos.predict_pb2 import PredictRequest, Row
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, gateway_fixture
from tests.servers import redis_server
from tests.telco import OFFER_IDS, labels_of, recipe_of, telco_store, views_of
from training.export.onnx_model import OnnxModel
from training.train import TrainedVersion, train_version

pytestmark = pytest.mark.walk

PLAN = Deployment(model="nba", revision=1, production="1", split_salt=SALT, holdout_salt=SALT)


def offline_vectors(
    store: OfflineStore, customer: str, names: list[str], now_ms: int
) -> np.ndarray:
    """Return the (N, 10) vectors of the customer with each offer from the offline store."""
    spine = Spine(
        ids={"subscriber": [customer] * len(names), "offer": names},
        as_of_ms=np.full(len(names), now_ms),
    )
    return store.training_set(recipe_of("nba").contract, spine).values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the sources."""
    return tmp_path_factory.mktemp("offers")


@pytest.fixture(scope="module")
def now_ms() -> int:
    """Return the present, because the gateway's clock decides which online rows are stale."""
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def store(folder: Path, now_ms: int) -> OfflineStore:
    """Return an offline store of 400 customers, 20 offers and 8,000 pairs."""
    return telco_store(folder, "nba", now_ms=now_ms)


@pytest.fixture(scope="module")
def version(store: OfflineStore, folder: Path) -> TrainedVersion:
    """Return a version that the recipe trained."""
    return train_version(recipe_of("nba"), store, labels_of("nba", folder))


def test_pipeline_ranks_twenty_offers_with_one_read_and_the_vectors_of_training(
    store: OfflineStore, version: TrainedVersion, now_ms: int
) -> None:
    """Scores have the order of the rows, and vectors have the bits of the offline join."""
    names = OFFER_IDS[::-1]
    customers = [f"S{number:07d}" for number in (1, 17, 400)]

    async def walk(url: str, client: redis.Redis) -> None:
        reader = OnlineReader(url)
        await reader.start()
        async with gateway_fixture({"1": version.files}, PLAN, store=reader) as gateway:
            for customer in customers:
                # One call with a row for each offer.
                reads_before = mget_calls(client)
                reply = await gateway.predict(
                    PredictRequest(
                        model="nba", rows=[Row(keys=[customer, offer]) for offer in names]
                    )
                )
                assert mget_calls(client) - reads_before == 1
                # The journal has the vectors that the offline store would train with.
                gateway.recorder.fold()
                served = ServedBatch.FromString(gateway.served.records[-1])
                offline = offline_vectors(store, customer, names, now_ms)
                assert served.vectors == offline.astype("<f4").tobytes()
                # Scores and entity ids are in the order of the rows.
                expected = OnnxModel(version.files["model.onnx"]).scores(offline)[:, 0]
                np.testing.assert_allclose(list(reply.scores), expected, rtol=0, atol=1e-6)
                pairs = [entity_id for offer in names for entity_id in (customer, offer)]
                assert list(served.entity_ids) == pairs
                assert len(set(reply.scores)) > 10
        await reader.close()

    with redis_server() as server, redis.Redis.from_url(server.url) as client:
        for view in views_of("nba"):
            materialise(store, view, client)
        asyncio.run(walk(server.url, client))


def mget_calls(client: redis.Redis) -> int:
    """Return the number of MGETs that the store has executed."""
    statistics = client.info("commandstats")
    assert isinstance(statistics, dict)
    return int(statistics.get("cmdstat_mget", {"calls": 0})["calls"])


def test_pipeline_scores_each_call_of_a_batch_with_its_own_pairs(
    store: OfflineStore, version: TrainedVersion, now_ms: int
) -> None:
    """Forty customers call at the same time, each with other offers in another order."""
    rng = np.random.default_rng(5)
    calls = {
        f"S{number:07d}": rng.permutation(OFFER_IDS)[: rng.integers(1, 21)].tolist()
        for number in range(1, 41)
    }

    async def walk(url: str) -> None:
        reader = OnlineReader(url)
        await reader.start()
        async with gateway_fixture({"1": version.files}, PLAN, store=reader) as gateway:
            # All calls at the same time.
            replies = await asyncio.gather(
                *(
                    gateway.predict(
                        PredictRequest(
                            model="nba", rows=[Row(keys=[customer, offer]) for offer in names]
                        )
                    )
                    for customer, names in calls.items()
                )
            )
            # Each reply has the scores of its own pairs.
            model = OnnxModel(version.files["model.onnx"])
            for (customer, names), reply in zip(calls.items(), replies, strict=True):
                expected = model.scores(offline_vectors(store, customer, names, now_ms))[:, 0]
                np.testing.assert_allclose(list(reply.scores), expected, rtol=0, atol=1e-6)
        await reader.close()

    with redis_server() as server, redis.Redis.from_url(server.url) as client:
        for view in views_of("nba"):
            materialise(store, view, client)
        asyncio.run(walk(server.url))
