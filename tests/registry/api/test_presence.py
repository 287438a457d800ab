"""Which workers count as live, by a clock that the test owns."""

from protos import registry_pb2 as pb
from registry.api.presence import Presence, WatcherPosition

KEY = ("g", 0, 7)


class MovableMonotonic:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.s


def gateway_state(spare: bool = False) -> pb.GatewayState:
    """What worker g/0 says."""
    return pb.GatewayState(gateway="g", slot=0, boot_id=7, spare=spare)


def test_a_worker_with_a_stream_is_live_however_long_it_is_silent() -> None:
    """And gone the moment the stream ends."""
    clock, seen = MovableMonotonic(), WatcherPosition()
    presence = Presence(clock)
    presence.stream_opened(KEY)
    assert presence.live_states() == []  # it has not said anything yet
    presence.record_state(gateway_state())
    clock.s += 3_600

    assert presence.live_states() == [gateway_state()]
    assert presence.changes_since(seen) == [gateway_state()]
    presence.stream_closed(KEY)
    assert presence.live_states() == []
    assert [state.disconnected for state in presence.changes_since(seen)] == [True]
    assert presence.changes_since(seen) == []


def test_a_worker_that_comes_back_is_told_again() -> None:
    """The same boot, a new stream: its last word still holds."""
    clock, seen = MovableMonotonic(), WatcherPosition()
    presence = Presence(clock)
    presence.stream_opened(KEY)
    presence.record_state(gateway_state())
    presence.changes_since(seen)
    presence.stream_closed(KEY)
    presence.changes_since(seen)

    presence.stream_opened(KEY)

    assert presence.changes_since(seen) == [gateway_state()]


def test_a_report_without_a_stream_counts_for_five_seconds() -> None:
    """Then the worker is gone, and a minute later forgotten."""
    clock, seen = MovableMonotonic(), WatcherPosition()
    presence = Presence(clock)
    presence.record_state(gateway_state())
    clock.s += 4.9
    assert presence.changes_since(seen) == [gateway_state()]
    clock.s += 0.2

    assert presence.live_states() == []
    assert [state.disconnected for state in presence.changes_since(seen)] == [True]


def test_only_the_newest_word_is_told() -> None:
    """A slow watcher skips what was replaced."""
    presence, seen = Presence(MovableMonotonic()), WatcherPosition()
    presence.record_state(gateway_state())
    presence.record_state(gateway_state(spare=True))

    assert presence.changes_since(seen) == [gateway_state(spare=True)]
    assert presence.changes_since(seen) == []
