"""Tests of Recipe and Labels: contradictions are refused when they are made."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike, DTypeLike

from features.contract import ViewUse
from features.source import Source
from features.views import View
from tests.training.population import profile_labels, profile_recipe
from training.errors import LabelsError, RecipeError
from training.labelled_rows import LabelledRows
from training.labels import Labels
from training.learner import Learner
from training.recipe import Recipe

GOOD = profile_recipe(Learner(kind="boosting"))
OUTCOMES = Labels(
    name="left",
    entities=("subscriber",),
    source=Source.files("outcomes.parquet", time="seen_at"),
    value="status",
    positive=("gone", "ported"),
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"held_out_share": 0.0}, "holds out 0.0"),
        ({"held_out_share": 1.0}, "holds out 1.0"),
        ({"threshold": 1.0}, "decides at 1.0"),
        ({"threshold": float("nan")}, "decides at nan"),
        ({"features": ()}, "at least one input"),
        ({"entities": ("customer",)}, r"keyed by \['subscriber'\]"),
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
        LabelledRows(
            ids={"subscriber": good.ids["subscriber"][:-1]},
            as_of_ms=good.as_of_ms,
            positive=good.positive,
        )


def test_labels_of_one_class_are_refused() -> None:
    """A model cannot learn from one class."""
    with pytest.raises(LabelsError, match="all 2 labels are False"):
        LabelledRows(
            ids={"subscriber": ["a", "b"]},
            as_of_ms=np.zeros(2, dtype=np.int64),
            positive=np.zeros(2, dtype=np.bool_),
        )


def test_labels_join_composite_ids_as_the_store_key_does() -> None:
    """0x1F stands between the entities, in order."""
    labels = LabelledRows(
        ids={"customer": ["a", "b"], "offer": ["x", "y"]},
        as_of_ms=np.zeros(2, dtype=np.int64),
        positive=np.array([True, False]),
    )
    in_order = ("customer", "offer")
    assert labels.joined_ids(in_order) == [b"a\x1fx", b"b\x1fy"]
    everything = labels.selected(np.array([True, True]))
    assert everything.joined_ids(in_order) == labels.joined_ids(in_order)


def test_labels_join_ids_in_the_order_of_the_contract() -> None:
    """Rows that are held out by one recipe are held out by the next, whatever names come first."""
    ids = {"customer": ["a", "b"], "offer": ["x", "y"]}
    as_of_ms, positive = np.zeros(2, dtype=np.int64), np.array([True, False])
    swapped = LabelledRows(ids=dict(reversed(ids.items())), as_of_ms=as_of_ms, positive=positive)
    assert swapped.joined_ids(("customer", "offer")) == [b"a\x1fx", b"b\x1fy"]
    with pytest.raises(LabelsError, match=r"no ids of \['shop'\]"):
        swapped.joined_ids(("customer", "shop"))


@pytest.mark.parametrize(
    ("positive", "reason"),
    [
        (np.array([0, 1, 2]), "a label is 2, in 1 of 3 rows"),
        (np.array([3, -1, 2]), "a label is -1, 2, 3, in 3 of 3 rows"),
        (np.array([0.5, 1, 0], dtype=np.float32), "a label is 0.5"),
        (pd.Series([1, 0, pd.NA], dtype="Int64"), "a label is nan"),
        (pd.Series(["1", "0", "1"]), "a label is '1', '0', in 3 of 3 rows"),
        (np.ma.array([True, False, True], mask=[False, False, True]), "a label is None"),
        (np.array([0, 1, -1]), "a label is -1"),
        (np.array([0.0, 1.0, np.nan]), "a label is nan"),
        (np.array([True, False, None], dtype=object), "a label is None"),
        (["yes", "no", "no"], "a label is 'yes'"),
        (np.array([[True], [False], [True]]), "one value for each row"),
    ],
)
def test_labels_refuse_a_value_that_is_neither_true_nor_false(
    positive: ArrayLike, reason: str
) -> None:
    """Three classes would be fitted in silence, and the score would be that of class 1."""
    with pytest.raises(LabelsError, match=reason):
        LabelledRows(
            ids={"subscriber": ["a", "b", "c"]},
            as_of_ms=np.zeros(3, dtype=np.int64),
            positive=positive,
        )


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.float32, np.float64, object])
def test_labels_of_zeros_and_ones_become_bool(kind: DTypeLike) -> None:
    """A list of 0 and 1 is what most tables have."""
    positive: Any = np.array([0, 1, 1], dtype=kind)
    for given in (positive, positive.tolist()):
        rows = LabelledRows(
            ids={"subscriber": ["a", "b", "c"]},
            as_of_ms=np.zeros(3, dtype=np.int64),
            positive=given,
        )
        assert rows.positive.dtype == np.bool_
        assert rows.positive.tolist() == [False, True, True]


@pytest.mark.parametrize("kind", ["bool", "boolean", "int64", "Int8", "float32", "object"])
def test_labels_take_columns_of_a_data_frame_by_position(kind: str) -> None:
    """A filtered frame has an index with gaps, and its rows count in their order."""
    table = pd.DataFrame(
        {"who": ["a", "b", "c"], "at": [1, 2, 3], "left": [0, 1, 0], "fee": [1.0, 2.0, None]},
        index=[2, 0, 7],
    )
    rows = LabelledRows(
        ids={"subscriber": table["who"]},
        as_of_ms=table["at"].astype("float64"),  # type: ignore[arg-type]  frames hold any type
        positive=table["left"].astype(kind),  # type: ignore[arg-type]
        inputs={"fee": table["fee"]},  # type: ignore[dict-item]
    )
    assert rows.ids == {"subscriber": ["a", "b", "c"]}
    assert rows.positive.dtype == np.bool_
    assert rows.selected(np.array([False, True, True])).as_of_ms.tolist() == [2, 3]
    assert rows.selected(np.array([True, True, False])).ids == {"subscriber": ["a", "b"]}
    assert rows.inputs["fee"][:2].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("instants", "reason"),
    [
        (pd.to_datetime(["2026-07-01", "2026-07-02"]), r"instants are datetime64.*Unix ms"),
        ([1.5, 2.0], r"a whole number for each row"),
        ([np.nan, 2.0], r"a whole number for each row"),
        (["2026-07-01", "2026-07-02"], r"a whole number for each row"),
    ],
)
def test_labels_refuse_instants_that_are_no_unix_ms(instants: ArrayLike, reason: str) -> None:
    """Dates would be nanoseconds or microseconds, which no view has rows at."""
    with pytest.raises(LabelsError, match=reason):
        LabelledRows(
            ids={"subscriber": ["a", "b"]},
            as_of_ms=instants,
            positive=np.array([True, False]),
        )


def test_labels_refuse_ids_that_are_no_texts() -> None:
    """An int has several spellings, so the author decides which one the store has."""
    with pytest.raises(LabelsError, match=r"an id of 'subscriber' is 5 \(int\)"):
        LabelledRows(
            ids={"subscriber": ["4", 5]},  # type: ignore[list-item]
            as_of_ms=np.zeros(2, dtype=np.int64),
            positive=np.array([True, False]),
        )


def test_recipe_takes_its_entities_from_its_views() -> None:
    """In the order of the views, unless the recipe gives another."""

    def view(name: str, *entities: str) -> ViewUse:
        declared = replace(GOOD.features[0].view, name=name, entities=entities)
        return ViewUse(view=declared, features=("tenure",))

    recipe = replace(GOOD, features=(view("a", "customer"), view("b", "offer", "customer")))
    assert recipe.contract.entities == ("customer", "offer")
    swapped = replace(recipe, entities=("offer", "customer"))
    assert swapped.contract.entities == ("offer", "customer")
    assert recipe.contract.outputs == (recipe.label,)


def test_recipe_is_rebuilt_from_the_json_of_its_definition() -> None:
    """The project's revision keeps recipes so."""
    views: dict[str, View] = {use.view.view_hash: use.view for use in GOOD.features}
    recipe = replace(GOOD, labels=OUTCOMES)
    text = json.dumps(recipe.definition())
    rebuilt = Recipe.from_definition(json.loads(text), views, {OUTCOMES.name: OUTCOMES})
    assert rebuilt.definition() == recipe.definition()
    assert rebuilt.labels == OUTCOMES
    assert rebuilt.contract.model_contract == GOOD.contract.model_contract
    with pytest.raises(RecipeError, match="not a definition of a recipe"):
        Recipe.from_definition(json.loads(text), {}, {})


