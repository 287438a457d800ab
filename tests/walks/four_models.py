"""Four real models, trained, registered, approved and in production in one running system."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from features.materialise import materialise
from features.offline import OfflineStore, Spine
from features.online.store_client import store_client
from features.online.store_users import WRITER
from host.onnx_runtime import onnxruntime
from tests.telco import MODELS, labels_of, recipe_of, telco_store, views_of
from tests.walks.running_system import RunningSystem, turnout_up
from training.train import TrainedVersion, train_version


@dataclass(frozen=True)
class FourModels:
    """One running system that serves all four models."""

    base: Path
    """A user's working directory. The system's state folder in it is where the pages expect it."""
    system: RunningSystem
    store: OfflineStore
    versions: dict[str, TrainedVersion]
    now_ms: int

    def expected(self, model: str, rows: list[list[str]]) -> NDArray[np.float32]:
        """Return the scores (N,) of the model's file on the offline features of these rows.

        rows  N lists of entity ids.
        """
        contract: ModelContract = recipe_of(model).contract
        ids = {name: [row[n] for row in rows] for n, name in enumerate(contract.entities)}
        spine = Spine(ids=ids, as_of_ms=np.full(len(rows), self.now_ms))
        matrix = self.store.training_set(contract, spine).values
        session = onnxruntime.InferenceSession(self.versions[model].files["model.onnx"])
        scores: NDArray[np.float32] = session.run(["scores"], {"inputs": matrix})[0][:, 0]
        return scores


@contextmanager
def running_four_models(base: Path) -> Iterator[FourModels]:
    """Run `turnout up` below *base* with all four models in production and their rows online."""
    now_ms = time.time_ns() // 1_000_000
    store = telco_store(base, *MODELS, now_ms=now_ms)
    versions = {
        model: train_version(recipe_of(model), store, labels_of(model, base)) for model in MODELS
    }
    (base / ".turnout").mkdir()
    with turnout_up(base / ".turnout" / "demo") as system:
        with store_client(
            system.addresses.store, WRITER, system.addresses.store_passwords
        ) as client:
            for view in (view for model in MODELS for view in views_of(model)):
                materialise(store, view, client)
        for model, version in versions.items():
            files = base / "versions" / model
            files.mkdir(parents=True)
            for name, content in version.files.items():
                (files / name).write_bytes(content)
            line = ("versions", "register", model, str(files))
            label = system.turnout(*line, actor="dana")["label"]
            system.approve(model, label, "initial")
            system.deploy(model, label)
        yield FourModels(base, system, store, versions, now_ms)
