"""The version a candidate is compared with: fetched from the registry, and proved."""

from registry import bundle
from registry.bundle import Bundle
from registry.client import RegistryClient
from registry.types import NotFoundError


async def fetch_production(client: RegistryClient, model: str) -> Bundle | None:
    """Return the version of *model* in production; None where none is yet.

    Raises the errors of registry.types, VersionRefusedError for files that are not that version.
    """
    try:
        label = (await client.deployment(model)).production
    except NotFoundError:  # nobody ever registered a version: this will be the first
        return None
    return await fetch_registered(client, model, label) if label else None


async def fetch_registered(client: RegistryClient, model: str, label: str) -> Bundle:
    """Return any registered version, by label or id; proved against the id the registry gives."""
    version = await client.get_version(model, label)
    files = await client.fetch(model, label)
    return bundle.verify_bundle(files, trusted_key=None, expected_digest=version.digest)
