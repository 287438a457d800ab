"""Tests of the split into held-out and other rows."""

import json
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import ViewUse
from features.views import Feature, View
from host.clock import DAY_MS
from tests.property_examples import examples
from training.errors import LabelsError, RecipeError
from training.labelled_rows import LabelledRows
from training.learner import Calibration, Learner
from training.recipe import Capacity, Cost, GateSettings, Recipe
from training.split import is_held_out, split_rows
from training.tasks.binary import BinaryOutcomes

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


def check_sides(recipe: Recipe, labels: LabelledRows) -> None:
    """Raise LabelsError if one side of the split lacks a class."""
    BinaryOutcomes(recipe, labels).check_split(split_rows(recipe, labels))


def test_split_is_the_same_in_whatever_order_a_recipe_names_its_entities() -> None:
    """Otherwise rows that one version was fitted on are held out for the next."""
    labels = pair_labels(np.arange(600) % 2 == 0)
    first = split_rows(PAIRS, labels).held_out
    swapped = replace(PAIRS, entities=("offer", "subscriber"))
    assert PAIRS.contract.entities == ("subscriber", "offer")
    assert np.array_equal(split_rows(swapped, labels).held_out, first)


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
    sides = split_rows(PAIRS, pair_labels(np.arange(600) % 2 == 0)).held_out
    # The first held-out row, the first other row, or both are positive.
    positive = np.zeros(600, dtype=np.bool_)
    positive[[sides.argmax(), sides.argmin()]] = chosen
    recipe = replace(PAIRS, learner=Learner(kind="logistic", calibration=calibration))
    with pytest.raises(LabelsError, match=reason):
        check_sides(recipe, pair_labels(positive))


def test_split_by_time_holds_out_the_newest_days_after_a_gap() -> None:
    """A label's outcome takes thirty days, so labels of the gap would tell of the held-out days."""
    labels = replace(
        pair_labels(np.arange(600) % 2 == 0), as_of_ms=np.arange(600, dtype=np.int64) * DAY_MS
    )
    split = split_rows(replace(PAIRS, held_out_days=90.0, gap_days=30.0), labels)
    assert np.flatnonzero(split.held_out).tolist() == list(range(510, 600))
    assert np.flatnonzero(split.fitted).tolist() == list(range(480))
    assert split.gap == 30
    without_gap = split_rows(replace(PAIRS, held_out_days=90.0), labels)
    assert np.array_equal(without_gap.fitted, ~without_gap.held_out)
    with pytest.raises(LabelsError, match="held_out_days"):
        check_sides(replace(PAIRS, held_out_days=900.0), labels)


def test_split_leaves_negatives_out_of_the_rows_to_fit_on_only() -> None:
    """All positives stay, and all held-out rows. The choice does not depend on other rows."""
    labels = pair_labels(np.arange(6_000) % 10 == 0)
    whole, kept = split_rows(PAIRS, labels), split_rows(replace(PAIRS, negatives_share=0.2), labels)
    assert np.array_equal(kept.held_out, whole.held_out)
    assert kept.fitted[labels.positive & whole.fitted].all()
    negatives = ~labels.positive & whole.fitted
    assert kept.fitted[negatives].mean() == pytest.approx(0.2, abs=0.03)
    assert not (kept.fitted & ~whole.fitted).any()
    some = np.arange(6_000) >= 3_000
    again = split_rows(replace(PAIRS, negatives_share=0.2), labels.selected(some))
    assert np.array_equal(again.fitted, kept.fitted[some])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"held_out_days": -1.0}, "both are days, from 0 on"),
        ({"held_out_days": float("nan")}, "both are days, from 0 on"),
        ({"gap_days": 7.0}, "without held_out_days"),
        ({"negatives_share": 0.0}, "negatives_share is from 0.01 to 1"),
    ],
)
def test_recipe_refuses_a_split_that_means_nothing(changes: dict[str, Any], reason: str) -> None:
    """They are refused when the recipe is declared."""
    with pytest.raises(RecipeError, match=reason):
        replace(PAIRS, **changes)
    with pytest.raises(RecipeError, match=r"above 0\.5 and at most 1"):
        GateSettings(feature_auc_max=0.5)


def test_recipe_definition_has_later_settings_only_where_they_are_used() -> None:
    """So the digests of older recipes stay."""
    plain = PAIRS.definition()
    later = {"held_out_days", "gap_days", "negatives_share", "audit_bands"}
    assert not later & set(plain)
    assert "feature_auc_max" not in plain["gate"]
    used = replace(
        PAIRS,
        held_out_days=30.0,
        gap_days=7.0,
        negatives_share=0.1,
        threshold=Cost(false_positive=1.0, false_negative=20.0),
        gate=GateSettings(feature_auc_max=1.0),
    )
    views = {OFFERS.view_hash: OFFERS}
    for recipe in (PAIRS, used, replace(used, threshold=Capacity(share=0.1))):
        definition = json.loads(json.dumps(recipe.definition()))
        rebuilt = Recipe.from_definition(definition, views, {})
        assert replace(rebuilt, entities=()) == recipe
