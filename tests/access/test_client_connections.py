"""A client keeps its share of the connections, and others keep all of theirs."""

import socket
from contextlib import ExitStack, closing

import pytest

from access.client_connections import client_at, close_surplus
from tests.host.test_sockets import listening


def test_close_surplus_leaves_the_biggest_client_its_share_and_others_alone() -> None:
    """The client with the most keeps its share, or three of four; another keeps all."""
    with listening() as (listener, port), ExitStack() as stack:
        callers = []
        for source in ("127.0.0.1",) * 8 + ("127.0.0.2",) * 3:
            caller = socket.create_connection(("127.0.0.1", port), 5.0, (source, 0))
            callers.append(stack.enter_context(closing(caller)))
            stack.enter_context(closing(listener.accept()[0]))
        # Three of four are less than the share of 7.
        assert close_surplus(port, 7) == 2
        for caller in callers:
            caller.settimeout(0.05)

        def is_open(caller: socket.socket) -> bool:
            try:
                return caller.recv(1) != b""
            except TimeoutError:
                return True

        assert sum(is_open(caller) for caller in callers[:8]) == 6
        assert all(is_open(caller) for caller in callers[8:])
        assert close_surplus(9, 7) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_client_is_an_ipv4_address_or_the_first_half_of_an_ipv6_address(
    one: str, other: str, same: bool
) -> None:
    """As at the native server."""
    assert (client_at(one) == client_at(other)) == same
