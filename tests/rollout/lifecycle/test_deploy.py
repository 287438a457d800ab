"""A place of the plan and its deployment are one and the same thing."""

import asyncio
from dataclasses import replace

import pytest

from registry.types import Deployment
from rollout.errors import SupersededError
from rollout.lifecycle.deploy import deployment_at, move, place_of
from rollout.policy.stages import Place, Stage
from tests.rollout.scripted_parts import TERMS, FakeRegistry

HELD = Deployment(
    model="churn",
    revision=4,
    production="1",
    shadows=(("9", 100),),
    preload=("8",),
    holdout_bp=50,
    holdout_salt=b"h" * 16,
)
PLACES = [
    Place(Stage.PRELOAD),
    Place(Stage.SHADOW),
    Place(Stage.CANARY, 0),
    Place(Stage.CANARY, 1),
    Place(Stage.WATCH),
]


def deployed(place: Place) -> Deployment:
    """Return the deployment of a rollout at *place*."""
    return deployment_at(place, HELD, TERMS, "why")


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_place_is_read_back_from_its_deployment(place: Place) -> None:
    """So a controller that died between deploying and remembering goes on rightly."""
    assert place_of(deployed(place), TERMS) == place


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("end", [Stage.DONE, Stage.ROLLED_BACK, Stage.REFUSED])
def test_an_end_leaves_nothing_behind(place: Place, end: Stage) -> None:
    """From wherever it ends: one production, no canary, standby, preload; the rest as it was."""
    after = deployment_at(Place(end), deployed(place), TERMS, "the end")
    assert after.production == ("2" if end == Stage.DONE else "1")
    assert (after.canary, after.standby, after.rollout_id) == ("", "", "")
    assert (after.shadows, after.preload) == (HELD.shadows, HELD.preload)
    assert (after.holdout_bp, after.holdout_salt) == (HELD.holdout_bp, HELD.holdout_salt)
    assert place_of(after, TERMS) is None


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
def test_a_change_by_hand_is_noticed(change: dict[str, object]) -> None:
    """A split that this rollout did not write is none of its places."""
    held = replace(deployed(Place(Stage.CANARY, 0)), **change)  # type: ignore[arg-type]
    assert place_of(held, TERMS) is None


def go(registry: FakeRegistry, to: Place, revision: int) -> Deployment | None:
    """Move from the first share."""
    return asyncio.run(
        move(
            registry,
            TERMS,
            at=Place(Stage.CANARY, 0),
            revision=revision,
            to=to,
            why="because",
            lease_token=1,
        )
    )


def standing() -> FakeRegistry:
    """Return a registry in which the rollout stands at its first share, revision 1."""
    registry = FakeRegistry()
    registry.put(deployed(Place(Stage.CANARY, 0)))
    return registry


def test_growth_is_written_over_the_judged_revision_only() -> None:
    """A change in between, read or raced, means: judge anew."""
    registry = standing()
    grown = go(registry, Place(Stage.CANARY, 1), 1)
    assert grown is not None
    assert (grown.canary_bp, grown.revision, grown.why) == (5_000, 2, "because")

    registry = standing()
    registry.put(replace(registry.deployments["churn"], holdout_bp=60))
    assert go(registry, Place(Stage.CANARY, 1), 1) is None

    registry = standing()
    registry.before_deploy = [replace(registry.deployments["churn"], holdout_bp=60)]
    assert go(registry, Place(Stage.CANARY, 1), 1) is None
    assert registry.deployments["churn"].canary_bp == 1_000


def test_a_rollback_is_written_over_any_revision_of_the_rollout() -> None:
    """Somebody else's change of another field does not keep a faulty version in traffic."""
    registry = standing()
    changes = [replace(registry.deployments["churn"], holdout_bp=bp) for bp in (60, 70)]
    registry.before_deploy = changes
    back = go(registry, Place(Stage.ROLLED_BACK), 1)
    assert back is not None
    assert (back.canary, back.production, back.holdout_bp) == ("", "1", 70)


def test_a_rollout_that_was_taken_over_by_hand_ends() -> None:
    """It leaves the deployment as the person wrote it."""
    registry = standing()
    registry.before_deploy = [replace(deployed(Place(Stage.ROLLED_BACK)), who="sam")]
    with pytest.raises(SupersededError, match="by 'sam'"):
        go(registry, Place(Stage.ROLLED_BACK), 1)
    assert registry.log == []
