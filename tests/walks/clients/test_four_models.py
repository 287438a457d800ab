"""Four models in one gateway, called at the same time: each answer is of its model and rows."""

import asyncio
import io

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.telco import MODELS, OFFER_IDS, recipe_of
from tests.walks.four_models import FourModels
from turnout_client import PredictClient, Prediction

pytestmark = pytest.mark.walk

CALLS = 800
IN_FLIGHT = 96
"""Calls in flight. The client's 4 connections carry them: streams_max is 32."""


def test_gateway_answers_800_mixed_calls_each_from_its_own_model_and_rows(
    four_models: FourModels,
) -> None:
    """Two workers get 200 calls for each model. Scores equal onnxruntime's on the offline rows."""
    # Draw 200 calls for each model, in a random order.
    rng = np.random.default_rng(11)
    models = rng.permutation(np.repeat(MODELS, CALLS // 4)).tolist()
    rows: list[list[list[str]]] = []
    for model in models:
        customer = f"S{rng.integers(1, 401):07d}"
        offer_ids = rng.permutation(OFFER_IDS)[:8].tolist()
        rows.append([[customer, offer] for offer in offer_ids] if model == "nba" else [[customer]])

    async def walk() -> list[NDArray[np.float32]]:
        in_flight = asyncio.Semaphore(IN_FLIGHT)

        async with PredictClient(four_models.system.addresses.gateway, timeout_s=10.0) as client:

            async def call(number: int) -> Prediction:
                async with in_flight:
                    model, keys = models[number], rows[number]
                    return await client.predict(model, keys=keys, request_id=f"{model}-{number}")

            answers = await asyncio.gather(*map(call, range(CALLS)))
        for number, (model, answer) in enumerate(zip(models, answers, strict=True)):
            assert (answer.model, answer.request_id) == (model, f"{model}-{number}")
            assert answer.role == "production"
            assert not (answer.row_flags & 0b1011).any()  # missing, stale, degraded
        return [answer.scores[:, 0] for answer in answers]

    # Compare the scores of each model with its own file's.
    scores = asyncio.run(walk())
    for model in MODELS:
        numbers = [number for number, name in enumerate(models) if name == model]
        model_rows = [row for number in numbers for row in rows[number]]
        model_scores = np.concatenate([scores[number] for number in numbers])
        np.testing.assert_allclose(
            model_scores, four_models.expected(model, model_rows), rtol=0, atol=1e-6
        )
        assert len(np.unique(model_scores)) > 50, (
            f"{model}: too few different answers to tell any apart"
        )


def test_describe_returns_each_models_own_entities_and_outputs(four_models: FourModels) -> None:
    """Entities and outputs are those of the model's own contract."""

    async def walk() -> None:
        async with PredictClient(four_models.system.addresses.gateway) as client:
            for model in MODELS:
                recipe = recipe_of(model)
                description = await client.describe(model)
                assert tuple(description.entities) == recipe.contract.entities
                assert tuple(description.outputs) == recipe.contract.outputs
                golden = np.load(io.BytesIO(four_models.versions[model].files["golden.npz"]))
                assert golden["inputs"].shape[1] == recipe.contract.width

    asyncio.run(walk())
