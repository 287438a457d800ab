"""Versions that are broken, large, many or missing do not disturb the version that serves."""

import asyncio
import io
import os
import random
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gateway.models.disk_cache import DiskCache
from gateway.models.loader import verify_and_open
from protos.registry_pb2 import VersionLoad
from registry.signed import sign_deployment
from registry.types import VersionRefusedError
from tests.gateway.gateway_fixture import gateway_fixture, predict_request
from tests.gateway.models.test_loader import (
    BETTER,
    GOOD,
    SIGNER,
    LoaderFixture,
    deployment,
    digest_of,
    saved_deployments,
    signed,
    version_off_its_golden_rows,
)
from tests.poll import wait_until
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.gateway_with_store import resident_mb
from tests.walks.models.gateway_process import ONE_VERSION

pytestmark = pytest.mark.walk


def memory_hungry_at_load(elements: int) -> dict[str, bytes]:
    """Return a version whose graph allocates a tensor of *elements* floats on every run."""
    model = onnx.load_from_string(tiny_files()["model.onnx"])
    shape = numpy_helper.from_array(np.array([elements], dtype=np.int64), "elements")
    model.graph.initializer.append(shape)
    last = model.graph.node.pop()
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["elements"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["zero"], keepdims=0),
            helper.make_node("Add", [last.input[0], "zero"], ["scores"]),
        ]
    )
    return signed({**tiny_files(), "model.onnx": bytes(model.SerializeToString())}, at=3)


def test_loader_refuses_a_model_that_needs_160_gb(tmp_path: Path) -> None:
    """The allocation fails during the load; the worker survives, and revision 1 still serves."""
    huge = memory_hungry_at_load(40_000_000_000)
    shelf = {digest_of(GOOD): GOOD, digest_of(huge): huge}

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, shelf)
        await gateway.deploy(deployment(1, shelf))
        before_mb = resident_mb()
        await gateway.deploy(deployment(2, shelf, canary="2", canary_bp=1_000))
        assert gateway.loader.load_states[digest_of(huge)].state == VersionLoad.REFUSED
        assert gateway.serves() == ("1", "")
        assert resident_mb() - before_mb < 64

    asyncio.run(walk())


def test_loader_loads_the_bytes_that_were_proved(tmp_path: Path) -> None:
    """Files that change on disk after they were read do not change what is loaded."""
    disk = DiskCache(tmp_path)
    disk.save_version(digest_of(GOOD), GOOD)
    files = disk.read_version(digest_of(GOOD))
    assert files is not None
    other = tiny_files(weights=2 * linear_weights(3))
    onnx_file = tmp_path / "versions" / digest_of(GOOD) / "model.onnx"
    onnx_file.write_bytes(other["model.onnx"])
    version = verify_and_open("1", files, None, digest_of(GOOD))
    scores = version.executor.scorer.run(np.ones((1, 3), dtype=np.float32))
    assert scores[0, 0] == pytest.approx(0.6)
    swapped = disk.read_version(digest_of(GOOD))
    assert swapped is not None
    with pytest.raises(VersionRefusedError, match=r"model\.onnx"):
        verify_and_open("1", swapped, None, digest_of(GOOD))


@pytest.mark.parametrize("odd", ["fifo", "symlink", "device"])
def test_disk_cache_reads_only_regular_files(odd: str, tmp_path: Path) -> None:
    """A FIFO, a link to another file and a link to /dev/zero are refused without a hang."""
    disk = DiskCache(tmp_path)
    disk.save_version(digest_of(GOOD), GOOD)
    card = tmp_path / "versions" / digest_of(GOOD) / "card.json"
    card.unlink()
    if odd == "fifo":
        os.mkfifo(card)
    else:
        card.symlink_to("/dev/zero" if odd == "device" else "/etc/hostname")
    began = time.monotonic()
    with pytest.raises(VersionRefusedError):
        disk.read_version(digest_of(GOOD))
    assert time.monotonic() - began < 1.0


def test_loader_keeps_serving_a_version_that_was_deleted_from_disk(tmp_path: Path) -> None:
    """A new worker fetches the version again, or reports that it waits for the registry."""
    shelf = {digest_of(GOOD): GOOD}

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, shelf)
        await gateway.deploy(deployment(1, shelf))
        folder = tmp_path / "versions" / digest_of(GOOD)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        assert gateway.serves() == ("1", "")
        await gateway.deploy(deployment(2, shelf))
        assert gateway.serves() == ("1", "")

        disconnected = LoaderFixture(tmp_path, shelf, up=False)
        (saved,) = saved_deployments(tmp_path)
        disconnected.loader.deploy(saved)
        load_states = disconnected.loader.load_states
        await wait_until(lambda: any(state.reason for state in load_states.values()), 5.0)
        assert "waiting for the registry" in disconnected.loader.load_states[digest_of(GOOD)].reason
        assert disconnected.serves() == ("", "")
        disconnected.up = True
        await disconnected.loader.wait_settled()
        assert disconnected.serves() == ("1", "")

    asyncio.run(walk())


