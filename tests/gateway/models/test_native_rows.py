"""The native library decodes rows and assigns arms with the bits of features.rows and numpy."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.rows import ViewRows
from features.staleness import CLOCK_SKEW_MS_MAX
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
FUTURE_MS = (2**52, CLOCK_SKEW_MS_MAX + 1, CLOCK_SKEW_MS_MAX)
AGES_MS = (
    *(-ahead for ahead in FUTURE_MS),
    -5,
    0,
    TTL_MS,
    TTL_MS + 1,
    2 * TTL_MS,
    2 * TTL_MS + 1,
    900_000,
)
EDGE_VALUES = [0.0, -0.0, 1.5, float("nan"), float("inf"), 1e-45]
KINDS = ("complete", "partly", "absent", "another's", "short", "long", "empty", "another view's")


def view_of(width: int, name: str = "one") -> ViewRows:
    """Return the rows of a view whose defaults are 0, 1, 2, ..."""
    features = tuple(Feature(name=f"f{index}", default=float(index)) for index in range(width))
    return ViewRows(
        View(name=name, entities=("a",), features=features, ttl_ms=TTL_MS, transform="SELECT 1")
    )


def value_of(rows: ViewRows, kind: str, age_ms: int, entity: bytes, random: Any) -> bytes | None:  # noqa: ANN401
    """Return a reply that a store may give for *entity*."""
    if kind == "absent":
        return None
    if kind == "another view's":
        rows = view_of(rows.width, "another")
    values = np.array([[random.choice(EDGE_VALUES) for _ in range(rows.width)]], dtype=np.float32)
    valid = np.ones((1, rows.width), dtype=np.bool_)
    if kind == "partly":
        valid[0, random.randrange(rows.width)] = False
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
def test_native_rows_equal_features_rows_bit_for_bit(
    width: int,
    stored: list[tuple[bytes, str, int]],
    random: Any,  # noqa: ANN401
) -> None:
    """Keys, values, flags and the number of broken rows are equal for any replies."""
    rows = view_of(width)
    read = ViewRead(rows, (0,), load_native_rows(rows))
    ids = [entity for entity, _, _ in stored]
    replies = [value_of(rows, kind, age, entity, random) for entity, kind, age in stored]
    native, in_python = read.request(KeyColumn.from_list(ids), 1), PythonViewRequest(rows, ids)
    assert isinstance(native, NativeViewRequest)
    assert list(native.store_keys()) == in_python.store_keys()
    decoded = native.decode_replies(replies, NOW_MS)
    expected = in_python.decode_replies(replies, NOW_MS)
    assert decoded.values.tobytes() == expected.values.tobytes()
    assert decoded.values.shape == expected.values.shape
    assert decoded.values.dtype == expected.values.dtype
    assert decoded.flags.tolist() == expected.flags.tolist()
    assert decoded.broken == expected.broken


def test_view_read_requests_the_views_own_entities() -> None:
    """Entities are selected by position; Python joins the ids of a view of two entities."""
    rows = view_of(2)
    ids = KeyColumn.from_list([b"a1", b"b1", b"a2", b"b2"])
    second = ViewRead(rows, (1,), load_native_rows(rows)).request(ids, 2)
    assert list(second.store_keys()) == rows.store_keys([b"b1", b"b2"])
    both = ViewRead(rows, (1, 0), load_native_rows(rows)).request(ids, 2)
    assert both.store_keys() == rows.store_keys([b"b1\x1fa1", b"b2\x1fa2"])


def test_native_rows_refuse_a_layout_or_replies_that_do_not_fit() -> None:
    """Nothing is read past an end: each id needs one reply and lies in the buffer."""
    layout = view_of(65).layout
    native_rows = type(cast("Any", load_native_rows(view_of(1))))
    with pytest.raises(ValueError, match="8 bytes of validity do not fit 260 of defaults"):
        native_rows(*layout._replace(all_valid=layout.all_valid[:8]))
    reader, starts = native_rows(*layout), np.array([0], dtype=np.uint32)
    with pytest.raises(ValueError, match="a reply an id"):
        reader.decode_rows([], b"a", starts, starts + 1, NOW_MS)
    with pytest.raises(ValueError, match="does not lie in the buffer"):
        reader.store_keys(b"a", starts, starts + 2)


@examples(60)
@given(
    st.lists(st.binary(min_size=1, max_size=30), max_size=60),
    st.integers(0, ALL_BP),
    st.integers(0, ALL_BP),
)
def test_native_assign_arms_equals_numpy(
    keys: list[bytes], canary_bp: int, standby_bp: int
) -> None:
    """The shares are any numbers; their sum may be above 100 %."""
    deployment = SimpleNamespace(split_salt=bytes(16), canary_bp=canary_bp, standby_bp=standby_bp)
    routes, keys_column = (
        cast("Any", SimpleNamespace(deployment=deployment)),
        KeyColumn.from_list(keys),
    )
    assert routing.ASSIGN_ARMS is not None
    native = routing.assign_arms(routes, keys_column)
    native_function, routing.ASSIGN_ARMS = routing.ASSIGN_ARMS, None
    try:
        assert routing.assign_arms(routes, keys_column).tolist() == native.tolist()
    finally:
        routing.ASSIGN_ARMS = native_function
