"""Tests of the split hashes: a growing share never gives a key back."""

from hypothesis import given
from hypothesis import strategies as st

from registry.types import ALL_BP, holdout_bucket, split_bucket
from tests.property_examples import examples

salts = st.binary(min_size=16, max_size=16)
keys = st.binary(max_size=64)
shares = st.integers(0, ALL_BP)


@examples(100)
@given(salt=salts, key=keys, small_bp=shares, large_bp=shares)
def test_split_keeps_the_keys_of_a_growing_canary(
    salt: bytes, key: bytes, small_bp: int, large_bp: int
) -> None:
    """The canary has the lowest buckets."""
    small_bp, large_bp = sorted((small_bp, large_bp))
    bucket = split_bucket(salt, key)

    assert 0 <= bucket < ALL_BP
    assert not bucket < small_bp or bucket < large_bp


@examples(100)
@given(salt=salts, key=keys, small_bp=shares, large_bp=shares)
def test_split_keeps_the_keys_of_a_growing_standby(
    salt: bytes, key: bytes, small_bp: int, large_bp: int
) -> None:
    """The standby has the highest buckets, and shares no key with the canary."""
    small_bp, large_bp = sorted((small_bp, large_bp))
    bucket = split_bucket(salt, key)

    assert not bucket >= ALL_BP - small_bp or bucket >= ALL_BP - large_bp
    assert not (bucket < ALL_BP - large_bp and bucket >= ALL_BP - small_bp)


def test_split_gives_shares_within_sampling_error() -> None:
    """5 % of 50,000 keys are 2,500, within 5 standard deviations (5 x 48.7 = 244)."""
    salt = bytes(range(16))
    canary = sum(split_bucket(salt, b"user-%d" % n) < 500 for n in range(50_000))

    assert abs(canary - 2_500) <= 244


def test_split_and_holdout_are_independent() -> None:
    """The holdout has 5 % of the canary's 2,500 keys, within 4 standard deviations."""
    salt = bytes(range(16))
    names = [b"user-%d" % n for n in range(50_000)]
    both = sum(
        split_bucket(salt, name) < 500 and holdout_bucket(salt, name) < 500 for name in names
    )

    assert abs(both - 125) <= 44
