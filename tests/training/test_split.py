"""Held-out entities are chosen by hash alone."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.property_examples import examples
from training.split import is_held_out

KEYS = [f"S{number:07d}".encode() for number in range(20_000)]


def test_the_share_is_kept_within_a_percent() -> None:
    """20,000 keys at 30 %: the binomial's three sigma are 1 %."""
    assert abs(is_held_out("churn", KEYS, 0.3).mean() - 0.3) < 0.01


@examples(40)
@given(st.lists(st.binary(min_size=1, max_size=20), max_size=20), st.randoms())
def test_a_key_falls_on_one_side_whatever_stands_around_it(
    keys: list[bytes], mixer: random.Random
) -> None:
    """Order, repetition and neighbours change nothing: an entity never leaks across."""
    side = dict(zip(keys, is_held_out("churn", keys, 0.5).tolist(), strict=True))
    mixed = keys + keys
    mixer.shuffle(mixed)
    assert is_held_out("churn", mixed, 0.5).tolist() == [side[key] for key in mixed]


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    """A recipe that holds out more never fits on what another held out."""
    small, large = is_held_out("churn", KEYS, 0.2), is_held_out("churn", KEYS, 0.3)
    assert not np.any(small & ~large)


def test_models_hold_out_different_entities() -> None:
    """The model's name salts: two at 50 % agree on about half, not on all."""
    agreed = (is_held_out("churn", KEYS, 0.5) == is_held_out("upsell", KEYS, 0.5)).mean()
    assert 0.45 < agreed < 0.55
