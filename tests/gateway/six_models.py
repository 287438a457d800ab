"""Six small models that are called in one turn, the store that they read, and what they leave."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import TIME_NAMES, ModelContract, RequestInput, ViewUse
from features.errors import OnlineStoreError
from features.rows import ViewRows
from features.views import Feature, View
from gateway.telemetry.shadow_copies import ShadowCopies
from protos.predict_pb2 import PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT
from tests.gateway.predict.test_single_call import VIEW, ScriptedStore, record_fields
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


def served_calls(records: Sequence[bytes]) -> list[str]:
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


def copied_calls(copies: ShadowCopies) -> list[str]:
    """Return one text for each call that a shadow copied."""
    ids = copies.entity_ids.to_list()
    offsets = copies.row_offsets.tolist()
    return [
        f"{copies.version.label} {copies.key_hash[call]} {ids[first:last]} "
        f"{copies.matrix[first:last].tolist()} {copies.production_scores[first:last].tolist()} "
        f"{copies.flags[first:last].tolist()}"
        for call, (first, last) in enumerate(itertools.pairwise(offsets))
    ]
