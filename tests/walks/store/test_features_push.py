"""Pushed rows in a running system: from the shell, with tokens, and through a killed process."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import grpc
import pytest

from access.peer_tls import pinned_credentials
from features.offline import OfflineStore
from features.online.store_users import READER, url_for_user
from features.views import Feature, View
from tests.registry.project_definitions import PLAN, definitions_of
from tests.walks.identified_system import identified_system
from tests.walks.running_system import RunningSystem, turnout_up
from turnout.cli.online_rows import read_online_rows
from turnout_client import FeatureRow, PushError, SyncFeaturesClient

pytestmark = pytest.mark.walk

USAGE = View(
    name="usage",
    entities=("subscriber", "offer"),
    features=(
        Feature(name="plan", dtype="category", dictionary=("prepaid", "postpaid")),
        Feature(name="gigabytes"),
    ),
    ttl_ms=86_400_000,
    transform="SELECT * FROM source",
)
PEOPLE = {
    "alice": ["author"],
    "bob": ["approver"],
    "olga": ["operator"],
    "stream": ["pusher"],
    "sue": ["pusher", "reader"],
}


def now_ms() -> int:
    """The present, Unix ms."""
    return time.time_ns() // 1_000_000


def apply_usage(system: RunningSystem, actor: str, token: str | None = None) -> None:
    """Apply a project that has the view."""

    async def apply() -> None:
        async with system.registry_client(actor, token) as client:
            await client.apply_project(
                "shop",
                expected_revision=0,
                plan_digest=PLAN,
                definitions=definitions_of("shop", views=[USAGE]),
                effects=["view usage is added"],
                commit="4f2a",
                dirty=False,
                reason="as planned",
            )

    asyncio.run(apply())


def line_of(offer: str, **values: object) -> str:
    """A row of the view as a line of JSON."""
    row = {"subscriber": "S1", "offer": offer, "event_time_ms": now_ms(), **values}
    return json.dumps(row) + "\n"


def test_rows_of_a_file_are_pushed_from_the_shell(tmp_path: Path) -> None:
    """A file may be pushed again. A refused row is named by its line, and the others are stored."""
    with turnout_up(tmp_path / "state") as system:
        apply_usage(system, "sam")
        file = tmp_path / "rows.jsonl"
        file.write_text(
            line_of("O1", plan="postpaid", gigabytes=1.5)
            + line_of("O2", plan=None, gigabytes=2, event_id="e2")
        )
        line = ("features", "push", str(file), "--view", "usage")
        first = system.turnout(*line)
        assert first == {
            "written": 2,
            "older": 0,
            "duplicate": 0,
            "refused": 0,
            "refusals": [],
        }
        assert system.turnout(*line)["duplicate"] == 2
        store = url_for_user(system.addresses.store, READER, system.addresses.store_passwords)
        key = "S1\x1fO1"
        shown = asyncio.run(read_online_rows(store, USAGE, [key], now_ms()))
        assert (shown.values.tolist(), shown.flags.tolist()) == ([[1.0, 1.5]], [0])
        # One bad row costs no other one.
        with file.open("a") as more:
            more.write(line_of("O3", gigabytes="much") + line_of("O4", gigabytes=4))
        done = system.turnout(*line, exit_code=1)
        assert (done["written"], done["duplicate"], done["refused"]) == (1, 2, 1)
        (refusal,) = done["refusals"]
        assert refusal["line"] == 3
        assert "'gigabytes' is a number and was sent as a text" in refusal["reason"]
        # Training has what the gateway has.
        newest = OfflineStore(system.folder / "offline").latest(USAGE)
        assert [item.decode() for item in newest.ids] == ["S1\x1fO1", "S1\x1fO2", "S1\x1fO4"]
        # A line that is no row is refused before anything is sent.
        file.write_text('{"subscriber": "S1"}\n')
        said = system.turnout(*line, exit_code=2)
        assert "line 1: a JSON object" in said
        assert "offer is missing. No row was sent" in " ".join(said.split())


def test_killed_server_of_pushed_rows_is_back_and_knows_what_was_pushed(tmp_path: Path) -> None:
    """`turnout up` starts it again, and the client's call waits for it."""
    with turnout_up(tmp_path / "state") as system:
        apply_usage(system, "sam")
        credentials, name = pinned_credentials(system.addresses.certificate)
        rows = [FeatureRow(["S1", "O1"], now_ms(), {"gigabytes": 1.0}, "e1")]
        with SyncFeaturesClient(
            system.addresses.features, credentials=credentials, server_name=name, timeout_s=60
        ) as client:
            assert [item.status for item in client.push("usage", rows)] == ["written"]
            os.kill(system.addresses.children["features"][0], signal.SIGKILL)
            assert [item.status for item in client.push("usage", rows)] == ["duplicate"]
        log = (system.folder / "logs" / "features.log").read_text()
        assert f"usage@{USAGE.view_hash[:16]}" in log


def test_only_a_pusher_pushes_and_a_pusher_only_pushes(tmp_path: Path) -> None:
    """The token of a stream opens nothing else. A user of the shell needs to read as well."""
    with identified_system(
        tmp_path, PEOPLE, author="alice", approver="bob", operator="olga"
    ) as identified:
        system = identified.system
        apply_usage(system, "alice", identified.secret("alice"))
        credentials, name = pinned_credentials(system.addresses.certificate)
        rows = [FeatureRow(["S1", "O1"], now_ms(), {"gigabytes": 1.0}, "e1")]

        def status(person: str) -> str:
            with SyncFeaturesClient(
                system.addresses.features,
                credentials=credentials,
                server_name=name,
                token=identified.secret(person),
            ) as client:
                try:
                    return client.push("usage", rows)[0].status
                except PushError as error:
                    return error.code.name

        # One role may push.
        assert status("stream") == "written"
        for person in ("alice", "bob", "olga"):
            assert status(person) == grpc.StatusCode.PERMISSION_DENIED.name, person
        # It reads nothing, so a shell's user has a second role.
        said = identified.turnout("stream", "models", exit_code=1)
        assert "needs" in said
        assert "'stream' is pusher" in said
        file = tmp_path / "rows.jsonl"
        file.write_text(line_of("O2", gigabytes=2.0))
        done = identified.turnout("sue", "features", "push", str(file), "--view", "usage")
        assert done["written"] == 1
