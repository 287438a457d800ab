"""Stored rows and arms: natively what features.rows and numpy make of them, to the bit."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.rows import ViewRows
from features.views import Feature, View
from gateway.key_column import KeyColumn
from gateway.models.view_reads import (
    NativeViewRequest,
    PythonViewRequest,
    ViewRead,
    load_native_rows,
)
from gateway.predict import routing
from registry.types import ALL_BP
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.property_examples import examples

pytestmark = NEEDS_NATIVE_INGRESS

NOW_MS, TTL_MS = 1_000_000, 1_000
AGES_MS = (-5, 0, TTL_MS, TTL_MS + 1, 2 * TTL_MS, 2 * TTL_MS + 1, 900_000)
ODD = [0.0, -0.0, 1.5, float("nan"), float("inf"), 1e-45]
KINDS = ("whole", "partly", "absent", "another's", "short", "long", "empty", "another view's")


def view_of(width: int, name: str = "one") -> ViewRows:
    """Rows whose defaults are 0, 1, 2, ..."""
    features = tuple(Feature(name=f"f{place}", default=float(place)) for place in range(width))
    return ViewRows(
        View(name=name, entities=("a",), features=features, ttl_ms=TTL_MS, transform="SELECT 1")
    )


def value_of(rows: ViewRows, kind: str, age_ms: int, entity: bytes, chance: Any) -> bytes | None:  # noqa: ANN401
    """What a store may say of *entity*."""
    if kind == "absent":
        return None
    if kind == "another view's":
        rows = view_of(rows.width, "another")
    values = np.array([[chance.choice(ODD) for _ in range(rows.width)]], dtype=np.float32)
    valid = np.ones((1, rows.width), dtype=np.bool_)
    if kind == "partly":
        valid[0, chance.randrange(rows.width)] = False
    ids = [entity + b"x" if kind == "another's" else entity]
    (row,) = rows.pack(ids, np.array([NOW_MS - age_ms]), values, valid)
    return {"short": row[:-1], "long": row + b"\0", "empty": b""}.get(kind, row)


@examples(60)
@given(
    st.sampled_from([1, 3, 64, 65]),
    st.lists(
        st.tuples(
            st.binary(min_size=1, max_size=200), st.sampled_from(KINDS), st.sampled_from(AGES_MS)
        ),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_rows_are_read_as_features_reads_them(
    width: int,
    stored: list[tuple[bytes, str, int]],
    chance: Any,  # noqa: ANN401
) -> None:
    """Whatever the store says: values, flags and how many are broken; and the keys asked for."""
    rows = view_of(width)
    read = ViewRead(rows, (0,), load_native_rows(rows))
    ids = [entity for entity, _, _ in stored]
    replies = [value_of(rows, kind, age, entity, chance) for entity, kind, age in stored]
    natively, in_python = read.request(KeyColumn.from_list(ids), 1), PythonViewRequest(rows, ids)
    assert isinstance(natively, NativeViewRequest)
    assert natively.store_keys() == in_python.store_keys()
    one, other = natively.decode_replies(replies, NOW_MS), in_python.decode_replies(replies, NOW_MS)
    assert one.values.tobytes() == other.values.tobytes()
    assert (one.values.shape, one.values.dtype) == (other.values.shape, other.values.dtype)
    assert one.flags.tolist() == other.flags.tolist()
    assert one.broken == other.broken


def test_of_several_entities_the_views_own_is_asked_for() -> None:
    """By its place among a row's; a view of two is joined in Python."""
    rows = view_of(2)
    ids = KeyColumn.from_list([b"a1", b"b1", b"a2", b"b2"])
    second = ViewRead(rows, (1,), load_native_rows(rows)).request(ids, 2)
    assert second.store_keys() == rows.store_keys([b"b1", b"b2"])
    both = ViewRead(rows, (1, 0), load_native_rows(rows)).request(ids, 2)
    assert both.store_keys() == rows.store_keys([b"b1\x1fa1", b"b2\x1fa2"])


def test_a_layout_that_does_not_fit_is_refused() -> None:
    """And so are replies that are not one an id: nothing is read past an end."""
    layout = view_of(65).layout
    made = type(cast("Any", load_native_rows(view_of(1))))
    with pytest.raises(ValueError, match="8 bytes of validity do not fit 260 of defaults"):
        made(*layout._replace(all_valid=layout.all_valid[:8]))
    one, places = made(*layout), np.array([0], dtype=np.uint32)
    with pytest.raises(ValueError, match="a reply an id"):
        one.decode_rows([], b"a", places, places + 1, NOW_MS)
    with pytest.raises(ValueError, match="does not lie in the buffer"):
        one.store_keys(b"a", places, places + 2)


@examples(60)
@given(
    st.lists(st.binary(min_size=1, max_size=30), max_size=60),
    st.integers(0, ALL_BP),
    st.integers(0, ALL_BP),
)
def test_arms_are_those_that_numpy_draws(
    keys: list[bytes], canary_bp: int, standby_bp: int
) -> None:
    """Whatever the shares, and where they would meet."""
    plan = SimpleNamespace(split_salt=bytes(16), canary_bp=canary_bp, standby_bp=standby_bp)
    routes, laid = cast("Any", SimpleNamespace(deployment=plan)), KeyColumn.from_list(keys)
    assert routing.ASSIGN_ARMS is not None
    natively = routing.assign_arms(routes, laid)
    quick, routing.ASSIGN_ARMS = routing.ASSIGN_ARMS, None
    try:
        assert routing.assign_arms(routes, laid).tolist() == natively.tolist()
    finally:
        routing.ASSIGN_ARMS = quick
