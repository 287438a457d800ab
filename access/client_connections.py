"""Keeps room for new clients on a server of grpcio, which bounds connections only in all.

grpcio gives out no accepted socket, so they are found in /proc/self/fd as in host/sockets.py. A
look at 4,000 of them takes some 50 ms of a thread, so they are looked at only when little room is
left.
"""

import asyncio
import ipaddress
import os
import socket
from collections import defaultdict
from contextlib import suppress

from host.sockets import open_connections

CHECK_S = 0.05
"""Pause between two counts of descriptors, which take some 50 us where there are few."""
ROOM_PCT = 12
"""Share of connections_max that is kept free for new clients."""
LEFT_PCT = 75
"""Share of its connections that is left to the client with the most, each time there is too little
room; less if that is more than client_connections_max."""


async def keep_room(port: int, connections_max: int, client_connections_max: int) -> None:
    """Close connections of the client that has the most while there is too little room.

    port                    where the clients are connected.
    connections_max         connections of this process.
    client_connections_max  of them, what one client may keep.
    """
    while True:
        await asyncio.sleep(CHECK_S)
        if _descriptors() > connections_max * (100 - ROOM_PCT) // 100:
            await asyncio.to_thread(close_surplus, port, client_connections_max)


def close_surplus(port: int, client_connections_max: int) -> int:
    """Shut down connections of the client that has the most; return how many.

    It keeps at most *client_connections_max*, and at most three of four.
    """
    # Which client has which descriptors.
    numbers: dict[bytes, list[int]] = defaultdict(list)
    for connection in open_connections(port):
        with suppress(OSError):
            numbers[_client_of(connection)].append(connection.fileno())
    if not numbers:
        return 0
    client, biggest = max(numbers.items(), key=lambda item: len(item[1]))
    kept = min(client_connections_max, max(1, len(biggest) * LEFT_PCT // 100))
    # A low number was opened early, or reused. grpcio closes the descriptor when it reads the end.
    closed = 0
    surplus = set(sorted(biggest)[kept:])
    for connection in open_connections(port):
        with suppress(OSError):
            if connection.fileno() in surplus and _client_of(connection) == client:
                connection.shutdown(socket.SHUT_RDWR)
                closed += 1
    return closed


def _descriptors() -> int:
    """Count the open descriptors of this process; 0 where there is no /proc."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  Path.iterdir takes ten times as long
    except OSError:
        return 0


def client_at(host: str) -> bytes:
    """Return whose address this is: an IPv4 address, or the first 64 bits of an IPv6 address.

    host  an address as text; ValueError when it is none.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.packed[:8]


def _client_of(connection: socket.socket) -> bytes:
    return client_at(connection.getpeername()[0])
