"""A batch's hashes, ids and fields: the same bytes natively, in Python, and in tests/vectors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import key_column
from gateway.key_column import ENTITY_IDS, EncodeField, HashKeys, KeyColumn
from gateway.native_library import load_native_library
from gateway.predict import prediction_ids
from journal.prediction_id import (
    BODY,
    FORMAT,
    HOLDOUT_BIT,
    hash_model_name,
    write_prediction_id,
    write_prediction_ids,
)
from protos.journal_pb2 import ServedBatch
from registry.types import (
    ALL_BP,
    EVIDENCE_DOMAIN,
    HOLDOUT_DOMAIN,
    SHADOW_DOMAIN,
    SPLIT_DOMAIN,
    evidence_key,
    holdout_bucket,
    shadow_bucket,
    split_bucket,
)
from tests.property_examples import examples

VECTORS = Path(__file__).parents[1] / "vectors"
NATIVE = load_native_library()
NAMED = [pytest.param(False, id="python"), pytest.param(True, id="native")]
TEXTS = st.lists(st.text(max_size=90), max_size=12)


def hash_of(*, native: bool) -> HashKeys:
    """Return one of both; skips where it is not built."""
    return of_library("hashes") if native else key_column.hash_keys_in_python


def field_of(*, native: bool) -> EncodeField:
    """Return one of both."""
    return of_library("repeated_field") if native else key_column.encode_field_in_python


def many_of(*, native: bool) -> prediction_ids.WriteIds:
    """Return one of both."""
    return of_library("prediction_ids") if native else write_prediction_ids


def of_library(name: str) -> Any:  # noqa: ANN401  a function of the library's
    """Return the native library's function of that name."""
    if not hasattr(NATIVE, name):
        pytest.skip("turnout_ingress is not built")
    return getattr(NATIVE, name)


def vectors(name: str) -> dict[str, Any]:
    """Return a committed file of them."""
    read: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return read


def test_the_library_is_used_where_it_is_built() -> None:
    """Else nobody would notice that the quick way is gone."""
    assert key_column.HASH_KEYS is getattr(NATIVE, "hashes", key_column.hash_keys_in_python)
    assert key_column.ENCODE_FIELD is getattr(
        NATIVE, "repeated_field", key_column.encode_field_in_python
    )
    assert getattr(NATIVE, "prediction_ids", write_prediction_ids) is prediction_ids.WRITE_IDS


@pytest.mark.parametrize("native", NAMED)
def test_hashes_are_the_committed_ones(native: bool) -> None:
    """Every gateway draws the same for the same key, whatever it is built of."""
    quick = hash_of(native=native)
    for case in vectors("split_hashes")["cases"]:
        salt, key = bytes.fromhex(case["salt"]), bytes.fromhex(case["key"])
        laid = KeyColumn.from_list([key])
        for before, expected in (
            (salt + SPLIT_DOMAIN, case["split"]),
            (salt + SHADOW_DOMAIN + bytes.fromhex(case["version_id"]), case["shadow"]),
            (salt + HOLDOUT_DOMAIN, case["holdout"]),
        ):
            drawn = np.frombuffer(quick(before, laid.buffer, laid.starts, laid.ends), np.uint64)
            assert drawn.tolist()[0] % ALL_BP == expected
        evidence = quick(salt + EVIDENCE_DOMAIN, laid.buffer, laid.starts, laid.ends)
        assert evidence[::-1].hex() == case["evidence"]


@examples(100)
@given(st.binary(max_size=60), st.lists(st.binary(max_size=400), max_size=8))
def test_hashes_are_xxh3_of_each_key(before: bytes, drawn: list[bytes]) -> None:
    """Of any length: xxh3 has four ways through it."""
    laid = KeyColumn.from_list(drawn)
    told = (before, laid.buffer, laid.starts, laid.ends)
    assert hash_of(native=True)(*told) == key_column.hash_keys_in_python(*told)


def test_keys_hash_as_the_registry_says() -> None:
    """One by one in registry.types, or all at once."""
    salt, version, drawn = bytes(range(16)), bytes(range(32)), [b"", b"a", b"S0000001", b"x" * 300]
    laid = KeyColumn.from_list(drawn)
    assert laid.hashes(salt + EVIDENCE_DOMAIN).tolist() == [
        evidence_key(salt, key) for key in drawn
    ]
    for before, bucket in (
        (salt + SPLIT_DOMAIN, lambda key: split_bucket(salt, key)),
        (salt + HOLDOUT_DOMAIN, lambda key: holdout_bucket(salt, key)),
        (salt + SHADOW_DOMAIN + version, lambda key: shadow_bucket(salt, version, key)),
    ):
        assert (laid.hashes(before) % ALL_BP).tolist() == [bucket(key) for key in drawn]


