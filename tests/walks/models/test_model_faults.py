"""Versions that come broken, large, often or not at all, while the one that serves serves on."""

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
from registry.types import VersionRefusedError
from tests.gateway.gateway_fixture import gateway_fixture, predict_request
from tests.gateway.models.test_loader import (
    BETTER,
    GOOD,
    LoaderFixture,
    deployment,
    digest_of,
    signed,
    version_off_its_golden_rows,
)
from tests.poll import wait_until
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.gateway_with_store import resident_mb
from tests.walks.models.gateway_process import ONE_VERSION

pytestmark = pytest.mark.walk


def memory_hungry_at_load(elements: int) -> dict[str, bytes]:
    """A version whose graph asks for a tensor of that many floats on every run."""
    model = onnx.load_from_string(tiny_files()["model.onnx"])
    shape = numpy_helper.from_array(np.array([elements], dtype=np.int64), "elements")
    model.graph.initializer.append(shape)
    last = model.graph.node.pop()
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["elements"], ["vast"]),
            helper.make_node("ReduceSum", ["vast"], ["nought"], keepdims=0),
            helper.make_node("Add", [last.input[0], "nought"], ["scores"]),
        ]
    )
    return signed({**tiny_files(), "model.onnx": bytes(model.SerializeToString())}, at=3)


def test_a_model_that_asks_for_160_gb_is_refused_and_costs_none(tmp_path: Path) -> None:
    """The allocation fails inside the load; the worker lives, and revision 1 serves on."""
    vast = memory_hungry_at_load(40_000_000_000)
    shelf = {digest_of(GOOD): GOOD, digest_of(vast): vast}

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, shelf)
        await gateway.deploy(deployment(1, shelf))
        before_mb = resident_mb()
        await gateway.deploy(deployment(2, shelf, canary="2", canary_bp=1_000))
        assert gateway.loader.load_states[digest_of(vast)].state == VersionLoad.REFUSED
        assert gateway.serves() == ("1", "")
        assert resident_mb() - before_mb < 64

    asyncio.run(walk())


def test_what_was_proved_is_what_is_loaded(tmp_path: Path) -> None:
    """Files swapped after they were read change nothing: the proved bytes are the loaded ones."""
    disk = DiskCache(tmp_path)
    disk.save_version(digest_of(GOOD), GOOD)
    files = disk.read_version(digest_of(GOOD))
    assert files is not None
    other = tiny_files(weights=2 * linear_weights(3))
    onnx_file = tmp_path / "versions" / digest_of(GOOD) / "model.onnx"
    onnx_file.write_bytes(other["model.onnx"])
    version = verify_and_open("1", files, None, digest_of(GOOD))
    scored = version.executor.scorer.run(np.ones((1, 3), dtype=np.float32))
    assert scored[0, 0] == pytest.approx(0.6)
    swapped = disk.read_version(digest_of(GOOD))
    assert swapped is not None
    with pytest.raises(VersionRefusedError, match=r"model\.onnx"):
        verify_and_open("1", swapped, None, digest_of(GOOD))


@pytest.mark.parametrize("odd", ["fifo", "symlink", "device"])
def test_only_plain_files_are_read(odd: str, tmp_path: Path) -> None:
    """A pipe that never ends, a link to elsewhere, /dev/zero: refused, and nothing hangs."""
    disk = DiskCache(tmp_path)
    disk.save_version(digest_of(GOOD), GOOD)
    place = tmp_path / "versions" / digest_of(GOOD) / "card.json"
    place.unlink()
    if odd == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero" if odd == "device" else "/etc/hostname")
    began = time.monotonic()
    with pytest.raises(VersionRefusedError):
        disk.read_version(digest_of(GOOD))
    assert time.monotonic() - began < 1.0


