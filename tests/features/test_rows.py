"""Rows: what was packed is what is decoded, bit for bit; anything else is missing, and counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features.entity_ids import id_hashes
from features.rows import DEFAULTED, MISSING, STALE, ViewRows, valid_flags, valid_words
from tests.features.small_views import DAY_MS, NOW_MS, float32_array, plan_view, wide_view
from tests.property_examples import examples

ROWS = ViewRows(plan_view())
IDS = [b"S1", b"S2", b"S3"]
HASHES = id_hashes(IDS)
VALUES = np.arange(9, dtype=np.float32).reshape(3, 3)
VALID = np.ones((3, 3), dtype=np.bool_)
WIDTHS = [1, 19, 64, 65, 130]


def packed(age_ms: int = 0) -> list[bytes]:
    """Three whole rows of one age."""
    return ROWS.pack(IDS, np.full(3, NOW_MS - age_ms), VALUES, VALID)


@examples(50)
@given(
    hnp.arrays(
        np.dtype("<u4"), st.tuples(st.integers(0, 5), st.sampled_from([1, 19, 64, 65, 130]))
    ),
    st.data(),
)
def test_rows_come_back_bit_for_bit(bits: np.ndarray, data: st.DataObject) -> None:
    """Any float32, NaN payloads included; any validity; one word of it or three."""
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
    assert (valid_flags(valid_words(valid), width) == valid).all()


def test_a_key_names_entity_view_and_definition() -> None:
    """The braces are literal: a Cluster keeps what is known of one entity on one node."""
    view = plan_view()
    assert ROWS.store_key(b"S1") == f"{{S1}}:plan@{view.view_hash[:16]}".encode()
    assert ROWS.store_keys(IDS) == [ROWS.store_key(entity_id) for entity_id in IDS]


@pytest.mark.parametrize(
    ("age_ms", "flag"),
    [
        (-DAY_MS, 0),
        (DAY_MS, 0),
        (DAY_MS + 1, STALE | DEFAULTED),
        (2 * DAY_MS, STALE | DEFAULTED),
        (2 * DAY_MS + 1, MISSING | DEFAULTED),
    ],
)
def test_age_decides_at_the_millisecond(age_ms: int, flag: int) -> None:
    """From the future and up to the TTL fresh, then stale, after two TTLs as if never written."""
    decoded = ROWS.decode(packed(age_ms), HASHES, NOW_MS)
    expected = ROWS.default_rows(3).values if flag else VALUES
    assert decoded.flags.tolist() == [flag] * 3
    assert decoded.values.tobytes() == expected.tobytes()
    assert decoded.broken == 0


def test_a_missing_row_is_all_defaults() -> None:
    """And its neighbours are untouched."""
    first, _, third = packed()
    decoded = ROWS.decode([first, None, third], HASHES, NOW_MS)
    assert decoded.flags.tolist() == [0, MISSING | DEFAULTED, 0]
    assert decoded.values[1, :2].tolist() == [3.0, 10.5]
    assert np.isnan(decoded.values[1, 2])
    assert decoded.values[[0, 2]].tobytes() == VALUES[[0, 2]].tobytes()
    assert decoded.broken == 0


def test_wrong_lengths_that_add_up_do_not_scramble_the_others() -> None:
    """One byte short and one byte long is as many bytes as two whole rows."""
    first, second, third = packed()
    decoded = ROWS.decode([first[:-1], second + b"x", third], HASHES, NOW_MS)
    assert decoded.broken == 2
    assert decoded.flags.tolist() == [MISSING | DEFAULTED] * 2 + [0]
    assert decoded.values[2].tobytes() == VALUES[2].tobytes()


def test_another_entitys_or_views_row_is_broken_not_served() -> None:
    """A cache that mixes up keys, or a writer with another definition, is counted."""
    other = ViewRows(plan_view(ttl_ms=DAY_MS + 1)).pack(IDS, np.full(3, NOW_MS), VALUES, VALID)
    first, second, _ = packed()
    decoded = ROWS.decode([second, first, other[2]], HASHES, NOW_MS)
    assert decoded.broken == 3
    assert decoded.flags.tolist() == [MISSING | DEFAULTED] * 3
    assert decoded.values.tobytes() == ROWS.default_rows(3).values.tobytes()


@examples(100)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=60)), min_size=3, max_size=3))
def test_garbage_is_never_served(replies: list[bytes | None]) -> None:
    """No bytes make decode raise or pass for a row."""
    decoded = ROWS.decode(replies, HASHES, NOW_MS)
    assert decoded.broken == sum(reply is not None for reply in replies)
    assert decoded.values.tobytes() == ROWS.default_rows(3).values.tobytes()


def test_no_rows_are_no_rows() -> None:
    """An empty batch has a shape too."""
    assert ROWS.decode([], id_hashes([]), NOW_MS).values.shape == (0, 3)
    assert ROWS.pack([], np.empty(0, np.int64), np.empty((0, 3), np.float32), VALID[:0]) == []


def test_defaults_stand_for_a_store_that_is_away() -> None:
    """All missing, none broken."""
    decoded = ROWS.default_rows(2)
    assert decoded.flags.tolist() == [MISSING | DEFAULTED] * 2
    assert decoded.values[:, :2].tolist() == [[3.0, 10.5]] * 2
    assert decoded.broken == 0


def test_pack_refuses_what_it_cannot_keep() -> None:
    """Shapes that disagree; event times before 1970 or past 2**53."""
    with pytest.raises(ValueError, match=r"3 ids came with values \(2, 3\)"):
        ROWS.pack(IDS, np.full(3, NOW_MS), VALUES[:2], VALID)
    for instant in (-1, 2**53):
        with pytest.raises(ValueError, match="event times run from"):
            ROWS.pack([b"S1"], np.array([instant]), float32_array(1, 2, 3)[None], VALID[:1])
