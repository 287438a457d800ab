"""A slot's socket goes from worker to worker: whoever waits at it is served by the next."""

import asyncio
import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.standalone_gateway import standalone_gateway, write_gateway_folder
from gateway.internal_error_log import InternalErrorLog
from gateway.supervision.sockets import LentSocket, SlotSockets, create_socket_channel
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.interop.service import ingress_with_test_service
from tests.walks.running_system import poll_system_until
from tests.walks.wire.connection_flood import GREETING
from tests.walks.wire.http2_frames import RawConnection
from tests.walks.wire.test_wire_abuse import GatewayUnderAbuse

pytestmark = [pytest.mark.walk, NEEDS_NATIVE_INGRESS]

HAND_OVERS = 300
HAMMERS = 2
WAITING = 20


@contextmanager
def hammering(port: int) -> Iterator[Counter[str]]:
    """Connect from other processes while the block lasts; then, what came of it."""
    line = [sys.executable, "-m", "tests.walks.wire.connection_flood", str(port)]
    hammers = [
        subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(HAMMERS)
    ]
    seen: Counter[str] = Counter()
    try:
        yield seen
    finally:
        for hammer in hammers:
            told, _ = hammer.communicate(timeout=30)
            seen.update(json.loads(told))


def halt(pid: int) -> None:
    """SIGSTOP; return once every thread has stopped."""
    os.kill(pid, signal.SIGSTOP)
    stats = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
    poll_system_until(lambda: all(") T " in stat.read_text() for stat in stats), 5.0, "stopped")


def test_three_hundred_hand_overs_reset_nobody() -> None:
    """Thousands of new connections a second, and the door changes every few ms: all are greeted.

    Each door leaving the port by itself, 3 in 100 changes reset a connection.
    """

    async def walk() -> Counter[str]:
        ports, (ours, theirs) = SlotSockets("127.0.0.1", 0), create_socket_channel()
        lent, faults = LentSocket(theirs.detach()), InternalErrorLog(logging.getLogger("quiet"))

        async def opened() -> "object":
            door = ingress_with_test_service("native", faults)
            ports.send_socket(0, ours)
            with lent.received_socket() as fd:
                assert fd is not None
                assert await door.listen("127.0.0.1", ports.port, "", fd) == ports.port
            return door

        door = await opened()
        with hammering(ports.port) as seen:
            for _ in range(HAND_OVERS):
                successor = await opened()
                await door.close(1.0)
                door = successor
                await asyncio.sleep(0)
        await door.close(0.1)
        ports.close()
        ours.close()
        lent.close()
        return seen

    seen = asyncio.run(walk())
    assert set(seen) == {"greeted"}, seen
    assert seen["greeted"] > HAND_OVERS


def test_who_waits_at_a_hung_worker_is_served_by_its_successor(tmp_path: Path) -> None:
    """The kernel has connected them, the worker is stopped, then killed: the spare takes them."""
    write_gateway_folder(tmp_path)
    settings = {"workers": 1, "ingress": "native"}
    with standalone_gateway(tmp_path, settings) as gateway, ExitStack() as callers:
        assert gateway.wait_settled(1)
        hung = gateway.serving_pids()[0]
        halt(hung)
        waiting = [
            callers.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            for _ in range(WAITING)
        ]
        for caller in waiting:
            caller.settimeout(20.0)
            caller.sendall(GREETING)
        assert all(caller.recv(9) for caller in waiting)
        poll_system_until(
            lambda: gateway.serving_pids().get(0, hung) != hung, 5.0, "somebody else serves"
        )


def test_with_nobody_left_for_it_a_port_refuses(tmp_path: Path) -> None:
    """Worker and spare killed: callers hear so at once, instead of waiting in a queue."""
    write_gateway_folder(tmp_path)
    with standalone_gateway(tmp_path, {"workers": 1, "ingress": "native"}) as gateway:
        assert gateway.wait_settled(1)
        for row in gateway.workers():
            os.kill(row["pid"], signal.SIGKILL)

        def refused() -> bool:
            with socket.socket() as caller:
                return caller.connect_ex(("127.0.0.1", gateway.port)) == errno.ECONNREFUSED

        poll_system_until(refused, 2.0, "refused")
        assert gateway.wait_settled(1)
        assert not refused()


def test_a_stop_of_the_whole_process_counts_for_nobody() -> None:
    """Stopped for longer than a greeting may take: a greeting that lay there is answered."""
    line = [sys.executable, "-m", "tests.walks.models.gateway_process", "native"]
    child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    gateway = GatewayUnderAbuse(child, child.stdout, "native", int(child.stdout.readline()))
    wire = RawConnection(gateway.port, greet=False)
    assert wire.read(5.0)  # the server's SETTINGS: it has accepted
    halt(child.pid)
    assert wire.read(2.5)
    wire.send(GREETING)
    os.kill(child.pid, signal.SIGCONT)
    wire.call(1, b"")
    while 1 not in wire.ended_streams:
        assert wire.read(5.0), "closed"
    wire.close()
    child.stdin.close()
    assert child.wait(20) == 0
    child.stdout.close()
