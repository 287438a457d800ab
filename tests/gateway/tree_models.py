"""Five models of trees whose inputs are in the request, and calls of each kind for them."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from features.contract import ModelContract, RequestInput
from gateway.settings import Settings
from protos.predict_pb2 import PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture
from tests.gateway.models.test_native_trees import onnx_of, runtime_of
from tests.gateway.six_models import CopyList
from tests.tiny_models import tiny_files

INPUTS = tuple(RequestInput(name=name, default=0.25) for name in ("age", "bill"))
KEYED = ModelContract(entities=("subscriber",), inputs=INPUTS)
CONTRACTS = {
    "plain": KEYED,
    "without_entity": ModelContract(entities=(), inputs=INPUTS),
    "shadowed": KEYED,
    "rolling": KEYED,
    "journaled": KEYED,
}
ANSWERED_HERE = ("plain", "without_entity", "shadowed")
"""Models whose usual calls the I/O thread answers."""
INFINITE = 3.0
"""A first input above it scores infinity, without a fault in the file."""


def tree_files(model: str, weight: float = 0.25) -> dict[str, bytes]:
    """Return a version of two trees, whose sum is infinite if the first input is above INFINITE."""
    contract = CONTRACTS[model]
    ends = [{"weight": weight}, {"weight": 3e38}]
    trees = [
        [{"feature": 0, "threshold": INFINITE, "yes": 1, "no": 2}, *ends],
        [
            {"feature": 0, "threshold": INFINITE, "yes": 1, "no": 4},
            {"feature": 1, "threshold": 0.5, "yes": 2, "no": 3, "missing": 1},
            {"weight": -weight / 8},
            {"weight": weight / 4},
            {"weight": 3e38},
        ],
    ]
    file = onnx.load_from_string(onnx_of(trees, width=2, sigmoid=False))
    onnx.helper.set_model_props(file, {"turnout.contract": contract.model_contract})
    encoded = file.SerializeToString()
    inputs = np.random.default_rng(7).random((32, 2), dtype=np.float32)
    (scores,) = runtime_of(encoded).run(None, {"inputs": inputs})
    golden = io.BytesIO()
    np.savez(golden, inputs=inputs, outputs=scores)
    return tiny_files(model, contract=contract) | {
        "model.onnx": encoded,
        "golden.npz": golden.getvalue(),
    }


def deployment_of(model: str, policy: ServingPolicy, revision: int = 4) -> Deployment:
    """Return a deployment with half the customers in the holdout."""
    if model == "journaled":
        policy = ServingPolicy(journal_required=True)
    deployment = Deployment(
        model=model,
        revision=revision,
        production="1",
        split_salt=SALT,
        holdout_salt=SALT[::-1],
        holdout_bp=0 if model == "without_entity" else 5_000,
        policy=policy,
    )
    if model == "shadowed":
        return replace(deployment, shadows=(("2", 5_000),))
    return replace(deployment, canary="2", canary_bp=5_000) if model == "rolling" else deployment


@asynccontextmanager
async def serving(
    policy: ServingPolicy | None = None, *, here: bool = True, **settings: int | str
) -> AsyncIterator[GatewayFixture]:
    """Serve the models; with *here*, the I/O thread answers usual calls."""
    deployed = []
    for model in CONTRACTS:
        labels = ("1", "2") if model in ("shadowed", "rolling") else ("1",)
        files = {label: tree_files(model, 0.25 * int(label)) for label in labels}
        deployed.append((files, deployment_of(model, policy or ServingPolicy())))
    (files, first), *others = deployed
    async with gateway_fixture(
        files,
        first,
        others=others,
        settings=replace(Settings(streams_max=1_000), **settings),
        fault_free_path=here,
        io_thread_answers=here,
    ) as gateway:
        gateway.recorder._copy_sink = CopyList()
        await asyncio.sleep(0)  # the pipeline begins, and publishes its plans
        yield gateway


def call(model: str, name: str = "S1", value: float = 0.1, **more: Any) -> PredictRequest:  # noqa: ANN401
    """Return a call of one row."""
    if not CONTRACTS[model].entities:
        more = {"request_id": f"r-{name}", **more}
    return PredictRequest(model=model, rows=[row(model, name, value)], **more)


def row(model: str, name: str, value: float) -> Row:
    """Return a row whose second input decides a branch."""
    return Row(keys=[name] if CONTRACTS[model].entities else [], inputs=[value, value * 2])


def all_calls() -> list[PredictRequest]:
    """Return calls of each kind for each model, the models mixed."""
    calls = [call(model, f"S{n}", n / 40) for n in range(20) for model in CONTRACTS]
    for model in CONTRACTS:
        many = call(model, "S1")
        many.rows.extend([row(model, "S1", 0.4), row(model, "S1", 0.9)])
        calls += [
            many,
            call(model, "S7", sticky_key="household"),
            call(model, "S8", request_id="r-8"),
            call(model, "S9", version="1"),
            call(model, "S9", version="9"),
            call(model, "S9", float("nan")),
            call(model, "S9", INFINITE + 1),
            PredictRequest(model=model, rows=[Row(inputs=[0.1])]),
        ]
    calls.append(call("plain", "", request_id="r-without-key"))
    return calls
