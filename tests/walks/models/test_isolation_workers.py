"""A whole gateway whose versions end processes: what is left, who is told, who answers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.models.disk_cache import DiskCache
from protos import window_pb2, window_pb2_grpc
from protos.predict_pb2 import FALLBACK, PRODUCTION, PredictReply
from protos.registry_pb2 import ServingKeys
from registry.types import Deployment
from tests.fatal_models import crashing_files, spinning_files
from tests.gateway.canary_at_half import CANARY_AT_HALF, PRODUCTION_ONLY, canary_keys
from tests.gateway.gateway_fixture import KEY, predict_request
from tests.gateway.models.test_loader import TRUSTED, digest_of, signed
from tests.poll import wait_until
from tests.tiny_models import tiny_files
from tests.walks.models.test_isolation import on_x86, pid_exists

pytestmark = pytest.mark.walk


@dataclass
class RecordingSink(window_pb2_grpc.WindowSinkServicer):
    """Takes windows as rollout does; remembers the guards."""

    guards: list[window_pb2.HardGuard] = field(default_factory=list)

    async def Push(  # noqa: N802  gRPC's name
        self, batches: AsyncIterator[window_pb2.WindowBatch], context: object
    ) -> AsyncIterator[window_pb2.WindowAck]:
        """Acknowledge everything."""
        del context
        async for batch in batches:
            self.guards.extend(batch.guards)
            yield window_pb2.WindowAck(sequence=batch.sequence)


@dataclass(frozen=True)
class ServingGateway:
    """One `python -m gateway`, and who listens to it."""

    port: int
    metrics_port: int
    sink: RecordingSink

    def workers(self) -> list[dict[str, Any]]:
        """As the supervisor sees them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/workers") as page:
            rows: list[dict[str, Any]] = json.load(page)
            return rows

    def pids(self, state: str) -> set[int]:
        """Of the workers in *state*."""
        return {row["pid"] for row in self.workers() if row["state"] == state}

    async def ask(self, first: float, key: str) -> PredictReply | None:
        """One call on a connection of its own; None: whoever had it died."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call: Any = channel.unary_unary("/turnout.v1.Predictor/Predict")
            try:
                request = predict_request(first, 2, 3, key=key).SerializeToString()
                return PredictReply.FromString(await call(request, timeout=5.0))
            except grpc.aio.AioRpcError:
                return None

    async def wait_complete(self, without: int = 0) -> None:
        """Return once the slot is served and a spare is warm, neither by process *without*."""

        def seated() -> bool:
            serves, waits = self.pids("serving"), self.pids("spare")
            return len(serves) == len(waits) == 1 and without not in serves | waits

        await wait_until(seated, 20.0)


def child_pids(pid: int) -> list[int]:
    """Processes that *pid*'s main thread started."""
    with suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def confined_workers(pid: int) -> bool:
    """Whether the process has bounded itself: it ends with its parent a moment after this."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 1_000
    return False


@contextmanager
def gateway_process_in(folder: Path, **settings: object) -> Iterator[tuple[int, int]]:
    """Run `python -m gateway` with one slot; its port and metrics_port."""
    said = folder / "announced.json"
    line = [sys.executable, "-m", "gateway", "--announce", str(said), "--set", f"folder={folder}"]
    for name, value in {"workers": 1, "drain_grace_s": 0.5, **settings}.items():
        line += ["--set", f"{name}={json.dumps(value)}"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as program:
        try:
            give_up = time.monotonic() + 20
            while not said.exists():
                assert program.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.01)
            ports = json.loads(said.read_text())
            yield ports["port"], ports["metrics_port"]
        finally:
            program.terminate()
            try:
                program.wait(10)
            finally:
                program.kill()


@asynccontextmanager
async def serving_gateway(
    folder: Path, versions: list[dict[str, bytes]], deployment: Deployment, **settings: object
) -> AsyncIterator[ServingGateway]:
    """Serve *deployment* from the disk alone; labels are the order of *versions*."""
    disk, digests = DiskCache(folder), []
    for label, files in enumerate(versions, 1):
        sealed = signed(files, at=label)
        disk.save_version(digest_of(sealed), sealed)
        digests.append((str(label), digest_of(sealed)))
    disk.save_deployment(replace(deployment, digests=tuple(digests)))
    disk.save_serving_keys(ServingKeys(prediction_id_key=KEY, version_public_key=TRUSTED))
    server, sink = grpc.aio.server(), RecordingSink()
    window_pb2_grpc.add_WindowSinkServicer_to_server(sink, server)  # type: ignore[no-untyped-call]
    sinks = [f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"]
    await server.start()
    try:
        with gateway_process_in(folder, window_sinks=sinks, **settings) as (port, metrics_port):
            one = ServingGateway(port, metrics_port, sink)
            await one.wait_complete()
            yield one
    finally:
        await server.stop(0)


@on_x86
def test_a_canary_that_ends_two_workers_is_asked_no_more_and_told(tmp_path: Path) -> None:
    """Breadcrumbs name it; then production answers for it on every worker, controller or not."""
    key = next(iter(canary_keys()))

    async def walk() -> None:
        async with serving_gateway(
            tmp_path, [tiny_files(), crashing_files(when=5.0)], CANARY_AT_HALF
        ) as one:
            for _ in range(2):
                (serves,) = one.pids("serving")
                assert await one.ask(9.0, key) is None
                await wait_until(lambda pid=serves: not pid_exists(pid))  # type: ignore[misc]
                await one.wait_complete(without=serves)
            await wait_until(lambda: bool(one.sink.guards))
            guard = one.sink.guards[0]
            assert (guard.model, guard.version) == ("churn", "2")
            assert guard.kind == window_pb2.HardGuard.PROCESS_DIED
            assert guard.reason == "2 workers died while they ran it, the last by SIGFPE"
            assert 0 < guard.first_bad_unix_ns < guard.at_unix_ns
            before = one.pids("serving")
            for first in (9.0, 1.0):
                reply = await one.ask(first, key)
                assert reply is not None
                assert (reply.role, reply.version) == (FALLBACK, "1")
            assert one.pids("serving") == before

    asyncio.run(walk())


def test_a_killed_worker_is_no_versions_fault_and_leaves_no_orphan(tmp_path: Path) -> None:
    """SIGKILL twice, mid-run or not: nobody is condemned; the shadow's process dies with each.

    One that is still starting ends as soon as it looks for its parent: a busy host's seconds later.
    """
    shadowed = replace(PRODUCTION_ONLY, shadows=(("2", 10_000),))

    async def walk() -> None:
        async with serving_gateway(tmp_path, [tiny_files(), tiny_files()], shadowed) as one:
            for starting in (False, True):
                (serves,) = one.pids("serving")
                reply = await one.ask(1.0, "S1")
                assert reply is not None
                assert reply.role == PRODUCTION
                await wait_until(lambda pid=serves: bool(child_pids(pid)))  # type: ignore[misc]
                orphans = child_pids(serves)
                if not starting:
                    await wait_until(lambda pids=orphans: all(map(confined_workers, pids)))  # type: ignore[misc]
                os.kill(serves, signal.SIGKILL)
                within_s = 10.0 if starting else 2.0
                await wait_until(lambda pids=orphans: not any(map(pid_exists, pids)), within_s)  # type: ignore[misc]
                await one.wait_complete(without=serves)
            assert one.sink.guards == []

    asyncio.run(walk())


def test_a_worker_drained_in_the_middle_of_a_shadows_hang_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM to the gateway while the shadow spins: everybody is gone, on time."""
    shadowed = replace(PRODUCTION_ONLY, shadows=(("2", 10_000),))

    async def walk() -> list[int]:
        async with serving_gateway(
            tmp_path, [tiny_files(), spinning_files(when=5.0)], shadowed
        ) as one:
            (serves,) = one.pids("serving")
            assert await one.ask(9.0, "S1") is not None
            await wait_until(lambda: bool(child_pids(serves)))
            return [serves, *child_pids(serves)]

    left = asyncio.run(walk())
    assert not any(map(pid_exists, left))


def test_restarted_workers_do_not_probe_again(tmp_path: Path) -> None:
    """One proof a version and host: its file is not written again by the workers that follow."""

    async def walk() -> None:
        async with serving_gateway(tmp_path, [tiny_files(), tiny_files()], PRODUCTION_ONLY) as one:
            proofs = sorted((tmp_path / "proofs").glob("*.json"))
            written = [place.stat().st_mtime_ns for place in proofs]
            assert len(proofs) == 1
            for _ in range(2):
                (serves,) = one.pids("serving")
                os.kill(serves, signal.SIGKILL)
                await wait_until(lambda pid=serves: not pid_exists(pid))  # type: ignore[misc]
                await one.wait_complete(without=serves)
            assert [place.stat().st_mtime_ns for place in proofs] == written

    asyncio.run(walk())
