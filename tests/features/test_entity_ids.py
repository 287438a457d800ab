"""Tests of entity ids: which are valid, how composites join, how ids are hashed."""

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
def test_entity_id_may_be_any_text_without_control_characters(text: str) -> None:
    """32 characters have at most 128 bytes. The id is the UTF-8 of the text."""
    assert check_entity_id(text) == text.encode()


@pytest.mark.parametrize("control", ["\x00", "\x1f", "\n", "\x7f", "\x80", "\x9f"])
def test_entity_id_with_control_characters_is_refused(control: str) -> None:
    """C0, which has the separator 0x1F, DEL and C1 are control characters."""
    with pytest.raises(EntityIdError, match=r"U\+00.. at 1"):
        check_entity_id(f"a{control}b")


def test_entity_id_length_is_counted_in_bytes() -> None:
    """64 two-byte characters are allowed, 65 are not, and an empty id is not."""
    assert len(check_entity_id("é" * 64)) == 128
    with pytest.raises(EntityIdError, match="130 bytes"):
        check_entity_id("é" * 65)
    with pytest.raises(EntityIdError, match="0 bytes"):
        check_entity_id("")
    with pytest.raises(EntityIdError, match="lone surrogate"):
        check_entity_id("a\ud800")


@examples(100)
@given(st.lists(st.text(max_size=140) | st.text("aé\ud800\x1f", max_size=70), max_size=4))
def test_check_entity_ids_agrees_with_check_entity_id(texts: list[str]) -> None:
    """The result is None exactly if one of the ids is refused."""
    try:
        expected: list[bytes] | None = [check_entity_id(text) for text in texts]
    except EntityIdError:
        expected = None
    assert check_entity_ids(texts) == expected


def test_entity_id_is_not_repeated_in_the_error() -> None:
    """An id may be a customer's number, and errors are logged."""
    with pytest.raises(EntityIdError) as refused:
        check_entity_id("43-secret\x00")
    assert "secret" not in str(refused.value)


@examples(100)
@given(st.lists(st.lists(st.text(NO_CONTROLS, min_size=1, max_size=5), min_size=2, max_size=2)))
def test_join_ids_gives_different_composites_different_ids(pairs: list[list[str]]) -> None:
    """("a", "bc") and ("ab", "c") are two entities."""
    joined = [join_ids([check_entity_id(item) for item in pair]) for pair in pairs]
    assert len(set(joined)) == len({tuple(pair) for pair in pairs})


def test_id_hashes_are_xxh3_with_seed_0() -> None:
    """The hashes are uint64, so about half are above 2**63."""
    ids = [b"S%07d" % number for number in range(100)]
    hashes = id_hashes(ids)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [xxh3_64_intdigest(entity_id) for entity_id in ids]
