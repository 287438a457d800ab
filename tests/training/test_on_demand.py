"""Tests of the language of on-demand features: operators against numpy, and refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.contract import TIME_NAMES, time_columns
from training.errors import RecipeError
from training.export.on_demand_graph import OnDemandFront, on_demand_front
from training.on_demand import DEPTH_MAX, EXPRESSION_LENGTH_MAX, OnDemand, parse_on_demand

Wide = NDArray[np.float64]
NAMES = ("usage:a", "usage:last", "bills:last", "b")
EDGES = (np.nan, 0.0, -0.0, 1.0, -1.0, 2.5, -7.25, 1e-9, 1e-4, 0.1, 16_777_216.0, 3e38, -3e38)
MAX = np.float64(np.finfo(np.float32).max)


def pairs() -> NDArray[np.float32]:
    """Each value of EDGES with each, as the columns a and b; (N, 4) float32."""
    a, b = (values.ravel() for values in np.meshgrid(EDGES, EDGES))
    return np.stack([a, a, b, b], axis=1).astype(np.float32)


def evaluate(
    expression: str, rows: NDArray[np.float32], default: float | None = None
) -> NDArray[np.float32]:
    """Return the on-demand column of *rows* (N, 4), or (N, 6) with the time; it is (N,)."""
    names = NAMES if rows.shape[1] == len(NAMES) else (*NAMES, *TIME_NAMES)
    feature = OnDemand(name="made", expression=expression, default=default)
    front = on_demand_front(names, (), [(feature, parse_on_demand(feature, NAMES))])
    columns = front.columns(rows)
    assert columns.shape == (len(rows), 1)
    assert columns.dtype == np.float32
    return columns[:, 0]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a + b", lambda a, b: a + b),
        ("a - b", lambda a, b: a - b),
        ("a * b", lambda a, b: a * b),
        ("a / b", lambda a, b: a / b),
        ("-a - -b", lambda a, b: -a + b),
        ("a < b", lambda a, b: a < b),
        ("a <= b", lambda a, b: a <= b),
        ("a > b", lambda a, b: a > b),
        ("a >= b", lambda a, b: a >= b),
        ("a == b", lambda a, b: a == b),
        ("a != b", lambda a, b: a != b),
        ("a > 0 and b > 0 and a > b", lambda a, b: (a > 0) & (b > 0) & (a > b)),
        ("a > 0 or not b > 0", lambda a, b: (a > 0) | ~(b > 0)),
        ("where(a > b, a, 2)", lambda a, b: np.where(a > b, a, 2.0)),
        ("is_missing(a)", lambda a, _: np.isnan(a)),
        ("where(is_missing(a / b), -1, a)", lambda a, b: np.where(np.isnan(a / b), -1.0, a)),
        ("clip(a, -1, b)", lambda a, b: np.minimum(np.maximum(a, -1.0), b)),
        ("min(a, b)", np.minimum),
        ("max(a, b)", np.maximum),
        ("abs(a)", lambda a, _: np.abs(a)),
        ("floor(a / 3)", lambda a, _: np.floor(a / 3)),
        ("log1p(a)", lambda a, _: np.log1p(a)),
        ("usage.a + usage.last * bills.last", lambda a, b: a + a * b),
        ("(a + 1) * (a + 1) / (a + 1)", lambda a, _: (a + 1) * (a + 1) / (a + 1)),
    ],
)
def test_every_operator_has_the_bits_of_numpy(
    expression: str, expected: Callable[[Wide, Wide], Any]
) -> None:
    """In float64, rounded to float32 once; what float32 cannot hold is missing."""
    rows = pairs()
    a, b = rows[:, 0].astype(np.float64), rows[:, 3].astype(np.float64)
    with np.errstate(all="ignore"):
        wide = np.asarray(expected(a, b)).astype(np.float64)
        usable = np.abs(wide) <= MAX
        right = np.where(usable, wide, np.nan).astype(np.float32)
        right_or_default = np.where(usable, wide, -9.0).astype(np.float32)
    np.testing.assert_array_equal(evaluate(expression, rows), right)
    np.testing.assert_array_equal(evaluate(expression, rows, default=-9.0), right_or_default)
    # A row's value does not depend on the rows beside it.
    alone = np.concatenate([evaluate(expression, rows[at : at + 1]) for at in range(0, 169, 7)])
    np.testing.assert_array_equal(alone, right[::7])


def test_time_is_exact_to_the_second() -> None:
    """One float32 of Unix seconds would be wrong by up to 64 s."""
    instants_ms = np.array([0, 1_764_471_270_999, 4_102_444_799_000], dtype=np.int64)
    rows = np.zeros((3, 6), dtype=np.float32)
    rows[:, 4:] = time_columns(instants_ms)
    seconds = instants_ms // 1_000
    difference = evaluate("now - 1764471000", rows)
    assert difference.tolist() == (seconds - 1_764_471_000).astype(np.float32).tolist()
    assert difference[1] == 270.0
    hour = evaluate("floor((now - floor(now / 86400) * 86400) / 3600)", rows)
    assert hour.tolist() == (seconds // 3600 % 24).tolist()


def test_several_features_share_one_front() -> None:
    """Kept inputs come first, in order, with their bits."""
    features = [
        OnDemand(name="ratio", expression="a / b", default=0.0),
        OnDemand(name="above", expression="a / b > 1"),
    ]
    terms = [(feature, parse_on_demand(feature, NAMES)) for feature in features]
    front = on_demand_front(NAMES, ("usage:a", "b"), terms)
    assert isinstance(front, OnDemandFront)
    assert sum(node.op_type == "Div" for node in front.model.graph.node) == 1
    rows = np.array([[6, 0, 0, 2], [1, 0, 0, 0]], dtype=np.float32)
    columns = front.columns(rows)
    assert columns.tolist() == [[6.0, 2.0, 3.0, 1.0], [1.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("a +", "it is no expression"),
        ("a ** 2", r"`a \*\* 2`: there are \+ - \* /, comparisons"),
        ("__import__('os')", "`__import__\\('os'\\)`: there are"),
        ("a.b.c", "`a.b.c`: there are"),
        ("'a'", "there are"),
        ("True + a", "`True`: there are"),
        ("[a for a in b]", "there are"),
        ("lambda: a", "there are"),
        ("max(a, b, key=a)", "there are"),
        ("max(a)", r"`max\(a\)`: it is max\(a, b\)"),
        ("where(a, 1, 2)", "`a`: a comparison is needed"),
        ("(a > b) * 2", r"a number is needed: write where\(comparison, 1, 0\)"),
        ("0 < a < b", "join comparisons with `and`"),
        ("a is b", "there are"),
        ("last + 1", "`last`: it may be usage.last and bills.last; write the one"),
        ("paid + 1", "`paid`: no such column; .* are usage.a, usage.last, bills.last, b, and"),
        ("1 + 2", "it uses no column"),
        ("a + 1e999", "beyond float64"),
        ("a + " + "9" * 400, "beyond float64"),
        ("a" * (EXPRESSION_LENGTH_MAX + 1), "501 characters; the most is 500"),
        ("-" * (DEPTH_MAX + 1) + "a", "more than 100 terms within each other"),
        ("-" * 499 + "a", "within each other|no expression"),
        ("(" * 499, "it is no expression"),
    ],
)
def test_what_is_not_in_the_language_is_refused(expression: str, reason: str) -> None:
    """The message has the feature, the part that is wrong and the way out."""
    with pytest.raises(RecipeError, match=reason) as refused:
        parse_on_demand(OnDemand(name="made", expression=expression), NAMES)
    assert str(refused.value).startswith("on-demand feature 'made' = ")


def test_names_and_defaults_are_checked() -> None:
    """When the feature is declared."""
    with pytest.raises(RecipeError, match="does not match"):
        OnDemand(name="A b", expression="a")
    with pytest.raises(RecipeError, match="that float32 can hold"):
        OnDemand(name="a", expression="a", default=1e39)
    with pytest.raises(RecipeError, match="that float32 can hold"):
        OnDemand(name="a", expression="a", default=float("nan"))
