"""Which workers count as live, by a clock that the test owns."""

from protos import registry_pb2 as pb
from registry.api.presence import Presence, Seen

KEY = ("g", 0, 7)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.s


def said(spare: bool = False) -> pb.GatewayState:
    """What worker g/0 says."""
    return pb.GatewayState(gateway="g", slot=0, boot_id=7, spare=spare)


def test_a_worker_with_a_stream_is_live_however_long_it_is_silent() -> None:
    """And gone the moment the stream ends."""
    clock, seen = Clock(), Seen()
    presence = Presence(clock)
    presence.opened(KEY)
    assert presence.live() == []  # it has not said anything yet
    presence.report(said())
    clock.s += 3_600

    assert presence.live() == [said()]
    assert presence.news(seen) == [said()]
    presence.closed(KEY)
    assert presence.live() == []
    assert [state.gone for state in presence.news(seen)] == [True]
    assert presence.news(seen) == []


def test_a_worker_that_comes_back_is_told_again() -> None:
    """The same boot, a new stream: its last word still holds."""
    clock, seen = Clock(), Seen()
    presence = Presence(clock)
    presence.opened(KEY)
    presence.report(said())
    presence.news(seen)
    presence.closed(KEY)
    presence.news(seen)

    presence.opened(KEY)

    assert presence.news(seen) == [said()]


def test_a_report_without_a_stream_counts_for_five_seconds() -> None:
    """Then the worker is gone, and a minute later forgotten."""
    clock, seen = Clock(), Seen()
    presence = Presence(clock)
    presence.report(said())
    clock.s += 4.9
    assert presence.news(seen) == [said()]
    clock.s += 0.2

    assert presence.live() == []
    assert [state.gone for state in presence.news(seen)] == [True]


def test_only_the_newest_word_is_told() -> None:
    """A slow watcher skips what was replaced."""
    presence, seen = Presence(Clock()), Seen()
    presence.report(said())
    presence.report(said(spare=True))

    assert presence.news(seen) == [said(spare=True)]
    assert presence.news(seen) == []
