"""A slot's listening socket passes between workers; the next one serves waiting connections."""

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
from gateway.supervision.sockets import LentSockets, SlotSockets, create_socket_channel
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.interop.service import ingress_with_test_service
from tests.walks.running_system import poll_system_until
from tests.walks.wire.connection_flood import GREETING
from tests.walks.wire.http2_frames import RawConnection
from tests.walks.wire.test_wire_abuse import GatewayUnderAbuse

pytestmark = [pytest.mark.walk, NEEDS_NATIVE_INGRESS]

HANDOVERS = 300
FLOODS = 2
WAITING = 20


@contextmanager
def connection_floods(port: int) -> Iterator[Counter[str]]:
    """Connect from other processes while the block lasts; then fill the yielded counts."""
    line = [sys.executable, "-m", "tests.walks.wire.connection_flood", str(port)]
    floods = [
        subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(FLOODS)
    ]
    results: Counter[str] = Counter()
    try:
        # The native server greets in a thread of its own, so the event loop may wait here.
        for flood in floods:
            assert flood.stdout is not None
            assert flood.stdout.readline() == b"began\n"
        yield results
    finally:
        for flood in floods:
            output, _ = flood.communicate(timeout=30)
            results.update(json.loads(output))


def halt(pid: int) -> None:
    """Send SIGSTOP; return once every thread has stopped."""
    os.kill(pid, signal.SIGSTOP)
    stats = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
    poll_system_until(lambda: all(") T " in stat.read_text() for stat in stats), 5.0, "stopped")


def test_socket_handover_resets_no_connection_in_three_hundred_changes() -> None:
    """Thousands of connections open each second while the server changes every few ms.

    If each server opened the port by itself, 3 in 100 changes would reset a connection.
    """

    async def walk() -> Counter[str]:
        ports, (sender, receiver) = SlotSockets("127.0.0.1", 0), create_socket_channel()
        lent, faults = LentSockets(receiver.detach()), InternalErrorLog(logging.getLogger("quiet"))

        # Each ingress gets the slot's socket over the channel, as a worker does.
        async def opened_ingress() -> "object":
            ingress = ingress_with_test_service("native", faults)
            ports.send_sockets(0, sender)
            with lent.received_sockets() as descriptors:
                assert len(descriptors) == 1
                assert await ingress.listen("127.0.0.1", ports.port, "", descriptors) == ports.port
            return ingress

        # Under a flood of connections, one ingress after the other takes over.
        ingress = await opened_ingress()
        with connection_floods(ports.port) as results:
            for _ in range(HANDOVERS):
                successor = await opened_ingress()
                await ingress.close(1.0)
                ingress = successor
                await asyncio.sleep(0)
        await ingress.close(0.1)
        ports.close()
        sender.close()
        lent.close()
        return results

    results = asyncio.run(walk())
    assert set(results) == {"greeted"}, results
    assert results["greeted"] > HANDOVERS


def test_socket_handover_serves_connections_that_waited_at_a_hung_worker(tmp_path: Path) -> None:
    """The kernel accepted them; the worker is stopped, then killed; the spare serves them."""
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
            lambda: gateway.serving_pids().get(0, hung) != hung, 5.0, "another worker serves"
        )


def test_supervisor_closes_the_port_when_no_worker_is_left(tmp_path: Path) -> None:
    """After worker and spare are killed, new connections are refused at once instead of waiting."""
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


def test_native_ingress_does_not_count_a_stop_of_the_process_as_a_slow_client() -> None:
    """A preface that came while the process was stopped is read, however long the stop took."""
    line = [sys.executable, "-m", "tests.walks.models.gateway_process", "native"]
    child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    gateway = GatewayUnderAbuse(child, child.stdout, "native", int(child.stdout.readline()))
    wire = RawConnection(gateway.port, greet=False)
    assert wire.read(5.0)  # the server's SETTINGS: it has accepted the connection
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
