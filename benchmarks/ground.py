"""What both servers stand on: one model of 100 trees, its 20 features in one store, the requests.

The same ONNX file, the same stored bytes and the same requests for either server, so that what is
compared is the serving.
"""

import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import redis
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.generator import write_bodies
from benchmarks.workloads import BY_KEY, IN_REQUEST, ROLLING
from features.canonical import canonical_json
from features.contract import ModelContract, RequestInput, ViewUse
from features.rows import ViewRows
from features.views import Feature, View
from gateway.disk import Disk
from protos.predict_pb2 import PredictRequest, Row
from registry.bundle import Session, load, seal, verify
from registry.types import Deployment
from training.convert import convert

FEATURES = 20
TREES = 100
DAY_MS = 86_400_000

VIEW = View(
    name="measured",
    entities=("subscriber",),
    features=tuple(Feature(name=f"f{number}") for number in range(FEATURES)),
    ttl_ms=30 * DAY_MS,
    transform="SELECT * FROM source",
)
BY_VIEW = ModelContract(
    entities=("subscriber",),
    views=(ViewUse(view=VIEW, features=tuple(f.name for f in VIEW.features)),),
)
CONTRACTS = {
    BY_KEY: BY_VIEW,
    IN_REQUEST: ModelContract(
        entities=("subscriber",),
        inputs=tuple(RequestInput(name=f"f{number}", default=0.0) for number in range(FEATURES)),
    ),
    ROLLING: BY_VIEW,
}
ROLLING_BP = 1_000
"""Of the keys to the canary, and of the copies to the shadow."""


def entity(number: int) -> str:
    """Return the id of one subscriber."""
    return f"S{number:07d}"


@dataclass(frozen=True, eq=False, slots=True)
class Ground:
    """Models, rows and requests in one folder."""

    folder: Path
    entities: int
    values: NDArray[np.float32]
    """(entities, FEATURES) what the store holds, by number of the entity."""

    @staticmethod
    def lay(folder: Path, entities: int, seed: int = 7) -> "Ground":
        """Fit the model, write the gateway's folder and both ONNX files. Takes some seconds."""
        values = np.random.default_rng(seed).normal(size=(entities, FEATURES)).astype(np.float32)
        ground = Ground(folder, entities, values)
        ground._write_models(seed)
        return ground

    def onnx(self, model: str) -> Path:
        """Where a model's ONNX file lies."""
        return self.folder / f"{model}.onnx"

    @property
    def gateway_folder(self) -> Path:
        """What a gateway without a registry serves from."""
        return self.folder / "gateway"

    def _write_models(self, seed: int) -> None:
        learner = HistGradientBoostingClassifier(max_iter=TREES, random_state=seed)
        rows = np.random.default_rng(seed + 1).normal(size=(10_000, FEATURES)).astype(np.float32)
        learner.fit(rows, rows[:, 0] + rows[:, 1] * rows[:, 2] + np.abs(rows[:, 3]) > 0.8)
        disk = Disk(self.gateway_folder)
        for model, contract in CONTRACTS.items():
            onnx = convert(
                learner, name=model, width=FEATURES, model_contract=contract.model_contract
            )
            self.onnx(model).write_bytes(onnx)
            files = version_files(model, contract, onnx, rows[:16], learner)
            labels = ("1", "2", "3") if model == ROLLING else ("1",)
            disk.keep_deployment(
                Deployment(
                    model=model,
                    revision=1,
                    production="1",
                    canary="2" if model == ROLLING else "",
                    canary_bp=ROLLING_BP if model == ROLLING else 0,
                    shadows=(("3", ROLLING_BP),) if model == ROLLING else (),
                    split_salt=bytes(range(16)),
                    holdout_salt=bytes(range(16, 32)),
                    digests=tuple((label, _keep(disk, model, label, files)) for label in labels),
                )
            )

    def fill(self, url: str) -> None:
        """Write every entity's row into the store, in the layout of features.rows."""
        layout = ViewRows(VIEW)
        now_ms = time.time_ns() // 1_000_000
        with redis.Redis.from_url(url) as client:
            for first in range(0, self.entities, 10_000):
                part = self.values[first : first + 10_000]
                ids = [entity(first + place).encode() for place in range(len(part))]
                events = np.full(len(part), now_ms, dtype=np.int64)
                rows = layout.pack(ids, events, part, np.ones(part.shape, dtype=np.bool_))
                client.mset(dict(zip(layout.keys(ids), rows, strict=True)))

    def bodies(self, model: str, rows: int) -> Path:
        """Write the requests of one kind and return the file: every entity once, in odd order."""
        path = self.folder / f"{model}_{rows}.bodies"
        order = np.random.default_rng(rows).permutation(self.entities)
        write_bodies(path, (r.SerializeToString() for r in self.requests(model, rows, order)))
        return path

    def requests(self, model: str, rows: int, order: NDArray[np.int64]) -> Iterator[PredictRequest]:
        """Yield calls of *rows* rows each over the entities numbered by *order*."""
        for first in range(0, len(order) - rows + 1, rows):
            numbers = order[first : first + rows].tolist()
            yield PredictRequest(
                model=model,
                rows=[
                    Row(
                        keys=[entity(number)],
                        inputs=self.values[number] if model == IN_REQUEST else (),
                    )
                    for number in numbers
                ],
            )

    def session(self, model: str) -> Session:
        """Return the model itself: what every server's scores are held against."""
        deployment = next(d for d in Disk(self.gateway_folder).deployments() if d.model == model)
        files = Disk(self.gateway_folder).version(deployment.digest("1"))
        assert files is not None
        return load(verify(files, trusted_key=None))


def _keep(disk: Disk, model: str, label: str, files: dict[str, bytes]) -> str:
    """Put one version where a gateway finds it; returns its id. Versions differ in their cards."""
    card = json.dumps({"model": model, "version": label}).encode()
    sealed = seal({**files, "card.json": card}, model=model, author="bench", created_unix_ms=1)
    digest = verify(sealed, trusted_key=None).digest
    disk.keep_version(digest, sealed)
    return digest


def version_files(
    model: str,
    contract: ModelContract,
    onnx: bytes,
    rows: NDArray[np.float32],
    learner: HistGradientBoostingClassifier,
) -> dict[str, bytes]:
    """Return the five files of a version, with golden rows from the learner itself."""
    golden = io.BytesIO()
    outputs = learner.predict_proba(rows)[:, 1:].astype(np.float32)
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
