"""The table of statuses, tried whole."""

from itertools import product
from typing import Any

import pytest

from protos import registry_pb2 as pb
from registry.rules.lifecycle import (
    ALLOWED_STEPS,
    BY_DEPLOYMENT,
    BY_PERSON,
    check_step_by_hand,
    statuses_after,
)
from registry.types import Deployment, GateError
from tests.registry.rules.test_gates import facts

STATUSES = [pb.DEVELOPMENT, pb.STAGING, pb.PRODUCTION_STATUS, pb.ARCHIVED]


@pytest.mark.parametrize(("before", "after"), list(product(STATUSES, [*STATUSES, 9])))
def test_a_person_takes_the_steps_in_the_table_and_no_other(
    before: pb.VersionStatus, after: pb.VersionStatus
) -> None:
    """Sixteen pairs and an unknown status: allowed, a deployment's, or refused in words."""
    by = ALLOWED_STEPS.get((before, after))

    if by == BY_PERSON:
        check_step_by_hand(facts("2", status=before), after, deployed=False)
    else:
        words = "only a deployment" if by == BY_DEPLOYMENT else "may go to"
        with pytest.raises(GateError, match=words):
            check_step_by_hand(facts("2", status=before), after, deployed=False)


def test_nobody_reaches_production_by_hand() -> None:
    """Whatever the table becomes."""
    assert {by for (_, to), by in ALLOWED_STEPS.items() if to == pb.PRODUCTION_STATUS} == {
        BY_DEPLOYMENT
    }


def test_a_deployed_version_is_not_archived_under_its_callers() -> None:
    """It is taken out of the deployment first."""
    with pytest.raises(GateError, match="named by the deployment"):
        check_step_by_hand(facts("2"), pb.ARCHIVED, deployed=True)


# What the gates let through: a version in development is preloaded, one that was never production
# does not stand by.
ROLES = [
    ({}, STATUSES),
    ({"preload": ("2",)}, STATUSES),
    ({"production": "2"}, [pb.STAGING, pb.PRODUCTION_STATUS, pb.ARCHIVED]),
    ({"canary": "2"}, [pb.STAGING, pb.PRODUCTION_STATUS, pb.ARCHIVED]),
    ({"standby": "2"}, [pb.PRODUCTION_STATUS, pb.ARCHIVED]),
]


@pytest.mark.parametrize(
    ("named", "before"), [(named, status) for named, allowed in ROLES for status in allowed]
)
def test_a_deployment_takes_no_step_that_is_not_in_the_table(
    named: dict[str, Any], before: pb.VersionStatus
) -> None:
    """A version of each status, in each role."""
    versions = {"1": facts("1", status=pb.PRODUCTION_STATUS), "2": facts("2", status=before)}
    proposed = Deployment("m", **{"production": "1", **named})

    moved = statuses_after(Deployment("m", production="1"), proposed, versions)

    for label, (after, _) in moved.items():
        assert after == versions[label].status or (versions[label].status, after) in ALLOWED_STEPS


def test_a_rollout_moves_the_statuses_and_its_end_archives_the_old_version() -> None:
    """Preload stages; promotion puts the old one on standby; the end of the watch archives it."""
    one = facts("1", status=pb.PRODUCTION_STATUS, was_production=True)
    two = facts("2", status=pb.DEVELOPMENT)
    base = Deployment(model="m", production="1")
    loading = Deployment(model="m", production="1", preload=("2",))
    watch = Deployment(model="m", production="2", standby="1", standby_bp=300)
    done = Deployment(model="m", production="2")

    assert statuses_after(base, loading, {"1": one, "2": two}) == {"2": (pb.STAGING, False)}

    two = facts("2")
    assert statuses_after(loading, watch, {"1": one, "2": two}) == {
        "2": (pb.PRODUCTION_STATUS, False),
        "1": (pb.PRODUCTION_STATUS, True),
    }

    one = facts("1", status=pb.PRODUCTION_STATUS, was_production=True, standby=True)
    two = facts("2", status=pb.PRODUCTION_STATUS, was_production=True)
    assert statuses_after(watch, done, {"1": one, "2": two}) == {"1": (pb.ARCHIVED, False)}
    assert statuses_after(watch, base, {"1": one, "2": two}) == {
        "1": (pb.PRODUCTION_STATUS, False),
        "2": (pb.ARCHIVED, False),
    }
