"""Hashes, prediction ids and fields of a batch: native, Python and tests/vectors are equal."""

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
    HOLDOUT_BIT,
    complete_prediction_id,
    hash_model_name,
    masking_key,
    pack_body,
    sealing_key,
    write_prediction_id,
    write_prediction_ids,
)
from journal.score_code import ScoreRule
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
IMPLEMENTATIONS = [pytest.param(False, id="python"), pytest.param(True, id="native")]
TEXTS = st.lists(st.text(max_size=90), max_size=12)


def hash_keys(*, native: bool) -> HashKeys:
    """Return one implementation; skip the test where the native one is not built."""
    return native_function("hashes") if native else key_column.hash_keys_in_python


def encode_field(*, native: bool) -> EncodeField:
    """Return one implementation; skip the test where the native one is not built."""
    return native_function("repeated_field") if native else key_column.encode_field_in_python


def write_ids(*, native: bool) -> prediction_ids.WriteIds:
    """Return one implementation; skip the test where the native one is not built."""
    return native_function("prediction_ids") if native else write_prediction_ids


def native_function(name: str) -> Any:  # noqa: ANN401  the functions have different types
    """Return the native library's function of that name; skip the test where it is not built."""
    if not hasattr(NATIVE, name):
        pytest.skip("turnout_ingress is not built")
    return getattr(NATIVE, name)


def vectors(name: str) -> dict[str, Any]:
    """Return one file of tests/vectors."""
    read: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return read


def test_native_functions_are_used_where_the_library_is_built() -> None:
    """Otherwise the loss of the fast implementation would go unnoticed."""
    assert key_column.HASH_KEYS is getattr(NATIVE, "hashes", key_column.hash_keys_in_python)
    assert key_column.ENCODE_FIELD is getattr(
        NATIVE, "repeated_field", key_column.encode_field_in_python
    )
    assert getattr(NATIVE, "prediction_ids", write_prediction_ids) is prediction_ids.WRITE_IDS
    assert getattr(NATIVE, "prediction_id", complete_prediction_id) is prediction_ids.COMPLETE_ID


@pytest.mark.parametrize("native", IMPLEMENTATIONS)
def test_hash_keys_returns_the_committed_hashes(native: bool) -> None:
    """Every gateway assigns a key alike, with either implementation."""
    hash_function = hash_keys(native=native)
    for case in vectors("split_hashes")["cases"]:
        salt, key = bytes.fromhex(case["salt"]), bytes.fromhex(case["key"])
        column = KeyColumn.from_list([key])
        for prefix, expected in (
            (salt + SPLIT_DOMAIN, case["split"]),
            (salt + SHADOW_DOMAIN + bytes.fromhex(case["version_id"]), case["shadow"]),
            (salt + HOLDOUT_DOMAIN, case["holdout"]),
        ):
            hashes = np.frombuffer(
                hash_function(prefix, column.buffer, column.starts, column.ends), np.uint64
            )
            assert hashes.tolist()[0] % ALL_BP == expected
        evidence = hash_function(salt + EVIDENCE_DOMAIN, column.buffer, column.starts, column.ends)
        assert evidence[::-1].hex() == case["evidence"]


@examples(100)
@given(st.binary(max_size=60), st.lists(st.binary(max_size=400), max_size=8))
def test_native_hash_keys_equals_python(prefix: bytes, keys: list[bytes]) -> None:
    """The keys have any length, because xxh3 has four code paths by length."""
    column = KeyColumn.from_list(keys)
    arguments = (prefix, column.buffer, column.starts, column.ends)
    assert hash_keys(native=True)(*arguments) == key_column.hash_keys_in_python(*arguments)


