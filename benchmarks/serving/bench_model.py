"""The model, the stored rows and the requests that all servers of a comparison share.

One model of 100 trees with 20 features. Every server scores with the same ONNX file, reads the same
stored bytes and gets the same requests, so that only the serving is compared.
"""

import io
import json
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.gateway_folder import (
    read_deployments,
    write_signed_deployment,
    write_signed_version,
)
from benchmarks.serving.workloads import (
    BY_KEY,
    IN_REQUEST,
    MANY_EVEN,
    MANY_MODELS,
    MANY_SKEWED,
    ON_DEMAND,
    ROLLING,
)
from features.canonical import canonical_json
from features.contract import ModelContract, RequestInput, ViewUse, time_columns
from features.rows import ViewRows
from features.views import Feature, View
from gateway.models.disk_cache import DiskCache
from protos.predict_pb2 import PredictRequest, Row
from registry.bundle import seal_files, verify_bundle
from registry.scoring import Session, load_session
from registry.types import Deployment

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from training.export.on_demand_graph import NoOnDemandFront, OnDemandFront

FEATURES = 20
TREES = 100
DAY_MS = 86_400_000
ROWS_PER_WRITE = 2_000


def bench_view(name: str, features: int) -> View:
    """Return a view of subscribers with features f0, f1, ..."""
    return View(
        name=name,
        entities=("subscriber",),
        features=tuple(Feature(name=f"f{number}") for number in range(features)),
        ttl_ms=30 * DAY_MS,
        transform="SELECT * FROM source",
    )


def view_contract(view: View) -> ModelContract:
    """Return the contract of a model whose inputs are all features of *view*."""
    names = tuple(feature.name for feature in view.features)
    return ModelContract(entities=("subscriber",), views=(ViewUse(view=view, features=names),))


VIEW = bench_view("measured", FEATURES)
BY_VIEW = view_contract(VIEW)
CONTRACTS = {
    BY_KEY: BY_VIEW,
    IN_REQUEST: ModelContract(
        entities=("subscriber",),
        inputs=tuple(RequestInput(name=f"f{number}", default=0.0) for number in range(FEATURES)),
    ),
    ROLLING: BY_VIEW,
}
VERSION_FILES = ("model.onnx", "contract.json", "golden.npz", "reference.json", "card.json")
ON_DEMAND_CONTRACT = replace(BY_VIEW, request_time=True)
EXPRESSIONS = (
    "floor(now / 86400) - f0 * 30",
    "f1 / f2",
    "f3 > f4 and f5 > 0",
    "clip(f6 * 10, -5, 5)",
    "where(is_missing(f7), 0, log1p(abs(f8)))",
)
"""The on-demand features of ON_DEMAND. The first is the same all day, so that a check of answers
knows it."""
ROLLING_BP = 1_000
"""Basis points of the keys that go to the canary, and of the copies that go to the shadow."""


def entity_id(number: int) -> str:
    """Return the id of subscriber *number*, for example S0000042."""
    return f"S{number:07d}"


