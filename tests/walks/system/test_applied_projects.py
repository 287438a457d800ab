"""An applied project in a running system: its settings and policies count without a restart."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from registry.types import GateError, ProjectRevision
from tests.registry.project_definitions import PLAN, definitions_of
from tests.tiny_models import linear_weights
from tests.walks.running_system import RunningSystem, turnout_up

pytestmark = pytest.mark.walk

MODEL = "invoices"
POLICIES = {"patient": {"base": "standard", "models": {MODEL: {"watch_s": 7200}}}}
DEFAULTED = {"nan_scores_defaulted": True, "default_score": 0.25}
ABOUT = {
    "owner": "network-ds",
    "purpose": "whom to call",
    "tier": "critical",
    "score_meaning": "leaves within 30 days",
    "default_policy": "patient",
}


def apply_models(
    system: RunningSystem, revision: int, settings: Mapping[str, Any]
) -> ProjectRevision:
    """Apply a project with one model and one policy as sam."""

    async def apply() -> ProjectRevision:
        async with system.registry_client("sam") as client:
            return await client.apply_project(
                "billing",
                expected_revision=revision,
                plan_digest=PLAN,
                definitions=definitions_of(
                    "billing", models={MODEL: {**ABOUT, **settings}}, policies=POLICIES
                ),
                effects=["model invoices has other settings"],
                commit="4f2a",
                dirty=False,
                reason="as planned",
            )

    return asyncio.run(apply())


def test_applied_settings_and_policies_count_in_a_running_system(tmp_path: Path) -> None:
    """The gateway answers by the applied setting, after another person has approved it."""
    with turnout_up(tmp_path / "state") as system:
        # Version 1 is production, without settings. A score that the caller's NaN makes NaN is an
        # error.
        apply_models(system, 0, {})
        label = system.register(MODEL, tmp_path / "files")
        system.approve(MODEL, label, "initial")
        system.deploy(MODEL, label)
        call = ("predict", MODEL, "S1", "--input", "f0=nan")
        assert "INVALID_ARGUMENT: row 0: input 'f0' is nan" in system.turnout(*call, exit_code=1)

        # Another person approves the setting, which the apply then brings to every worker.
        with pytest.raises(GateError, match=r"approve invoices .*--setting default_score=0\.25"):
            apply_models(system, 1, {"serving": DEFAULTED})
        settings = ("--setting", "nan_scores_defaulted=true", "--setting", "default_score=0.25")
        system.turnout("splits", "approve", MODEL, *settings, actor="gabriel")
        apply_models(system, 1, {"serving": DEFAULTED})
        system.wait_applied(MODEL)
        assert system.turnout(*call)["scores"] == [[0.25]]
        check_policies_and_pages(system, tmp_path / "more")


def check_policies_and_pages(system: RunningSystem, folder: Path) -> None:
    """The policy is listed with its project, and is the one of an approval without --policy."""
    listed = {row["name"]: row for row in system.turnout("rollout", "policies")}
    edition = f"patient@{MODEL}"
    assert listed[edition]["project"] == "billing"
    (row,) = [row for row in system.turnout("models") if row["model"] == MODEL]
    assert row["about"] == {"project": "billing", **ABOUT}
    label = system.register(MODEL, folder, weights=2 * linear_weights(3))
    approval = system.turnout("versions", "approve", MODEL, label, "--yes", actor="gabriel")
    assert approval["policy_name"] == edition
    assert approval["policy_digest"] == listed[edition]["digest"]
    assert system.turnout("versions", "show", MODEL, label)["about"]["owner"] == "network-ds"
