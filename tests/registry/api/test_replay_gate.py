"""An approval under a policy that asks for a replay needs one in the registry."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.replay.record import REPLAY, ReplayRecord
from protos import registry_pb2 as pb
from registry.history.audit import audit_registry
from registry.types import BadRequestError, GateError, NotFoundError
from tests.registry.api.test_projects import apply
from tests.registry.project_definitions import definitions_of
from tests.registry.registry_fixture import registry_fixture, run_walk

pytestmark = pytest.mark.walk

POLICIES: Mapping[str, Mapping[str, Any]] = {
    "careful": {
        "base": "standard",
        "replay_days": 7,
        "models": {"churn": {"failure_bar": 0.001}, "nba": {"replay_days": 0}},
    },
    "bold": {"base": "standard"},
}


def replay_of(version: pb.Version, **changes: object) -> pb.Finding:
    """The finding of a replay without a difference, of rows until a minute ago."""
    now_ms = time.time_ns() // 1_000_000
    record = ReplayRecord(
        version_digest=version.digest,
        model_contract=version.model_contract,
        from_ms=now_ms - 3_600_000,
        to_ms=now_ms - 60_000,
        rows=5_000,
        degraded_rows=0,
        late_values=0,
        skewed_features=0,
        skewed={},
    )
    text = replace(record, **changes).text()  # type: ignore[arg-type]
    return pb.Finding(model=version.model, version=version.label, kind=REPLAY, text=text)


def test_approval_waits_for_a_clean_replay_of_production(tmp_path: Path) -> None:
    """The policy and its editions ask for it, by the project's files; others do not."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            await apply(registry.cleo, definitions_of(policies=POLICIES))
            candidate = await registry.register(2)
            # Without a production version nothing was served.
            with pytest.raises(GateError, match="has no production version yet"):
                await registry.approve(candidate, "careful")
            production, _ = await registry.put_in_production()

            # There is no replay, then one with a difference, then one of old rows.
            asked = f"asks for a replay of version {production.label} of 'churn'"
            for policy in ("careful", "careful@churn"):
                with pytest.raises(GateError, match=f"policy '{policy}' {asked}.*there is none"):
                    await registry.approve(candidate, policy)
            skewed = replay_of(production, skewed_features=1, skewed={"usage:minutes": 9})
            assert (await registry.cleo.write_finding(skewed)).who == "cleo"
            with pytest.raises(GateError, match=r"usage:minutes in 9\. Mend the cause"):
                await registry.approve(candidate, "careful")
            await registry.cleo.write_finding(replay_of(production, from_ms=0, to_ms=1))
            with pytest.raises(GateError, match="end at 1970-01-01"):
                await registry.approve(candidate, "careful", direct=True)
            # A replay of the candidate is not one of production.
            await registry.cleo.write_finding(replay_of(candidate))
            with pytest.raises(GateError, match="end at 1970-01-01"):
                await registry.approve(candidate, "careful")

            # A refused approval leaves nothing behind, and other policies ask for nothing.
            assert await registry.bob.approvals("churn", candidate.label) == []
            for policy in ("careful@nba", "bold", "another"):
                await registry.approve(candidate, policy)
            # A clean one is enough, and a later one with a difference ends that.
            await registry.cleo.write_finding(replay_of(production))
            approval = await registry.approve(candidate, "careful")
            assert approval.policy_name == "careful"
            await registry.cleo.write_finding(skewed)
            with pytest.raises(GateError, match="Mend the cause"):
                await registry.approve(candidate, "careful@churn")
            # A rejection needs no replay.
            rejection = await registry.bob.reject("churn", candidate.label, "no", "careful")
            assert approval.id in rejection.ended
            report = await audit_registry(registry.ann, None, {})
            assert report.intact

    run_walk(scenario())


def test_finding_of_a_replay_is_of_a_registered_version(tmp_path: Path) -> None:
    """Whatever it says, it cannot be of another version than the one it names."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            first, second = await registry.register(1), await registry.register(2)
            swapped = replay_of(second)
            swapped.version = first.label
            by_digest = replay_of(first)
            by_digest.version = first.digest
            unknown = replay_of(first)
            unknown.version = "9"
            prose = pb.Finding(model="churn", version="1", kind=REPLAY, text="all is well")
            for wrong, error, why in (
                (swapped, BadRequestError, "version_digest"),
                (by_digest, BadRequestError, "by its label"),
                (unknown, NotFoundError, "no version '9'"),
                (prose, BadRequestError, "--record"),
            ):
                with pytest.raises(error, match=why):
                    await registry.cleo.write_finding(wrong)
            assert [found async for found in registry.cleo.findings()] == []

    run_walk(scenario())
