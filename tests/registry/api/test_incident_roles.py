"""Tests of roles with incidents, over real gRPC with an identities file; and of their watch."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import NotAllowedError, RegistryError
from tests.registry.registry_fixture import registry_fixture, run_walk

pytestmark = pytest.mark.walk

ROLES = {"watch": "monitoring", "rita": "reader", "olga": "operator", "ann": "author"}
Change = pb.ChangeIncidentRequest


def identities(folder: Path) -> Path:
    """Write an identities file in which each name is its own token."""
    file = folder / "identities.json"
    entries = {
        hashlib.sha256(name.encode()).hexdigest(): {"actor": name, "roles": [role]}
        for name, role in ROLES.items()
    }
    file.write_text(json.dumps(entries))
    return file


async def add_model(client: RegistryClient) -> None:
    """Add the model that incidents are about."""
    await client.add_outside_model("churn", owner="crm", purpose="calls", place="mainframe")


def opening(client: RegistryClient, *, automatic: bool) -> Awaitable[pb.OpenIncidentReply]:
    """Open an incident about drift."""
    return client.open_incident(
        "churn", "score", "x", severity=pb.Incident.REVIEW, title="drift", automatic=automatic
    )


async def is_refused(call: Awaitable[Any]) -> bool:
    """Whether a call is refused for want of a role."""
    try:
        await call
    except NotAllowedError:
        return True
    return False


def test_each_role_does_its_part(tmp_path: Path) -> None:
    """Monitoring opens and raises, people acknowledge and close, readers read."""

    async def course() -> None:
        async with (
            registry_fixture(tmp_path / "r", [identities(tmp_path)]) as registry,
            registry.client("watch", "watch") as watch,
            registry.client("rita", "rita") as rita,
            registry.client("olga", "olga") as olga,
        ):
            await add_model(olga)
            # Only monitoring opens an incident by which the policy acts.
            assert await is_refused(opening(olga, automatic=True))
            assert await is_refused(opening(rita, automatic=False))
            incident = (await opening(watch, automatic=True)).incident
            assert incident.opened_by == "watch"
            # Each change has its people.
            close = Change(
                id=incident.id,
                revision=1,
                change=Change.CLOSE,
                resolution=pb.Incident.EXPECTED,
                text="a campaign",
            )
            assert await is_refused(watch.change_incident(close))
            assert await is_refused(rita.change_incident(close))
            raised = Change(id=incident.id, revision=1, change=Change.RAISE)
            assert await is_refused(olga.change_incident(raised))
            # Monitoring deploys nothing, and writes no finding but figures.
            finding = pb.Finding(model="churn", version="1", kind="rollback", text="x")
            assert await is_refused(watch.write_finding(finding))
            finding.kind = "figures"
            assert (await watch.write_finding(finding)).sequence > 0
            # Readers read, and a person closes.
            assert (await rita.get_incident(incident.id)).title == "drift"
            closed = await olga.change_incident(close)
            assert closed.state == pb.Incident.CLOSED

    run_walk(course())


def test_watch_tells_each_change_and_a_slow_watcher_the_newest_state(tmp_path: Path) -> None:
    """After the numbers that a watcher has seen."""

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            await add_model(registry.cleo)
            first = (await opening(registry.cleo, automatic=False)).incident
            watch = registry.bob.watch_incidents()
            assert (await anext(watch)).id == first.id
            following = asyncio.ensure_future(anext(watch))
            change = Change(id=first.id, revision=1, change=Change.ACKNOWLEDGE)
            changed = await registry.cleo.change_incident(change)
            seen = await following
            assert (seen.state, seen.sequence) == (pb.Incident.ACKNOWLEDGED, changed.sequence)
            later = [item.id async for item in registry.bob.incidents_changed(first.sequence)]
            assert later == [first.id]

    run_walk(course())


def test_bounds_hold_for_incidents(tmp_path: Path) -> None:
    """Control characters and long texts are refused, as in every other request."""

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            for title in ("a\x1b[2J", "x" * 513):
                with pytest.raises(RegistryError, match=r"OpenIncidentRequest\.title"):
                    await registry.cleo.open_incident(
                        "churn", "score", "x", severity=pb.Incident.PAGE, title=title
                    )
            assert await registry.cleo.list_incidents() == []

    run_walk(course())
