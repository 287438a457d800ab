"""A gateway process whose versions end workers or shadows: what is left, reported and answered."""

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
from registry.signed import sign_deployment
from registry.types import Deployment
from tests.fatal_models import crashing_files, spinning_files
from tests.gateway.canary_at_half import CANARY_AT_HALF, PRODUCTION_ONLY, canary_keys
from tests.gateway.gateway_fixture import KEY, predict_request
from tests.gateway.models.test_loader import SIGNER, TRUSTED, digest_of, signed
from tests.poll import wait_until
from tests.tiny_models import tiny_files
from tests.walks.models.test_isolation import on_x86, pid_exists

pytestmark = pytest.mark.walk


@dataclass
class RecordingSink(window_pb2_grpc.WindowSinkServicer):
    """Takes windows as the controller does, and keeps the hard guards."""

    guards: list[window_pb2.HardGuard] = field(default_factory=list)

    async def Push(  # noqa: N802  gRPC's name
        self, batches: AsyncIterator[window_pb2.WindowBatch], context: object
    ) -> AsyncIterator[window_pb2.WindowAck]:
        """Acknowledge every batch."""
        del context
        async for batch in batches:
            self.guards.extend(batch.guards)
            yield window_pb2.WindowAck(sequence=batch.sequence)


@dataclass(frozen=True)
class ServingGateway:
    """One `python -m gateway`, and the sink of its windows."""

    port: int
    metrics_port: int
    sink: RecordingSink

    def workers(self) -> list[dict[str, Any]]:
        """Return the supervisor's rows of its workers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/workers") as page:
            rows: list[dict[str, Any]] = json.load(page)
            return rows

    def pids(self, state: str) -> set[int]:
        """Return the process ids of the workers in *state*."""
        return {row["pid"] for row in self.workers() if row["state"] == state}

    async def predict(self, first: float, key: str, version: str = "") -> PredictReply | None:
        """Call once on a new connection; None when the worker died or refused the pin."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call: Any = channel.unary_unary("/turnout.v1.Predictor/Predict")
            try:
                request = predict_request(first, 2, 3, key=key, version=version)
                return PredictReply.FromString(await call(request.SerializeToString(), timeout=5.0))
            except grpc.aio.AioRpcError:
                return None

    async def wait_complete(self, without: int = 0) -> None:
        """Wait until one worker serves and one spare is warm, neither of them process *without*."""

        def complete() -> bool:
            serving, spares = self.pids("serving"), self.pids("spare")
            return len(serving) == len(spares) == 1 and without not in serving | spares

        await wait_until(complete, 20.0)


