"""Policies of applied projects in a running controller, over real gRPC."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import registry_pb2, rollout_pb2
from registry.types import ProjectRevision
from tests.registry.project_definitions import PLAN, definitions_of
from tests.rollout.live_rollout import (
    SAM_METADATA,
    LiveRollout,
    call_until_leading,
    run_live_rollout,
)
from tests.rollout.scripted_parts import POLICIES
from tests.tiny_models import linear_weights, tiny_files

pytestmark = pytest.mark.walk

SWIFT: Mapping[str, Any] = {"base": "quick-direct", "watch_s": 0.5}


async def apply_swift(live: LiveRollout, revision: int, **changes: object) -> ProjectRevision:
    """Apply a project with the policy "swift", which is the default of churn."""
    return await live.registry.cleo.apply_project(
        "shop",
        expected_revision=revision,
        plan_digest=PLAN,
        definitions=definitions_of(
            models={"churn": {"default_policy": "swift"}}, policies={"swift": {**SWIFT, **changes}}
        ),
        effects=["policy swift is new"],
        commit="4f2a",
        dirty=False,
        reason="as planned",
    )


def test_settings_that_are_applied_during_a_rollout_leave_it_running(tmp_path: Path) -> None:
    """The rollout adopts the revision and is promoted. The settings stay."""
    settings = {"holdout_bp": 300, "serving": {"deadline_ms_default": 70}}

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            started = await live.start(POLICIES["quick"])
            current = await live.registry.bob.deployment("churn")
            wanted = registry_pb2.ServingPolicy(deadline_ms_default=70)
            approved = replace(current, holdout_bp=300, policy=wanted)
            await live.registry.bob.approve_settings(approved, "as discussed")
            await live.registry.cleo.apply_project(
                "shop",
                expected_revision=0,
                plan_digest=PLAN,
                definitions=definitions_of(models={"churn": settings}),
                effects=[],
                commit="",
                dirty=True,
                reason="as planned",
            )
            during = await live.registry.cleo.deployment("churn")
            assert (during.rollout_id, during.holdout_bp) == (started.rollout_id, 300)
            assert (await live.watch_statuses(60))[-1].stage == rollout_pb2.DONE
            after = await live.registry.cleo.deployment("churn")
            assert (after.production, after.holdout_bp, after.policy) == ("2", 300, wanted)

    asyncio.run(course())


async def digest_of(live: LiveRollout, name: str) -> str:
    """Return the digest that the running controller gives for a policy."""
    reply = await live.stub.ListPolicies(rollout_pb2.ListPoliciesRequest())
    (digest,) = [policy.digest for policy in reply.policies if policy.name == name]
    return digest


def test_applied_policy_is_used_at_once_and_a_changed_one_needs_another_approval(
    tmp_path: Path,
) -> None:
    """The controller is not restarted. The running rollout keeps its approved edition."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            # Approve version 2 under the policy as it was applied first.
            await apply_swift(live, 0)
            approved = await digest_of(live, "swift")
            files = tiny_files("churn", weights=linear_weights(3) * 2)
            version = await live.registry.ann.register("churn", files)
            await live.registry.bob.approve(
                "churn", version.label, "swift", approved, "", "the card was read"
            )
            # Another edition of the policy has no approval.
            await apply_swift(live, 1, failure_bar=0.03)
            assert await digest_of(live, "swift") != approved
            request = rollout_pb2.StartRolloutRequest(model="churn", version="2", reason="better")
            with pytest.raises(grpc.aio.AioRpcError, match="approv") as refused:
                await call_until_leading(
                    lambda: live.stub.Start(request, metadata=SAM_METADATA, wait_for_ready=True)
                )
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            # The first edition again: the approval fits, and the rollout runs under it.
            await apply_swift(live, 2)
            started = await live.stub.Start(request, metadata=SAM_METADATA)
            assert (started.policy, started.policy_digest) == ("swift", approved)
            await apply_swift(live, 3, failure_bar=0.03)
            await digest_of(live, "swift")
            last = (await live.watch_statuses(60))[-1]
            assert (last.stage, last.policy_digest) == (rollout_pb2.DONE, approved)
            assert "now another edition" in last.policy_note

    asyncio.run(course())
