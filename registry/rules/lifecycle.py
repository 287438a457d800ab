"""Where a version stands, and every step it may take. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from protos.registry_pb2 import (
    ARCHIVED,
    DEVELOPMENT,
    PRODUCTION_STATUS,
    STAGING,
    VersionStatus,
)
from registry.types import Deployment, GateError

STATUS_NAMES: dict[VersionStatus, str] = {
    DEVELOPMENT: "development",
    STAGING: "staging",
    PRODUCTION_STATUS: "production",
    ARCHIVED: "archived",
}

BY_PERSON = "a person"
BY_DEPLOYMENT = "a deployment"

# A step that is not here is not taken. docs/governance.md draws its diagram from this table.
ALLOWED_STEPS: dict[tuple[VersionStatus, VersionStatus], str] = {
    (DEVELOPMENT, STAGING): BY_PERSON,  # a deployment that tries a version stages it, too
    (DEVELOPMENT, ARCHIVED): BY_PERSON,
    (STAGING, ARCHIVED): BY_PERSON,
    (STAGING, PRODUCTION_STATUS): BY_DEPLOYMENT,
    (PRODUCTION_STATUS, ARCHIVED): BY_DEPLOYMENT,
    (ARCHIVED, PRODUCTION_STATUS): BY_DEPLOYMENT,
}


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What the gates must know of one version."""

    label: str
    digest: str
    author: str
    status: VersionStatus
    standby: bool
    was_production: bool
    input_contract: str
    entities: tuple[str, ...]
    outputs: int


def check_step_by_hand(version: VersionFacts, to: VersionStatus, *, deployed: bool) -> None:
    """Raise GateError unless a person may move *version* to the status *to*.

    deployed  the model's deployment names it.
    """
    before, after = STATUS_NAMES[version.status], STATUS_NAMES.get(to, f"status {to}")
    who = ALLOWED_STEPS.get((version.status, to))
    if who == BY_DEPLOYMENT:
        raise GateError(
            f"version {version.label} is in {before}; only a deployment moves it to {after}: "
            "deploy what shall answer, and the statuses follow"
        )
    if who is None:
        ways = [
            STATUS_NAMES[b] for (a, b), by in ALLOWED_STEPS.items() if a == version.status and by
        ]
        raise GateError(
            f"version {version.label} is in {before}, from where it may go to "
            f"{' or '.join(ways)}; not to {after}"
        )
    if to == ARCHIVED and deployed:
        raise GateError(
            f"version {version.label} is named by the deployment; take it out of there first"
        )


def statuses_after(
    current: Deployment, proposed: Deployment, versions: Mapping[str, VersionFacts]
) -> dict[str, tuple[VersionStatus, bool]]:
    """Return label -> (status, standby) of each version whose place the deployment changes.

    What becomes production is production; what leaves production stays so while it stands by,
    and is archived when it leaves; whatever else is named is being tried, so it is staging.
    """
    changed: dict[str, tuple[VersionStatus, bool]] = {}
    for label in dict.fromkeys((*proposed.versions, *current.versions)):
        version = versions[label]
        if label == proposed.production:
            place = (PRODUCTION_STATUS, False)
        elif label == proposed.standby:
            place = (PRODUCTION_STATUS, True)
        elif version.status == PRODUCTION_STATUS:
            place = (ARCHIVED, False)
        elif version.status == DEVELOPMENT and label in proposed.versions:
            place = (STAGING, False)
        else:
            continue
        if place != (version.status, version.standby):
            changed[label] = place
    return changed
