"""Network addresses."""

import ipaddress
import re

ADDRESS = re.compile(r"(\[[^\[\]\s]+\]|[^\s:/\[\]]+):\d{1,5}")


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
