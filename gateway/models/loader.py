"""From a deployment to routes: fetch, prove, load, golden-test, warm, swap whole, keep on disk.

A version that is altered, truncated or off its golden rows never becomes READY, nor does one that
crashes, hangs or eats the child that opens it first; whatever served before goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from gateway.clock import Clock
from gateway.isolation.breadcrumbs import Page
from gateway.models.disk_cache import Disk
from gateway.models.executor import Lane
from gateway.models.native_trees import NativeTrees, quicker
from gateway.models.routes import Deployed, LoadedVersion, build_routes
from gateway.settings import Settings
from protos.registry_pb2 import HeldVersion
from registry.bundle import Bundle, golden_test, load, verify, warm
from registry.types import Deployment, DeploymentError, RegistryError, VersionRefusedError

log = logging.getLogger(__name__)

Fetch = Callable[[str, str], Awaitable[dict[str, bytes]]]
"""(model, version) to its files, from the registry; raises RegistryError."""

Probe = Callable[[str, Mapping[str, bytes]], Awaitable[None]]
"""`Prober.prove` of gateway.isolation: returns when this host may open the version; else raises."""

RETRY_S = 0.5
"""Between tries to fetch a version while the registry cannot be reached."""


@dataclass(slots=True)
class Held:
    """What this worker says of one version."""

    model: str
    label: str
    digest: str
    state: "HeldVersion.State"
    reason: str = ""


class Loader:
    """Brings this worker to what the registry deploys. Touched by the event loop's thread only."""

    def __init__(
        self,
        settings: Settings,
        deployed: Deployed,
        disk: Disk,
        fetch: Fetch,
        trusted_key: Callable[[], bytes | None],
        clock: Clock,
        on_change: Callable[[], None],
        probe: Probe,
        page: Page,
    ) -> None:
        self._settings = settings
        self._probe = probe
        self._page = page
        self._deployed = deployed
        self._disk = disk
        self._fetch = fetch
        self._trusted_key = trusted_key
        self._clock = clock
        self._on_change = on_change
        self._wanted: dict[str, Deployment] = {}
        self._obeying: dict[str, asyncio.Task[None]] = {}
        self._loads: dict[str, asyncio.Task[LoadedVersion]] = {}
        self.held: dict[str, Held] = {}
        """By digest."""
        self.applied: dict[str, tuple[int, int]] = {}
        """model -> (revision, when its routes were swapped in, Unix ns)."""

    @property
    def revisions(self) -> dict[str, int]:
        """Model -> the newest revision this worker was told."""
        return {model: deployment.revision for model, deployment in self._wanted.items()}

    def obey(self, deployment: Deployment) -> None:
        """Begin to bring one model to *deployment*; a newer one overtakes an older at once.

        An older or repeated revision changes nothing.
        """
        held = self._wanted.get(deployment.model)
        if held is not None and held.revision >= deployment.revision:
            return
        self._wanted[deployment.model] = deployment
        before = self._obeying.pop(deployment.model, None)
        if before is not None:
            before.cancel()
        task = asyncio.get_running_loop().create_task(self._obey(deployment))
        self._obeying[deployment.model] = task
        task.add_done_callback(self._obeyed)

    async def settled(self) -> None:
        """Return when every deployment told so far is applied, or cannot be."""
        while pending := [task for task in self._obeying.values() if not task.done()]:
            await asyncio.wait(pending)

    def _obeyed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("deployment_not_applied error=%r", error)

    async def _obey(self, deployment: Deployment) -> None:
        loads = {label: self._load(deployment, label) for label in deployment.versions}
        loaded: dict[str, LoadedVersion] = {}
        for label in deployment.versions:
            try:
                loaded[label] = await asyncio.shield(loads[label])
            except VersionRefusedError:
                continue
        self._apply(deployment, loaded)

    def _apply(self, deployment: Deployment, loaded: dict[str, LoadedVersion]) -> None:
        served = self._deployed.get(deployment.model)
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
            self._deployed.drop(deployment.model)
        else:
            able = without(deployment, refused)
            self._deployed.swap(build_routes(able, loaded, self._settings))
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
            self._kept("deployment", deployment.model, self._disk.keep_deployment, deployment)
        self._forget()
        self._on_change()

    def _load(self, deployment: Deployment, label: str) -> "asyncio.Task[LoadedVersion]":
        digest = deployment.digest(label)
        task = self._loads.get(digest)
        if task is None:
            held = Held(deployment.model, label, digest, HeldVersion.LOADING)
            self.held[digest] = held
            task = asyncio.get_running_loop().create_task(self._bring(held))
            self._loads[digest] = task
            task.add_done_callback(_retrieved)
        return task

    async def _bring(self, held: Held) -> LoadedVersion:
        """Get one version ready, from disk or from the registry."""
        self._on_change()
        try:
            version = await self._from_disk(held) or await self._from_registry(held)
        except VersionRefusedError as error:
            held.state, held.reason = HeldVersion.REFUSED, str(error)
            log.warning(
                "version_refused model=%s version=%s reason=%s", held.model, held.label, held.reason
            )
            self._on_change()
            raise
        held.state = HeldVersion.READY
        self._on_change()
        return version

    async def _from_disk(self, held: Held) -> LoadedVersion | None:
        try:
            files = await asyncio.to_thread(self._disk.version, held.digest)
            return None if files is None else await self._proved(held, files)
        except VersionRefusedError as error:
            log.warning(
                "version_on_disk_refused model=%s version=%s reason=%s; fetching it anew",
                held.model,
                held.label,
                error,
            )
            self._disk.set_aside(held.digest)
            return None

    async def _from_registry(self, held: Held) -> LoadedVersion:
        while True:
            try:
                files = await self._fetch(held.model, held.digest)
                break
            except RegistryError as error:
                held.reason = f"waiting for the registry: {error}"
                await asyncio.sleep(RETRY_S)
        held.reason = ""
        version = await self._proved(held, files)
        keep = self._disk.keep_version
        await asyncio.to_thread(self._kept, "version", held.label, keep, held.digest, files)
        return version

    @staticmethod
    def _kept(what: str, name: str, keep: Callable[..., None], *content: object) -> None:
        """Keep something on disk; a disk that refuses must not stop a rollback."""
        try:
            keep(*content)
        except (OSError, RegistryError) as error:
            log.warning(
                "not_kept %s=%s error=%s; it serves, but not after a restart without the registry",
                what,
                name,
                error,
            )

    async def _proved(self, held: Held, files: dict[str, bytes]) -> LoadedVersion:
        bundle = await asyncio.to_thread(
            verify, files, trusted_key=self._trusted_key(), expected_digest=held.digest
        )
        await self._probe(held.digest, files)
        return await asyncio.to_thread(opened, held.label, bundle, files, self._page)

    def _forget(self) -> None:
        """Let go of versions that no deployment names any more."""
        named = {digest for d in self._wanted.values() for _, digest in d.digests}
        for digest in set(self._loads) - named:
            task = self._loads.pop(digest)
            self.held.pop(digest, None)
            self._page.forget(digest)
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().lane.close()
            elif not task.done():
                task.cancel()


def prove(
    label: str, files: dict[str, bytes], trusted_key: bytes | None, digest: str | None
) -> LoadedVersion:
    """Make a version ready to serve, or raise VersionRefusedError. Blocks: run it in a thread."""
    bundle = verify(files, trusted_key=trusted_key, expected_digest=digest)
    return opened(label, bundle, files, Page())


def opened(label: str, bundle: Bundle, files: Mapping[str, bytes], page: Page) -> LoadedVersion:
    """Open a verified version, golden-test and warm it. Blocks: run it in a thread."""
    session = load(bundle)
    golden_test(bundle, session)
    warm(bundle, session)
    scorer = quicker(bundle, session)
    brief = isinstance(scorer, NativeTrees) and scorer.brief
    lane = Lane(page.marked(bundle.digest, scorer), session.outputs, brief=brief)
    return LoadedVersion(label, bundle, lane, files)


def without(deployment: Deployment, refused: list[str]) -> Deployment:
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


def _retrieved(task: "asyncio.Task[LoadedVersion]") -> None:
    """Mark a load's failure as seen: whoever waits for it sees it too, and perhaps nobody does."""
    if not task.cancelled():
        task.exception()
