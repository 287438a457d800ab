"""Tests of the split into held-out and other rows."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.property_examples import examples
from training.labelled_rows import is_held_out

KEYS = [f"S{number:07d}".encode() for number in range(20_000)]


def test_split_holds_out_the_share_within_a_percent() -> None:
    """For 20,000 keys at 30 % three standard deviations are 1 %."""
    assert abs(is_held_out("churn", KEYS, 0.3).mean() - 0.3) < 0.01


@examples(40)
@given(st.lists(st.binary(min_size=1, max_size=20), max_size=20), st.randoms())
def test_split_puts_a_key_on_one_side(keys: list[bytes], generator: random.Random) -> None:
    """Order, repetition and other keys have no effect."""
    side = dict(zip(keys, is_held_out("churn", keys, 0.5).tolist(), strict=True))
    shuffled = keys + keys
    generator.shuffle(shuffled)
    assert is_held_out("churn", shuffled, 0.5).tolist() == [side[key] for key in shuffled]


def test_split_of_a_smaller_share_is_part_of_a_larger_one() -> None:
    """A recipe with a larger share fits on no row that a smaller share held out."""
    small, large = is_held_out("churn", KEYS, 0.2), is_held_out("churn", KEYS, 0.3)
    assert not np.any(small & ~large)


def test_split_differs_between_models() -> None:
    """The model's name is the salt, so two models at 50 % agree on about half of the keys."""
    agreed = (is_held_out("churn", KEYS, 0.5) == is_held_out("upsell", KEYS, 0.5)).mean()
    assert 0.45 < agreed < 0.55
