"""A recipe or labels that contradict themselves are refused when they are made."""

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
    ("changed", "reason"),
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
def test_a_recipe_says_what_is_wrong(changed: dict[str, Any], reason: str) -> None:
    """With the number seen."""
    with pytest.raises(RecipeError, match=reason):
        replace(GOOD, **changed)


def test_labels_of_different_lengths_are_refused() -> None:
    """An id too few would shift every label by one."""
    good = profile_labels()
    with pytest.raises(LabelsError, match="differ in length"):
        Labels(
            ids={"subscriber": good.ids["subscriber"][:-1]},
            as_of_ms=good.as_of_ms,
            positive=good.positive,
        )


def test_labels_of_one_class_are_refused() -> None:
    """There is nothing to learn from them."""
    with pytest.raises(LabelsError, match="all 2 labels are False"):
        Labels(
            ids={"subscriber": ["a", "b"]},
            as_of_ms=np.zeros(2, dtype=np.int64),
            positive=np.zeros(2, dtype=np.bool_),
        )


def test_composite_ids_are_joined_as_the_online_key_is() -> None:
    """0x1F between the entities, in order."""
    two = Labels(
        ids={"customer": ["a", "b"], "offer": ["x", "y"]},
        as_of_ms=np.zeros(2, dtype=np.int64),
        positive=np.array([True, False]),
    )
    assert two.joined_ids() == [b"a\x1fx", b"b\x1fy"]
    assert two.selected(np.array([True, True])).joined_ids() == two.joined_ids()
