"""T13: one client's connections to the registry's port cannot shut out others for long."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from access.streams import CLIENT_CONNECTIONS_MAX, CONNECTIONS_MAX
from protos import registry_pb2 as pb
from tests.attacks.connection_crowd import CrowdProcess
from tests.walks.wire.http2_frames import RawConnection, grpc_status_and_message

pytestmark = pytest.mark.walk

ATTACKING = 2_500
ROOM_S = 10.0
NOT_FOUND = 5
GET = "/turnout.v1.Registry/GetDeployment"


@contextmanager
def plain_registry(folder: Path) -> Iterator[int]:
    """Serve a registry in a process of its own, in plain text; yield its port."""
    line = [sys.executable, "-m", "registry", "--folder", str(folder), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            yield int(program.stdout.readline().rpartition(":")[2])
        finally:
            program.terminate()
            program.wait(20)


def ask(port: int, source: str, *, within_s: float) -> int | None:
    """Connect and ask for a deployment; return the status, or None when there was no answer."""
    wire = RawConnection(port, source=source)
    try:
        wire.call(1, pb.ModelName(model="none").SerializeToString(), GET)
        give_up = time.monotonic() + within_s
        while 1 not in wire.ended_streams:
            if not wire.read(within_s) or time.monotonic() > give_up:
                return None
        return grpc_status_and_message(wire.ended_streams[1])[0]
    finally:
        wire.close()


@pytest.mark.attack("T13")
def test_connections_of_one_client_to_the_registry_leave_room_for_others(tmp_path: Path) -> None:
    """A stranger opens 2,500 connections to the registry, and opens each closed one again."""
    others = [f"127.0.0.{number}" for number in range(2, 12)]
    with plain_registry(tmp_path) as port:
        assert ask(port, others[0], within_s=5.0) == NOT_FOUND
        attacker = CrowdProcess(ATTACKING, "127.0.0.1", port)
        try:
            attacker.wait_open(CLIENT_CONNECTIONS_MAX)
            # A moment later there is room, though the stranger comes back.
            give_up = time.monotonic() + ROOM_S
            while {ask(port, other, within_s=1.0) for other in others} != {NOT_FOUND}:
                assert time.monotonic() < give_up, attacker.counts()
            # The stranger may still be opening the connections that the bound closes.
            while (counts := attacker.counts())["closed"] == 0:
                assert time.monotonic() < give_up, counts
            assert counts["open"] < CONNECTIONS_MAX
        finally:
            attacker.end()
