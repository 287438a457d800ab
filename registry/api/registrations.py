"""Registrations: few at a time, each proven in a child process before the registry parses it.

The registry opens no ONNX file. A file that crashes, never ends or takes memory does so in the
child. Threads and places of registrations are their own: other calls never wait for a model.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from access.bounds import CARD_BYTES_MAX
from host.child_process import ResourceLimits
from host.probe import ProbeLimits, judge_report, run_probe
from protos import registry_pb2 as pb
from registry.bundle import Bundle, verify_bundle
from registry.chunks import join_files
from registry.client import REGISTER_S
from registry.manifest import SIGNATURE, check_envelope
from registry.storage.store import RegistryStore
from registry.types import (
    BadRequestError,
    RegistryUnavailableError,
    VersionRefusedError,
)

REGISTRATIONS_MAX = 2
PROBE_MODULE = "registry.probe"
PROBE_LIMITS = ProbeLimits(resources=ResourceLimits(memory_mb=2_048, cpu_s=20), seconds=60.0)
"""The defaults of a gateway's probe (docs/limits.md): a gateway opens what passed here."""

ProveFiles = Callable[[str, Mapping[str, bytes]], Awaitable[None]]
"""Proves (digest, files); raises VersionRefusedError with the reason."""

Result = TypeVar("Result")


class Registrations:
    """Registers versions, at most REGISTRATIONS_MAX at a time.

    prove  a test may pass a proof in this process, for versions that it wrote itself.
    """

    def __init__(self, store: RegistryStore, prove: ProveFiles | None = None) -> None:
        self._store = store
        self._prove = prove or self._prove_in_child
        self._places = asyncio.Semaphore(REGISTRATIONS_MAX)
        self._threads = ThreadPoolExecutor(REGISTRATIONS_MAX, "register")
        self._running: set[asyncio.Task[pb.Version]] = set()

    async def register(self, request: AsyncIterator[pb.VersionChunk], actor: str) -> pb.Version:
        """Receive, prove, sign and store a version.

        Raises VersionRefusedError, BadRequestError, RegistryFullError, and
        RegistryUnavailableError after REGISTER_S.
        """
        try:
            async with asyncio.timeout(REGISTER_S):
                # The files take memory, so they are received after there is a place.
                await self._places.acquire()
                try:
                    model, files = await join_files(request)
                except BaseException:
                    self._places.release()
                    raise
                return await self._finish_in_place(self._register(model, files, actor))
        except TimeoutError as error:
            raise RegistryUnavailableError(
                f"the registration took more than {REGISTER_S:g} s; send the version again"
            ) from error

    async def _finish_in_place(self, work: Coroutine[Any, Any, pb.Version]) -> pb.Version:
        """Run *work* as a task of its own, which gives the place back when it has ended.

        A caller who hangs up ends the child, and has the place until the child has ended.
        """
        task: asyncio.Task[pb.Version] = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._give_place_back)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _give_place_back(self, task: "asyncio.Task[pb.Version]") -> None:
        self._running.discard(task)
        self._places.release()
        if not task.cancelled():
            task.exception()  # marks it as retrieved; a caller who waits still gets it

    async def _register(self, model: str, files: dict[str, bytes], actor: str) -> pb.Version:
        # What the manifest says is cheap to read. Nothing else is parsed before the proof.
        digest = await self._in_thread(_check_manifest, model, files, actor)
        await self._prove(digest, files)
        bundle = await self._in_thread(_verify, files, digest)
        return await self._in_thread(self._store.register, actor, bundle, files)

    async def _prove_in_child(self, digest: str, files: Mapping[str, bytes]) -> None:
        try:
            end = await run_probe(PROBE_MODULE, digest, files, PROBE_LIMITS, self._threads)
        except OSError as error:
            raise RegistryUnavailableError(
                f"the version could not be proven: {error.strerror}; send it again"
            ) from error
        result = judge_report(end, PROBE_LIMITS)
        if "refused" in result:
            raise VersionRefusedError(result["refused"])

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Run *function* in a thread of registrations; a cancelled task waits for its end."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})
            raise


def _check_manifest(model: str, files: dict[str, bytes], actor: str) -> str:
    """Return the id of a version whose manifest fits its files, *model* and its author *actor*."""
    if len(files.get("card.json", b"")) > CARD_BYTES_MAX:
        raise BadRequestError(
            f"card.json has {len(files['card.json'])} bytes; the most is {CARD_BYTES_MAX}. Put "
            "tables into files of their own"
        )
    if SIGNATURE in files:
        raise BadRequestError(f"only the registry writes {SIGNATURE}; leave it out")
    manifest, digest = check_envelope(files)
    if manifest["model"] != model:
        raise BadRequestError(
            f"the manifest is for model {manifest['model']!r}, but the version was sent as "
            f"{model[:80]!r}"
        )
    if manifest["author"] != actor:
        raise BadRequestError(
            f"the manifest names {manifest['author']!r} as author, but {actor!r} sent it; authors "
            "must register their own versions, so that another person than the author approves; "
            f"make the version with {actor!r} as its author, which is --as {actor} of a command"
        )
    return digest


def _verify(files: dict[str, bytes], digest: str) -> Bundle:
    """Parse the files for the store, after the child has parsed the same bytes."""
    return verify_bundle(files, trusted_key=None, expected_digest=digest)
