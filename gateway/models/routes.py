"""The routes of each model: its deployment and the versions that are loaded for it.

Routes are immutable. A new deployment replaces the routes of its model by one assignment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from features.contract import TIME_NAMES, ModelContract
from features.rows import ViewRows
from gateway.columns import ModelShape
from gateway.models.executor import CanaryBreaker, ModelExecutor
from gateway.models.view_reads import ViewRead, load_native_rows
from gateway.settings import Settings
from journal.score_code import ScoreRule
from registry.bundle import Bundle
from registry.types import Deployment
from stats.score_scale import CLASS_TASKS, ScoreScale

QuarantineCauses = Mapping[str, tuple[str, int]]
"""Version id (hex) of a quarantined version -> (reason, Unix ns of the first death)."""

ALIASES = {"champion": "production", "challenger": "canary"}
"""MLflow's names of two roles. A pin may use them."""


@dataclass(frozen=True)
class LoadedVersion:
    """A version that was verified, loaded, warmed and golden-tested in this process."""

    label: str
    bundle: Bundle
    executor: ModelExecutor
    files: Mapping[str, bytes]
    """The verified files of the version, from which a shadow process opens the model again."""

    @cached_property
    def id(self) -> bytes:
        """The version id: the 32 bytes of the bundle's digest."""
        return bytes.fromhex(self.bundle.digest)

    @cached_property
    def digest8(self) -> int:
        """The first 8 bytes of the id as a little-endian integer, used in windows and journals."""
        return int.from_bytes(self.id[:8], "little")

    @cached_property
    def score_rule(self) -> ScoreRule:
        """How prediction ids carry its scores: with the threshold that the version states."""
        reference = self.bundle.reference
        threshold = float(np.float32(reference.decision_threshold))
        return ScoreRule(reference.task in CLASS_TASKS, threshold)


