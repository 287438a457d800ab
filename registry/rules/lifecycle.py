"""The status of a version, and the steps between statuses that are allowed. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass

from protos.registry_pb2 import (
    ARCHIVED,
    DEVELOPMENT,
    PRODUCTION_STATUS,
    STAGING,
    VersionStatus,
)
from registry.types import STATUS_NAMES, Deployment, GateError

BY_PERSON = "a person"
BY_DEPLOYMENT = "a deployment"

# All allowed steps. A test compares this table with the table in docs/governance.md.
ALLOWED_STEPS: dict[tuple[VersionStatus, VersionStatus], str] = {
    (DEVELOPMENT, STAGING): BY_PERSON,  # a deployment that preloads a version stages it as well
    (DEVELOPMENT, ARCHIVED): BY_PERSON,
    (STAGING, ARCHIVED): BY_PERSON,
    (STAGING, PRODUCTION_STATUS): BY_DEPLOYMENT,
    (PRODUCTION_STATUS, ARCHIVED): BY_DEPLOYMENT,
    (ARCHIVED, PRODUCTION_STATUS): BY_DEPLOYMENT,
}


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """The properties of a version that the gates and the status rules need."""

    label: str
    digest: str
    author: str
    status: VersionStatus
    standby: bool
    was_production: bool
    returnable: bool
    """True if it was production under an approval that stands, so that a rollback may return."""
    rejected: bool
    """True if it was rejected under every policy and not approved since."""
    input_contract: str
    entities: tuple[str, ...]
    outputs: int


def check_step_by_hand(version: VersionFacts, to: VersionStatus, *, deployed: bool) -> None:
    """Raise GateError unless a person may move *version* to the status *to*.

    deployed  True if the model's deployment has the version.
    """
    before, after = STATUS_NAMES[version.status], STATUS_NAMES.get(to, f"status {to}")
    step = ALLOWED_STEPS.get((version.status, to))
    if step == BY_DEPLOYMENT:
        raise GateError(
            f"version {version.label} is in {before}; only a deployment moves it to {after}. "
            "Deploy the version, and its status follows"
        )
    if step is None:
        allowed = [
            STATUS_NAMES[target] for source, target in ALLOWED_STEPS if source == version.status
        ]
        raise GateError(
            f"version {version.label} is in {before}, from where it may go to "
            f"{' or '.join(allowed)}; not to {after}"
        )
    if to == ARCHIVED and deployed:
        raise GateError(
            f"version {version.label} is named by the deployment; remove it from the deployment "
            "first"
        )


def statuses_after(
    current: Deployment, proposed: Deployment, versions: Mapping[str, VersionFacts]
) -> dict[str, tuple[VersionStatus, bool]]:
    """Return label -> (status, standby) for each version whose status the deployment changes.

    The production version and the standby have status production. A version that leaves both is
    archived. Any other version in the deployment that was in development moves to staging.
    """
    changed: dict[str, tuple[VersionStatus, bool]] = {}
    for label in dict.fromkeys((*proposed.versions, *current.versions)):
        version = versions[label]
        if label == proposed.production:
            new_status = (PRODUCTION_STATUS, False)
        elif label == proposed.standby:
            new_status = (PRODUCTION_STATUS, True)
        elif version.status == PRODUCTION_STATUS:
            new_status = (ARCHIVED, False)
        elif version.status == DEVELOPMENT and label in proposed.versions:
            new_status = (STAGING, False)
        else:
            continue
        if new_status != (version.status, version.standby):
            changed[label] = new_status
    return changed
