"""Registrations prove versions in child processes, and have few places and threads of their own."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from features.canonical import sha256_hex
from host.child_process import ResourceLimits
from host.probe import ProbeLimits
from registry.api import registrations
from registry.bundle import seal_files
from registry.types import RegistryUnavailableError, VersionRefusedError
from tests.fatal_models import spinning_files
from tests.poll import wait_until
from tests.registry.registry_fixture import probe_runs, registry_fixture, run_walk
from tests.tiny_models import tiny_files

TIGHT = ProbeLimits(resources=ResourceLimits(memory_mb=2_048, cpu_s=2), seconds=15.0)


class WaitingProof:
    """A proof that ends when the test lets it, whatever its caller does."""

    def __init__(self) -> None:
        self.started = 0
        self.release = asyncio.Event()

    async def __call__(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Wait for `release`, also when the task is cancelled, as a child's end is waited for."""
        del digest, files
        self.started += 1
        released = asyncio.ensure_future(self.release.wait())
        try:
            await asyncio.shield(released)
        except asyncio.CancelledError:
            await asyncio.wait({released})
            raise


def test_registration_keeps_its_place_until_its_child_has_ended(tmp_path: Path) -> None:
    """Callers who hang up free no place. Other calls answer meanwhile, and places come back."""

    async def scenario() -> None:
        proof = WaitingProof()
        async with registry_fixture(tmp_path, prove=proof) as registry:
            first = [asyncio.create_task(registry.register(number)) for number in (1, 2)]
            await wait_until(lambda: proof.started == registrations.REGISTRATIONS_MAX)
            for task in first:
                task.cancel()
            await asyncio.wait(first)
            third = asyncio.create_task(registry.register(3))
            # The registry answers, and has not begun the third.
            for _ in range(20):
                assert await registry.bob.list_models() == []
            assert proof.started == registrations.REGISTRATIONS_MAX
            proof.release.set()
            assert (await third).label == "1"
            assert proof.started == registrations.REGISTRATIONS_MAX + 1

    run_walk(scenario())


@pytest.mark.walk
def test_registration_of_an_endless_version_is_refused_and_frees_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three at once are refused after 2 s of CPU each; a good version then passes."""
    monkeypatch.setattr(registrations, "PROBE_LIMITS", TIGHT)

    async def scenario() -> None:
        async with registry_fixture(tmp_path, prove=None) as registry:
            endless = [
                {**spinning_files(), "card.json": b'{"n": %d}' % number} for number in range(3)
            ]
            results = await asyncio.gather(
                *(registry.ann.register("churn", files) for files in endless),
                return_exceptions=True,
            )
            for result in results:
                assert isinstance(result, VersionRefusedError), result
                assert "while scoring the golden rows; ended (probe_" in str(result)
            assert (await registry.register()).label == "1"

    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.walk
def test_child_of_a_caller_who_hangs_up_is_killed(tmp_path: Path) -> None:
    """The child runs, the caller goes, the child ends."""
    sealed = seal_files(spinning_files(), model="churn", author="ann", created_unix_ms=1)
    digest = sha256_hex(sealed["manifest.json"])

    async def scenario() -> None:
        async with registry_fixture(tmp_path, prove=None) as registry:
            call = asyncio.create_task(registry.ann.register("churn", sealed))
            await wait_until(lambda: probe_runs(digest))
            call.cancel()
            await wait_until(lambda: not probe_runs(digest))

    run_walk(scenario())


@pytest.mark.walk
def test_registration_without_a_process_for_its_child_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's error is not the version's fault, and the caller may send it again."""

    def no_process(*arguments: object, **options: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    async def scenario() -> None:
        async with registry_fixture(tmp_path, prove=None) as registry:
            with monkeypatch.context() as patched:
                patched.setattr("host.child_process.subprocess.Popen", no_process)
                with pytest.raises(RegistryUnavailableError, match="send it again"):
                    await registry.register()
            assert (await registry.ann.register("churn", tiny_files())).label == "1"

    run_walk(scenario())
