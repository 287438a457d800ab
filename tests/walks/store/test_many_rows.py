"""One call with 4,096 rows by key gets the stored row of each, from a real store."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import redis

from features.contract import ModelContract, ViewUse
from features.online.reader import OnlineReader
from features.online.store_server import StoreServer
from features.rows import ViewRows
from features.views import Feature, View
from gateway.settings import Settings
from protos.predict_pb2 import PredictRequest, Row
from tests.front_doors import INGRESSES
from tests.gateway import gateway_fixture as fixture_module
from tests.gateway.gateway_fixture import gateway_fixture
from tests.servers import redis_server
from tests.tiny_models import tiny_files
from tests.walks.gateway_with_store import DAY_MS, production_only

pytestmark = pytest.mark.walk

ROWS = 4_096
WIDTH = 40
CALLS = 20
VIEWS = [
    View(
        name=name,
        entities=("subscriber",),
        features=tuple(Feature(name=f"{name}{i}", default=0.0) for i in range(WIDTH)),
        ttl_ms=DAY_MS,
        transform="SELECT * FROM source",
    )
    for name in ("usage", "bills", "calls")
]
"""Three views of 40 features, so that a call reads 12,288 keys and 2 MB."""


def wide_model_files() -> dict[str, bytes]:
    """Return a version that adds the first feature of the first view and the last of the last."""
    uses = tuple(
        ViewUse(view=view, features=tuple(item.name for item in view.features)) for view in VIEWS
    )
    contract = ModelContract(entities=("subscriber",), views=uses, outputs=("score",))
    weights = np.zeros((len(VIEWS) * WIDTH, 1), dtype=np.float32)
    weights[[0, -1]] = 1.0
    return tiny_files("churn", contract=contract, weights=weights)


def write_rows(url: str) -> None:
    """Write the row of each customer and view; all features of customer n are n."""
    ids = [b"S%06d" % number for number in range(ROWS)]
    values = np.repeat(np.arange(ROWS, dtype=np.float32)[:, None], WIDTH, axis=1)
    now_ms = np.full(ROWS, time.time_ns() // 1_000_000, dtype=np.int64)
    with redis.Redis.from_url(url) as client:
        for view in VIEWS:
            rows = ViewRows(view)
            packed = rows.pack(ids, now_ms, values, np.ones(values.shape, dtype=np.bool_))
            client.mset(dict(zip(rows.store_keys(ids), packed, strict=True)))


@pytest.fixture(scope="module")
def store() -> Iterator[StoreServer]:
    """A store with the rows of every customer."""
    with redis_server() as server:
        write_rows(server.url)
        yield server


async def call_often(store: StoreServer, **policy: object) -> list[bool]:
    """Call with every row, one call after the other; return which replies are degraded.

    Every other reply has the stored row of each customer.
    """
    request = PredictRequest(model="churn")
    request.rows.extend(Row(keys=[f"S{number:06d}"]) for number in range(ROWS))
    degraded = []
    reader = OnlineReader(store.url)
    await reader.start()
    settings, deployment = replace(Settings(), rows_call_max=ROWS), production_only(**policy)
    async with gateway_fixture(
        {"1": wide_model_files()}, deployment, settings=settings, store=reader
    ) as gateway:
        for _ in range(CALLS):
            reply = await gateway.predict(request, 5.0)
            degraded.append(any(reply.row_flags))
            if not degraded[-1]:
                np.testing.assert_array_equal(reply.scores, 2 * np.arange(ROWS))
    await reader.close()
    return degraded


@pytest.mark.parametrize("ingress", INGRESSES)
def test_call_with_4096_rows_gets_every_row_from_the_store(
    store: StoreServer, ingress: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default budget and a deadline of 5 s no row of any call is degraded."""
    monkeypatch.setattr(fixture_module, "DEFAULT_INGRESS", ingress)
    assert asyncio.run(call_often(store)) == [False] * CALLS


def test_small_budget_is_for_512_rows_and_not_for_4096(store: StoreServer) -> None:
    """The read takes 7 ms at least. It has 8 times 4 ms, so not all calls are degraded."""
    assert not all(asyncio.run(call_often(store, feature_budget_ms=4)))
