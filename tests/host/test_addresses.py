"""Tests of network addresses."""

import pytest

from host.addresses import is_loopback


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
