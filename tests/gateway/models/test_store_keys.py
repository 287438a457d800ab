"""The native library encodes the keys of a read as features.online.reader does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.online.reader import encode_mget
from gateway.native_library import load_native_library
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.property_examples import examples

pytestmark = NEEDS_NATIVE_INGRESS


@examples(60)
@given(st.lists(st.binary(max_size=1_100), min_size=1, max_size=12))
def test_native_store_keys_are_the_command_that_python_makes(keys: list[bytes]) -> None:
    """A sequence of the same keys, which `encode_mget` sends as it is."""
    library: Any = load_native_library()
    native = library.StoreKeys(keys)
    assert list(native) == keys
    assert len(native) == len(keys)
    assert encode_mget(native) == encode_mget(keys)
    with pytest.raises(IndexError, match="no such key"):
        native[len(keys)]
