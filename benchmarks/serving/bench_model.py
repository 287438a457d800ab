"""The models, the stored rows and the requests that all servers of a comparison share.

Most models have the same 100 trees over 20 features. Every server scores with the same ONNX file,
reads the same stored bytes and gets the same requests, so that only the serving is compared.
"""

import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.gateway_folder import read_deployments, write_signed_deployment
from benchmarks.serving.bench_learners import (
    Fit,
    fit_forest,
    fit_network,
    fit_pipeline,
    fit_regression,
    fit_trees,
    on_demand_nodes,
    version_files,
    write_versions,
)
from benchmarks.serving.workloads import (
    BY_KEY,
    FEATURES_200,
    FEATURES_1000,
    FOREST,
    IN_REQUEST,
    LOGISTIC,
    MANY_EVEN,
    MANY_MODELS,
    MANY_SKEWED,
    NETWORK,
    ON_DEMAND,
    PIPELINE,
    ROLLING,
    ROLLING_WIDE,
    TEN_SKEWED,
    THREE_SKEWED,
)
from features.contract import ModelContract, RequestInput, ViewUse, time_columns
from features.rows import ViewRows
from features.views import Feature, View
from gateway.models.disk_cache import DiskCache
from protos.predict_pb2 import PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.bundle import verify_bundle
from registry.scoring import Session, load_session
from registry.types import Deployment

