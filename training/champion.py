"""Fetches the version that a candidate is compared with from the registry, and verifies it."""

from registry import bundle
from registry.bundle import Bundle
from registry.client import RegistryClient
from registry.types import NotFoundError


async def fetch_production(client: RegistryClient, model: str) -> Bundle | None:
    """Return the version of *model* that is in production, or None if there is none.

    Raises the errors of registry.types; VersionRefusedError if the files do not fit the id.
    """
    try:
        label = (await client.deployment(model)).production
    except NotFoundError:  # no version of the model was ever registered
        return None
    return await fetch_registered(client, model, label) if label else None


async def fetch_registered(client: RegistryClient, model: str, label: str) -> Bundle:
    """Return a registered version by label or id, verified against its id in the registry."""
    version = await client.get_version(model, label)
    files = await client.fetch(model, label)
    return bundle.verify_bundle(files, trusted_key=None, expected_digest=version.digest)
