"""Tests of the split into held-out and other rows."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import ViewUse
from features.views import Feature, View
from tests.property_examples import examples
from training.errors import LabelsError
from training.labelled_rows import LabelledRows
from training.recipe import Calibration, Learner, Recipe
from training.split import held_out_rows, is_held_out

KEYS = [f"S{number:07d}".encode() for number in range(20_000)]


def test_split_holds_out_the_share_within_a_percent() -> None:
    """For 20,000 keys at 30 % three standard deviations are 1 %."""
    assert abs(is_held_out("churn", KEYS, 0.3).mean() - 0.3) < 0.01


@examples(40)
@given(st.lists(st.binary(min_size=1, max_size=20), max_size=20), st.randoms())
def test_split_puts_a_key_on_one_side(keys: list[bytes], generator: random.Random) -> None:
    """Order, repetition and other keys have no effect."""
    side = dict(zip(keys, is_held_out("churn", keys, 0.5).tolist(), strict=True))
    shuffled = keys + keys
    generator.shuffle(shuffled)
    assert is_held_out("churn", shuffled, 0.5).tolist() == [side[key] for key in shuffled]


def test_split_of_a_smaller_share_is_part_of_a_larger_one() -> None:
    """A recipe with a larger share fits on no row that a smaller share held out."""
    small, large = is_held_out("churn", KEYS, 0.2), is_held_out("churn", KEYS, 0.3)
    assert not np.any(small & ~large)


def test_split_differs_between_models() -> None:
    """The model's name is the salt, so two models at 50 % agree on about half of the keys."""
    agreed = (is_held_out("churn", KEYS, 0.5) == is_held_out("upsell", KEYS, 0.5)).mean()
    assert 0.45 < agreed < 0.55


OFFERS = View(
    name="offers",
    entities=("subscriber", "offer"),
    features=(Feature(name="price", default=0.0),),
    ttl_ms=1_000,
    transform="SELECT * FROM source",
)
PAIRS = Recipe(
    model="nba",
    setting="test",
    features=(ViewUse(view=OFFERS, features=("price",)),),
    label="taken",
    learner=Learner(kind="logistic"),
)


def pair_labels(positive: np.ndarray) -> LabelledRows:
    """Labels of as many pairs of a subscriber and an offer."""
    numbers = range(len(positive))
    return LabelledRows(
        ids={
            "offer": [f"O{number % 9}" for number in numbers],
            "subscriber": [f"S{number}" for number in numbers],
        },
        as_of_ms=np.zeros(len(positive), dtype=np.int64),
        positive=positive,
    )


def test_split_is_the_same_in_whatever_order_a_recipe_names_its_entities() -> None:
    """Otherwise rows that one version was fitted on are held out for the next."""
    labels = pair_labels(np.arange(600) % 2 == 0)
    first = held_out_rows(PAIRS, labels)
    swapped = replace(PAIRS, entities=("offer", "subscriber"))
    assert PAIRS.contract.entities == ("subscriber", "offer")
    assert np.array_equal(held_out_rows(swapped, labels), first)


@pytest.mark.parametrize(
    ("chosen", "calibration", "reason"),
    [
        ([True, False], "none", "of 1 positive labels, 1 are held out and 0 are left to fit on"),
        ([False, True], "none", "of 1 positive labels, 0 are held out and 1 are left to fit on"),
        ([True, True], "sigmoid", "1 are left to fit on; at least 1 and 3 are needed"),
    ],
)
def test_split_refuses_a_side_without_one_of_the_classes(
    chosen: list[bool], calibration: Calibration, reason: str
) -> None:
    """Three positives may all be on one side, and then nothing is learnt or nothing is judged."""
    sides = held_out_rows(PAIRS, pair_labels(np.arange(600) % 2 == 0))
    # The first held-out row, the first other row, or both are positive.
    positive = np.zeros(600, dtype=np.bool_)
    positive[[sides.argmax(), sides.argmin()]] = chosen
    recipe = replace(PAIRS, learner=Learner(kind="logistic", calibration=calibration))
    with pytest.raises(LabelsError, match=reason):
        held_out_rows(recipe, pair_labels(positive))
