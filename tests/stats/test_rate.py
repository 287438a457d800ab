"""The test that a failure rate is below a bar."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.rate import STAKES, clean_keys_needed, log_e_below
from tests.property_examples import examples


def test_log_e_below_reaches_20_with_600_clean_keys_at_half_a_percent() -> None:
    """It does not reach 20 with 599 keys."""
    assert clean_keys_needed(0.005, math.log(20)) == 600
    assert log_e_below(0.005, 600, 0) >= math.log(20) > log_e_below(0.005, 599, 0)


def test_log_e_below_is_zero_before_the_first_key() -> None:
    """The stakes add up to 1."""
    assert log_e_below(0.005, 0, 0) == pytest.approx(0.0)
    assert math.fsum(stake for _, stake in STAKES) == pytest.approx(1.0)


@examples(40)
@given(st.floats(1e-4, 0.5), st.floats(1.0, 2.0))
def test_log_e_below_expects_no_gain_at_or_above_the_bar(p0: float, worse: float) -> None:
    """E[e] <= 1 for every true rate of the null hypothesis."""
    rate = min(1.0, p0 * worse)
    expected = (1 - rate) * math.exp(log_e_below(p0, 1, 0)) + rate * math.exp(log_e_below(p0, 0, 1))
    assert expected <= 1.0 + 1e-9


def test_log_e_below_passes_at_most_5_percent_at_the_bar() -> None:
    """A candidate that fails exactly as often as the bar ever reaches 20 with probability <= 5 %.

    It is computed exactly over 250 keys, from the probability of each number of failures among
    those that have not passed.
    """
    bar, passed = 0.05, 0.0
    waiting = {0: 1.0}
    for keys in range(1, 251):
        after: dict[int, float] = {}
        for failed, probability in waiting.items():
            for failures, chance in ((0, 1 - bar), (1, bar)):
                after[failed + failures] = after.get(failed + failures, 0.0) + probability * chance
        for failed in [n for n in after if log_e_below(bar, keys - n, n) >= math.log(20)]:
            passed += after.pop(failed)
        waiting = {failed: chance for failed, chance in after.items() if chance > 1e-12}
    assert 0.04 < passed <= 0.05


def test_log_e_below_recovers_from_a_failure_with_more_clean_keys() -> None:
    """One failed key among 600 is too many, and among 3,000 it is not."""
    assert log_e_below(0.005, 600, 1) < math.log(20)
    assert log_e_below(0.005, 3000, 1) > math.log(20)
    assert math.isfinite(log_e_below(0.005, 10**9, 10**9))


@pytest.mark.parametrize("bad", [(0.0, 1, 1), (1.0, 1, 1), (0.1, -1, 0), (0.1, 0, -1)])
def test_log_e_below_refuses_impossible_counts(bad: tuple[float, int, int]) -> None:
    """A bar of 0 can never be passed, and counts are not negative."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        log_e_below(*bad)
