"""Tests of namespaces and of the mark of a system, on a real store."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from features.entity_ids import id_hashes
from features.errors import ForeignStoreError
from features.materialise import push_rows
from features.online.store_client import store_client
from features.online.store_marker import claim_store, marker_key, system_id
from features.online.store_server import (
    StoreServer,
    start_protected_store,
)
from features.online.store_users import READER, WRITER, make_passwords, url_for_user
from features.pushed import PushedRow
from features.rows import ViewRows
from features.writes.row_scripts import StoreClient
from tests.features.small_views import plan_view
from turnout.cli.online_rows import read_online_rows

pytestmark = pytest.mark.walk

VIEW = plan_view()


def opened(store: StoreServer, namespace: str) -> StoreClient:
    """A client of *store* in a namespace."""
    return store_client(f"{store.url}?namespace={namespace}")


def test_environments_that_share_a_store_do_not_share_rows(store: StoreServer) -> None:
    """A row of one namespace is at its own key, and readers of another namespace miss it."""
    now_ms = time.time_ns() // 1_000_000
    row = PushedRow(("N1",), now_ms, {"kind": "prepaid", "spend": 2.0, "balance": 1.0})
    with opened(store, "dev") as client:
        assert push_rows(VIEW, client, [row]).written == 1
        key = ViewRows(VIEW, "dev").store_key(b"N1")
        assert key == b"{N1}:dev:%s@%s" % (VIEW.name.encode(), VIEW.view_hash[:16].encode())
        value = client.get(key)
        assert isinstance(value, bytes)
        assert client.get(ViewRows(VIEW).store_key(b"N1")) is None
        assert client.get(ViewRows(VIEW, "prod").store_key(b"N1")) is None
    decoded = ViewRows(VIEW, "dev").decode([value], id_hashes([b"N1"]), now_ms)
    assert decoded.values[0, 1] == 2.0


def test_command_reads_the_rows_of_its_namespace(store: StoreServer) -> None:
    """`turnout features show` reads what a writer of the same URL has written."""
    now_ms = time.time_ns() // 1_000_000
    with opened(store, "qa") as client:
        push_rows(VIEW, client, [PushedRow(("N2",), now_ms, {"spend": 3.0})])
    rows = asyncio.run(read_online_rows(f"{store.url}?namespace=qa", VIEW, ["N2"], now_ms))
    assert rows.values[0, 1] == 3.0
    rows = asyncio.run(read_online_rows(store.url, VIEW, ["N2"], now_ms))
    assert rows.flags[0] & 1  # MISSING


def test_second_system_is_refused_by_the_store_of_the_first(store: StoreServer) -> None:
    """It may take another namespace. The first goes on, as often as it likes."""
    first, second = system_id(b"a" * 32), system_id(b"b" * 32)
    with opened(store, "shared") as client, opened(store, "other") as elsewhere:
        claim_store(client, first)
        claim_store(client, first)
        with pytest.raises(ForeignStoreError) as refused:
            claim_store(client, second)
        assert first in str(refused.value)
        assert second in str(refused.value)
        assert "namespace" in str(refused.value)
        claim_store(elsewhere, second)
        stored = client.get(marker_key(client))
        assert isinstance(stored, bytes)
        assert json.loads(stored)["system"] == first


@pytest.mark.parametrize("stored", [b"no JSON", b"{}", b"[]", b"\xff"])
def test_mark_that_cannot_be_read_is_not_taken_over(store: StoreServer, stored: bytes) -> None:
    """Another program wrote the value, so the store is not this system's."""
    with opened(store, "odd") as client:
        client.set(marker_key(client), stored)
        with pytest.raises(ForeignStoreError, match="nothing that can be read"):
            claim_store(client, system_id(b"a" * 32))


def test_writer_of_a_protected_store_may_claim_it(tmp_path: Path) -> None:
    """The access list of the store of `turnout up` allows the mark and namespaces to the writer."""
    folder = tmp_path / "store"
    make_passwords(folder)
    server = start_protected_store(tmp_path / "s", folder, 32)
    try:
        url = f"{server.url}?namespace=dev"
        with store_client(url, WRITER, folder) as client:
            claim_store(client, system_id(b"a" * 32))
            row = PushedRow(("N3",), time.time_ns() // 1_000_000, {"spend": 1.0})
            assert push_rows(VIEW, client, [row]).written == 1
        with store_client(url_for_user(url, READER, folder)) as client:
            assert client.get(ViewRows(VIEW, "dev").store_key(b"N3"))
    finally:
        server.stop()
