"""F2: a message of millions of empty items costs control neither memory nor time."""

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from access.requests import UNCOUNTED_BYTES_MAX
from host.processes import rss_bytes
from protos import registry_pb2 as pb
from protos import registry_pb2_grpc
from tests.walks.identified_system import MODEL, IdentifiedSystem

pytestmark = pytest.mark.walk

MIB = 2**20
EMPTY_SHADOWS = pb.Deployment(model=MODEL).SerializeToString() + b"\x32\x00" * 2_000_000
CONNECTIONS = 4
CALLS = 2
"""Each connection has so many at a time."""
GROWTH_BYTES_MAX = 96 * MIB
"""Eight messages of 4 MB that gRPC receives at a time, twice. Parsed, one had 170 MB."""
OTHERS_S_MAX = 0.5


def in_field_1(content: bytes) -> bytes:
    """Return *content*, which has more than 2^21 bytes and less than 2^28, as those of field 1."""
    size = len(content)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    return b"\x0a" + length + content


def send_raw(system: IdentifiedSystem, name: str, rpc: str, content: bytes) -> set[tuple[Any, str]]:
    """Call an RPC several times at once with *content*; return with what it was refused."""
    with system.system.registry_channel() as channel:
        send: Any = channel.unary_unary(rpc)
        calls = [
            send.future(content, metadata=system.metadata(name), timeout=30) for _ in range(CALLS)
        ]
        return {(call.exception().code(), call.exception().details()) for call in calls}


def watched(system: IdentifiedSystem, attack: Callable[[], object]) -> tuple[int, list[float]]:
    """Run *attack* on several connections.

    Return by how many bytes control grew at most, and the seconds that another's calls took.
    """
    pid = system.system.addresses.children["control"][0]
    before = most = rss_bytes(pid)
    threads = [threading.Thread(target=attack) for _ in range(CONNECTIONS)]
    waits_s: list[float] = []
    with system.system.registry_channel() as channel:
        registry = registry_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]
        bob = system.metadata("bob")
        registry.ListModels(pb.ListModelsRequest(), metadata=bob)
        for thread in threads:
            thread.start()
        while not waits_s or any(thread.is_alive() for thread in threads):
            began = time.perf_counter()
            registry.ListModels(pb.ListModelsRequest(), metadata=bob, timeout=30)
            waits_s.append(time.perf_counter() - began)
            most = max(most, rss_bytes(pid))
    return most - before, waits_s


@pytest.mark.attack("F2")
@pytest.mark.parametrize(
    ("name", "rpc", "content", "words"),
    [
        (
            "gw2",
            "Registry/ReportState",
            b"\x0a\x03gw2" + b"\x2a\x00" * 2_000_000,
            "GatewayState.loads has more than 1000 items, which are the most",
        ),
        (
            "olga",
            "Registry/Deploy",
            in_field_1(EMPTY_SHADOWS),
            "Deployment.shadows has more than 16 items, which are the most",
        ),
        (
            "olga",
            "Rollouts/Abort",
            b"\x0a\x00" * 2_000_000,
            "RolloutCommand has more than 1005 fields, which are the most",
        ),
    ],
    ids=["loads", "shadows", "command"],
)
def test_millions_of_items_cost_nothing(
    attacked_system: IdentifiedSystem, name: str, rpc: str, content: bytes, words: str
) -> None:
    """A gateway and an operator send 4 MB of empty items on several connections."""
    refusals: set[tuple[Any, str]] = set()

    def attack() -> None:
        refusals.update(send_raw(attacked_system, name, f"/turnout.v1.{rpc}", content))

    assert len(content) > UNCOUNTED_BYTES_MAX
    grown, waits_s = watched(attacked_system, attack)
    assert refusals == {(grpc.StatusCode.INVALID_ARGUMENT, words)}
    assert grown < GROWTH_BYTES_MAX, f"{grown / MIB:.0f} MiB"
    assert max(waits_s) < OTHERS_S_MAX, max(waits_s)
