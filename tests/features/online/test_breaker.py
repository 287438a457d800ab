"""The breaker's decisions, without a store."""

import random

from features.online.breaker import StoreBreaker


def failed(breaker: StoreBreaker, times: int) -> None:
    """Fail *times* in a row."""
    for _ in range(times):
        breaker.failed()


def test_it_opens_after_failures_in_a_row() -> None:
    """A success in between starts the count anew."""
    breaker = StoreBreaker(3)
    failed(breaker, 2)
    breaker.succeeded()
    failed(breaker, 2)
    assert breaker.state == "closed"
    breaker.failed()
    assert (breaker.state, breaker.opened) == ("open", 1)


def test_a_probe_decides() -> None:
    """Half open while it is under way; its failure opens again, its success closes."""
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


def test_whatever_happens_one_success_closes_it() -> None:
    """No order of events leaves it stuck."""
    chance = random.Random(7)
    breaker = StoreBreaker(4)
    for _ in range(1_000):
        chance.choice([breaker.failed, breaker.probing, breaker.succeeded, breaker.failed])()
        breaker_state = breaker.state
        if chance.random() < 0.05:
            breaker.succeeded()
            assert breaker.state == "closed", breaker_state
