"""A split is a promise about who answers whom: growing shares never give a key back."""

from hypothesis import given
from hypothesis import strategies as st

from registry.types import ALL_BP, holdout_bucket, split_bucket
from tests.property_examples import examples

salts = st.binary(min_size=16, max_size=16)
keys = st.binary(max_size=64)
shares = st.integers(0, ALL_BP)


@examples(100)
@given(salt=salts, key=keys, small_bp=shares, large_bp=shares)
def test_a_growing_canary_never_gives_a_key_back(
    salt: bytes, key: bytes, small_bp: int, large_bp: int
) -> None:
    """Its buckets are the bottom of the range."""
    small_bp, large_bp = sorted((small_bp, large_bp))
    bucket = split_bucket(salt, key)

    assert 0 <= bucket < ALL_BP
    assert not bucket < small_bp or bucket < large_bp


@examples(100)
@given(salt=salts, key=keys, small_bp=shares, large_bp=shares)
def test_a_growing_standby_never_gives_a_key_back(
    salt: bytes, key: bytes, small_bp: int, large_bp: int
) -> None:
    """Its buckets are the top; and with canary + standby <= all, no key is both's."""
    small_bp, large_bp = sorted((small_bp, large_bp))
    bucket = split_bucket(salt, key)

    assert not bucket >= ALL_BP - small_bp or bucket >= ALL_BP - large_bp
    assert not (bucket < ALL_BP - large_bp and bucket >= ALL_BP - small_bp)


def test_shares_are_kept_within_sampling_error() -> None:
    """5 % of 50,000 keys is 2,500, give or take 5 standard deviations (5 x 48.7 = 244)."""
    salt = bytes(range(16))
    canary = sum(split_bucket(salt, b"user-%d" % n) < 500 for n in range(50_000))

    assert abs(canary - 2_500) <= 244


def test_split_and_holdout_draw_independently() -> None:
    """Among the canary's keys the control group is as large as anywhere (5 % of 2,500 x 4 sd)."""
    salt = bytes(range(16))
    names = [b"user-%d" % n for n in range(50_000)]
    both = sum(
        split_bucket(salt, name) < 500 and holdout_bucket(salt, name) < 500 for name in names
    )

    assert abs(both - 125) <= 44
