"""Tests of reading applied policies from a registry, without a restart."""

from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import ProjectRevision
from registry.watching.applied_policies import AppliedPolicies
from registry.watching.policy import MonitoringPolicy
from tests.registry.project_definitions import PLAN, definitions_of
from tests.registry.registry_fixture import registry_fixture, run_walk

pytestmark = pytest.mark.walk


async def apply(client: RegistryClient, revision: int, act: str) -> ProjectRevision:
    """Apply a project with a watched model and one without a policy."""
    watched = {"owner": "ops", "monitoring": {"acts": {"auc": act}}}
    return await client.apply_project(
        "shop",
        expected_revision=revision,
        plan_digest=PLAN,
        definitions=definitions_of(models={"churn": watched, "nba": {"owner": "ops"}}),
        effects=(),
        commit="",
        dirty=False,
        reason="watch it",
    )


def test_policies_follow_each_apply(tmp_path: Path) -> None:
    """The next refresh has the new policy, and the next incident is acted on by it."""

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            applied = AppliedPolicies()
            assert await applied.refresh(registry.cleo) == {}
            await apply(registry.cleo, 0, "retrain")
            policies = await applied.refresh(registry.cleo)
            assert policies["churn"].act_on("auc") == "retrain"
            assert policies["nba"] == MonitoringPolicy()
            await apply(registry.cleo, 1, "hold")
            assert (await applied.refresh(registry.cleo))["churn"].act_on("auc") == "hold"
            reply = await registry.cleo.open_incident(
                "churn", "auc", "x", severity=pb.Incident.PAGE, title="t", automatic=True
            )
            assert reply.incident.act == "hold"

    run_walk(course())