def child_pids(pid: int) -> list[int]:
    """Return the processes that the main thread of *pid* started."""
    with suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def is_confined(pid: int) -> bool:
    """Return whether *pid* has set its limits; just after that it also ends with its parent."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 1_000
    return False


@contextmanager
def gateway_process_in(folder: Path, **settings: object) -> Iterator[tuple[int, int]]:
    """Run `python -m gateway` with one slot; yield its port and metrics_port."""
    announced = folder / "announced.json"
    line = [
        sys.executable,
        "-m",
        "gateway",
        "--announce",
        str(announced),
        "--set",
        f"folder={folder}",
    ]
    for name, value in {"workers": 1, "drain_grace_s": 0.5, **settings}.items():
        line += ["--set", f"{name}={json.dumps(value)}"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as program:
        try:
            give_up = time.monotonic() + 20
            while not announced.exists():
                assert program.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.01)
            ports = json.loads(announced.read_text())
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
    """Serve *deployment* from disk without a registry; the first of *versions* has label 1."""
    disk, digests = DiskCache(folder), []
    for label, files in enumerate(versions, 1):
        sealed = signed(files, at=label)
        disk.save_version(digest_of(sealed), sealed)
        digests.append((str(label), digest_of(sealed)))
    deployed = replace(deployment, digests=tuple(digests))
    disk.save_deployment(sign_deployment(deployed, SIGNER), TRUSTED)
    disk.save_serving_keys(ServingKeys(prediction_id_key=KEY, version_public_key=TRUSTED))
    server, sink = grpc.aio.server(), RecordingSink()
    window_pb2_grpc.add_WindowSinkServicer_to_server(sink, server)  # type: ignore[no-untyped-call]
    sinks = [f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"]
    await server.start()
    try:
        with gateway_process_in(folder, window_sinks=sinks, **settings) as (port, metrics_port):
            gateway = ServingGateway(port, metrics_port, sink)
            await gateway.wait_complete()
            yield gateway
    finally:
        await server.stop(0)


@on_x86
def test_canary_that_ends_two_workers_is_quarantined_and_reported(tmp_path: Path) -> None:
    """Breadcrumbs name the version. Production then answers for it, also without a controller."""
    key = next(iter(canary_keys()))

    async def walk() -> None:
        async with serving_gateway(
            tmp_path, [tiny_files(), crashing_files(when=5.0)], CANARY_AT_HALF
        ) as gateway:
            for _ in range(2):
                (serving,) = gateway.pids("serving")
                assert await gateway.predict(9.0, key) is None
                await wait_until(lambda pid=serving: not pid_exists(pid))  # type: ignore[misc]
                await gateway.wait_complete(without=serving)
            await wait_until(lambda: bool(gateway.sink.guards))
            guard = gateway.sink.guards[0]
            assert (guard.model, guard.version) == ("churn", "2")
            assert guard.kind == window_pb2.HardGuard.PROCESS_DIED
            assert guard.reason == "2 workers died while they ran it, the last by SIGFPE"
            assert 0 < guard.first_bad_unix_ns < guard.at_unix_ns
            before = gateway.pids("serving")
            for first in (9.0, 1.0):
                reply = await gateway.predict(first, key)
                assert reply is not None
                assert (reply.role, reply.version) == (FALLBACK, "1")
            assert gateway.pids("serving") == before

    asyncio.run(walk())


@on_x86
def test_pinned_canary_that_ends_two_workers_answers_no_pin_any_more(tmp_path: Path) -> None:
    """Two pinned calls end two workers. The third is refused, and the worker lives."""

    async def walk() -> None:
        async with serving_gateway(
            tmp_path, [tiny_files(), crashing_files(when=5.0)], CANARY_AT_HALF
        ) as gateway:
            for _ in range(2):
                (serving,) = gateway.pids("serving")
                assert await gateway.predict(9.0, "S1", version="2") is None
                await wait_until(lambda pid=serving: not pid_exists(pid))  # type: ignore[misc]
                await gateway.wait_complete(without=serving)
            await wait_until(lambda: bool(gateway.sink.guards))
            before = gateway.pids("serving")
            for version in ("2", "canary"):
                assert await gateway.predict(9.0, "S1", version=version) is None
            reply = await gateway.predict(9.0, "S1", version="1")
            assert reply is not None
            assert gateway.pids("serving") == before

    asyncio.run(walk())


def test_killed_worker_quarantines_no_version_and_leaves_no_orphan(tmp_path: Path) -> None:
    """After two SIGKILLs no version is quarantined, and each worker's shadow process has ended.

    A shadow process that is still starting ends when it first checks its parent, which takes
    seconds on a busy host.
    """
    shadowed = replace(PRODUCTION_ONLY, shadows=(("2", 10_000),))

    async def walk() -> None:
        async with serving_gateway(tmp_path, [tiny_files(), tiny_files()], shadowed) as gateway:
            for starting in (False, True):
                (serving,) = gateway.pids("serving")
                reply = await gateway.predict(1.0, "S1")
                assert reply is not None
                assert reply.role == PRODUCTION
                await wait_until(lambda pid=serving: bool(child_pids(pid)))  # type: ignore[misc]
                orphans = child_pids(serving)
                if not starting:
                    await wait_until(lambda pids=orphans: all(map(is_confined, pids)))  # type: ignore[misc]
                os.kill(serving, signal.SIGKILL)
                within_s = 10.0 if starting else 2.0
                await wait_until(lambda pids=orphans: not any(map(pid_exists, pids)), within_s)  # type: ignore[misc]
                await gateway.wait_complete(without=serving)
            assert gateway.sink.guards == []

    asyncio.run(walk())


def test_gateway_drained_during_a_shadows_hang_leaves_no_process(tmp_path: Path) -> None:
    """After SIGTERM while the shadow hangs, every process has ended in time."""
    shadowed = replace(PRODUCTION_ONLY, shadows=(("2", 10_000),))

    async def walk() -> list[int]:
        async with serving_gateway(
            tmp_path, [tiny_files(), spinning_files(when=5.0)], shadowed
        ) as gateway:
            (serving,) = gateway.pids("serving")
            assert await gateway.predict(9.0, "S1") is not None
            await wait_until(lambda: bool(child_pids(serving)))
            return [serving, *child_pids(serving)]

    left = asyncio.run(walk())
    assert not any(map(pid_exists, left))


def test_restarted_workers_reuse_the_proof(tmp_path: Path) -> None:
    """The proof of a version is written once for a host; later workers read it."""

    async def walk() -> None:
        async with serving_gateway(
            tmp_path, [tiny_files(), tiny_files()], PRODUCTION_ONLY
        ) as gateway:
            proofs = sorted((tmp_path / "proofs").glob("*.json"))
            written_ns = [proof.stat().st_mtime_ns for proof in proofs]
            assert len(proofs) == 1
            for _ in range(2):
                (serving,) = gateway.pids("serving")
                os.kill(serving, signal.SIGKILL)
                await wait_until(lambda pid=serving: not pid_exists(pid))  # type: ignore[misc]
                await gateway.wait_complete(without=serving)
            assert [proof.stat().st_mtime_ns for proof in proofs] == written_ns

    asyncio.run(walk())
