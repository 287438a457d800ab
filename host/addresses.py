"""Network addresses, and URLs on a command line, which never have a password."""

import ipaddress
import re
import socket
from argparse import ArgumentTypeError
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

ADDRESS = re.compile(r"(\[[^\[\]\s]+\]|[^\s:/\[\]]+):\d{1,5}")
LOOPBACK_OF_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  addresses that are looked up
"""The host that listens everywhere -> where this machine reaches it."""

FILE_PREFIX = "file:"
"""Prefix of an option's value that is the path of a file with a URL."""


class UrlOptionError(ArgumentTypeError):
    """A URL on a command line has a password, or its file cannot be read. argparse shows it."""


def is_address(text: str) -> bool:
    """Whether *text* is host:port, with an IPv6 host in brackets."""
    return ADDRESS.fullmatch(text) is not None


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches *address* (host:port)."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def join_address(host: str, port: int) -> str:
    """Return host:port, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def hosts_to_listen_at(host: str) -> tuple[str, ...]:
    """Return the hosts that a server of *host* listens at.

    `localhost` is 127.0.0.1 and, where this machine has IPv6, ::1: clients try either. Any other
    host is itself.
    """
    if host != "localhost":
        return (host,)
    return ("127.0.0.1", "::1") if _has_ipv6_loopback() else ("127.0.0.1",)


def host_to_call(host: str) -> str:
    """Return the host at which this machine reaches a server that listens at *host*."""
    return LOOPBACK_OF_ALL.get(host, host)


def read_url_option(text: str) -> str:
    """Return the URL that an option gives: the URL itself, or `file:PATH` of a file with it.

    Raises UrlOptionError, which never repeats a password.
    """
    if text.startswith(FILE_PREFIX):
        path = Path(text.removeprefix(FILE_PREFIX))
        try:
            return path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise UrlOptionError(
                f"the file {path} with a URL cannot be read: {error.strerror}"
            ) from error
    if _has_password(text):
        raise UrlOptionError(
            "the URL on the command line has a password, which everybody on this host can read "
            "there; write the URL into a file that only you can read, and give file:PATH"
        )
    return text


def _has_ipv6_loopback() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def _has_password(url: str) -> bool:
    """Whether a URL has a password before its host or among its options."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "@" in url
    return parts.password is not None or "password=" in parts.query
