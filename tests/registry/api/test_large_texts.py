"""Texts of a registry that is older than the bounds are read, and no message is too large."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from access.bounds import MESSAGE_BYTES_MAX, PAGE_BYTES_MAX
from protos import registry_pb2 as pb
from registry import bundle
from registry.history.chain import verify_chain
from registry.storage.store import RegistryStore
from registry.types import BadRequestError, NotFoundError
from tests.registry.registry_fixture import registry_fixture
from tests.tiny_models import linear_weights, tiny_files

pytestmark = pytest.mark.walk

LONG = "A" * (9 * 2**20)


def make_old_registry(folder: Path) -> None:
    """Write what was possible before the bounds: long reasons, and a long card."""
    store = RegistryStore(folder, time.time_ns)
    for number in range(1, 4):
        weights = linear_weights(3) * number
        files = tiny_files(weights=weights)
        if number == 1:
            files["card.json"] = json.dumps({"note": LONG}).encode()
        files = bundle.seal_files(files, model="churn", author="ann", created_unix_ms=number)
        store.register("ann", bundle.verify_bundle(files, trusted_key=None), files)
        request = pb.SetStatusRequest(
            model="churn", version=str(number), status=pb.STAGING, reason=LONG
        )
        store.set_status("ann", request)
    store.close()


def test_long_reasons_of_an_old_registry_block_nothing(tmp_path: Path) -> None:
    """Lists show them cut, the audit reads them whole, and each entry can be read."""
    make_old_registry(tmp_path)

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            # Each page is small, and its long entries say how large they are.
            entries: list[pb.HistoryEntry] = []
            while page := (await registry.bob.history(entries[-1].seq if entries else 0)).entries:
                assert sum(entry.ByteSize() for entry in page) < PAGE_BYTES_MAX
                entries.extend(page)
            assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5, 6]
            cut = [entry for entry in entries if entry.uncut_bytes]
            assert [entry.action for entry in cut] == ["status"] * 3
            assert all(entry.reason.endswith("bytes more)") for entry in cut)
            assert all(len(entry.reason) <= 4_096 for entry in cut)
            # The audit proves the entries as they were written.
            report = await registry.bob.audit()
            assert (report.head.seq, report.problem) == (6, "")
            head = report.head
            written = [await registry.bob.uncut_entry(entry) for entry in entries]
            assert verify_chain(written, head, head.public_key) is None
            assert written[1].reason == LONG
            with pytest.raises(NotFoundError, match="no entry 99"):
                await registry.bob.uncut_entry(pb.HistoryEntry(seq=99, uncut_bytes=1))

    asyncio.run(course())


def test_long_card_of_an_old_registry_is_fetched_as_a_file(tmp_path: Path) -> None:
    """Lists have no cards, and get_version returns every card."""
    make_old_registry(tmp_path)

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            listed = await registry.bob.list_versions("churn")
            assert [(version.label, version.card_json) for version in listed] == [
                ("1", ""), ("2", ""), ("3", ""),
            ]  # fmt: skip
            assert json.loads((await registry.bob.get_version("churn", "1")).card_json) == {
                "note": LONG
            }
            assert (await registry.bob.get_version("churn", "2")).card_json

    asyncio.run(course())


def test_new_card_is_bounded(tmp_path: Path) -> None:
    """A card of more than 1 MiB is refused before the model is opened."""

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            files = tiny_files() | {"card.json": json.dumps({"note": "A" * 2**20}).encode()}
            with pytest.raises(BadRequestError, match="has 1048588 bytes; the most is"):
                await registry.ann.register("churn", files)

    asyncio.run(course())


def test_lists_are_read_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client puts the pages together."""
    monkeypatch.setattr("access.bounds.PAGE_BYTES_MAX", 1)

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            for number in range(1, 4):
                await registry.register(number)
            await registry.register(1, model="other")
            for version in await registry.bob.list_versions("churn"):
                await registry.approve(version)
                await registry.approve(version, "other")
            models = await registry.bob.list_models()
            assert [(model.model, model.versions) for model in models] == [
                ("churn", 3), ("other", 1),
            ]  # fmt: skip
            versions = await registry.bob.list_versions("churn")
            assert [version.label for version in versions] == ["1", "2", "3"]
            approvals = await registry.bob.approvals("churn", "2")
            assert [approval.policy_name for approval in approvals] == ["careful", "other"]
            # A watch gets a large snapshot in several events.
            await registry.put_in_production()
            event = await anext(registry.bob.watch_deployments())
            assert event.snapshot_end
            assert (await registry.bob.audit()).intact

    asyncio.run(course())


def test_checkpoint_travels_in_chunks(tmp_path: Path) -> None:
    """It may be larger than a message, and is as it was."""

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            state = bytes(range(256)) * (3 * MESSAGE_BYTES_MAX // 256)
            token = (await registry.cleo.acquire_lease("rollout", "cleo", 60)).token
            sent = pb.Checkpoint(rollout_id="r1", sequence=1, state=state, lease_token=token)
            await registry.cleo.save_checkpoint(sent)
            assert (await registry.cleo.load_checkpoint("r1")).state == state
            too_large = pb.Checkpoint(
                rollout_id="r1", sequence=2, state=bytes(33 * 2**20 + 1), lease_token=token
            )
            with pytest.raises(BadRequestError, match="33554432"):
                await registry.cleo.save_checkpoint(too_large)
            assert (await registry.cleo.load_checkpoint("r1")).sequence == 1

    asyncio.run(course())
