"""What runs in an environment: versions with the views that they read, approvals, settings."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.json_format import MessageToDict

from features.contract import ModelContract
from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import STATUS_NAMES, Deployment, standing_approvals

CALLS_MAX = 16
"""Calls to the registry that are open at once."""


@dataclass(frozen=True, slots=True)
class FleetVersion:
    """A version that is not archived."""

    model: str
    label: str
    status: str
    """Such as "staging"."""
    role: str
    """Such as "production" or "canary"; empty when no gateway runs it."""
    rolling: bool
    """Whether it is the candidate of a rollout."""
    views: tuple[tuple[str, str], ...] | None
    """(name, hash) of each view that it reads; None: its contract cannot be read."""

    @property
    def shown(self) -> str:
        """The version in a sentence."""
        state = self.role or self.status
        rolling = ", in a rollout" if self.rolling else ""
        return f"{self.model} {self.label} ({state}{rolling})"


@dataclass(frozen=True, slots=True)
class FleetApproval:
    """An approval that stands."""

    model: str
    version: str
    policy: str
    digest: str
    """The digest of the policy, hex."""
    approver: str


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """The part of a registry that a plan looks at."""

    versions: tuple[FleetVersion, ...] = ()
    approvals: tuple[FleetApproval, ...] = ()
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    live_contracts: Mapping[str, ModelContract] = field(default_factory=dict)
    """Model -> the contract of the version in production, for the models that were asked for."""


async def read_fleet(client: RegistryClient, contracts_of: Collection[str] = ()) -> FleetSnapshot:
    """Return what runs now. Raises RegistryError.

    contracts_of  models whose contract in production is wanted.
    """
    summaries = await client.list_models()
    deployments = {
        summary.model: Deployment.from_proto(summary.deployment) for summary in summaries
    }
    limit = asyncio.Semaphore(CALLS_MAX)

    async def versions_of(model: str) -> list[pb.Version]:
        async with limit:
            return await client.list_versions(model)

    async def approvals_of(version: pb.Version) -> list[pb.Approval]:
        async with limit:
            return await client.approvals(version.model, version.label)

    async def contract_of(model: str) -> ModelContract:
        async with limit:
            return await client.fetch_contract(model, deployments[model].production)

    # Archived versions run nowhere and can be approved no more.
    listed = await asyncio.gather(*(versions_of(summary.model) for summary in summaries))
    versions = [item for some in listed for item in some if item.status != pb.ARCHIVED]
    approvals = await asyncio.gather(*(approvals_of(version) for version in versions))
    # What callers send now is in the contract of the version that answers them.
    live = [
        model for model in contracts_of if model in deployments and deployments[model].production
    ]
    contracts = await asyncio.gather(*(contract_of(model) for model in live))
    return FleetSnapshot(
        versions=tuple(_fleet_version(item, deployments[item.model]) for item in versions),
        approvals=tuple(item for some in approvals for item in _standing(some)),
        deployments=deployments,
        live_contracts=dict(zip(live, contracts, strict=True)),
    )


def _standing(approvals: Sequence[pb.Approval]) -> list[FleetApproval]:
    return [
        FleetApproval(item.model, item.version, item.policy_name, item.policy_digest, item.approver)
        for item in standing_approvals(approvals)
        if item.policy_digest
    ]


def _fleet_version(version: pb.Version, deployment: Deployment) -> FleetVersion:
    shadows = [label for label, _ in deployment.shadows]
    roles = {
        **dict.fromkeys(deployment.preload, "preloaded"),
        **dict.fromkeys(shadows, "shadow"),
        deployment.standby: "standby",
        deployment.canary: "canary",
        deployment.production: "production",
    }
    role = roles.get(version.label, "")
    candidates = [deployment.canary, *shadows]
    return FleetVersion(
        model=version.model,
        label=version.label,
        status=STATUS_NAMES.get(version.status, "unknown"),
        role=role,
        rolling=bool(deployment.rollout_id) and version.label in candidates,
        views=None
        if version.views_unknown
        else tuple((view.name, view.hash) for view in version.views),
    )


def serving_json(policy: pb.ServingPolicy) -> dict[str, object]:
    """Return the fields of *policy* that are not 0, as in the definitions of a project."""
    fields: dict[str, object] = MessageToDict(policy, preserving_proto_field_name=True)
    return fields
