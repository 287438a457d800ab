"""Four models that read views of a real store, served with reads of the I/O thread or without."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

from features.contract import ModelContract, ViewUse
from features.online.reader import OnlineReader
from gateway.settings import Settings
from gateway.transport.native.server import NativeServer
from protos.predict_pb2 import PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture
from tests.gateway.predict.test_single_call import VIEW
from tests.gateway.six_models import INPUT, TARIFF, CopyList
from tests.poll import wait_until
from tests.tiny_models import tiny_files

ONE_VIEW = ModelContract(
    entities=("subscriber",),
    views=(ViewUse(view=VIEW, features=("data", "calls")),),
    inputs=(INPUT,),
)
TWO_VIEWS = ModelContract(
    entities=("household", "subscriber"),
    views=(
        ViewUse(view=VIEW, features=("calls", "data")),
        ViewUse(view=TARIFF, features=("price",)),
    ),
    outputs=("a", "b"),
)
AT_A_TIME = replace(ONE_VIEW, request_time=True)
COMPARED = {"one_view": ONE_VIEW, "two_views": TWO_VIEWS, "shadowed": ONE_VIEW}
"""Models whose answers do not depend on the time."""
CONTRACTS = {**COMPARED, "timed": AT_A_TIME}
BUDGET_MS = 2_000
"""So long that no read is late on a busy machine."""


def deployment_of(model: str, policy: ServingPolicy, revision: int = 4) -> Deployment:
    """Return a deployment with half the customers in the holdout, and one with a shadow."""
    return Deployment(
        model=model,
        revision=revision,
        production="1",
        shadows=(("2", 5_000),) if model == "shadowed" else (),
        split_salt=SALT,
        holdout_salt=SALT[::-1],
        holdout_bp=0 if model == "two_views" else 5_000,
        policy=policy,
    )


@asynccontextmanager
async def serving(
    url: str,
    policy: ServingPolicy | None = None,
    *,
    here: bool = True,
    budget_ms: int = BUDGET_MS,
) -> AsyncIterator[tuple[GatewayFixture, OnlineReader]]:
    """Serve the models with the store at *url*; with *here*, the I/O thread reads it."""
    # The versions and deployments, and a reader of the store.
    deployed = []
    for model, contract in CONTRACTS.items():
        labels = ("1", "2") if model == "shadowed" else ("1",)
        files = {label: tiny_files(model, contract=contract) for label in labels}
        deployed.append((files, deployment_of(model, policy or ServingPolicy())))
    (files, first), *others = deployed
    reader = OnlineReader(url)
    await reader.start()
    try:
        async with gateway_fixture(
            files,
            first,
            others=others,
            settings=Settings(
                streams_max=1_000, feature_budget_ms=budget_ms, deadline_ms_default=20_000
            ),
            store=reader,
            fault_free_path=here,
            io_thread_answers=here,
        ) as gateway:
            # Shadows' copies stay here, and the first call comes when the thread is connected.
            gateway.recorder._copy_sink = CopyList()
            if here:
                await wait_until(lambda: reads_here(gateway))
            yield gateway, reader
    finally:
        await reader.close()


def reads_here(gateway: GatewayFixture) -> bool:
    """Return whether the I/O thread has a connection to the store."""
    return cast("NativeServer", gateway.ingress_server).store_state()[0]


def call(model: str, name: str, value: float = 0.1, rows: int = 1, **more: Any) -> PredictRequest:  # noqa: ANN401
    """Return a call of equal rows."""
    contract = CONTRACTS[model]
    keys = ["H1", name][-len(contract.entities) :]
    row = Row(keys=keys, inputs=[value] if contract.inputs else [])
    return PredictRequest(model=model, rows=[row] * rows, **more)
