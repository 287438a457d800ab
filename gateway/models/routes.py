"""The deployments and loaded versions of this moment: swapped whole, never edited."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from features.rows import ViewRows
from gateway.columns import ModelShape
from gateway.models.executor import CanaryBreaker, ModelExecutor
from gateway.models.view_reads import ViewRead, load_native_rows
from gateway.settings import Settings
from registry.bundle import Bundle
from registry.types import Deployment

ALIASES = {"champion": "production", "challenger": "canary"}
"""MLflow's words for the two roles, understood in pins."""


@dataclass(frozen=True)
class LoadedVersion:
    """A version that was verified, loaded, warmed and golden-tested in this process."""

    label: str
    bundle: Bundle
    executor: ModelExecutor
    files: Mapping[str, bytes]
    """As they were verified: for the shadow's process, which opens them anew."""

    @cached_property
    def id(self) -> bytes:
        """Its 32 raw bytes."""
        return bytes.fromhex(self.bundle.digest)

    @cached_property
    def digest8(self) -> int:
        """The first 8 bytes of its id, little-endian, as windows and journals name it."""
        return int.from_bytes(self.id[:8], "little")


@dataclass(frozen=True, slots=True)
class Participant:
    """A loaded version in one model's routes, and where its inputs lie in the batch matrix."""

    version: LoadedVersion
    columns: NDArray[np.intp] | None
    """(F,) positions in the batch's (R, W) matrix; None: the matrix is its input as it stands."""

    def matrix(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(R, F) for this version, from the batch's (R, W)."""
        return batch if self.columns is None else batch[:, self.columns]


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """A model's serving policy with the settings' defaults filled in, in ns."""

    feature_ns: int
    canary_ns: int
    features_required: bool
    nan_scores_defaulted: bool
    default_score: float
    evidence_sampled: int
    journal_sampled: int
    journal_required: bool


@dataclass(frozen=True, slots=True)
class Routes:
    """Everything a call of one model needs, at one revision of its deployment."""

    deployment: Deployment
    shape: ModelShape
    limits: ServingLimits
    reads: tuple[ViewRead, ...]
    production: Participant
    standby: Participant | None
    canary: Participant | None
    shadows: tuple[tuple[Participant, int], ...]
    breaker: CanaryBreaker
    score_edges: NDArray[np.float32]
    """The baseline's reference edges: one table for every arm, so that their counts compare."""

    @property
    def compared(self) -> bool:
        """True while arms are compared: then all but production score on threads of their own."""
        return self.canary is not None or self.standby is not None

    @property
    def model(self) -> str:
        """The model's name."""
        return self.deployment.model

    def resolve_pin(self, name: str) -> Participant | None:
        """Return the version that a pin names, by label, role or alias; None: not deployed."""
        role = ALIASES.get(name, name)
        by_role = {
            "production": self.production,
            "standby": self.standby,
            "canary": self.canary,
        }
        if role in by_role:
            return by_role[role]
        everyone = [*by_role.values(), *(shadow for shadow, _ in self.shadows)]
        return next((p for p in everyone if p is not None and p.version.label == name), None)


def build_routes(
    deployment: Deployment, loaded: Mapping[str, LoadedVersion], settings: Settings
) -> Routes:
    """Lay the tracks of one model: which views are read, and where each version finds its inputs.

    *loaded* holds every version that takes traffic or copies. All of them share the input
    contract (the registry checks), so one decoded batch feeds them all.
    """
    taking_part = [v for v in deployment.versions if v in loaded]
    reads, places, width = _reads_of([loaded[v].bundle.contract for v in taking_part])
    participants = {
        label: Participant(loaded[label], _columns(loaded[label].bundle.contract, places, width))
        for label in taking_part
    }
    production = participants[deployment.production]
    baseline = participants.get(deployment.standby, production)
    canary = participants.get(deployment.canary)
    return Routes(
        deployment=deployment,
        shape=_shape(deployment, production.version.bundle.contract, settings),
        limits=_budgets(deployment, settings),
        reads=reads,
        production=production,
        standby=participants.get(deployment.standby),
        canary=canary,
        shadows=tuple((participants[v], bp) for v, bp in deployment.shadows if v in participants),
        breaker=CanaryBreaker(settings.breaker_faulty_runs, settings.breaker_faulty_keys),
        score_edges=baseline.version.bundle.reference.score_edges,
    )


def _reads_of(
    contracts: list[ModelContract],
) -> tuple[tuple[ViewRead, ...], dict[tuple[str, str], int], int]:
    """Union of the views; where each (view hash, feature) lies; W without request inputs."""
    reads: dict[str, ViewRead] = {}
    places: dict[tuple[str, str], int] = {}
    width = 0
    for contract in contracts:
        for use in contract.views:
            view = use.view
            if view.view_hash in reads:
                continue
            positions = tuple(contract.entities.index(entity) for entity in view.entities)
            rows = ViewRows(view)
            reads[view.view_hash] = ViewRead(rows, positions, load_native_rows(rows))
            for feature in view.features:
                places[(view.view_hash, feature.name)] = width
                width += 1
    return tuple(reads.values()), places, width


def _columns(
    contract: ModelContract, positions: Mapping[tuple[str, str], int], stored_width: int
) -> NDArray[np.intp] | None:
    stored = [positions[(u.view.view_hash, name)] for u in contract.views for name in u.features]
    inputs = range(stored_width, stored_width + len(contract.inputs))
    columns = np.array([*stored, *inputs], dtype=np.intp)
    whole = np.arange(stored_width + len(contract.inputs))
    return None if np.array_equal(columns, whole) else columns


def _shape(deployment: Deployment, contract: ModelContract, settings: Settings) -> ModelShape:
    policy = deployment.policy
    rows_max = min(policy.rows_max or settings.rows_call_max, settings.rows_call_max)
    deadline_ms = policy.deadline_ms_default or settings.deadline_ms_default
    return ModelShape(
        model=deployment.model,
        entities=len(contract.entities),
        input_names=tuple(item.name for item in contract.inputs),
        dictionaries=tuple(item.dictionary for item in contract.inputs),
        input_defaults=tuple(item.default_value for item in contract.inputs),
        outputs=len(contract.outputs),
        guard=contract.guard,
        rows_max=rows_max,
        deadline_ns_default=min(deadline_ms, settings.deadline_ms_max) * 1_000_000,
        nan_inputs_refused=policy.nan_inputs_refused,
    )


def _budgets(deployment: Deployment, settings: Settings) -> ServingLimits:
    policy = deployment.policy
    return ServingLimits(
        feature_ns=(policy.feature_budget_ms or settings.feature_budget_ms) * 1_000_000,
        canary_ns=(policy.canary_budget_ms or settings.canary_budget_ms) * 1_000_000,
        features_required=policy.features_required,
        nan_scores_defaulted=policy.nan_scores_defaulted,
        default_score=policy.default_score,
        evidence_sampled=policy.evidence_sampled_of_65536 or 65_536,
        journal_sampled=policy.journal_sampled_of_65536 or 65_536,
        journal_required=policy.journal_required,
    )


class RouteTable:
    """The routes of every model, by name. Readers take one `Routes` and keep it for a batch."""

    def __init__(self) -> None:
        self._routes: dict[str, Routes] = {}

    def get(self, model: str) -> Routes | None:
        """Return the model's routes of this moment."""
        return self._routes.get(model)

    def all(self) -> tuple[Routes, ...]:
        """Return every model's routes, sorted by name."""
        return tuple(self._routes[name] for name in sorted(self._routes))

    def swap(self, routes: Routes) -> None:
        """Put one model's new routes in place: one reference, so a batch sees old or new whole."""
        self._routes = {**self._routes, routes.model: routes}

    def drop(self, model: str) -> None:
        """Stop serving *model*: its deployment names no production version any more."""
        self._routes = {name: r for name, r in self._routes.items() if name != model}
