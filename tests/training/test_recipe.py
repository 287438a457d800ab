"""Tests of Recipe and Labels: contradictions are refused when they are made."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.contract import ModelContract, RequestInput
from tests.training.population import profile_labels, profile_recipe
from training.errors import LabelsError, RecipeError
from training.labels import Labels
from training.recipe import Learner

GOOD = profile_recipe(Learner(kind="boosting"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"held_out_share": 0.0}, "holds out 0.0"),
        ({"held_out_share": 1.0}, "holds out 1.0"),
        ({"threshold": 1.0}, "decides at 1.0"),
        ({"threshold": float("nan")}, "decides at nan"),
        ({"contract": replace(GOOD.contract, outputs=("a", "b"))}, "2 outputs"),
        (
            {"contract": ModelContract(entities=("s",), inputs=(RequestInput(name="offer"),))},
            r"request inputs \['offer'\]",
        ),
    ],
)
def test_recipe_names_the_contradiction(changes: dict[str, Any], reason: str) -> None:
    """The message has the wrong number or name."""
    with pytest.raises(RecipeError, match=reason):
        replace(GOOD, **changes)


def test_labels_of_different_lengths_are_refused() -> None:
    """A missing id would shift every label by one row."""
    good = profile_labels()
    with pytest.raises(LabelsError, match="differ in length"):
        Labels(
            ids={"subscriber": good.ids["subscriber"][:-1]},
            as_of_ms=good.as_of_ms,
            positive=good.positive,
        )


def test_labels_of_one_class_are_refused() -> None:
    """A model cannot learn from one class."""
    with pytest.raises(LabelsError, match="all 2 labels are False"):
        Labels(
            ids={"subscriber": ["a", "b"]},
            as_of_ms=np.zeros(2, dtype=np.int64),
            positive=np.zeros(2, dtype=np.bool_),
        )


def test_labels_join_composite_ids_as_the_store_key_does() -> None:
    """0x1F stands between the entities, in order."""
    labels = Labels(
        ids={"customer": ["a", "b"], "offer": ["x", "y"]},
        as_of_ms=np.zeros(2, dtype=np.int64),
        positive=np.array([True, False]),
    )
    assert labels.joined_ids() == [b"a\x1fx", b"b\x1fy"]
    assert labels.selected(np.array([True, True])).joined_ids() == labels.joined_ids()