def test_key_column_hashes_equal_the_registrys() -> None:
    """The registry hashes keys one by one, the column all at once."""
    salt, version, keys = bytes(range(16)), bytes(range(32)), [b"", b"a", b"S0000001", b"x" * 300]
    column = KeyColumn.from_list(keys)
    assert column.hashes(salt + EVIDENCE_DOMAIN).tolist() == [
        evidence_key(salt, key) for key in keys
    ]
    for prefix, bucket in (
        (salt + SPLIT_DOMAIN, lambda key: split_bucket(salt, key)),
        (salt + HOLDOUT_DOMAIN, lambda key: holdout_bucket(salt, key)),
        (salt + SHADOW_DOMAIN + version, lambda key: shadow_bucket(salt, version, key)),
    ):
        assert (column.hashes(prefix) % ALL_BP).tolist() == [bucket(key) for key in keys]


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("native", IMPLEMENTATIONS)
def test_write_ids_returns_the_committed_ids(native: bool, sealed: bool) -> None:
    """Both implementations write the same ids, readable or sealed."""
    vector = vectors("prediction_id")
    key = bytes.fromhex(vector["key"])
    for case in vector["cases"]:
        body = pack_body(
            sealed=sealed,
            role=case["role"],
            slot=case["slot"],
            model_hash=hash_model_name(case["model"]),
            version=bytes.fromhex(case["version"]),
            revision=int(case["revision"]),
            at_ms=int(case["at_ms"]),
            boot_id=int(case["boot_id"], 16),
        )
        written = write_ids(native=native)(
            key,
            body,
            case["sequence"],
            np.array([int(case["key_hash"], 16)], dtype=np.uint64),
            b"\1" if case["holdout"] else None,
            np.full((case["rows"], 2), case["score"], dtype=np.float32),
            np.array([0, case["rows"]], dtype=np.uint32),
            ScoreRule(case["probability"], case["threshold"]),
            masking_key(key),
            sealing_key(key) if sealed else None,
        )
        assert written.hex() == case["sealed" if sealed else "id"]


FLOATS = st.floats(width=32) | st.floats(0, 1, width=32)


@examples(100)
@given(
    st.binary(min_size=32, max_size=32),
    st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.booleans(), st.integers(1, 3), FLOATS), max_size=21
    ),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**48 - 1),
    st.booleans(),
    st.booleans(),
    st.builds(ScoreRule, st.booleans(), FLOATS),
)
def test_write_ids_equals_ids_written_one_by_one(
    key: bytes,
    calls: list[tuple[int, bool, int, float]],
    first_sequence: int,
    at_ms: int,
    has_holdout: bool,
    sealed: bool,
    rule: ScoreRule,
) -> None:
    """Ids are written in groups and a rest; sequences wrap; some calls are in the holdout."""
    # Write one id after the other.
    common: dict[str, Any] = {
        "slot": 7,
        "model_hash": 2**64 - 5,
        "version": b"abcdefgh",
        "revision": 3,
        "at_ms": at_ms,
        "boot_id": 2**63 + 1,
        "sealed": sealed,
    }
    expected = b"".join(
        write_prediction_id(
            key,
            role=2 | (HOLDOUT_BIT if in_holdout and has_holdout else 0),
            sequence=(first_sequence + index) & 0xFFFF_FFFF,
            key_hash=key_hash,
            rows=rows,
            score=score,
            rule=rule,
            **common,
        )
        for index, (key_hash, in_holdout, rows, score) in enumerate(calls)
    )
    # The first row of each call has its score; the other rows and outputs are others.
    row_offsets = np.cumsum([0, *(rows for _, _, rows, _ in calls)]).astype(np.uint32)
    scores = np.full((int(row_offsets[-1]), 2), 0.125, dtype=np.float32)
    scores[row_offsets[:-1], 0] = [score for *_, score in calls]
    # Write all of them at once, with both implementations.
    arguments = (
        key,
        pack_body(role=2, **common),
        first_sequence,
        np.array([key_hash for key_hash, *_ in calls], dtype=np.uint64),
        bytes(call[1] for call in calls) if has_holdout else None,
        scores,
        row_offsets,
        rule,
        masking_key(key),
        sealing_key(key) if sealed else None,
    )
    assert write_ids(native=False)(*arguments) == expected
    assert write_ids(native=True)(*arguments) == expected


