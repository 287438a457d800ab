"""Checks over plain sockets whether something answers on a port. They need no gRPC."""

import asyncio
import secrets
import socket
from contextlib import suppress
from urllib.parse import urlsplit

ANSWER_TIMEOUT_S = 1.0
ANSWER_BYTES_MAX = 65_536
FIRST_PORT, PORTS = 20_000, 12_000
"""Ports below those from which systems take the ports of outgoing connections."""
PORT_TRIES = 100


def free_tcp_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now; another process may take it at any time.

    No outgoing connection takes it, as happens to ports that the system chooses.
    """
    for _ in range(PORT_TRIES):
        port = FIRST_PORT + secrets.randbelow(PORTS)
        with socket.socket() as unbound, suppress(OSError):
            unbound.bind(("127.0.0.1", port))
            return port
    raise OSError(
        f"{PORT_TRIES} ports from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} were tried, and all are "
        "taken; name a free one"
    )


async def accepts_connections(address: str) -> bool:
    """Whether a process listens on host:port. Waits 1 s at most; never raises."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            _, writer = await asyncio.open_connection(*_host_port(address))
            writer.close()
            return True
    return False


async def answers_http(url: str) -> bool:
    """Whether a GET of *url* is answered with status 200."""
    return b" 200 " in (await _get(url))[:16]


async def http_body(url: str) -> str:
    """Return the text that a GET of *url* is answered with; "" if it is not answered."""
    return (await _get(url)).partition(b"\r\n\r\n")[2].decode(errors="replace")


async def _get(url: str) -> bytes:
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*_host_port(parts.netloc))
            writer.write(request.encode())
            answer = await reader.read(ANSWER_BYTES_MAX)
            while more := await reader.read(ANSWER_BYTES_MAX - len(answer)):
                answer += more
            writer.close()
            return answer
    return b""


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
