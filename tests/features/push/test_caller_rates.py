"""Tests of the bounds of one caller."""

from contextlib import ExitStack

import pytest

from features.push.caller_rates import (
    CALLER_CALLS_MAX,
    CALLERS_MAX,
    CALLS_MAX,
    AboveRateError,
    CallerRates,
)
from host.clock import ManualClock


def test_caller_above_its_rate_learns_when_to_go_on() -> None:
    """A burst of a second is let through, other callers are not concerned, and time pays it off."""
    clock = ManualClock()
    rates = CallerRates(1_000, clock)
    rates.take("ann", 900)
    rates.take("ann", 600)
    with pytest.raises(AboveRateError, match=r"'ann' is above its rate of 1000 rows") as refused:
        rates.take("ann", 1)
    assert refused.value.wait_ms == 500
    rates.take("bob", 1_000)
    clock.advance_s(0.51)
    rates.take("ann", 1)


def test_caller_above_its_rate_is_refused_before_its_rows_are_read() -> None:
    """Opening a call is refused too."""
    rates = CallerRates(10, ManualClock())
    with rates.call("ann"):
        rates.take("ann", 1_000)
    with pytest.raises(AboveRateError) as refused, rates.call("ann"):
        pass
    assert refused.value.wait_ms == 5_000


def test_open_calls_are_bounded_by_caller_and_in_all() -> None:
    """A call that ends makes room."""
    rates = CallerRates(10, ManualClock())
    with ExitStack() as stack:
        for _ in range(CALLER_CALLS_MAX):
            stack.enter_context(rates.call("ann"))
        with pytest.raises(AboveRateError, match="'ann' has 32 calls open"), rates.call("ann"):
            pass
        for number in range(CALLS_MAX - CALLER_CALLS_MAX):
            stack.enter_context(rates.call(f"other {number}"))
        with pytest.raises(AboveRateError, match="128 calls are open"), rates.call("zoe"):
            pass
    with rates.call("ann"), rates.call("zoe"):
        pass


def test_callers_that_pay_are_forgotten_and_debtors_are_not() -> None:
    """Many addresses do not fill the memory, and none gets its debt back by them."""
    clock = ManualClock()
    rates = CallerRates(10, clock)
    for number in range(CALLERS_MAX):
        rates.take(f"caller {number}", 1)
    clock.advance_s(4)
    rates.take("ann", 100)
    for number in range(10):
        rates.take(f"late {number}", 1)
    assert len(rates._pushed) < 20  # the memory is what is tested
    with pytest.raises(AboveRateError):
        rates.take("ann", 1)