FEATURES = 20
FITTED_VALUES = 500_000
"""The most values that a learner is fitted to, for example 500 rows of 1,000 columns."""
FITTED_ROWS_MAX = 10_000
GOLDEN_ROWS = 32
DAY_MS = 86_400_000
ROWS_PER_WRITE = 2_000
ROWS_CALL_MAX = 4_096
WIDE_ENTITIES_MAX = 20_000
"""Entities of a view of hundreds of features; 1,000 features of each take 80 MB."""
SENT_CALLS_MAX = 20_000
"""Different calls of a model that has its inputs in the request and needs no store."""
CALLS_MIN = 8
"""The fewest calls. If a quick run has fewer entities than these calls have rows, rows repeat."""


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
BY_REQUEST = ModelContract(
    entities=("subscriber",),
    inputs=tuple(RequestInput(name=f"f{number}", default=0.0) for number in range(FEATURES)),
)
NUMBERS = 16
"""Numbers of PIPELINE; its other columns are texts."""
TEXTS = tuple(f"plan {number}" for number in range(6))
BY_TEXTS = ModelContract(
    entities=("subscriber",),
    inputs=(
        *BY_REQUEST.inputs[:NUMBERS],
        *(RequestInput(name=f"c{n}", dictionary=TEXTS) for n in range(FEATURES - NUMBERS)),
    ),
)
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
"""Basis points of the keys that go to the canary, and of the copies that go to each shadow."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """How one model is made."""

    contract: ModelContract
    fit: Fit = fit_trees
    shadows: int = 0
    """Shadows beside a canary; 0: production has neither."""

    @property
    def stored(self) -> int:
        """The number of columns that are stored or sent; the time is neither."""
        return self.contract.width - (2 if self.contract.request_time else 0)


SOURCES = {
    BY_KEY: ModelSource(BY_VIEW),
    IN_REQUEST: ModelSource(BY_REQUEST),
    ROLLING: ModelSource(BY_VIEW, shadows=1),
    ROLLING_WIDE: ModelSource(BY_VIEW, shadows=3),
    ON_DEMAND: ModelSource(replace(BY_VIEW, request_time=True)),
    FEATURES_200: ModelSource(view_contract(bench_view("wide200", 200))),
    FEATURES_1000: ModelSource(view_contract(bench_view("wide1000", 1_000))),
    FOREST: ModelSource(BY_REQUEST, fit_forest),
    LOGISTIC: ModelSource(BY_REQUEST, fit_regression),
    NETWORK: ModelSource(BY_REQUEST, fit_network),
    PIPELINE: ModelSource(BY_TEXTS, fit_pipeline),
}
"""How each model is made, but for the copies of BY_KEY."""
COPIES = {MANY_EVEN: MANY_MODELS, MANY_SKEWED: MANY_MODELS, TEN_SKEWED: 10, THREE_SKEWED: 3}
"""Kind of call -> number of copies of BY_KEY; each call is to one of the copies."""
USUAL_MODELS = (BY_KEY, IN_REQUEST, ROLLING)
"""The models that gateways of every release load."""


def model_source(model: str) -> ModelSource:
    """Return how *model* is made; a copy is made as BY_KEY is."""
    return SOURCES.get(model, SOURCES[BY_KEY])


def entity_id(number: int) -> str:
    """Return the id of subscriber *number*, for example S0000042."""
    return f"S{number:07d}"


@dataclass(frozen=True, eq=False, slots=True)
class BenchModel:
    """The models of one measurement, their stored rows and their requests, in one folder."""

    folder: Path
    entities: int
    values: NDArray[np.float32]
    """(entities, FEATURES) The stored features, by number of the entity."""

    @staticmethod
    def prepare(
        folder: Path, entities: int, models: Iterable[str] = USUAL_MODELS, seed: int = 7
    ) -> "BenchModel":
        """Fit *models*; write the gateway's folder and the ONNX files. Takes some seconds."""
        values = np.random.default_rng(seed).normal(size=(entities, FEATURES)).astype(np.float32)
        bench_model = BenchModel(folder, entities, values)
        wanted = list(models)
        fitted: dict[tuple[Fit, int], Any] = {}
        for model in SOURCES:
            if model in wanted:
                bench_model._write_model(model, bench_model._fit(model, fitted, seed))
        # Copies differ in their names alone.
        if copies := max((COPIES.get(model, 0) for model in wanted), default=0):
            files = bench_model._fit(BY_KEY, fitted, seed)
            for number in range(copies):
                bench_model._write_model(f"many{number}", files)
        return bench_model

    @property
    def gateway_folder(self) -> Path:
        """The folder from which a gateway without a registry serves."""
        return self.folder / "gateway"

    def onnx_files(self) -> dict[str, Path]:
        """Return model name -> ONNX file."""
        return {path.stem: path for path in self.folder.glob("*.onnx")}

    def entities_of(self, model: str) -> int:
        """Return how many entities have rows of *model*."""
        wide = model_source(model).stored > FEATURES
        return min(self.entities, WIDE_ENTITIES_MAX) if wide else self.entities

    def stored(self, model: str) -> NDArray[np.float32]:
        """Return what is stored or sent for each entity of *model*: (entities, columns)."""
        columns = model_source(model).stored
        if columns == FEATURES:
            return self.values
        return wide_values(columns, self.entities_of(model))

    def inputs(self, model: str, order: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the model inputs (N, F) of the entities numbered by *order*, for a call now."""
        return model_inputs(model, self.stored(model)[order])

    def fill_store(self, url: str) -> None:
        """Write the feature row of every entity in every view to the store at *url*."""
        write_feature_rows(url, VIEW, self.values)
        for deployment in read_deployments(self.gateway_folder):
            for use in model_source(deployment.model).contract.views:
                if use.view != VIEW:
                    write_feature_rows(url, use.view, self.stored(deployment.model))

    def write_requests(self, model: str, rows: int) -> Path:
        """Write the requests of one kind to a file and return it: every entity once, shuffled."""
        path = self.folder / f"{model}_{rows}.bodies"
        order = np.random.default_rng(rows).permutation(self.entities_of(model))
        if not model_source(model).contract.views:
            order = order[: SENT_CALLS_MAX * rows]
        order = np.resize(order, max(len(order), CALLS_MIN * rows))
        write_bodies(path, (r.SerializeToString() for r in self.requests(model, rows, order)))
        return path

    def requests(self, model: str, rows: int, order: NDArray[np.int64]) -> Iterator[PredictRequest]:
        """Yield calls of *rows* rows each over the entities numbered by *order*."""
        names = model_names(model, len(order) // rows)
        contract = model_source(model).contract
        for call, first in enumerate(range(0, len(order) - rows + 1, rows)):
            numbers = order[first : first + rows]
            keys = [[entity_id(number)] for number in numbers.tolist()]
            if not contract.inputs:
                sent = [Row(keys=key) for key in keys]
            elif model == PIPELINE:
                values = self.inputs(model, numbers).tolist()
                sent = [named_row(key, row) for key, row in zip(keys, values, strict=True)]
            else:
                rows_sent = zip(keys, self.values[numbers], strict=True)
                sent = [Row(keys=key, inputs=row) for key, row in rows_sent]
            yield PredictRequest(model=names[call], rows=sent)

    def session(self, model: str) -> Session:
        """Return the model itself, with whose scores every server's scores must agree."""
        name = "many0" if model in COPIES else model
        deployments = read_deployments(self.gateway_folder)
        deployment = next(found for found in deployments if found.model == name)
        files = DiskCache(self.gateway_folder).read_version(deployment.digest("1"))
        assert files is not None
        return load_session(verify_bundle(files, trusted_key=None))

    def _fit(self, model: str, fitted: dict[tuple[Fit, int], Any], seed: int) -> dict[str, bytes]:
        """Fit *model* and return the files of its version.

        fitted  (fit, columns) -> learner, of the models that were fitted before.
        """
        # What the learner is given.
        source = model_source(model)
        count = min(FITTED_ROWS_MAX, FITTED_VALUES // source.stored)
        stored = np.random.default_rng(seed + 1).normal(size=(count, source.stored))
        rows = model_inputs(model, stored.astype(np.float32))
        signal = stored[:, 0] + stored[:, 1] * stored[:, 2] + np.abs(stored[:, 3])
        columns, front = rows, None
        if source.contract.request_time:
            front = on_demand_nodes(source.contract.names, source.stored, EXPRESSIONS)
            columns = front.columns(rows)
            signal = (columns[:, -4] + columns[:, -2] + columns[:, 0]).astype(np.float64)
        # Models with one learner over as many columns share it.
        learned = (source.fit, columns.shape[1])
        if learned not in fitted:
            fitted[learned] = source.fit(columns, signal > 0.8, seed)
        return version_files(model, source.contract, rows[:GOLDEN_ROWS], fitted[learned], front)

    def _write_model(self, model: str, files: dict[str, bytes]) -> None:
        """Write a model's ONNX file, its versions, and which of them answer."""
        (self.folder / f"{model}.onnx").write_bytes(files["model.onnx"])
        source = model_source(model)
        candidates = [str(2 + number) for number in range(1 + source.shadows)]
        labels = ("1", *candidates) if source.shadows else ("1",)
        deployment = write_versions(self.gateway_folder, model, files, labels)
        write_signed_deployment(self.gateway_folder, with_roles(deployment, source))


def with_roles(deployment: Deployment, source: ModelSource) -> Deployment:
    """Return the deployment with its canary and shadows, and with calls of ROWS_CALL_MAX rows."""
    policy = ServingPolicy(rows_max=ROWS_CALL_MAX)
    if not source.shadows:
        return replace(deployment, policy=policy)
    shadows = tuple((str(3 + number), ROLLING_BP) for number in range(source.shadows))
    return replace(deployment, canary="2", canary_bp=ROLLING_BP, shadows=shadows, policy=policy)


def model_names(model: str, calls: int) -> list[str]:
    """Return the name of the model of each of *calls* calls."""
    if model not in COPIES:
        return [model] * calls
    wanted = np.arange(1, COPIES[model] + 1) ** (0.0 if model == MANY_EVEN else -1.0)
    drawn = np.random.default_rng(3).choice(COPIES[model], size=calls, p=wanted / wanted.sum())
    return [f"many{number}" for number in drawn.tolist()]


def model_inputs(model: str, stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inputs (N, F) of *model* for rows of what is stored or sent (N, columns)."""
    if model == PIPELINE:
        codes = np.clip(np.floor(2 * stored[:, NUMBERS:] + 3), 0, len(TEXTS) - 1)
        return np.concatenate([stored[:, :NUMBERS], codes.astype(np.float32)], axis=1)
    if model_source(model).contract.request_time:
        now_ms = np.full(len(stored), time.time_ns() // 1_000_000, dtype=np.int64)
        return np.concatenate([stored, time_columns(now_ms)], axis=1)
    return stored


def named_row(key: list[str], values: list[float]) -> Row:
    """Return a row of PIPELINE whose inputs are named; its codes are sent as texts."""
    names = BY_TEXTS.names
    return Row(
        keys=key,
        named=dict(zip(names[:NUMBERS], values[:NUMBERS], strict=True)),
        named_text={
            name: TEXTS[int(code)]
            for name, code in zip(names[NUMBERS:], values[NUMBERS:], strict=True)
        },
    )


@cache
def wide_values(columns: int, entities: int) -> NDArray[np.float32]:
    """Return the stored features (entities, columns) of a view of many features."""
    return np.random.default_rng(columns).normal(size=(entities, columns)).astype(np.float32)


def write_bodies(path: Path, bodies: Iterable[bytes]) -> None:
    """Write messages as the Rust generator reads them: four bytes of length, then the message."""
    with path.open("wb") as stream:
        for body in bodies:
            stream.write(struct.pack("<I", len(body)) + body)


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
