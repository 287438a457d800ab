"""Tests of the table of version statuses."""

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
from tests.registry.rules.test_gates import version_facts

STATUSES = [pb.DEVELOPMENT, pb.STAGING, pb.PRODUCTION_STATUS, pb.ARCHIVED]


@pytest.mark.parametrize(("before", "after"), list(product(STATUSES, [*STATUSES, 9])))
def test_lifecycle_allows_a_person_the_steps_of_the_table(
    before: pb.VersionStatus, after: pb.VersionStatus
) -> None:
    """All pairs of statuses, and an unknown status, are tried."""
    step = ALLOWED_STEPS.get((before, after))

    if step == BY_PERSON:
        check_step_by_hand(version_facts("2", status=before), after, deployed=False)
    else:
        message = "only a deployment" if step == BY_DEPLOYMENT else "may go to"
        with pytest.raises(GateError, match=message):
            check_step_by_hand(version_facts("2", status=before), after, deployed=False)


def test_lifecycle_allows_no_person_to_set_production() -> None:
    """The table has production as a step of deployments only."""
    assert {by for (_, to), by in ALLOWED_STEPS.items() if to == pb.PRODUCTION_STATUS} == {
        BY_DEPLOYMENT
    }


def test_lifecycle_refuses_to_archive_a_deployed_version() -> None:
    """It must be removed from the deployment first."""
    with pytest.raises(GateError, match="named by the deployment"):
        check_step_by_hand(version_facts("2"), pb.ARCHIVED, deployed=True)


# What the gates let through: a version in development is preloaded, first that was never production
# does not stand by.
ROLES = [
    ({}, STATUSES),
    ({"preload": ("2",)}, STATUSES),
    ({"production": "2"}, [pb.STAGING, pb.PRODUCTION_STATUS, pb.ARCHIVED]),
    ({"canary": "2"}, [pb.STAGING, pb.PRODUCTION_STATUS, pb.ARCHIVED]),
    ({"standby": "2"}, [pb.PRODUCTION_STATUS, pb.ARCHIVED]),
]


@pytest.mark.parametrize(
    ("roles", "before"), [(roles, status) for roles, allowed in ROLES for status in allowed]
)
def test_lifecycle_moves_versions_by_steps_of_the_table_only(
    roles: dict[str, Any], before: pb.VersionStatus
) -> None:
    """A version of each status is tried in each role."""
    versions = {
        "1": version_facts("1", status=pb.PRODUCTION_STATUS),
        "2": version_facts("2", status=before),
    }
    proposed = Deployment("m", **{"production": "1", **roles})

    moved = statuses_after(Deployment("m", production="1"), proposed, versions)

    for label, (after, _) in moved.items():
        assert after == versions[label].status or (versions[label].status, after) in ALLOWED_STEPS


def test_lifecycle_follows_a_rollout_from_preload_to_the_end_of_the_watch() -> None:
    """Preload stages the version.

    Promotion makes the old version standby, and the end archives it.
    """
    first = version_facts("1", status=pb.PRODUCTION_STATUS, was_production=True)
    second = version_facts("2", status=pb.DEVELOPMENT)
    base = Deployment(model="m", production="1")
    loading = Deployment(model="m", production="1", preload=("2",))
    watch = Deployment(model="m", production="2", standby="1", standby_bp=300)
    done = Deployment(model="m", production="2")

    assert statuses_after(base, loading, {"1": first, "2": second}) == {"2": (pb.STAGING, False)}

    second = version_facts("2")
    assert statuses_after(loading, watch, {"1": first, "2": second}) == {
        "2": (pb.PRODUCTION_STATUS, False),
        "1": (pb.PRODUCTION_STATUS, True),
    }

    first = version_facts("1", status=pb.PRODUCTION_STATUS, was_production=True, standby=True)
    second = version_facts("2", status=pb.PRODUCTION_STATUS, was_production=True)
    assert statuses_after(watch, done, {"1": first, "2": second}) == {"1": (pb.ARCHIVED, False)}
    assert statuses_after(watch, base, {"1": first, "2": second}) == {
        "1": (pb.PRODUCTION_STATUS, False),
        "2": (pb.ARCHIVED, False),
    }
