"""The clocks of the host and the clock that tests move."""

import time

import pytest

from host.clock import NS_PER_MS, NS_PER_SECOND, NS_PER_US, Clock, ManualClock, SystemClock


def test_units_are_nanoseconds() -> None:
    """The constants convert to nanoseconds."""
    assert (NS_PER_SECOND, NS_PER_MS, NS_PER_US) == (10**9, 10**6, 10**3)


def test_system_clock_reads_monotonic_and_wall_time() -> None:
    """Both readings lie between two readings by the time module."""
    clock: Clock = SystemClock()
    before = time.monotonic_ns(), time.time_ns()
    now_ns, unix_ns = clock.now_ns(), clock.unix_ns()
    after = time.monotonic_ns(), time.time_ns()
    assert before[0] <= now_ns <= after[0]
    assert before[1] <= unix_ns <= after[1]


def test_manual_clock_stands_still_until_it_is_advanced() -> None:
    """Reading it changes nothing; advancing it moves both clocks to the nanosecond."""
    clock = ManualClock(monotonic_s=5, unix_s=1_700_000_000)
    assert (clock.now_ns(), clock.unix_ns()) == (5 * 10**9, 1_700_000_000 * 10**9)
    assert (clock.now_ns(), clock.unix_ns()) == (5 * 10**9, 1_700_000_000 * 10**9)
    clock.advance_s(2.5)
    clock.advance_ns(7)
    assert (clock.now_ns(), clock.unix_ns()) == (7_500_000_007, 1_700_000_002_500_000_007)


def test_manual_clock_sets_wall_time_back_but_never_monotonic_time() -> None:
    """A host's wall clock may be set back, its monotonic clock may not."""
    clock = ManualClock(monotonic_s=5, unix_s=100)
    clock.set_unix_s(90)
    assert (clock.now_ns(), clock.unix_ns()) == (5 * 10**9, 90 * 10**9)
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance_s(-1)
    assert clock.now_ns() == 5 * 10**9
