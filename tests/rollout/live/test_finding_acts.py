"""Findings that act, over real gRPC: holds and rollbacks, their gates, and what the history has."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protos import registry_pb2 as pb
from protos import rollout_pb2
from registry.client import RegistryClient
from tests.rollout.live_rollout import LiveRollout, run_live_rollout
from tests.rollout.scripted_parts import POLICIES

pytestmark = pytest.mark.walk


async def next_acted(client: RegistryClient, finding: int) -> dict[str, Any]:
    """Return what the controller wrote about a finding."""
    async with asyncio.timeout(30):
        async for written in client.watch_findings(finding):
            if written.kind == "acted" and json.loads(written.text)["finding"] == finding:
                value: dict[str, Any] = json.loads(written.text)
                return value
    raise AssertionError("the watch has ended")


async def wait_until_ready(client: RegistryClient, version: str) -> None:
    """Return when a worker has loaded a version."""
    async with asyncio.timeout(20):
        async for state in client.watch_states():
            if any(
                load.version == version and load.state == pb.VersionLoad.READY
                for load in state.loads
            ):
                return


async def open_incident(live: LiveRollout, kind: str, version: str = "") -> pb.Incident:
    """Open an incident as monitoring does."""
    reply = await live.registry.cleo.open_incident(
        "churn",
        kind,
        f"{kind}/{version}",
        severity=pb.Incident.PAGE,
        title=f"{kind} is bad",
        version=version,
        automatic=True,
    )
    assert reply.opened
    return reply.incident


def test_incident_holds_the_rollout_until_it_is_closed(tmp_path: Path) -> None:
    """The history says when the rollout was held, the incident which one, and its end clears."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            started = await live.start(POLICIES["quick"])
            incident = await open_incident(live, "quality")
            acted = await next_acted(live.registry.cleo, incident.finding)
            assert (acted["act"], acted["rollout"]) == ("hold", started.rollout_id)
            assert 0 <= acted["acted_unix_ms"] - acted["finding_unix_ms"] < 5_000
            # The rollout does not grow, and says why.
            status = await live.stub.GetStatus(rollout_pb2.RolloutSelector(model="churn"))
            assert "quality is bad" in status.reason
            noted = await live.registry.cleo.get_incident(incident.id)
            assert [(note.kind, note.text) for note in noted.notes] == [
                ("rollout", started.rollout_id)
            ]
            # Closed, it goes on and is promoted.
            change = pb.ChangeIncidentRequest(
                id=incident.id,
                revision=noted.revision,
                change=pb.ChangeIncidentRequest.CLOSE,
                resolution=pb.Incident.FALSE_ALARM,
                text="a late file",
            )
            await live.registry.cleo.change_incident(change)
            statuses = await live.watch_statuses(60)
            assert statuses[-1].stage == rollout_pb2.DONE
            assert (await live.registry.cleo.audit()).intact

    asyncio.run(course())


def test_finding_rolls_a_candidate_back(tmp_path: Path) -> None:
    """A finding about the version that is rolled out ends its rollout."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            started = await live.start(POLICIES["quick"])
            finding = await live.registry.cleo.write_finding(
                pb.Finding(model="churn", version="2", kind="rollback", text="AUC fell")
            )
            acted = await next_acted(live.registry.cleo, finding.sequence)
            assert (acted["act"], acted["to"], acted["rollout"]) == (
                "rollback",
                "1",
                started.rollout_id,
            )
            statuses = await live.watch_statuses(20)
            assert statuses[-1].stage == rollout_pb2.ROLLED_BACK
            assert "AUC fell" in statuses[-1].reason
            deployment = await live.registry.cleo.deployment("churn")
            assert (deployment.production, deployment.canary) == ("1", "")

    asyncio.run(course())


def test_finding_rolls_production_back_at_most_once_a_day(tmp_path: Path) -> None:
    """It goes back to what was production, through the gates; the second time a person decides."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            cleo = live.registry.cleo
            await live.start(POLICIES["quick"])
            await live.watch_statuses(60)
            assert (await cleo.deployment("churn")).production == "2"
            # A finding takes production back, through the gates of a rollback.
            finding = await cleo.write_finding(
                pb.Finding(model="churn", version="2", kind="rollback", text="calibration")
            )
            acted = await next_acted(cleo, finding.sequence)
            deployment = await cleo.deployment("churn")
            assert (acted["act"], acted["to"], deployment.production) == ("rollback", "1", "1")
            assert acted["revision"] == deployment.revision
            entries = (await cleo.history(0, 0, "model/churn/deployment")).entries
            assert entries[-1].action == "deploy finding"
            assert json.loads(entries[-1].after)["finding"] == finding.sequence
            # A person puts version 2 back; a second finding moves nothing on the same day.
            approval = await live.registry.approve(
                await cleo.get_version("churn", "2"), "careful", direct=True
            )
            deployment = await cleo.deploy(replace(deployment, preload=("2",), why="load it again"))
            await wait_until_ready(cleo, "2")
            await cleo.deploy(
                replace(
                    deployment,
                    preload=(),
                    production="2",
                    approval_id=approval.id,
                    why="it was the data",
                ),
                policy_digest=approval.policy_digest,
            )
            # The refusal is written down, and nothing has moved.
            again = await cleo.write_finding(
                pb.Finding(model="churn", version="2", kind="rollback", text="calibration")
            )
            refused = await next_acted(cleo, again.sequence)
            assert refused["act"] == "none"
            assert "at most once a day" in refused["why"]
            assert (await cleo.deployment("churn")).production == "2"
            assert (await cleo.audit()).intact

    asyncio.run(course())


def test_finding_about_a_version_out_of_service_moves_nothing(tmp_path: Path) -> None:
    """It says why, so that nobody waits for it."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            finding = await live.registry.cleo.write_finding(
                pb.Finding(model="churn", version="9", kind="rollback", text="old")
            )
            acted = await next_acted(live.registry.cleo, finding.sequence)
            assert acted["act"] == "none"
            assert "is not production" in acted["why"]

    asyncio.run(course())