def test_versions_gone_from_disk_do_not_disturb_who_serves(tmp_path: Path) -> None:
    """Deleted while serving: it serves on; a newcomer fetches, or says what it waits for."""
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

        alone = LoaderFixture(tmp_path, shelf, up=False)
        (kept,) = DiskCache(tmp_path).read_deployments()
        alone.loader.deploy(kept)
        held = alone.loader.load_states
        await wait_until(lambda: any(one.reason for one in held.values()), 5.0)
        assert "waiting for the registry" in alone.loader.load_states[digest_of(GOOD)].reason
        assert alone.serves() == ("", "")
        alone.up = True
        await alone.loader.wait_settled()
        assert alone.serves() == ("1", "")

    asyncio.run(walk())


def test_a_disk_that_takes_nothing_stops_no_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC while a version or a deployment is kept: it serves all the same."""
    shelf = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER}

    def full(*_content: object) -> None:
        raise OSError(28, "No space left on device")

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, shelf)
        await gateway.deploy(deployment(1, shelf))
        monkeypatch.setattr(DiskCache, "save_version", full)
        monkeypatch.setattr(DiskCache, "save_deployment", full)
        await gateway.deploy(deployment(2, shelf, canary="2", canary_bp=1_000))
        assert gateway.serves() == ("1", "2")
        assert gateway.loader.applied["churn"][0] == 2

    asyncio.run(walk())


def test_a_storm_of_deployments_ends_at_the_last(tmp_path: Path) -> None:
    """1,000 revisions, out of order, with versions good, better and broken: the newest holds."""
    off = version_off_its_golden_rows()
    shelf = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER, digest_of(off): off}
    chance = random.Random(11)
    revisions = list(range(2, 1_002))
    chance.shuffle(revisions)

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
        for place, revision in enumerate(revisions):
            gateway.loader.deploy(deployment(revision, shelf, **wanted(revision)))
            if chance.random() < 0.1:
                await gateway.loader.wait_settled()
                assert gateway.serves()[0]
            if place == 200:
                warm_mb = resident_mb()
        await gateway.loader.wait_settled()
        last = deployment(1_001, shelf, **wanted(1_001))
        assert gateway.serves() == (last.production, last.canary)
        assert gateway.loader.applied["churn"][0] == 1_001
        assert [kept.revision for kept in DiskCache(tmp_path).read_deployments()] == [1_001]
        assert len([t for t in asyncio.all_tasks() if not t.done()]) == 1
        assert resident_mb() - warm_mb < 0.05 * warm_mb

    asyncio.run(walk())


def test_customers_do_not_notice_versions_being_loaded() -> None:
    """200 times verified, loaded and golden-tested under traffic: no failure, small waits."""
    versions = [
        signed(tiny_files(golden_rows=1_000, weights=number * linear_weights(3)), at=number)
        for number in range(1, 21)
    ]
    took_s: list[float] = []

    async def call(served: object) -> None:
        while True:
            began = time.perf_counter()
            await served.predict(predict_request(1, 2, 3), 2.0)  # type: ignore[attr-defined]
            took_s.append(time.perf_counter() - began)
            await asyncio.sleep(0.001)

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, ONE_VERSION) as served:
            calling = asyncio.create_task(call(served))
            await asyncio.sleep(0.4)
            before = sorted(took_s)
            took_s.clear()
            for files in versions * 10:
                await asyncio.to_thread(verify_and_open, "2", files, None, digest_of(files))
            during = sorted(took_s)
            calling.cancel()
            await asyncio.wait({calling})
            assert len(during) > 20
            assert during[len(during) // 2] < 3 * before[len(before) // 2] + 0.005
            assert during[int(0.99 * len(during))] < 3 * before[int(0.99 * len(before))] + 0.2
            assert served.faults == []

    asyncio.run(walk())


def test_golden_rows_are_read_without_pickle() -> None:
    """An array that would run code when it is loaded is refused, not loaded."""

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("exit 1",)

    buffer = io.BytesIO()
    harm = np.array([Harm()], dtype=object)
    np.savez(buffer, allow_pickle=True, inputs=harm, outputs=harm)
    files = signed({**tiny_files(), "golden.npz": buffer.getvalue()}, at=4)
    with pytest.raises(VersionRefusedError):
        verify_and_open("1", files, None, None)
