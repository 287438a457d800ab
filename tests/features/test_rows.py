"""Tests of stored rows: packed rows are decoded bit for bit, and anything else is missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features.entity_ids import id_hashes
from features.rows import DEFAULTED, MISSING, STALE, ViewRows, pack_valid, unpack_valid
from features.staleness import CLOCK_SKEW_MS_MAX
from tests.features.small_views import DAY_MS, NOW_MS, float32_array, plan_view, wide_view
from tests.property_examples import examples

ROWS = ViewRows(plan_view())
IDS = [b"S1", b"S2", b"S3"]
HASHES = id_hashes(IDS)
VALUES = np.arange(9, dtype=np.float32).reshape(3, 3)
VALID = np.ones((3, 3), dtype=np.bool_)
WIDTHS = [1, 19, 64, 65, 130]


def packed_rows(age_ms: int = 0) -> list[bytes]:
    """Three valid rows of one age."""
    return ROWS.pack(IDS, np.full(3, NOW_MS - age_ms), VALUES, VALID)


@examples(50)
@given(
    hnp.arrays(
        np.dtype("<u4"), st.tuples(st.integers(0, 5), st.sampled_from([1, 19, 64, 65, 130]))
    ),
    st.data(),
)
def test_rows_are_decoded_bit_for_bit(bits: np.ndarray, data: st.DataObject) -> None:
    """Any float32 is kept, including NaN payloads, with one to three validity words."""
    count, width = bits.shape
    rows = ViewRows(wide_view(width))
    valid = data.draw(hnp.arrays(np.bool_, bits.shape))
    ids = [b"S%d" % number for number in range(count)]
    values = bits.view(np.float32)
    stored = rows.pack(ids, np.full(count, NOW_MS), values, valid)

    decoded = rows.decode(stored, id_hashes(ids), NOW_MS)

    assert {len(row) for row in stored} <= {rows.row_bytes}
    assert decoded.values.tobytes() == values.tobytes()
    assert decoded.values.flags.c_contiguous
    assert decoded.flags.tolist() == np.where(valid.all(axis=1), 0, DEFAULTED).tolist()
    assert decoded.broken == 0
    assert (unpack_valid(pack_valid(valid), width) == valid).all()


def test_store_key_names_entity_view_and_definition() -> None:
    """The braces are literal: a Cluster keeps the rows of an entity on one node."""
    view = plan_view()
    assert ROWS.store_key(b"S1") == f"{{S1}}:plan@{view.view_hash[:16]}".encode()
    assert ROWS.store_keys(IDS) == [ROWS.store_key(entity_id) for entity_id in IDS]


@pytest.mark.parametrize(
    ("age_ms", "flag"),
    [
        (-CLOCK_SKEW_MS_MAX, 0),
        (DAY_MS, 0),
        (DAY_MS + 1, STALE | DEFAULTED),
        (2 * DAY_MS, STALE | DEFAULTED),
        (2 * DAY_MS + 1, MISSING | DEFAULTED),
    ],
)
def test_decoded_row_becomes_stale_one_millisecond_after_its_ttl(age_ms: int, flag: int) -> None:
    """A row that is an hour ahead is fresh. After two TTLs a row counts as never written."""
    decoded = ROWS.decode(packed_rows(age_ms), HASHES, NOW_MS)
    expected = ROWS.default_rows(3).values if flag else VALUES
    assert decoded.flags.tolist() == [flag] * 3
    assert decoded.values.tobytes() == expected.tobytes()
    assert decoded.broken == 0


def test_decoded_missing_row_has_the_defaults() -> None:
    """The rows beside it are not affected."""
    first, _, third = packed_rows()
    decoded = ROWS.decode([first, None, third], HASHES, NOW_MS)
    assert decoded.flags.tolist() == [0, MISSING | DEFAULTED, 0]
    assert decoded.values[1, :2].tolist() == [3.0, 10.5]
    assert np.isnan(decoded.values[1, 2])
    assert decoded.values[[0, 2]].tobytes() == VALUES[[0, 2]].tobytes()
    assert decoded.broken == 0


def test_decode_replaces_values_of_a_wrong_length() -> None:
    """Two values, one byte short and one byte long, have together the length of two rows."""
    first, second, third = packed_rows()
    decoded = ROWS.decode([first[:-1], second + b"x", third], HASHES, NOW_MS)
    assert decoded.broken == 2
    assert decoded.flags.tolist() == [MISSING | DEFAULTED] * 2 + [0]
    assert decoded.values[2].tobytes() == VALUES[2].tobytes()


def test_decode_counts_rows_of_other_entities_and_views_as_broken() -> None:
    """A cache that mixes up keys, or a writer with another definition, is counted."""
    other = ViewRows(plan_view(ttl_ms=DAY_MS + 1)).pack(IDS, np.full(3, NOW_MS), VALUES, VALID)
    first, second, _ = packed_rows()
    decoded = ROWS.decode([second, first, other[2]], HASHES, NOW_MS)
    assert decoded.broken == 3
    assert decoded.flags.tolist() == [MISSING | DEFAULTED] * 3
    assert decoded.values.tobytes() == ROWS.default_rows(3).values.tobytes()


@examples(100)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=60)), min_size=3, max_size=3))
def test_decode_never_serves_garbage(replies: list[bytes | None]) -> None:
    """Random bytes never make decode raise, and are never taken for a row."""
    decoded = ROWS.decode(replies, HASHES, NOW_MS)
    assert decoded.broken == sum(reply is not None for reply in replies)
    assert decoded.values.tobytes() == ROWS.default_rows(3).values.tobytes()


def test_rows_may_be_empty() -> None:
    """An empty batch has a shape as well."""
    assert ROWS.decode([], id_hashes([]), NOW_MS).values.shape == (0, 3)
    assert ROWS.pack([], np.empty(0, np.int64), np.empty((0, 3), np.float32), VALID[:0]) == []


def test_default_rows_are_missing_and_not_broken() -> None:
    """Models score with them while the store does not answer."""
    decoded = ROWS.default_rows(2)
    assert decoded.flags.tolist() == [MISSING | DEFAULTED] * 2
    assert decoded.values[:, :2].tolist() == [[3.0, 10.5]] * 2
    assert decoded.broken == 0


def test_pack_refuses_wrong_shapes_and_event_times() -> None:
    """Event times must be in 1970 or later and below 2**53 ms."""
    with pytest.raises(ValueError, match=r"3 ids came with values \(2, 3\)"):
        ROWS.pack(IDS, np.full(3, NOW_MS), VALUES[:2], VALID)
    for instant in (-1, 2**53):
        with pytest.raises(ValueError, match="event times run from"):
            ROWS.pack([b"S1"], np.array([instant]), float32_array(1, 2, 3)[None], VALID[:1])
