"""Long-lived streams are shared among callers, their addresses, and all together."""

from contextlib import ExitStack
from typing import Any

import pytest

from access import streams
from access.streams import OpenStreams, TooManyStreamsError, client_of_peer


class FakeContext:
    """The two things that OpenStreams asks of a call."""

    def __init__(self, peer: str, token: str = "") -> None:
        self._peer, self._token = peer, token

    def peer(self) -> str:
        """Return gRPC's name of the peer."""
        return self._peer

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the credentials."""
        return (("authorization", self._token),)


class Opened(ExitStack):
    """Streams that stay open until the block ends."""

    def __init__(self) -> None:
        super().__init__()
        self._streams = OpenStreams()
        self._calls = 0

    def open(self, count: int, host: str, token: str = "") -> None:
        """Open *count* streams from *host*, each from another port."""
        for _ in range(count):
            self._calls += 1
            context: Any = FakeContext(f"ipv4:{host}:{self._calls}", token)
            self.enter_context(self._streams.opened(context))


def test_open_streams_bound_a_caller_and_leave_others_of_its_address_room() -> None:
    """A caller is its address with its token; streams that end may be opened again."""
    with Opened() as opened:
        opened.open(streams.STREAMS_MAX, "10.0.0.1", "one")
        with pytest.raises(TooManyStreamsError, match="256 streams of this caller"):
            opened.open(1, "10.0.0.1", "one")
        opened.open(1, "10.0.0.1", "two")
        opened.close()
        opened.open(streams.STREAMS_MAX, "10.0.0.1", "one")


def test_open_streams_bound_an_address_whatever_its_tokens() -> None:
    """Without an identities file anybody may send any token."""
    with Opened() as opened:
        for number in range(streams.CLIENT_STREAMS_MAX):
            opened.open(1, "10.0.0.1", f"token {number}")
        with pytest.raises(TooManyStreamsError, match="1024 streams of this address"):
            opened.open(1, "10.0.0.1", "another")
        opened.open(1, "10.0.0.2")


def test_open_streams_leave_the_last_eighth_to_addresses_with_few() -> None:
    """Four addresses that take all they get do not shut out a fifth."""

    def take_all(opened: Opened) -> None:
        for number in range(streams.ALL_STREAMS_MAX):
            opened.open(1, f"10.0.0.{number % 4}", f"token {number // 100}")

    with Opened() as opened:
        with pytest.raises(TooManyStreamsError, match="of all callers"):
            take_all(opened)
        opened.open(streams.LITTLE_STREAMS, "10.0.0.9")
        with pytest.raises(TooManyStreamsError, match="of all callers"):
            opened.open(1, "10.0.0.9")


def test_client_of_peer_is_an_address_without_its_port() -> None:
    """Each connection has a port of its own."""
    assert client_of_peer("ipv4:10.0.0.1:5") == client_of_peer("ipv4:10.0.0.1:6")
    assert client_of_peer("ipv6:%5B::ffff:10.0.0.1%5D:5") == client_of_peer("ipv4:10.0.0.1:6")
    assert client_of_peer("ipv6:%5B2001:db8::1%5D:5") != client_of_peer("ipv4:10.0.0.1:6")
    assert client_of_peer("unix:") == b"unix:"