def test_recipe_names_bands_of_audited_numbers() -> None:
    """They are in a definition only where they are used, so older digests stay."""
    assert "audit_bands" not in GOOD.definition()
    banded = replace(GOOD, audit_bands={"senior": (0.5, 2.0)})
    assert banded.band_edges == {"profile:senior": (0.5, 2.0)}
    views = {use.view.view_hash: use.view for use in GOOD.features}
    text = json.dumps(banded.definition())
    assert Recipe.from_definition(json.loads(text), views, {}).band_edges == banded.band_edges
    for bands, reason in (
        ({"tenure": (1.0,)}, "`tenure`: no such column"),
        ({"senior": (2.0, 2.0)}, "numbers that grow"),
        ({"senior": ()}, "numbers that grow"),
    ):
        with pytest.raises(RecipeError, match=reason):
            replace(GOOD, audit_bands=bands)
    planned = ViewUse(view=GOOD.features[0].view, features=("plan",))
    with pytest.raises(RecipeError, match="'plan', a category"):
        replace(GOOD, audit=(planned,), audit_bands={"plan": (1.0,)})


def test_recipe_refuses_labels_without_an_entity() -> None:
    """Without its ids no row could be joined."""
    other = replace(OUTCOMES, entities=("household",))
    with pytest.raises(
        RecipeError, match=r"keyed by \['subscriber'\], which the labels 'left' do not"
    ):
        replace(GOOD, labels=other)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "Left"}, "does not match"),
        ({"entities": ()}, "at least one column"),
        ({"entities": "subscriber"}, "give a tuple"),
        ({"value": "subscriber"}, "must be different columns"),
        ({"positive": "gone"}, r"give a tuple: \('gone',\)"),
        ({"transform": "SELECT * FROM 'other.parquet'"}, "labels 'left': "),
    ],
)
def test_declared_labels_name_the_contradiction(changes: dict[str, Any], reason: str) -> None:
    """They are refused when they are declared, before any data is read."""
    with pytest.raises(LabelsError, match=reason):
        replace(OUTCOMES, **changes)
    with pytest.raises(LabelsError, match="not a definition of labels"):
        Labels.from_definition({"name": "left"})