def test_loader_serves_versions_that_the_disk_cannot_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC while a version or a deployment is saved does not stop it from serving."""
    shelf = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER}

    def disk_full(*_content: object) -> None:
        raise OSError(28, "No space left on device")

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, shelf)
        await gateway.deploy(deployment(1, shelf))
        monkeypatch.setattr(DiskCache, "save_version", disk_full)
        monkeypatch.setattr(DiskCache, "save_deployment", disk_full)
        await gateway.deploy(deployment(2, shelf, canary="2", canary_bp=1_000))
        assert gateway.serves() == ("1", "2")
        assert gateway.loader.applied["churn"][0] == 2

    asyncio.run(walk())


def test_loader_ends_at_the_newest_of_a_thousand_deployments(tmp_path: Path) -> None:
    """1,000 revisions come out of order, with good and broken versions; the newest one serves."""
    off_golden = version_off_its_golden_rows()
    shelf = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER, digest_of(off_golden): off_golden}
    rng = random.Random(11)
    revisions = list(range(2, 1_002))
    rng.shuffle(revisions)

    # Four kinds of deployment take turns.
    def wanted(revision: int) -> dict[str, object]:
        kinds: list[dict[str, object]] = [
            {},
            {"canary": "2", "canary_bp": 1_000},
            {"production": "2"},
            {"preload": ("3",)},
        ]
        return kinds[revision % 4]

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, shelf)
        await gateway.deploy(deployment(1, shelf))
        warm_mb = 0.0
        for position, revision in enumerate(revisions):
            wanted_now = deployment(revision, shelf, **wanted(revision))
            gateway.loader.deploy(sign_deployment(wanted_now, SIGNER))
            if rng.random() < 0.1:
                await gateway.loader.wait_settled()
                assert gateway.serves()[0]
            if position == 200:
                warm_mb = resident_mb()
        await gateway.loader.wait_settled()
        # The newest revision serves, and nothing else is left.
        last = deployment(1_001, shelf, **wanted(1_001))
        assert gateway.serves() == (last.production, last.canary)
        assert gateway.loader.applied["churn"][0] == 1_001
        assert [saved.deployment.revision for saved in saved_deployments(tmp_path)] == [1_001]
        assert len([t for t in asyncio.all_tasks() if not t.done()]) == 1
        assert resident_mb() - warm_mb < 0.05 * warm_mb

    asyncio.run(walk())


def test_loading_versions_under_traffic_delays_no_caller_much() -> None:
    """While versions are verified, loaded and golden-tested 200 times, calls succeed in time."""
    versions = [
        signed(tiny_files(golden_rows=1_000, weights=number * linear_weights(3)), at=number)
        for number in range(1, 21)
    ]
    took_s: list[float] = []

    async def call(gateway: object) -> None:
        while True:
            began = time.perf_counter()
            await gateway.predict(predict_request(1, 2, 3), 2.0)  # type: ignore[attr-defined]
            took_s.append(time.perf_counter() - began)
            await asyncio.sleep(0.001)

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, ONE_VERSION) as gateway:
            # Calls without loads first, then beside 200 loads.
            calling = asyncio.create_task(call(gateway))
            await asyncio.sleep(0.4)
            before = sorted(took_s)
            took_s.clear()
            for files in versions * 10:
                await asyncio.to_thread(verify_and_open, "2", files, None, digest_of(files))
            during = sorted(took_s)
            calling.cancel()
            await asyncio.wait({calling})
            # Median and p99 at most triple, plus some time for a busy machine.
            assert len(during) > 20
            assert during[len(during) // 2] < 3 * before[len(before) // 2] + 0.005
            assert during[int(0.99 * len(during))] < 3 * before[int(0.99 * len(before))] + 0.2
            assert gateway.faults == []

    asyncio.run(walk())


def test_loader_reads_golden_rows_without_pickle() -> None:
    """An array that would run code when it is unpickled is refused."""

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("exit 1",)

    buffer = io.BytesIO()
    harm = np.array([Harm()], dtype=object)
    np.savez(buffer, allow_pickle=True, inputs=harm, outputs=harm)
    files = signed({**tiny_files(), "golden.npz": buffer.getvalue()}, at=4)
    with pytest.raises(VersionRefusedError):
        verify_and_open("1", files, None, None)
