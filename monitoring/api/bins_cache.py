"""By which bins versions are counted, as their own files in the registry say."""

import asyncio

from monitoring.cells.version_bins import VersionBins, bins_of_bundle
from monitoring.store.monitoring_store import MonitoringStore
from registry.bundle import verify_bundle
from registry.client import RegistryClient
from registry.types import NotFoundError, RegistryError, VersionRefusedError


class BinsCache:
    """Reads each version once, and keeps its bins in the store."""

    def __init__(self, registry: RegistryClient, store: MonitoringStore) -> None:
        self._registry = registry
        self._store = store
        self._bins: dict[tuple[str, str, int], VersionBins] = {}
        self._lock = asyncio.Lock()
        """One version is fetched at a time, because its files may have 256 MB."""

    async def find(self, model: str, version: str, digest8: int) -> VersionBins:
        """Return the bins of a version. A version that cannot be read has a problem and no bins.

        Raises RegistryError when the registry does not answer, which is another thing: then the
        reader asks again later.
        """
        key = model, version, digest8
        async with self._lock:
            if key not in self._bins:
                stored = await asyncio.to_thread(self._store.find_version, model, digest8)
                if stored is not None and not stored.lacks_dictionaries:
                    bins = stored
                else:
                    bins = await self._read_again(stored, model, version, digest8)
                if bins.problem:
                    return bins
                self._bins[key] = bins
            return self._bins[key]

    async def _read_again(
        self, stored: VersionBins | None, model: str, version: str, digest8: int
    ) -> VersionBins:
        """Read a version; if that fails, return what an older release has stored of it."""
        try:
            bins = await self._read(model, version, digest8)
        except RegistryError:
            if stored is None:
                raise
            return stored
        return stored if bins.problem and stored is not None else bins

    async def _read(self, model: str, version: str, digest8: int) -> VersionBins:
        try:
            found = await self._registry.get_version(model, version)
            if int.from_bytes(bytes.fromhex(found.digest)[:8], "little") != digest8:
                problem = f"version {version} of {model!r} in the registry is not the journal's"
                return VersionBins(model, version, digest8, problem=problem)
            files = await self._registry.fetch(model, version)
            bins = await asyncio.to_thread(_parse, model, found.label, found.digest, files)
        except (NotFoundError, VersionRefusedError) as error:
            return VersionBins(model, version, digest8, problem=str(error))
        await asyncio.to_thread(self._store.save_version, bins)
        return bins


def _parse(model: str, label: str, digest: str, files: dict[str, bytes]) -> VersionBins:
    bundle = verify_bundle(files, trusted_key=None, expected_digest=digest)
    return bins_of_bundle(model, label, bundle)
