"""Network addresses."""

import ipaddress


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches *address* (host:port)."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
