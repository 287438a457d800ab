"""Tests of network addresses."""

import pytest

from host.addresses import is_address, is_loopback


@pytest.mark.parametrize("address", ["control-host:7001", "127.0.0.1:0", "[::1]:7001"])
def test_is_address_takes_host_and_port(address: str) -> None:
    """The forms that gRPC connects to as they stand."""
    assert is_address(address)


@pytest.mark.parametrize(
    "address",
    ["", "control-host", "control-host:", ":7001", "::1:7001", "http://a:1", "a:b", "a b:1"],
)
def test_is_address_refuses_what_grpc_would_look_up(address: str) -> None:
    """Without a port gRPC calls port 443, whatever listens there."""
    assert not is_address(address)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:7001", True),
        ("localhost:7001", True),
        ("[::1]:7001", True),
        ("127.8.9.1:0", True),
        ("0.0.0.0:7001", False),
        ("[::]:7001", False),
        ("10.0.0.1:7001", False),
        ("control-host:7001", False),
        ("", False),
    ],
)
def test_is_loopback_knows_addresses_of_this_machine(address: str, loopback: bool) -> None:
    """A name other than localhost may be looked up differently tomorrow."""
    assert is_loopback(address) is loopback