@examples(200)
@given(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(1, 2**16 - 1),
    FLOATS,
    st.integers(0, 2**48 - 1),
    st.booleans(),
    st.builds(ScoreRule, st.booleans(), FLOATS),
)
def test_complete_id_equals_python(
    key: bytes,
    sequence: int,
    key_hash: int,
    rows: int,
    score: float,
    at_ms: int,
    sealed: bool,
    rule: ScoreRule,
) -> None:
    """Each field at any value, readable or sealed; probabilities and other scores."""
    body = pack_body(
        sealed=sealed,
        role=2 | HOLDOUT_BIT,
        slot=7,
        model_hash=2**64 - 5,
        version=b"abcdefgh",
        revision=2**48 - 1,
        at_ms=at_ms,
        boot_id=2**63 + 1,
    )
    seal_with = sealing_key(key) if sealed else None
    arguments = (key, body, sequence, key_hash, rows, rule, masking_key(key), seal_with, score)
    expected = complete_prediction_id(*arguments)
    assert native_function("prediction_id")(*arguments) == expected
    # A call of a batch gets the same id.
    scores, offsets = np.array([[score]] * rows, dtype=np.float32), np.array([0, rows], np.uint32)
    hashes, of_answer = np.array([key_hash], dtype=np.uint64), (rule, masking_key(key), seal_with)
    in_batch = write_prediction_ids(key, body, sequence, hashes, None, scores, offsets, *of_answer)
    assert in_batch == expected


@examples(100)
@given(TEXTS, st.data())
def test_encode_field_writes_protobufs_bytes(texts: list[str], data: st.DataObject) -> None:
    """All keys of a column and a selection of them are encoded."""
    column = KeyColumn.from_list([text.encode() for text in texts])
    indexes = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=5)) if texts else []
    selected = column.select(np.array(indexes, dtype=np.intp))
    for keys, expected in ((column, texts), (selected, [texts[index] for index in indexes])):
        message = ServedBatch(entity_ids=expected).SerializeToString()
        arguments = (ENTITY_IDS, keys.buffer, keys.starts, keys.ends)
        assert encode_field(native=False)(*arguments) == message
        assert encode_field(native=True)(*arguments) == message


def test_native_functions_refuse_columns_that_do_not_fit() -> None:
    """Keys past the buffer, columns of two lengths, and keys of a wrong size are refused."""
    # Keys that do not lie in the buffer.
    ends = np.array([1, 9], dtype=np.uint32)
    starts = np.array([0, 1], dtype=np.uint32)
    for function in (hash_keys(native=True), encode_field(native=True)):
        first: Any = b"" if function is native_function("hashes") else ENTITY_IDS
        with pytest.raises(ValueError, match="buffer"):
            function(first, b"abc", starts, ends)
        with pytest.raises(ValueError, match="buffer"):
            function(first, b"abc", starts[::-1].copy(), starts)
        with pytest.raises(ValueError, match="buffer"):
            function(first, b"abc", starts, starts[:1])
    # One argument of an id is changed after the other.
    hashes, scores = np.zeros(1, dtype=np.uint64), np.zeros((1, 1), dtype=np.float32)
    fitting = (bytes(32), bytes(56), None, scores, [0, 1], bytes(32), None)
    for index, other, message in (
        (0, b"short", "32 and 56"),
        (1, bytes(55), "32 and 56"),
        (2, bytes(2), "holdout column"),
        (3, scores[:0], "rows of a call"),
        (3, scores[0], "rows of a call"),
        (4, [0, 0], "rows of a call"),
        (4, [1, 0], "rows of a call"),
        (4, [0, 65_536], "rows of a call"),
        (4, [0], "rows of a call"),
        (5, b"short", "masking key"),
        (6, b"short", "sealing key"),
    ):
        changed: list[Any] = list(fitting)
        changed[index] = other
        key, body, holdout, rows_scores, offsets, mask_with, seal_with = changed
        row_offsets, rule = np.array(offsets, dtype=np.uint32), ScoreRule(True, 0.5)
        with pytest.raises(ValueError, match=message):
            native_function("prediction_ids")(
                key, body, 0, hashes, holdout, rows_scores, row_offsets, rule, mask_with, seal_with
            )
    # The id of one call.
    fitting_one = (bytes(32), bytes(56), 0, 0, 1, ScoreRule(True, 0.5), bytes(32), None, 0.5)
    native_function("prediction_id")(*fitting_one)
    for index, other in ((0, b"short"), (1, bytes(55)), (4, 65_536), (6, b"short"), (7, b"short")):
        changed = list(fitting_one)
        changed[index] = other
        with pytest.raises((ValueError, OverflowError)):
            native_function("prediction_id")(*changed)
