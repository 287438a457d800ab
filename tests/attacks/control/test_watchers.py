"""F14: watchers of a rollout cost the others nothing."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest

from access.streams import STREAMS_MAX
from protos import registry_pb2 as pb
from protos import registry_pb2_grpc, rollout_pb2, rollout_pb2_grpc
from tests.processor_waits import ProcessorClock
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.identified_system import MODEL, IdentifiedSystem

pytestmark = pytest.mark.walk

WATCHERS = 1_500
CHANNELS = 15
PROBES = 100
OTHERS_S_MAX = 0.050

Results = tuple[Counter[grpc.StatusCode | None], list[float]]


@pytest.mark.attack("F14")
def test_watchers_do_not_delay_others(attacked_system: IdentifiedSystem, tmp_path: Path) -> None:
    """One person watches a rollout 1,500 times."""
    files = tiny_files(MODEL, weights=linear_weights(3) * 2)
    label = attacked_system.register("alice", tmp_path / "files", files)
    line = ("versions", "approve", MODEL, label, "--policy", "standard", "--yes")
    attacked_system.turnout("bob", *line)
    attacked_system.turnout("olga", "rollout", "start", MODEL, label, "--policy", "standard")
    try:
        ends, waits_s = asyncio.run(watch_and_probe(attacked_system))
    finally:
        attacked_system.turnout("olga", "rollout", "abort", MODEL)
    # The watches beyond the bound are refused, and the others go on. gRPC resets some of the
    # refused streams before their status is sent; their clients see CANCELLED.
    assert ends.total() == WATCHERS - STREAMS_MAX
    assert set(ends) <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}
    assert ends[grpc.StatusCode.RESOURCE_EXHAUSTED] > ends[grpc.StatusCode.CANCELLED]
    assert sorted(waits_s)[PROBES * 9 // 10] < OTHERS_S_MAX, sorted(waits_s)


async def watch_and_probe(system: IdentifiedSystem) -> Results:
    """Open all watches; return how they ended, and how long another's calls took meanwhile."""
    watcher = system.metadata("olga")
    ends: Counter[grpc.StatusCode | None] = Counter()
    started = 0
    all_decided = asyncio.Event()

    async def watch(stub: rollout_pb2_grpc.RolloutsStub) -> None:
        nonlocal started
        call = stub.WatchStatus(rollout_pb2.RolloutSelector(model=MODEL), metadata=watcher)
        try:
            async for _ in call:
                started += 1
                break
            else:
                ends[None] += 1
        except grpc.aio.AioRpcError as error:
            ends[error.code()] += 1
        if started + ends.total() == WATCHERS:
            all_decided.set()
        async for _ in call:
            pass

    # Each channel is a connection of its own.
    channels = [
        system.system.registry_aio_channel(("grpc.use_local_subchannel_pool", 1))
        for _ in range(CHANNELS)
    ]
    stubs = [rollout_pb2_grpc.RolloutsStub(channel) for channel in channels]  # type: ignore[no-untyped-call]
    watches = [asyncio.create_task(watch(stubs[n % CHANNELS])) for n in range(WATCHERS)]
    async with asyncio.timeout(60):
        await all_decided.wait()
    waits_s = await asyncio.to_thread(probe, system)
    # End everything.
    for task in watches:
        task.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    for channel in channels:
        await channel.close()
    return ends, waits_s


def probe(system: IdentifiedSystem) -> list[float]:
    """Return how long each of some calls of another person took, in seconds.

    What this thread and the threads of control waited for a processor is taken off.
    """
    waits_s = []
    control, _ = system.system.addresses.children["control"]
    clock = ProcessorClock(control)
    with system.system.registry_channel() as channel:
        registry = registry_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(PROBES):
            began = clock()
            registry.GetDeployment(pb.ModelName(model=MODEL), metadata=system.metadata("bob"))
            waits_s.append(clock() - began)
            time.sleep(0.02)
    return waits_s
