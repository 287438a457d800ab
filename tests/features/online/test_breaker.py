"""Tests of StoreBreaker, without a store."""

import random

from features.online.breaker import StoreBreaker


def fail_times(breaker: StoreBreaker, times: int) -> None:
    """Report *times* failures in a row."""
    for _ in range(times):
        breaker.failed()


def test_breaker_opens_after_failures_in_a_row() -> None:
    """A success between failures starts the count at 0 again."""
    breaker = StoreBreaker(3)
    fail_times(breaker, 2)
    breaker.succeeded()
    fail_times(breaker, 2)
    assert breaker.state == "closed"
    breaker.failed()
    assert (breaker.state, breaker.opened) == ("open", 1)


def test_breaker_is_closed_or_opened_again_by_a_probe() -> None:
    """It is half open during the probe. A failed probe opens it, a successful probe closes it."""
    breaker = StoreBreaker(1)
    breaker.probing()
    assert breaker.state == "closed"
    breaker.failed()
    breaker.probing()
    assert breaker.state == "half_open"
    breaker.failed()
    assert (breaker.state, breaker.opened) == ("open", 1)
    breaker.probing()
    breaker.succeeded()
    assert breaker.state == "closed"


def test_breaker_is_closed_by_a_success_in_any_state() -> None:
    """1,000 random events lead to no state that a success does not close."""
    generator = random.Random(7)
    breaker = StoreBreaker(4)
    for _ in range(1_000):
        generator.choice([breaker.failed, breaker.probing, breaker.succeeded, breaker.failed])()
        state_before = breaker.state
        if generator.random() < 0.05:
            breaker.succeeded()
            assert breaker.state == "closed", state_before
