"""Ids: what may be one, how composites join, how rows name them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from features.entity_ids import check_entity_id, check_entity_ids, id_hashes, join_ids
from features.errors import EntityIdError
from tests.property_examples import examples

NO_CONTROLS = st.characters(blacklist_categories=["Cs", "Cc"])


@examples(100)
@given(st.text(NO_CONTROLS, min_size=1, max_size=32))
def test_any_text_without_controls_is_an_id(text: str) -> None:
    """Up to 32 characters are at most 128 bytes; the id is its UTF-8."""
    assert check_entity_id(text) == text.encode()


@pytest.mark.parametrize("control", ["\x00", "\x1f", "\n", "\x7f", "\x80", "\x9f"])
def test_control_characters_are_refused(control: str) -> None:
    """C0 (so 0x1F, the separator, too), DEL and C1."""
    with pytest.raises(EntityIdError, match=r"U\+00.. at 1"):
        check_entity_id(f"a{control}b")


def test_length_is_counted_in_bytes() -> None:
    """64 two-byte characters are the most of their kind; nothing is none."""
    assert len(check_entity_id("é" * 64)) == 128
    with pytest.raises(EntityIdError, match="130 bytes"):
        check_entity_id("é" * 65)
    with pytest.raises(EntityIdError, match="0 bytes"):
        check_entity_id("")
    with pytest.raises(EntityIdError, match="lone surrogate"):
        check_entity_id("a\ud800")


@examples(100)
@given(st.lists(st.text(max_size=140) | st.text("aé\ud800\x1f", max_size=70), max_size=4))
def test_many_ids_are_checked_as_each_is(texts: list[str]) -> None:
    """All as `check` gives them, or None where it refuses one."""
    try:
        expected: list[bytes] | None = [check_entity_id(text) for text in texts]
    except EntityIdError:
        expected = None
    assert check_entity_ids(texts) == expected


def test_the_refusal_does_not_repeat_the_id() -> None:
    """An id may be a customer's number, and errors reach logs."""
    with pytest.raises(EntityIdError) as refused:
        check_entity_id("43-secret\x00")
    assert "secret" not in str(refused.value)


@examples(100)
@given(st.lists(st.lists(st.text(NO_CONTROLS, min_size=1, max_size=5), min_size=2, max_size=2)))
def test_composites_join_to_different_ids(pairs: list[list[str]]) -> None:
    """("a", "bc") and ("ab", "c") are two entities."""
    joined = [join_ids([check_entity_id(item) for item in pair]) for pair in pairs]
    assert len(set(joined)) == len({tuple(pair) for pair in pairs})


def test_hashes_are_xxh3_with_seed_0() -> None:
    """One a row, unsigned: half of them are above 2**63."""
    ids = [b"S%07d" % number for number in range(100)]
    hashes = id_hashes(ids)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [xxh3_64_intdigest(entity_id) for entity_id in ids]
