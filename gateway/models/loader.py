"""From a deployment to routes: fetch, prove, load, golden-test, warm, swap whole, keep on disk.

A version that is altered, truncated or off its golden rows never becomes READY, nor does one that
crashes, hangs or eats the child that opens it first; whatever served before goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from gateway.clock import Clock
from gateway.isolation.breadcrumbs import BreadcrumbPage
from gateway.models.disk_cache import DiskCache
from gateway.models.executor import ModelExecutor
from gateway.models.native_trees import NativeTrees, choose_scorer
from gateway.models.routes import LoadedVersion, RouteTable, build_routes
from gateway.settings import Settings
from protos.registry_pb2 import VersionLoad
from registry.bundle import Bundle, golden_test, load_session, verify_bundle, warm_up
from registry.types import Deployment, DeploymentError, RegistryError, VersionRefusedError

log = logging.getLogger(__name__)

FetchVersion = Callable[[str, str], Awaitable[dict[str, bytes]]]
"""(model, version) to its files, from the registry; raises RegistryError."""

ProbeVersion = Callable[[str, Mapping[str, bytes]], Awaitable[None]]
"""`Prober.prove` of gateway.isolation: returns when this host may open the version; else raises."""

RETRY_S = 0.5
"""Between tries to fetch a version while the registry cannot be reached."""


@dataclass(slots=True)
class LoadState:
    """What this worker says of one version."""

    model: str
    label: str
    digest: str
    state: "VersionLoad.State"
    reason: str = ""


class Loader:
    """Brings this worker to what the registry deploys. Touched by the event loop's thread only."""

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
        breadcrumbs: BreadcrumbPage,
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
        """By digest."""
        self.applied: dict[str, tuple[int, int]] = {}
        """model -> (revision, when its routes were swapped in, Unix ns)."""

    @property
    def revisions(self) -> dict[str, int]:
        """Model -> the newest revision this worker was told."""
        return {model: deployment.revision for model, deployment in self._targets.items()}

    def deploy(self, deployment: Deployment) -> None:
        """Begin to bring one model to *deployment*; a newer one overtakes an older at once.

        An older or repeated revision changes nothing.
        """
        held = self._targets.get(deployment.model)
        if held is not None and held.revision >= deployment.revision:
            return
        self._targets[deployment.model] = deployment
        before = self._deploy_tasks.pop(deployment.model, None)
        if before is not None:
            before.cancel()
        task = asyncio.get_running_loop().create_task(self._deploy(deployment))
        self._deploy_tasks[deployment.model] = task
        task.add_done_callback(self._on_deploy_done)

    async def wait_settled(self) -> None:
        """Return when every deployment told so far is applied, or cannot be."""
        while pending := [task for task in self._deploy_tasks.values() if not task.done()]:
            await asyncio.wait(pending)

    def _on_deploy_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("deployment_not_applied error=%r", error)

    async def _deploy(self, deployment: Deployment) -> None:
        loads = {label: self._load(deployment, label) for label in deployment.versions}
        loaded: dict[str, LoadedVersion] = {}
        for label in deployment.versions:
            try:
                loaded[label] = await asyncio.shield(loads[label])
            except VersionRefusedError:
                continue
        self._apply(deployment, loaded)

    def _apply(self, deployment: Deployment, loaded: dict[str, LoadedVersion]) -> None:
        served = self._route_table.get(deployment.model)
        needed = set(deployment.versions) - set(deployment.preload)
        refused = sorted(needed - set(loaded))
        if refused and served is not None:
            log.error(
                "deployment_refused model=%s revision=%d versions=%s; revision %d serves on",
                deployment.model,
                deployment.revision,
                refused,
                served.deployment.revision,
            )
            return
        if not deployment.production or deployment.production not in loaded:
            self._route_table.drop(deployment.model)
        else:
            able = without_versions(deployment, refused)
            self._route_table.swap(build_routes(able, loaded, self._settings))
        self.applied[deployment.model] = (deployment.revision, self._clock.unix_ns())
        log.info(
            "deployed model=%s revision=%d production=%s canary=%s:%d why=%s",
            deployment.model,
            deployment.revision,
            deployment.production,
            deployment.canary,
            deployment.canary_bp,
            deployment.why,
        )
        if not refused:
            self._save_or_warn(
                "deployment", deployment.model, self._disk.save_deployment, deployment
            )
        self._unload_unused()
        self._on_change()

    def _load(self, deployment: Deployment, label: str) -> "asyncio.Task[LoadedVersion]":
        digest = deployment.digest(label)
        task = self._loads.get(digest)
        if task is None:
            held = LoadState(deployment.model, label, digest, VersionLoad.LOADING)
            self.load_states[digest] = held
            task = asyncio.get_running_loop().create_task(self._make_ready(held))
            self._loads[digest] = task
            task.add_done_callback(_mark_error_seen)
        return task

    async def _make_ready(self, state: LoadState) -> LoadedVersion:
        """Get one version ready, from disk or from the registry."""
        self._on_change()
        try:
            version = await self._from_disk(state) or await self._from_registry(state)
        except VersionRefusedError as error:
            state.state, state.reason = VersionLoad.REFUSED, str(error)
            log.warning(
                "version_refused model=%s version=%s reason=%s",
                state.model,
                state.label,
                state.reason,
            )
            self._on_change()
            raise
        state.state = VersionLoad.READY
        self._on_change()
        return version

    async def _from_disk(self, state: LoadState) -> LoadedVersion | None:
        try:
            files = await asyncio.to_thread(self._disk.read_version, state.digest)
            return None if files is None else await self._verify_probe_and_open(state, files)
        except VersionRefusedError as error:
            log.warning(
                "version_on_disk_refused model=%s version=%s reason=%s; fetching it anew",
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
        keep = self._disk.save_version
        await asyncio.to_thread(
            self._save_or_warn, "version", state.label, keep, state.digest, files
        )
        return version

    @staticmethod
    def _save_or_warn(what: str, name: str, save: Callable[..., None], *content: object) -> None:
        """Keep something on disk; a disk that refuses must not stop a rollback."""
        try:
            save(*content)
        except (OSError, RegistryError) as error:
            log.warning(
                "not_kept %s=%s error=%s; it serves, but not after a restart without the registry",
                what,
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
        """Let go of versions that no deployment names any more."""
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
    """Make a version ready to serve, or raise VersionRefusedError. Blocks: run it in a thread."""
    bundle = verify_bundle(files, trusted_key=trusted_key, expected_digest=digest)
    return open_version(label, bundle, files, BreadcrumbPage())


def open_version(
    label: str, bundle: Bundle, files: Mapping[str, bytes], breadcrumbs: BreadcrumbPage
) -> LoadedVersion:
    """Open a verified version, golden-test and warm it. Blocks: run it in a thread."""
    session = load_session(bundle)
    golden_test(bundle, session)
    warm_up(bundle, session)
    scorer = choose_scorer(bundle, session)
    brief = isinstance(scorer, NativeTrees) and scorer.short_runs
    lane = ModelExecutor(
        breadcrumbs.wrap_scorer(bundle.digest, scorer), session.outputs, short_runs=brief
    )
    return LoadedVersion(label, bundle, lane, files)


def without_versions(deployment: Deployment, refused: list[str]) -> Deployment:
    """Return *deployment* less the versions that cannot be served: production alone if need be."""
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
    """Mark a load's failure as seen: whoever waits for it sees it too, and perhaps nobody does."""
    if not task.cancelled():
        task.exception()
