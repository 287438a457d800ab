"""Four models in one gateway, asked at once: to each its own model's answer, on its own rows."""

import asyncio
import io

import numpy as np
import pytest
from numpy.typing import NDArray

from features.sources import offers
from tests.walks.four_models import RECIPES, FourModels
from turnout_client import PredictClient, Prediction

pytestmark = pytest.mark.walk

CALLS = 800
AT_ONCE = 96
"""What the client's 4 connections carry side by side: streams_max is 32."""


def test_gateway_answers_800_mixed_calls_each_from_its_own_model_and_rows(
    four_models: FourModels,
) -> None:
    """Two workers, 200 calls a model, 96 at once; equal to onnxruntime on the offline rows."""
    draw = np.random.default_rng(11)
    models = draw.permutation(np.repeat(list(RECIPES), CALLS // 4)).tolist()
    rows: list[list[list[str]]] = []
    for model in models:
        who = f"S{draw.integers(1, 401):07d}"
        several = draw.permutation(offers.offer_ids(20))[:8].tolist()
        rows.append([[who, one] for one in several] if model == "nba" else [[who]])

    async def walk() -> list[NDArray[np.float32]]:
        room = asyncio.Semaphore(AT_ONCE)

        async with PredictClient(four_models.system.addresses.gateway, timeout_s=10.0) as client:

            async def ask(place: int) -> Prediction:
                async with room:
                    model, keys = models[place], rows[place]
                    return await client.predict(model, keys=keys, request_id=f"{model}-{place}")

            answers = await asyncio.gather(*map(ask, range(CALLS)))
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
        np.testing.assert_allclose(got, four_models.expected(model, asked), rtol=0, atol=1e-6)
        assert len(np.unique(got)) > 50, f"{model}: too few different answers to tell any apart"


def test_describe_returns_each_models_own_entities_and_outputs(four_models: FourModels) -> None:
    """What was registered is what is described: entities and outputs of each."""

    async def walk() -> None:
        async with PredictClient(four_models.system.addresses.gateway) as client:
            for model, recipe in RECIPES.items():
                about = await client.describe(model)
                assert tuple(about.entities) == recipe.contract.entities
                assert tuple(about.outputs) == recipe.contract.outputs
                golden = np.load(io.BytesIO(four_models.versions[model].files["golden.npz"]))
                assert golden["inputs"].shape[1] == recipe.contract.width

    asyncio.run(walk())
