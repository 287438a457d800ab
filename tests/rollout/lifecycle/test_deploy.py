"""A position and its deployment can be translated into each other."""

import asyncio
from dataclasses import replace

import pytest

from registry.types import Deployment
from rollout.errors import SupersededError
from rollout.lifecycle.deploy import deploy_position, deployment_at, position_of
from rollout.policy.stages import Stage, StagePosition
from tests.rollout.scripted_parts import SPEC, FakeRegistry

BASE = Deployment(
    model="churn",
    revision=4,
    production="1",
    shadows=(("9", 100),),
    preload=("8",),
    holdout_bp=50,
    holdout_salt=b"h" * 16,
)
POSITIONS = [
    StagePosition(Stage.PRELOAD),
    StagePosition(Stage.SHADOW),
    StagePosition(Stage.CANARY, 0),
    StagePosition(Stage.CANARY, 1),
    StagePosition(Stage.WATCH),
]


def deployment_of(position: StagePosition) -> Deployment:
    """Return the deployment of a rollout at *position*."""
    return deployment_at(position, BASE, SPEC, "why")


@pytest.mark.parametrize("position", POSITIONS, ids=str)
def test_position_of_reads_the_position_from_its_deployment(position: StagePosition) -> None:
    """So a controller that crashed between a deployment and its checkpoint goes on correctly."""
    assert position_of(deployment_of(position), SPEC) == position


@pytest.mark.parametrize("position", POSITIONS, ids=str)
@pytest.mark.parametrize("end", [Stage.DONE, Stage.ROLLED_BACK, Stage.REFUSED])
def test_deployment_at_a_final_stage_has_no_trace_of_the_rollout(
    position: StagePosition, end: Stage
) -> None:
    """There is one production, and no canary, standby or preload of it.

    Other fields are unchanged.
    """
    after = deployment_at(StagePosition(end), deployment_of(position), SPEC, "the end")
    assert after.production == ("2" if end == Stage.DONE else "1")
    assert (after.canary, after.standby, after.rollout_id) == ("", "", "")
    assert (after.shadows, after.preload) == (BASE.shadows, BASE.preload)
    assert (after.holdout_bp, after.holdout_salt) == (BASE.holdout_bp, BASE.holdout_salt)
    assert position_of(after, SPEC) is None


@pytest.mark.parametrize(
    "change",
    [
        {"rollout_id": "other"},
        {"rollout_id": ""},
        {"canary_bp": 2_345},
        {"canary": "5"},
        {"production": "7"},
        {"canary": "", "canary_bp": 0},
    ],
)
def test_position_of_is_none_for_a_split_that_the_rollout_did_not_write(
    change: dict[str, object],
) -> None:
    """A person or another program changed the deployment."""
    changed = replace(deployment_of(StagePosition(Stage.CANARY, 0)), **change)  # type: ignore[arg-type]
    assert position_of(changed, SPEC) is None


def deploy_target(registry: FakeRegistry, to: StagePosition, revision: int) -> Deployment | None:
    """Deploy *to* from the first canary share."""
    return asyncio.run(
        deploy_position(
            registry,
            SPEC,
            expected=StagePosition(Stage.CANARY, 0),
            revision=revision,
            target=to,
            why="because",
            lease_token=1,
        )
    )


def registry_at_first_share() -> FakeRegistry:
    """Return a registry in which the rollout is at its first share, at revision 1."""
    registry = FakeRegistry()
    registry.write_deployment(deployment_of(StagePosition(Stage.CANARY, 0)))
    return registry


def test_deploy_position_grows_only_over_the_judged_revision() -> None:
    """After a change in between, seen or in a race, the rollout is judged anew."""
    registry = registry_at_first_share()
    grown = deploy_target(registry, StagePosition(Stage.CANARY, 1), 1)
    assert grown is not None
    assert (grown.canary_bp, grown.revision, grown.why) == (5_000, 2, "because")

    registry = registry_at_first_share()
    registry.write_deployment(replace(registry.deployments["churn"], holdout_bp=60))
    assert deploy_target(registry, StagePosition(Stage.CANARY, 1), 1) is None

    registry = registry_at_first_share()
    registry.before_deploy = [replace(registry.deployments["churn"], holdout_bp=60)]
    assert deploy_target(registry, StagePosition(Stage.CANARY, 1), 1) is None
    assert registry.deployments["churn"].canary_bp == 1_000


def test_deploy_position_rolls_back_over_any_revision_of_the_rollout() -> None:
    """A change of another field does not keep a faulty version in traffic."""
    registry = registry_at_first_share()
    changes = [replace(registry.deployments["churn"], holdout_bp=bp) for bp in (60, 70)]
    registry.before_deploy = changes
    back = deploy_target(registry, StagePosition(Stage.ROLLED_BACK), 1)
    assert back is not None
    assert (back.canary, back.production, back.holdout_bp) == ("", "1", 70)


def test_deploy_position_leaves_a_split_that_a_person_took_over() -> None:
    """The rollout ends and the deployment stays as the person wrote it."""
    registry = registry_at_first_share()
    registry.before_deploy = [replace(deployment_of(StagePosition(Stage.ROLLED_BACK)), who="sam")]
    with pytest.raises(SupersededError, match="by 'sam'"):
        deploy_target(registry, StagePosition(Stage.ROLLED_BACK), 1)
    assert registry.deployments_written == []
