"""The loader: from a deployment to routes.

A version is fetched, verified, probed in a child process, opened, golden-tested and warmed. Then
the model's routes are replaced as a whole, and the deployment is saved on disk. A version that is
altered, truncated or wrong on its golden rows never becomes READY. Neither does a version that
crashes, hangs or exhausts the child process. The versions that served before go on serving.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.models.disk_cache import DiskCache
from gateway.models.executor import ModelExecutor, Scorer
from gateway.models.native_scorer import NativeScorer, choose_scorer
from gateway.models.routes import LoadedVersion, Routes, RouteTable, build_routes
from gateway.settings import Settings
from host.clock import Clock
from protos.registry_pb2 import VersionLoad
from registry.bundle import Bundle, verify_bundle
from registry.scoring import golden_test, load_session, warm_up
from registry.signed import SignedDeployment
from registry.types import Deployment, DeploymentError, RegistryError, VersionRefusedError

log = logging.getLogger(__name__)

FetchVersion = Callable[[str, str], Awaitable[dict[str, bytes]]]
"""Fetches (model, version digest) from the registry as file name -> bytes. Raises RegistryError."""

ProbeVersion = Callable[[str, Mapping[str, bytes]], Awaitable[None]]
"""Opens (digest, files) in a child process first (gateway.isolation.prober.Prober.prove). Raises
VersionRefusedError if the version must not be opened on this host."""
RETRY_S = 0.5
"""Time between two attempts to fetch a version while the registry cannot be reached."""


class ScorerMarks(Protocol):
    """Marks which versions run, so that a crash can be blamed (gateway.isolation.breadcrumbs)."""

    def wrap_scorer(self, digest: str, scorer: Scorer) -> Scorer:
        """Return *scorer* so that each of its runs is marked."""
        ...

    def release_cell(self, digest: str) -> None:
        """Free the mark of a version that is not loaded any more."""
        ...


class NoMarks:
    """Breadcrumbs of a process that has no supervisor: it marks no run."""

    def wrap_scorer(self, digest: str, scorer: Scorer) -> Scorer:
        """Return *scorer* as it is."""
        del digest
        return scorer

    def release_cell(self, digest: str) -> None:
        """Do nothing, because no cell was taken."""


@dataclass(frozen=True, slots=True)
class LoaderStatistics:
    """What a loader has and does at one moment."""

    versions: dict[str, str]
    """"model label" -> load state, and the reason if there is one."""
    revisions: dict[str, int]
    """Model -> revision whose routes are in use."""
    deploying: int
    """Deployments that are being applied."""


@dataclass(slots=True)
class LoadState:
    """The state of one version in this worker: LOADING, READY or REFUSED, and why."""

    model: str
    label: str
    digest: str
    state: "VersionLoad.State"
    reason: str = ""


class Loader:
    """Brings this worker to what the registry deploys. Touched by the event loop's thread only.

    trusted_key  returns the public key that must have signed every version. None: no check.
    on_change    is called when routes were replaced or a load state has changed.
    """

    def __init__(
        self,
        settings: Settings,
        route_table: RouteTable,
        disk: DiskCache,
        fetch: FetchVersion,
        trusted_key: Callable[[], bytes | None],
        clock: Clock,
        on_change: Callable[[], None],
        probe: ProbeVersion,
        breadcrumbs: ScorerMarks,
    ) -> None:
        self._settings = settings
        self._probe_version = probe
        self._breadcrumbs = breadcrumbs
        self._route_table = route_table
        self._disk = disk
        self._fetch = fetch
        self._trusted_key = trusted_key
        self._clock = clock
        self._on_change = on_change
        self._targets: dict[str, Deployment] = {}
        self._deploy_tasks: dict[str, asyncio.Task[None]] = {}
        self._loads: dict[str, asyncio.Task[LoadedVersion]] = {}
        self.load_states: dict[str, LoadState] = {}
        """Digest -> load state."""
        self.applied: dict[str, tuple[int, int]] = {}
        """Model -> (revision, Unix ns at which its routes were replaced)."""

    @property
    def targets(self) -> Mapping[str, Deployment]:
        """Model -> the newest deployment that this worker knows."""
        return self._targets

    def statistics(self) -> LoaderStatistics:
        """Return a snapshot of versions, revisions and work in progress."""
        versions = {}
        for state in self.load_states.values():
            name = VersionLoad.State.Name(state.state)
            text = f"{name}: {state.reason}" if state.reason else name
            versions[f"{state.model} {state.label}"] = text
        revisions = {model: revision for model, (revision, _) in self.applied.items()}
        deploying = sum(not task.done() for task in self._deploy_tasks.values())
        return LoaderStatistics(versions, revisions, deploying)

    def deploy(self, signed: SignedDeployment) -> None:
        """Start to bring one model to a verified deployment. A newer one replaces it at once.

        An older or repeated revision changes nothing; RegistryTrust raises the alarm.
        """
        deployment = signed.deployment
        target = self._targets.get(deployment.model)
        if target is not None and target.revision >= deployment.revision:
            return
        self._targets[deployment.model] = deployment
        replaced = self._deploy_tasks.pop(deployment.model, None)
        if replaced is not None:
            replaced.cancel()
        task = asyncio.get_running_loop().create_task(self._deploy(signed))
        self._deploy_tasks[deployment.model] = task
        task.add_done_callback(self._on_deploy_done)

    async def wait_settled(self) -> None:
        """Return when every deployment so far is applied or has failed."""
        while pending := [task for task in self._deploy_tasks.values() if not task.done()]:
            await asyncio.wait(pending)

    def _on_deploy_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("deployment_not_applied error=%r", error)

    async def _deploy(self, signed: SignedDeployment) -> None:
        """Load every version of a deployment, all at the same time, and apply what came of it."""
        deployment = signed.deployment
        loads = {label: self._load(deployment, label) for label in deployment.versions}
        loaded: dict[str, LoadedVersion] = {}
        for label in deployment.versions:
            try:
                loaded[label] = await asyncio.shield(loads[label])
            except VersionRefusedError:
                continue
        self._apply(signed, loaded)

    def _apply(self, signed: SignedDeployment, loaded: dict[str, LoadedVersion]) -> None:
        """Replace the routes of one model, unless a version it needs was refused."""
        deployment = signed.deployment
        current = self._route_table.get(deployment.model)
        needed = set(deployment.versions) - set(deployment.preload)
        refused = sorted(needed - set(loaded))
        # A model that is served keeps its routes. A new model serves with the versions it has.
        if refused and current is not None:
            log.error(
                "deployment_refused model=%s revision=%d versions=%s; revision %d serves on",
                deployment.model,
                deployment.revision,
                refused,
                current.deployment.revision,
            )
            return
        if not deployment.production or deployment.production not in loaded:
            self._route_table.drop(deployment.model)
        else:
            servable = without_versions(deployment, refused)
            self._route_table.swap(self._build_routes(servable, loaded))
        self.applied[deployment.model] = (deployment.revision, self._clock.unix_ns())
        log.info(
            "deployed model=%s revision=%d production=%s canary=%s:%d reason=%s",
            deployment.model,
            deployment.revision,
            deployment.production,
            deployment.canary,
            deployment.canary_bp,
            deployment.why,
        )
        # Save what is complete, so that a restart without the registry serves the same.
        trusted_key = self._trusted_key()
        if not refused and trusted_key is not None:
            save = self._disk.save_deployment
            self._save_or_warn("deployment", deployment.model, save, signed, trusted_key)
        self._unload_unused()
        self._on_change()

    def _build_routes(self, servable: Deployment, loaded: dict[str, LoadedVersion]) -> Routes:
        return build_routes(servable, loaded, self._settings, self._route_table.quarantined)

    def _load(self, deployment: Deployment, label: str) -> "asyncio.Task[LoadedVersion]":
        """Return the task that loads a version. Deployments with the same version share it."""
        digest = deployment.digest(label)
        task = self._loads.get(digest)
        if task is None:
            state = LoadState(deployment.model, label, digest, VersionLoad.LOADING)
            self.load_states[digest] = state
            only_preloaded = label in deployment.preload
            task = asyncio.get_running_loop().create_task(self._make_ready(state, only_preloaded))
            self._loads[digest] = task
            task.add_done_callback(_mark_error_seen)
        return task

    async def _make_ready(self, state: LoadState, only_preloaded: bool) -> LoadedVersion:
        """Load one version from disk, or from the registry if the disk does not have it."""
        self._on_change()
        try:
            if only_preloaded:
                self._refuse_quarantined(state)
            version = await self._from_disk(state) or await self._from_registry(state)
        except Exception as error:
            if isinstance(error, VersionRefusedError):
                refused = error
            else:
                log.exception("load_failed model=%s version=%s", state.model, state.label)
                refused = VersionRefusedError(f"loading it failed: {error!r}")
            state.state, state.reason = VersionLoad.REFUSED, str(refused)
            log.warning(
                "version_refused model=%s version=%s reason=%s",
                state.model,
                state.label,
                state.reason,
            )
            self._on_change()
            raise refused from error
        state.state = VersionLoad.READY
        self._on_change()
        return version

    def _refuse_quarantined(self, state: LoadState) -> None:
        """Refuse to prepare a version for traffic that workers of this host died of."""
        if state.digest in self._route_table.quarantined:
            reason, _ = self._route_table.quarantined[state.digest]
            raise VersionRefusedError(
                f"it is quarantined on this host: {reason}. Register a corrected version; the "
                "quarantine ends when the gateway is restarted"
            )

    async def _from_disk(self, state: LoadState) -> LoadedVersion | None:
        try:
            files = await asyncio.to_thread(self._disk.read_version, state.digest)
            return None if files is None else await self._verify_probe_and_open(state, files)
        except VersionRefusedError as error:
            log.warning(
                "version_on_disk_refused model=%s version=%s reason=%s; fetching it again",
                state.model,
                state.label,
                error,
            )
            self._disk.move_refused_version(state.digest)
            return None

    async def _from_registry(self, state: LoadState) -> LoadedVersion:
        while True:
            try:
                files = await self._fetch(state.model, state.digest)
                break
            except RegistryError as error:
                state.reason = f"waiting for the registry: {error}"
                await asyncio.sleep(RETRY_S)
        state.reason = ""
        version = await self._verify_probe_and_open(state, files)
        save = self._disk.save_version
        await asyncio.to_thread(
            self._save_or_warn, "version", state.label, save, state.digest, files
        )
        return version

    @staticmethod
    def _save_or_warn(kind: str, name: str, save: Callable[..., None], *content: object) -> None:
        """Save something on disk. A disk that fails must not stop a rollback, so it only warns."""
        try:
            save(*content)
        except (OSError, RegistryError) as error:
            log.warning(
                "not_saved %s=%s error=%s; it serves, but not after a restart without the registry",
                kind,
                name,
                error,
            )

    async def _verify_probe_and_open(
        self, state: LoadState, files: dict[str, bytes]
    ) -> LoadedVersion:
        bundle = await asyncio.to_thread(
            verify_bundle, files, trusted_key=self._trusted_key(), expected_digest=state.digest
        )
        await self._probe_version(state.digest, files)
        return await asyncio.to_thread(open_version, state.label, bundle, files, self._breadcrumbs)

    def _unload_unused(self) -> None:
        """Unload the versions that no deployment names any more."""
        named = {digest for d in self._targets.values() for _, digest in d.digests}
        for digest in set(self._loads) - named:
            task = self._loads.pop(digest)
            self.load_states.pop(digest, None)
            self._breadcrumbs.release_cell(digest)
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().executor.close()
            elif not task.done():
                task.cancel()


def verify_and_open(
    label: str, files: dict[str, bytes], trusted_key: bytes | None, digest: str | None
) -> LoadedVersion:
    """Verify a version and open it, without a probe. Blocks, so run it in a thread.

    trusted_key  None skips the signature check; digest None skips the check of the id.

    Raises VersionRefusedError.
    """
    bundle = verify_bundle(files, trusted_key=trusted_key, expected_digest=digest)
    return open_version(label, bundle, files, NoMarks())


def open_version(
    label: str, bundle: Bundle, files: Mapping[str, bytes], breadcrumbs: ScorerMarks
) -> LoadedVersion:
    """Open a verified version, golden-test it and warm it. Blocks, so run it in a thread.

    Raises VersionRefusedError.
    """
    session = load_session(bundle)
    golden_test(bundle, session)
    warm_up(bundle, session)
    scorer = choose_scorer(bundle, session)
    short_runs = isinstance(scorer, NativeScorer) and scorer.short_runs
    marked = breadcrumbs.wrap_scorer(bundle.digest, scorer)
    executor = ModelExecutor(marked, session.outputs, short_runs=short_runs)
    return LoadedVersion(label, bundle, executor, files)


def without_versions(deployment: Deployment, refused: list[str]) -> Deployment:
    """Return *deployment* without the refused versions, or with production alone if it must be."""
    if not refused:
        return deployment
    try:
        return replace(
            deployment,
            canary="" if deployment.canary in refused else deployment.canary,
            canary_bp=0 if deployment.canary in refused else deployment.canary_bp,
            standby="" if deployment.standby in refused else deployment.standby,
            standby_bp=0 if deployment.standby in refused else deployment.standby_bp,
            shadows=tuple((v, bp) for v, bp in deployment.shadows if v not in refused),
        )
    except DeploymentError:
        return replace(deployment, canary="", canary_bp=0, standby="", standby_bp=0, shadows=())


def _mark_error_seen(task: "asyncio.Task[LoadedVersion]") -> None:
    """Mark the exception of a load as retrieved: perhaps no deployment waits for it any more."""
    if not task.cancelled():
        task.exception()
