"""Tests of network addresses."""

import socket
from pathlib import Path

import pytest

from host.addresses import (
    UrlOptionError,
    host_to_call,
    hosts_to_listen_at,
    is_address,
    is_loopback,
    join_address,
    read_url_option,
)


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


def test_localhost_is_both_families_where_there_is_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without IPv6 refuses the socket. Other hosts are taken as they are."""
    assert hosts_to_listen_at("localhost") == ("127.0.0.1", "::1")
    assert hosts_to_listen_at("::") == ("::",)
    assert hosts_to_listen_at("gateway-host") == ("gateway-host",)

    def no_ipv6(*_: object) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", no_ipv6)
    assert hosts_to_listen_at("localhost") == ("127.0.0.1",)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "127.0.0.1:85"),
        ("::", "[::1]:85"),
        ("localhost", "localhost:85"),
        ("10.0.0.1", "10.0.0.1:85"),
    ],
)
def test_server_is_called_at_an_address_of_this_machine(host: str, address: str) -> None:
    """The address that means all of them is no address to call."""
    assert join_address(host_to_call(host), 85) == address


def test_url_without_a_password_is_taken_as_it_is() -> None:
    """Also one with a user alone, whose password is elsewhere, and no URL at all."""
    for url in ("", "redis://h:6379/0?namespace=shop", "postgresql://sam@h/db", "unix:///s.sock"):
        assert read_url_option(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "redis://sam:hunter2@h:6379/0",
        "redis://:hunter2@h",
        "unix://sam:hunter2@/s.sock",
        "redis+sentinel://sam:hunter2@h:1,i:2/shop",
        "redis+sentinel://h:1/shop?sentinel_password=hunter2",
        "postgresql://h/db?user=sam&password=hunter2",
        "redis://sam:hunter2@[h",
    ],
)
def test_url_with_a_password_is_refused_and_not_repeated(url: str) -> None:
    """The message says where the password can go."""
    with pytest.raises(UrlOptionError, match="give file:PATH") as refused:
        read_url_option(url)
    assert "hunter2" not in str(refused.value)


def test_url_is_read_from_a_file(tmp_path: Path) -> None:
    """Its line break does not belong to it; a file that cannot be read is named."""
    (tmp_path / "store.url").write_text("redis://sam:hunter2@h\n")
    assert read_url_option(f"file:{tmp_path}/store.url") == "redis://sam:hunter2@h"
    with pytest.raises(UrlOptionError, match="absent with a URL cannot be read"):
        read_url_option(f"file:{tmp_path}/absent")
