"""Outcomes by entity and time find the prediction that a search through all of them finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.accuracy.attribution import attribute_outcomes
from tests.property_examples import examples

EVENTS = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 40)), max_size=25)


@examples(150)
@given(EVENTS, EVENTS, st.integers(0, 15), st.sampled_from(("last", "first")))
def test_attribution_is_that_of_a_search(
    predictions: list[tuple[int, int]], outcomes: list[tuple[int, int]], window: int, rule: str
) -> None:
    """The newest, or the oldest, prediction of the entity within the window before the event."""
    found = attribute_outcomes(
        np.array([entity for entity, _ in predictions], dtype=np.int64),
        np.array([at for _, at in predictions], dtype=np.int64),
        np.array([entity for entity, _ in outcomes], dtype=np.int64),
        np.array([at for _, at in outcomes], dtype=np.int64),
        window_ms=window,
        rule=rule,
    )
    for (entity, at), position in zip(outcomes, found.tolist(), strict=True):
        fitting = [
            (when, number)
            for number, (of, when) in enumerate(predictions)
            if of == entity and at - window <= when <= at
        ]
        expected = -1 if not fitting else (max if rule == "last" else min)(fitting)[1]
        assert position == expected


def test_impossible_windows_and_lengths_are_refused() -> None:
    """Each has its sentence, and times that do not fit into 64 bits raise."""
    one = np.ones(1, dtype=np.int64)
    with pytest.raises(ValueError, match="a rule is one of"):
        attribute_outcomes(one, one, one, one, window_ms=1, rule="best")
    with pytest.raises(ValueError, match="a rule is one of"):
        attribute_outcomes(one, one, one, one, window_ms=-1)
    with pytest.raises(ValueError, match="an entity and a time"):
        attribute_outcomes(one, one[:0], one, one, window_ms=1)
    far = np.array([2**62], dtype=np.int64)
    with pytest.raises(ValueError, match="more than can be sorted"):
        attribute_outcomes(one, far, one, one, window_ms=1)
