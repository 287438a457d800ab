"""The absolute bar: what clean keys prove, and what failed ones cost."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.rate import STAKES, clean_keys_needed, log_e_below
from tests.property_examples import examples


def test_six_hundred_clean_keys_pass_half_a_percent() -> None:
    """E reaches 20 at 600 clean keys, and not before."""
    assert clean_keys_needed(0.005, math.log(20)) == 600
    assert log_e_below(0.005, 600, 0) >= math.log(20) > log_e_below(0.005, 599, 0)


def test_nothing_is_proved_by_nothing() -> None:
    """E = 1 before the first key; the stakes are one whole."""
    assert log_e_below(0.005, 0, 0) == pytest.approx(0.0)
    assert math.fsum(stake for _, stake in STAKES) == pytest.approx(1.0)


@examples(40)
@given(st.floats(1e-4, 0.5), st.floats(1.0, 2.0))
def test_a_key_at_or_above_the_bar_is_expected_to_win_nothing(p0: float, worse: float) -> None:
    """E[e] <= 1 for every true rate of the null."""
    rate = min(1.0, p0 * worse)
    expected = (1 - rate) * math.exp(log_e_below(p0, 1, 0)) + rate * math.exp(log_e_below(p0, 0, 1))
    assert expected <= 1.0 + 1e-9


def test_candidates_at_the_bar_seldom_pass() -> None:
    """One that fails exactly as often as the bar ever reaches 20 with probability <= 5 %.

    Computed exactly, key by key, over 250 keys: the probability of each number of failures among
    those that have not passed yet.
    """
    bar, passed = 0.05, 0.0
    waiting = {0: 1.0}
    for keys in range(1, 251):
        after: dict[int, float] = {}
        for failed, probability in waiting.items():
            for one, chance in ((0, 1 - bar), (1, bar)):
                after[failed + one] = after.get(failed + one, 0.0) + probability * chance
        for failed in [n for n in after if log_e_below(bar, keys - n, n) >= math.log(20)]:
            passed += after.pop(failed)
        waiting = {failed: chance for failed, chance in after.items() if chance > 1e-12}
    assert 0.04 < passed <= 0.05


def test_a_failure_costs_and_clean_keys_win_it_back() -> None:
    """One failed key among few stops; among thousands it does not."""
    assert log_e_below(0.005, 600, 1) < math.log(20)
    assert log_e_below(0.005, 3000, 1) > math.log(20)
    assert math.isfinite(log_e_below(0.005, 10**9, 10**9))


@pytest.mark.parametrize("bad", [(0.0, 1, 1), (1.0, 1, 1), (0.1, -1, 0), (0.1, 0, -1)])
def test_impossible_counts_are_refused(bad: tuple[float, int, int]) -> None:
    """A bar of 0 can never be passed; negative counts are a bug."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        log_e_below(*bad)
