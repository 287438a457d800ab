"""Tests of the record of a build: it gives the recipe again, and its digests follow the rows."""

from dataclasses import replace

import numpy as np
import pytest

from features.canonical import canonical_json
from features.contract import ViewUse
from features.source import Source
from tests.training.population import (
    VIEW,
    PopulationStore,
    profile_contract,
    profile_labels,
    profile_recipe,
)
from training.errors import RecipeError
from training.labels import Labels
from training.learner import Learner
from training.retrain.build_record import (
    SECTION,
    build_facts,
    edition,
    labels_digest,
    read_build,
)

LABELS = Labels(
    name="left", entities=("subscriber",), source=Source.files("left.csv", time="at"), value="left"
)
AUDITED = replace(VIEW, name="audited")
RECIPE = replace(
    profile_recipe(Learner(kind="boosting", parameters={"max_iter": 3})),
    features=profile_contract("tenure").views,
    audit=(ViewUse(view=AUDITED, features=("senior",)),),
    labels=LABELS,
)


def test_recipe_comes_back_from_the_card() -> None:
    """Views that only the audit reads are in the record, because no contract has them."""
    built = build_facts(RECIPE, PopulationStore(), profile_labels(), "ab" * 32)
    assert canonical_json(built)
    assert list(built["audit_views"]) == [AUDITED.view_hash]
    assert built["views"] == {
        edition(view): {"ingest": 1, "sha256": view.view_hash} for view in (VIEW, AUDITED)
    }
    record = read_build({SECTION: built}, RECIPE.contract)
    assert record is not None
    assert record.recipe.definition() == RECIPE.definition()
    assert record.recipe.labels == LABELS
    assert record.champion == "ab" * 32
    assert read_build({"setting": "test"}, RECIPE.contract) is None


@pytest.mark.parametrize("change", [{"recipe": {}}, {"labels": {"name": "x"}}, {"audit_views": 3}])
def test_record_that_cannot_be_read_is_an_error(change: dict[str, object]) -> None:
    """A card's author may have written anything."""
    built = build_facts(RECIPE, PopulationStore(), profile_labels(), "")
    with pytest.raises(RecipeError):
        read_build({SECTION: {**built, **change}}, RECIPE.contract)


def test_digest_of_labels_follows_each_column() -> None:
    """How many rows were left out is no row."""
    labels = profile_labels()
    digest = labels_digest(labels)
    assert digest == labels_digest(profile_labels())
    assert digest == labels_digest(replace(labels, immature=3, known_until_ms=9))
    ids = list(labels.ids["subscriber"])
    turned, later = ~labels.positive, labels.as_of_ms + 1
    amounts = {"amount": np.zeros(len(labels))}
    others = [
        replace(labels, positive=turned),
        replace(labels, as_of_ms=later),
        replace(labels, ids={"subscriber": [*ids[:-1], "other"]}),
        replace(labels, inputs=amounts),
        replace(labels, inputs={"amount": np.ma.masked_array(amounts["amount"], mask=turned)}),
    ]
    assert len({digest, *map(labels_digest, others)}) == 6
