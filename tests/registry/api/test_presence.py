"""Tests of Presence with a clock that the test moves."""

from protos import registry_pb2 as pb
from registry.api.presence import Presence, WatcherPosition

KEY = ("g", 0, 7)


class MovableMonotonic:
    """A clock in seconds that the test moves."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        """The current time."""
        return self.s


def gateway_state(spare: bool = False) -> pb.GatewayState:
    """A state of worker g/0."""
    return pb.GatewayState(gateway="g", slot=0, boot_id=7, spare=spare)


def test_presence_counts_a_silent_worker_with_a_stream_as_live() -> None:
    """When the stream ends, the worker is gone at once."""
    clock, position = MovableMonotonic(), WatcherPosition()
    presence = Presence(clock)
    presence.stream_opened(KEY)
    assert presence.live_states() == []  # it has not said anything yet
    presence.record_state(gateway_state())
    clock.s += 3_600

    assert presence.live_states() == [gateway_state()]
    assert presence.changes_since(position) == [gateway_state()]
    presence.stream_closed(KEY)
    assert presence.live_states() == []
    assert [state.disconnected for state in presence.changes_since(position)] == [True]
    assert presence.changes_since(position) == []


def test_presence_sends_a_returning_worker_again() -> None:
    """The worker has the same boot id and a new stream, so its last state is valid."""
    clock, position = MovableMonotonic(), WatcherPosition()
    presence = Presence(clock)
    presence.stream_opened(KEY)
    presence.record_state(gateway_state())
    presence.changes_since(position)
    presence.stream_closed(KEY)
    presence.changes_since(position)

    presence.stream_opened(KEY)

    assert presence.changes_since(position) == [gateway_state()]


def test_presence_counts_a_report_without_a_stream_for_five_seconds() -> None:
    """After that the worker is gone."""
    clock, position = MovableMonotonic(), WatcherPosition()
    presence = Presence(clock)
    presence.record_state(gateway_state())
    clock.s += 4.9
    assert presence.changes_since(position) == [gateway_state()]
    clock.s += 0.2

    assert presence.live_states() == []
    assert [state.disconnected for state in presence.changes_since(position)] == [True]


def test_presence_sends_only_the_newest_state() -> None:
    """A slow watcher skips states that were replaced."""
    presence, position = Presence(MovableMonotonic()), WatcherPosition()
    presence.record_state(gateway_state())
    presence.record_state(gateway_state(spare=True))

    assert presence.changes_since(position) == [gateway_state(spare=True)]
    assert presence.changes_since(position) == []