@dataclass(frozen=True, slots=True)
class Participant:
    """A loaded version of a model, and the columns of the batch matrix that are its inputs."""

    version: LoadedVersion
    columns: NDArray[np.intp] | None
    """(F,) columns of the batch's (R, W) matrix; None when all columns in order are the inputs."""

    def matrix(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (R, F) inputs of this version, from the (R, W) matrix of a batch."""
        return batch if self.columns is None else batch[:, self.columns]


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """The serving policy of a model, with defaults from the settings. Times are in ns."""

    feature_ns: int
    canary_ns: int
    features_required: bool
    nan_scores_defaulted: bool
    default_score: float
    evidence_sampled: int
    journal_sampled: int
    journal_required: bool
    hide_role: bool
    """Whether replies and prediction ids keep from callers which version answered."""


@dataclass(frozen=True, slots=True)
class Routes:
    """The versions, views and limits that serve one model at one revision of its deployment."""

    deployment: Deployment
    shape: ModelShape
    limits: ServingLimits
    reads: tuple[ViewRead, ...]
    production: Participant
    standby: Participant | None
    canary: Participant | None
    shadows: tuple[tuple[Participant, int], ...]
    breaker: CanaryBreaker
    scale: ScoreScale
    """The scale of the baseline's reference. All arms use it, so that counts can be compared."""
    request_time: bool
    """Whether a version reads the time of the request."""
    quarantined: QuarantineCauses
    """The worker's quarantined versions at this moment (RouteTable.quarantined)."""

    @property
    def compared(self) -> bool:
        """True while a canary or standby is compared with production; they score on own threads."""
        return self.canary is not None or self.standby is not None

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.deployment.model

    def score_rule(self, version: LoadedVersion) -> ScoreRule:
        """Return how prediction ids carry the scores of *version*.

        A decision is that of the serving policy's threshold or, if it has none, of the version's.
        """
        threshold = self.deployment.policy.decision_threshold
        if not threshold:
            return version.score_rule
        return ScoreRule(version.score_rule.probability, float(np.float32(threshold)))

    def resolve_pin(self, name: str, *, any_version: bool = False) -> Participant | None:
        """Return the version that a pin names by label, role or alias; None if it has no answer.

        Only versions that answer customers have one, and none where the model hides its role. With
        the permission *any_version* all of these and shadows, by label, have one. A quarantined
        version has none, unless it is production, which answers the calls without a pin, too.
        """
        if self.limits.hide_role and not any_version:
            return None
        role = ALIASES.get(name, name)
        by_role = {
            "production": self.production,
            "standby": self.standby,
            "canary": self.canary,
        }
        if role in by_role:
            named = by_role[role]
        else:
            pinnable = [p for p in by_role.values() if p is not None]
            if any_version:
                pinnable += [shadow for shadow, _ in self.shadows]
            named = next((p for p in pinnable if p.version.label == name), None)
        if named is None or named is self.production:
            return named
        return None if named.version.bundle.digest in self.quarantined else named

    def is_shadow(self, participant: Participant) -> bool:
        """Whether a version of these routes is a shadow, which its own process scores."""
        return any(participant is shadow for shadow, _ in self.shadows)


def build_routes(
    deployment: Deployment,
    loaded: Mapping[str, LoadedVersion],
    settings: Settings,
    quarantined: QuarantineCauses | None = None,
) -> Routes:
    """Return the routes of one model: the views to read, and the input columns of each version.

    loaded       the loaded versions by label. All versions of a deployment have the same entities
                 and request inputs (the registry checks it), so one batch serves all of them.
    quarantined  RouteTable.quarantined, which the routes read at each pin. None: no version is.
    """
    # One matrix has the features of all views of all versions.
    labels = [label for label in deployment.versions if label in loaded]
    contracts = [loaded[label].bundle.contract for label in labels]
    reads, positions, width = _view_reads(contracts, settings.store_namespace)
    request_time = any(contract.request_time for contract in contracts)
    inputs = len(contracts[0].inputs) + (len(TIME_NAMES) if request_time else 0)
    participants = {
        label: Participant(version, _columns(contract, positions, width, width + inputs))
        for label, contract in zip(labels, contracts, strict=True)
        for version in [loaded[label]]
    }
    # Give each role its version.
    production = participants[deployment.production]
    baseline = participants.get(deployment.standby, production)
    canary = participants.get(deployment.canary)
    return Routes(
        deployment=deployment,
        shape=_shape(deployment, production.version.bundle.contract, settings),
        limits=_serving_limits(deployment, settings),
        reads=reads,
        production=production,
        standby=participants.get(deployment.standby),
        canary=canary,
        shadows=tuple((participants[v], bp) for v, bp in deployment.shadows if v in participants),
        breaker=CanaryBreaker(settings.breaker_faulty_runs, settings.breaker_faulty_keys),
        scale=baseline.version.bundle.reference.scale,
        request_time=request_time,
        quarantined={} if quarantined is None else quarantined,
    )


def _view_reads(
    contracts: list[ModelContract], namespace: str
) -> tuple[tuple[ViewRead, ...], dict[tuple[str, str], int], int]:
    """Return the union of the views, the column of each (view hash, feature), and their number."""
    reads: dict[str, ViewRead] = {}
    columns: dict[tuple[str, str], int] = {}
    width = 0
    for contract in contracts:
        for use in contract.views:
            view = use.view
            if view.view_hash in reads:
                continue
            positions = tuple(contract.entities.index(entity) for entity in view.entities)
            rows = ViewRows(view, namespace)
            reads[view.view_hash] = ViewRead(rows, positions, load_native_rows(rows))
            for feature in view.features:
                columns[(view.view_hash, feature.name)] = width
                width += 1
    return tuple(reads.values()), columns, width


def _columns(
    contract: ModelContract,
    positions: Mapping[tuple[str, str], int],
    stored_width: int,
    matrix_width: int,
) -> NDArray[np.intp] | None:
    stored = [positions[(u.view.view_hash, name)] for u in contract.views for name in u.features]
    # Behind the stored features are the inputs, which all versions have, and the request's time.
    time = TIME_NAMES if contract.request_time else ()
    rest = range(stored_width, stored_width + len(contract.inputs) + len(time))
    columns = np.array([*stored, *rest], dtype=np.intp)
    return None if np.array_equal(columns, np.arange(matrix_width)) else columns


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


def _serving_limits(deployment: Deployment, settings: Settings) -> ServingLimits:
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
        hide_role=policy.hide_role,
    )


class RouteTable:
    """The routes of all models by name. A batch keeps the routes with which it began."""

    def __init__(self) -> None:
        self._routes: dict[str, Routes] = {}
        self.quarantined: dict[str, tuple[str, int]] = {}
        """As QuarantineCauses: nothing of this worker runs them but as production or standby."""
        self.on_change: Callable[[str], None] | None = None
        """Called with the name of a model right after its routes were replaced or removed."""

    def get(self, model: str) -> Routes | None:
        """Return the current routes of *model*; None when it is not deployed."""
        return self._routes.get(model)

    def all(self) -> tuple[Routes, ...]:
        """Return the routes of all models, sorted by name."""
        return tuple(self._routes[name] for name in sorted(self._routes))

    def swap(self, routes: Routes) -> None:
        """Replace the routes of a model. A batch sees either the old routes or the new ones."""
        self._routes = {**self._routes, routes.model: routes}
        self._changed(routes.model)

    def drop(self, model: str) -> None:
        """Remove the routes of *model*, because its deployment has no production version."""
        self._routes = {name: r for name, r in self._routes.items() if name != model}
        self._changed(model)

    def _changed(self, model: str) -> None:
        if self.on_change is not None:
            self.on_change(model)
