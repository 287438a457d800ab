"""The entity of ids must be clear, and a receipt names a person only to those with the key."""

from dataclasses import replace

import pytest

from features.errors import EntityIdError
from turnout.errors import OperatorError, UsageError
from turnout.forgetting.entities import KnownEntities, named_entities
from turnout.forgetting.receipt import make_receipt, receipt_key, receipt_text, subject_digest

KNOWN = KnownEntities(
    views={"usage@00": ("customer",), "usage": ("customer",), "offers": ("customer", "offer")},
    models={("churn", "c0"): ("customer",), ("plain", "c1"): ()},
    versions={},
    outside_models=("nps",),
    split_salts={},
    version_public_key=b"",
    prediction_id_key=b"",
)
KEY = receipt_key(bytes(32))


@pytest.mark.parametrize(
    ("keys", "entities", "named"),
    [
        (["A"], [], {"customer": "A"}),
        (["A", "1"], [], {"customer": "A", "offer": "1"}),
        (["1"], ["offer"], {"offer": "1"}),
        (["1", "A"], ["offer", "customer"], {"offer": "1", "customer": "A"}),
    ],
)
def test_ids_belong_to_the_only_combination_or_to_the_named_entities(
    keys: list[str], entities: list[str], named: dict[str, str]
) -> None:
    """A part of a combination may be named, in any order."""
    assert named_entities(keys, entities, KNOWN) == named


@pytest.mark.parametrize(
    ("keys", "entities", "message"),
    [
        (["A", "1", "2"], [], "once for each of the 3.*customer; customer, offer"),
        (["A"], ["device"], "nothing is keyed by device"),
        (["A"], ["customer", "offer"], "1 ids came with --entity"),
        (["A", "B"], ["customer", "customer"], "2 ids came with --entity"),
    ],
)
def test_unclear_entity_is_refused(keys: list[str], entities: list[str], message: str) -> None:
    """The message says what views and models are keyed by."""
    with pytest.raises(UsageError, match=message):
        named_entities(keys, entities, KNOWN)


def test_id_of_models_elsewhere_has_any_entity() -> None:
    """If nothing else has ids, and if it is one id."""
    alone = replace(KNOWN, views={}, models={})
    assert named_entities(["A"], [], alone) == {"key": "A"}
    assert named_entities(["A"], ["customer"], alone) == {"customer": "A"}
    for keys, known in ((["A", "B"], alone), (["A"], replace(alone, outside_models=()))):
        with pytest.raises(UsageError):
            named_entities(keys, [], known)
    assert KNOWN.models_with({"customer": "A"}) == ["churn", "nps"]
    assert KNOWN.models_with({"customer": "A", "offer": "1"}) == []


def test_id_that_no_row_can_have_is_refused() -> None:
    """The separator of a combination would name another row."""
    with pytest.raises(EntityIdError):
        named_entities(["A\x1f1"], ["customer"], KNOWN)


def test_receipt_names_nobody_without_the_key() -> None:
    """Equal for the same entities in any order; another key or entity gives another subject."""
    person = {"customer": "+4917055501", "offer": "1"}
    receipt = make_receipt(KEY, "sam", person, {"online": {"rows": 1}}, [], dry_run=False)
    assert "+4917055501" not in receipt_text(receipt)
    assert receipt["subject"] == subject_digest(KEY, dict(reversed(person.items())))
    others = {
        subject_digest(receipt_key(b"1" * 32), person),
        subject_digest(KEY, {**person, "offer": "2"}),
        subject_digest(KEY, {"account": "+4917055501", "offer": "1"}),
    }
    assert len({receipt["subject"], *others}) == 4


def test_caller_without_the_key_is_refused() -> None:
    """The registry shows it to operators only."""
    with pytest.raises(OperatorError, match="operators only"):
        receipt_key(b"")