@dataclass(frozen=True, eq=False, slots=True)
class BenchModel:
    """One model under several names, its stored rows and its requests, in one folder."""

    folder: Path
    entities: int
    values: NDArray[np.float32]
    """(entities, FEATURES) The stored features, by number of the entity."""

    @staticmethod
    def prepare(folder: Path, entities: int, seed: int = 7) -> "BenchModel":
        """Fit the model; write the gateway's folder and the ONNX files. Takes some seconds."""
        values = np.random.default_rng(seed).normal(size=(entities, FEATURES)).astype(np.float32)
        bench_model = BenchModel(folder, entities, values)
        bench_model._write_models(seed)
        return bench_model

    def add_on_demand(self, seed: int = 7) -> None:
        """Add the model with features on demand, which gateways of earlier releases do not load."""
        from training.export.on_demand_graph import on_demand_front
        from training.on_demand import OnDemand, parse_on_demand

        # The learner is given the stored features and five more.
        names = ON_DEMAND_CONTRACT.names
        features = [OnDemand(name=f"d{at}", expression=text) for at, text in enumerate(EXPRESSIONS)]
        terms = [(feature, parse_on_demand(feature, names[:FEATURES])) for feature in features]
        front = on_demand_front(names, names[:FEATURES], terms)
        stored = np.random.default_rng(seed + 1).normal(size=(10_000, FEATURES))
        columns = front.columns(with_time(stored.astype(np.float32)))
        learner = fit_trees(columns, columns[:, -4] + columns[:, -2] + columns[:, 0] > 0.8, seed)
        # It is written as the others are.
        rows = with_time(stored[:16].astype(np.float32))
        files = version_files(ON_DEMAND, ON_DEMAND_CONTRACT, rows, learner, front)
        write_signed_deployment(
            self.gateway_folder, write_versions(self.gateway_folder, ON_DEMAND, files)
        )

    def add_many(self) -> None:
        """Add MANY_MODELS models that are copies of BY_KEY."""
        digest = self._deployment(BY_KEY).digest("1")
        files = DiskCache(self.gateway_folder).read_version(digest)
        assert files is not None
        copied = {name: files[name] for name in files if name in VERSION_FILES}
        for number in range(MANY_MODELS):
            deployment = write_versions(self.gateway_folder, f"many{number}", copied)
            write_signed_deployment(self.gateway_folder, deployment)

    def inputs(self, model: str, order: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the model inputs (N, F) of the entities numbered by *order*, for a call now."""
        stored = self.values[order]
        return with_time(stored) if model == ON_DEMAND else stored

    def onnx(self, model: str) -> Path:
        """Return the path of a model's ONNX file."""
        return self.folder / f"{model}.onnx"

    @property
    def gateway_folder(self) -> Path:
        """The folder from which a gateway without a registry serves."""
        return self.folder / "gateway"

    def _write_models(self, seed: int) -> None:
        rows = np.random.default_rng(seed + 1).normal(size=(10_000, FEATURES)).astype(np.float32)
        learner = fit_trees(
            rows, rows[:, 0] + rows[:, 1] * rows[:, 2] + np.abs(rows[:, 3]) > 0.8, seed
        )
        folder = self.gateway_folder
        for model, contract in CONTRACTS.items():
            files = version_files(model, contract, rows[:32], learner)
            self.onnx(model).write_bytes(files["model.onnx"])
            if model == ROLLING:
                deployment = replace(
                    write_versions(folder, model, files, ("1", "2", "3")),
                    canary="2",
                    canary_bp=ROLLING_BP,
                    shadows=(("3", ROLLING_BP),),
                )
            else:
                deployment = write_versions(folder, model, files)
            write_signed_deployment(folder, deployment)

    def fill_store(self, url: str) -> None:
        """Write every entity's feature row to the store at *url*."""
        write_feature_rows(url, VIEW, self.values)

    def write_requests(self, model: str, rows: int) -> Path:
        """Write the requests of one kind to a file and return it: every entity once, shuffled."""
        path = self.folder / f"{model}_{rows}.bodies"
        order = np.random.default_rng(rows).permutation(self.entities)
        write_bodies(path, (r.SerializeToString() for r in self.requests(model, rows, order)))
        return path

    def requests(self, model: str, rows: int, order: NDArray[np.int64]) -> Iterator[PredictRequest]:
        """Yield calls of *rows* rows each over the entities numbered by *order*."""
        names = model_names(model, len(order) // rows)
        for call, first in enumerate(range(0, len(order) - rows + 1, rows)):
            numbers = order[first : first + rows].tolist()
            yield PredictRequest(
                model=names[call],
                rows=[
                    Row(
                        keys=[entity_id(number)],
                        inputs=self.values[number] if model == IN_REQUEST else (),
                    )
                    for number in numbers
                ],
            )

    def session(self, model: str) -> Session:
        """Return the model itself, with whose scores every server's scores must agree."""
        deployment = self._deployment(BY_KEY if model in (MANY_EVEN, MANY_SKEWED) else model)
        files = DiskCache(self.gateway_folder).read_version(deployment.digest("1"))
        assert files is not None
        return load_session(verify_bundle(files, trusted_key=None))

    def _deployment(self, model: str) -> Deployment:
        return next(d for d in read_deployments(self.gateway_folder) if d.model == model)


def model_names(model: str, calls: int) -> list[str]:
    """Return the name of the model of each of *calls* calls."""
    if model not in (MANY_EVEN, MANY_SKEWED):
        return [model] * calls
    wanted = np.arange(1, MANY_MODELS + 1) ** (0.0 if model == MANY_EVEN else -1.0)
    drawn = np.random.default_rng(3).choice(MANY_MODELS, size=calls, p=wanted / wanted.sum())
    return [f"many{number}" for number in drawn.tolist()]


def with_time(stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return *stored* (N, FEATURES) with the columns of the present time."""
    now_ms = np.full(len(stored), time.time_ns() // 1_000_000, dtype=np.int64)
    return np.concatenate([stored, time_columns(now_ms)], axis=1)


def write_bodies(path: Path, bodies: Iterable[bytes]) -> None:
    """Write messages as the Rust generator reads them: four bytes of length, then the message."""
    with path.open("wb") as stream:
        for body in bodies:
            stream.write(struct.pack("<I", len(body)) + body)


def fit_trees(
    rows: NDArray[np.float32], labels: NDArray[np.bool_], seed: int
) -> "HistGradientBoostingClassifier":
    """Fit TREES trees to *labels* (R) of *rows* (R, F)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=TREES, random_state=seed).fit(rows, labels)


def write_versions(
    folder: Path, model: str, files: dict[str, bytes], labels: Sequence[str] = ("1",)
) -> Deployment:
    """Write versions that differ only in their cards; return a deployment of "1"."""
    digests = []
    for label in labels:
        card = json.dumps({"model": model, "version": label}).encode()
        sealed = seal_files(
            {**files, "card.json": card}, model=model, author="bench", created_unix_ms=1
        )
        digests.append((label, write_signed_version(folder, sealed)))
    return Deployment(
        model=model,
        revision=1,
        production="1",
        split_salt=bytes(range(16)),
        holdout_salt=bytes(range(16, 32)),
        digests=tuple(digests),
    )


def write_feature_rows(url: str, view: View, values: NDArray[np.float32]) -> None:
    """Write each entity's row of *values* (entities, F) to the store in features.rows' layout."""
    layout, now_ms = ViewRows(view), time.time_ns() // 1_000_000
    with redis.Redis.from_url(url) as client:
        for first in range(0, len(values), ROWS_PER_WRITE):
            part = values[first : first + ROWS_PER_WRITE]
            ids = [entity_id(first + place).encode() for place in range(len(part))]
            events = np.full(len(part), now_ms, dtype=np.int64)
            rows = layout.pack(ids, events, part, np.ones(part.shape, dtype=np.bool_))
            client.mset(dict(zip(layout.store_keys(ids), rows, strict=True)))


def version_files(
    model: str,
    contract: ModelContract,
    rows: NDArray[np.float32],
    learner: "HistGradientBoostingClassifier",
    front: "OnDemandFront | NoOnDemandFront | None" = None,
) -> dict[str, bytes]:
    """Return the five files of a version; its golden rows are the learner's own predictions.

    front  its on-demand features; None: it has none.
    """
    from training.export.convert import convert_to_onnx

    # The graph, with its on-demand features in front.
    columns = rows if front is None else front.columns(rows)
    onnx = convert_to_onnx(
        learner, name=model, width=columns.shape[1], model_contract=contract.model_contract
    )
    onnx = onnx if front is None else front.before(onnx)
    # Golden rows and a reference.
    golden = io.BytesIO()
    outputs = learner.predict_proba(columns)[:, 1:].astype(np.float32)
    np.savez(golden, inputs=rows, outputs=outputs)
    reference = {
        "score": {"edges": np.linspace(0.05, 0.95, 19).tolist()},
        "features": [
            {"name": name, "edges": np.linspace(-1.2, 1.2, 9).tolist()} for name in contract.names
        ],
        "decision_threshold": 0.5,
    }
    return {
        "model.onnx": onnx,
        "contract.json": canonical_json(contract.definition()),
        "golden.npz": golden.getvalue(),
        "reference.json": canonical_json(reference),
        "card.json": json.dumps({"model": model}).encode(),
    }
