"""Tests of request inputs in labels: read, encoded as a gateway does, and trained on."""

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from features.contract import RequestInput
from features.source import Source
from registry.bundle import verify_bundle
from registry.scoring import load_session
from tests.training.population import (
    ALL_COLUMNS,
    PopulationStore,
    profile_labels,
    profile_recipe,
)
from training.errors import LabelsError, RecipeError
from training.label_reader import read_labels
from training.labelled_rows import LabelledRows
from training.labels import Labels
from training.learner import Learner
from training.recipe import Recipe
from training.request_inputs import encode_inputs
from training.train import train_version

AMOUNT = RequestInput(name="amount", default=0.0)
CHANNEL = RequestInput(name="channel", dictionary=("shop", "web"), default=0.0)
LABELS = Labels(
    name="bought",
    entities=("customer",),
    source=Source.files("calls.parquet", time="at", zone="UTC"),
    value="bought",
    inputs=("amount", "channel"),
)


def write_calls(folder: Path, amount: str = "[1.5, NULL, 3.5][i + 1]::DECIMAL(9, 2)") -> None:
    """Write three labelled calls with an amount and a channel."""
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT i AS customer, TIMESTAMP '2026-07-01' AS at, i > 0 AS bought, "
            f"{amount} AS amount, ['web', 'phone', NULL][i + 1] AS channel "
            f"FROM range(3) t(i)) TO '{folder / 'calls.parquet'}'"
        )


def test_inputs_are_read_and_encoded_as_a_gateway_does(tmp_path: Path) -> None:
    """A text becomes its position, an unknown text K, and NULL the input's default."""
    write_calls(tmp_path)
    rows = read_labels(LABELS, root=tmp_path)
    encoded = encode_inputs((CHANNEL, AMOUNT), rows.inputs)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [[1.0, 1.5], [2.0, 0.0], [0.0, 3.5]]
    without = RequestInput(name="amount")
    assert np.isnan(encode_inputs((without,), rows.inputs)).tolist() == [[False], [True], [False]]


@pytest.mark.parametrize(
    ("item", "amount", "reason"),
    [
        (RequestInput(name="fee"), "1", r"no values of the request inputs \['fee'\]; they have"),
        (AMOUNT, "'much'", "'amount' is a number, and a label has 'much'; cast"),
        (RequestInput(name="amount", dictionary=("a",)), "1", "is a category, and a label has 1"),
        (AMOUNT, "1e300", "'amount' is infinite in 3 labels; make it NULL"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    item: RequestInput, amount: str, reason: str, tmp_path: Path
) -> None:
    """The message names the input and the way out."""
    write_calls(tmp_path, amount)
    rows = read_labels(LABELS, root=tmp_path)
    with pytest.raises(LabelsError, match=reason):
        encode_inputs((item,), rows.inputs)


def test_labels_without_the_inputs_of_a_recipe_are_refused() -> None:
    """The recipe says so when it is declared, not in the middle of training."""
    contract = ALL_COLUMNS.views
    labels = Labels(
        name="left", entities=("subscriber",), source=LABELS.source, value="left", inputs=("fee",)
    )
    with pytest.raises(RecipeError, match=r"reads the request inputs \['amount'\], and the labels"):
        Recipe(
            model="churn",
            setting="test",
            features=contract,
            label="left",
            learner=Learner(kind="boosting"),
            labels=labels,
            inputs=(AMOUNT,),
        )
    with pytest.raises(RecipeError, match="names no entity"):
        Recipe(
            model="churn",
            setting="test",
            features=(),
            label="left",
            learner=Learner(kind="boosting"),
            inputs=(AMOUNT,),
        )
    with pytest.raises(LabelsError, match=r"give a tuple: \('fee',\)"):
        Labels(name="l", entities=("s",), source=LABELS.source, value="v", inputs="fee")  # type: ignore[arg-type]  the mistake


def input_recipe() -> Recipe:
    """A recipe of stored features and two request inputs."""
    base = profile_recipe(Learner(kind="boosting", parameters={"max_iter": 8}))
    return Recipe(
        model=base.model,
        setting="with_inputs",
        features=base.features,
        label=base.label,
        learner=base.learner,
        # The labels below are made from the amount, which alone tells them.
        gate=replace(base.gate, feature_auc_max=1.0),
        inputs=(AMOUNT, CHANNEL),
    )


def input_labels() -> LabelledRows:
    """Labels that depend on the amount of a call alone."""
    rows = profile_labels()
    amount = np.random.default_rng(9).uniform(0, 10, len(rows))
    channel = np.array(["shop", "web", None, "phone"] * len(rows), dtype=object)[: len(rows)]
    return LabelledRows(
        ids=rows.ids,
        as_of_ms=rows.as_of_ms,
        positive=amount > 5,
        inputs={"amount": amount, "channel": channel},
    )


@pytest.mark.walk
def test_a_version_learns_from_request_inputs() -> None:
    """The contract names them after the features, and the served file scores by them."""
    trained = train_version(input_recipe(), PopulationStore(), input_labels())
    bundle = verify_bundle(trained.sealed(author="ada", created_unix_ms=1), trusted_key=None)
    assert bundle.contract.names[-2:] == ("amount", "channel")
    assert bundle.contract.inputs == (AMOUNT, CHANNEL)
    assert trained.metrics["auc"].value > 0.99
    row = trained.rows[:1].repeat(2, axis=0)
    row[:, -2] = [1.0, 9.0]
    low, high = load_session(bundle).run(row)[:, 0]
    assert low < 0.3 < 0.7 < high


def test_a_recipe_with_inputs_survives_its_definition() -> None:
    """Definitions of recipes without inputs, and so their digests, stay as they were."""
    recipe = input_recipe()
    views = {use.view.view_hash: use.view for use in recipe.features}
    again = Recipe.from_definition(recipe.definition(), views, {})
    assert again.inputs == recipe.inputs
    assert again.definition() == recipe.definition()
    assert "inputs" not in profile_recipe(recipe.learner).definition()
    assert Labels.from_definition(LABELS.definition()) == LABELS