@pytest.mark.parametrize("native", NAMED)
def test_ids_are_the_committed_ones(native: bool) -> None:
    """Whoever writes them."""
    told = vectors("prediction_id")
    key = bytes.fromhex(told["key"])
    for case in told["cases"]:
        body = BODY.pack(
            FORMAT,
            case["role"],
            case["slot"],
            0,
            hash_model_name(case["model"]),
            bytes.fromhex(case["version"]),
            int(case["revision"]),
            int(case["at_ms"]),
            0,
            int(case["boot_id"], 16),
        )
        hashes = np.array([int(case["key_hash"], 16)], dtype=np.uint64)
        held_out = b"\1" if case["holdout"] else None
        written = many_of(native=native)(key, body, case["sequence"], hashes, held_out)
        assert written.hex() == case["id"]


@examples(100)
@given(
    st.binary(min_size=32, max_size=32),
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.booleans()), max_size=21),
    st.integers(0, 2**32 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
)
def test_ids_are_those_written_one_by_one(
    key: bytes,
    drawn: list[tuple[int, bool]],
    first: int,
    at_ms: int,
    anybody: bool,
) -> None:
    """In groups and what is left of them, sequences that wrap, held out or not."""
    same = {"slot": 7, "model_hash": 2**64 - 5, "revision": 3, "at_ms": at_ms, "boot_id": 2**63}
    expected = b"".join(
        write_prediction_id(
            key,
            role=2 | (HOLDOUT_BIT if out and anybody else 0),
            sequence=(first + place) & 0xFFFF_FFFF,
            version=b"abcdefgh",
            key_hash=key_hash,
            **same,
        )
        for place, (key_hash, out) in enumerate(drawn)
    )
    body = BODY.pack(FORMAT, 2, 7, 0, 2**64 - 5, b"abcdefgh", 3, at_ms, 0, 2**63)
    hashes = np.array([key_hash for key_hash, _ in drawn], dtype=np.uint64)
    held_out = bytes(out for _, out in drawn) if anybody else None
    assert many_of(native=False)(key, body, first, hashes, held_out) == expected
    assert many_of(native=True)(key, body, first, hashes, held_out) == expected


@examples(100)
@given(TEXTS, st.data())
def test_entity_ids_are_protobufs_own_bytes(texts: list[str], data: st.DataObject) -> None:
    """All of them, or some picked out."""
    laid = KeyColumn.from_list([text.encode() for text in texts])
    places = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=5)) if texts else []
    picked = laid.select(np.array(places, dtype=np.intp))
    for some, expected in ((laid, texts), (picked, [texts[place] for place in places])):
        message = ServedBatch(entity_ids=expected).SerializeToString()
        told = (ENTITY_IDS, some.buffer, some.starts, some.ends)
        assert field_of(native=False)(*told) == message
        assert field_of(native=True)(*told) == message


def test_what_does_not_fit_is_refused() -> None:
    """An item past the buffer, columns of two lengths, a key that is none: no panic."""
    ends = np.array([1, 9], dtype=np.uint32)
    starts = np.array([0, 1], dtype=np.uint32)
    for ask in (hash_of(native=True), field_of(native=True)):
        first: Any = b"" if ask is of_library("hashes") else ENTITY_IDS
        with pytest.raises(ValueError, match="buffer"):
            ask(first, b"abc", starts, ends)
        with pytest.raises(ValueError, match="buffer"):
            ask(first, b"abc", starts[::-1].copy(), starts)
        with pytest.raises(ValueError, match="buffer"):
            ask(first, b"abc", starts, starts[:1])
    one = np.zeros(1, dtype=np.uint64)
    for key, body, held_out in (
        (b"short", bytes(56), None),
        (bytes(32), bytes(55), None),
        (bytes(32), bytes(56), bytes(2)),
    ):
        with pytest.raises(ValueError, match=r"32 and 56|held out"):
            of_library("prediction_ids")(key, body, 0, one, held_out)
