"""The pauses between tries."""

import pytest

from host.retry import Backoff


def test_backoff_doubles_up_to_its_maximum() -> None:
    """0.1 s, 0.2 s and so on, and 5 s from then on."""
    backoff = Backoff(first_s=0.1, max_s=5.0)
    pauses = [backoff.next_s() for _ in range(8)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_backoff_begins_anew_after_a_reset() -> None:
    """The next pause is the first one."""
    backoff = Backoff(first_s=0.02, max_s=0.5)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.02


def test_backoff_in_nanoseconds_is_the_same_sequence() -> None:
    """Rounded to the nanosecond."""
    backoff = Backoff(first_s=0.1, max_s=5.0)
    pauses_ns = [backoff.next_ns() for _ in range(7)]
    assert pauses_ns == [100_000_000 * 2**n for n in range(6)] + [5_000_000_000]


def test_backoff_with_a_small_maximum_never_exceeds_it() -> None:
    """Not even in its first pause."""
    backoff = Backoff(first_s=0.1, max_s=0.05)
    assert [backoff.next_s() for _ in range(2)] == [0.05, 0.05]
    backoff.reset()
    assert backoff.next_s() == 0.05


def test_backoff_without_a_pause_stays_without_one() -> None:
    """Twice nothing is nothing."""
    backoff = Backoff(first_s=0.0, max_s=1.0)
    assert [backoff.next_s() for _ in range(3)] == [0.0, 0.0, 0.0]
