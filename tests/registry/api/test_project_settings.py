"""Tests of model settings in applied projects: who must approve them, and how they get through."""

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protos import registry_pb2 as pb
from registry.signed import read_deployment
from registry.types import Deployment, GateError
from tests.registry.api.test_projects import apply
from tests.registry.project_definitions import definitions_of
from tests.registry.registry_fixture import RegistryFixture, registry_fixture, run_walk

pytestmark = pytest.mark.walk

STRICT: Mapping[str, Any] = {
    "holdout_bp": 500,
    "serving": {"deadline_ms_default": 80, "features_required": True, "default_score": 0.25},
}
WANTED = pb.ServingPolicy(deadline_ms_default=80, features_required=True, default_score=0.25)


def churn_with(settings: Mapping[str, Any]) -> bytes:
    """Return the definitions of a project that has one model."""
    return definitions_of(models={"churn": settings})


def settings_of(deployment: Deployment) -> tuple[int, pb.ServingPolicy]:
    """Return what an approval of settings is about."""
    return deployment.holdout_bp, deployment.policy


async def approve_strict(registry: RegistryFixture) -> None:
    """Approve the settings of STRICT as bob."""
    current = await registry.bob.deployment("churn")
    await registry.bob.approve_settings(
        replace(current, holdout_bp=500, policy=WANTED), "as discussed"
    )


def test_settings_of_a_project_reach_watchers_after_their_approval(tmp_path: Path) -> None:
    """Until then nothing of the apply is written, and the refusal has the command."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            _, before = await registry.put_in_production()
            await apply(registry.cleo, churn_with({}))
            command = (
                r"deadline_ms_default from 0 to 80.* another person than 'cleo' must approve: "
                r"turnout splits approve churn --holdout 5 --setting deadline_ms_default=80"
            )
            with pytest.raises(GateError, match=command):
                await apply(registry.cleo, churn_with(STRICT), 1)
            assert [item.revision for item in await registry.cleo.list_projects()] == [1]
            assert await registry.cleo.deployment("churn") == before

            # The one who applies cannot be the one who approved.
            await approve_strict(registry)
            with pytest.raises(GateError, match="another person than 'bob'"):
                await apply(registry.bob, churn_with(STRICT), 1)

            # A gateway's stream gets the settings, and everything else stays as it was.
            async with aclosing(registry.ann.watch_deployments()) as events:  # type: ignore[type-var]
                await anext(events)
                await apply(registry.cleo, churn_with(STRICT), 1)
                (message,) = (await anext(events)).deployments
            after = read_deployment(message)
            assert settings_of(after) == (500, WANTED)
            assert after.why == "project shop, revision 2: as planned"
            unchanged = {
                name: getattr(before, name)
                for name in ("revision", "holdout_bp", "policy", "why", "who", "at_unix_ns")
            }
            assert replace(after, **unchanged) == before
            entries = (await registry.bob.history()).entries[-2:]
            assert [entry.action for entry in entries] == ["apply project", "deploy project"]
            assert (await registry.bob.audit()).intact

            # Going back is a change of settings, too.
            first = await registry.cleo.get_project("shop", 1)
            assert first is not None
            assert (await apply(registry.cleo, first.definitions, 2)).revision == 3
            weaker = churn_with({"holdout_bp": 0})
            with pytest.raises(GateError, match="holdout_bp from 500 to 0"):
                await apply(registry.cleo, weaker, 3)

    run_walk(scenario())


def test_model_without_a_deployment_begins_with_the_settings_of_its_project(
    tmp_path: Path,
) -> None:
    """They are there before its first version, and its first production version keeps them."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            described = {"owner": "network-ds", "tier": "critical", "purpose": "whom to call"}
            await apply(registry.cleo, churn_with({**STRICT, **described}))
            await registry.register()
            (summary,) = await registry.ann.list_models()
            assert summary.about == pb.ProjectModel(project="shop", **described)
            assert settings_of(await registry.cleo.deployment("churn")) == (500, WANTED)
            _, deployed = await registry.put_in_production()
            assert settings_of(deployed) == (500, WANTED)
            # Fields that a project leaves out stay, and those of a model without production are
            # free.
            await apply(registry.cleo, churn_with({}), 1)
            assert await registry.cleo.deployment("churn") == deployed

    run_walk(scenario())


def test_settings_before_the_first_production_version_need_no_approval(tmp_path: Path) -> None:
    """A preloaded version answers nobody yet."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            await registry.register()
            current = await registry.cleo.deployment("churn")
            await registry.cleo.deploy(replace(current, preload=("1",), why="load it"))
            await apply(registry.cleo, churn_with(STRICT))
            deployed = await registry.cleo.deployment("churn")
            assert (deployed.revision, deployed.preload) == (2, ("1",))
            assert settings_of(deployed) == (500, WANTED)

    run_walk(scenario())


def test_approval_of_settings_is_in_place_of_the_ones_that_it_saw(tmp_path: Path) -> None:
    """Settings that were changed by hand since then need another approval."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            _, deployed = await registry.put_in_production()
            await approve_strict(registry)
            other = replace(deployed, holdout_bp=100, why="by hand")
            await registry.bob.approve_settings(other, "as discussed")
            await registry.cleo.deploy(other)
            with pytest.raises(GateError, match="holdout_bp from 100 to 500"):
                await apply(registry.cleo, churn_with(STRICT))

    run_walk(scenario())
