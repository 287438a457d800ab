"""Writes the folder of a gateway without a registry: versions and deployments that it accepts."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.models.disk_cache import DiskCache
from protos.registry_pb2 import ServingKeys
from registry.bundle import sign_manifest
from registry.signed import read_deployment, sign_deployment
from registry.types import Deployment

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
"""The key of a registry that does not exist. A gateway accepts only what a key has signed."""
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()


def write_signed_version(folder: Path, sealed: Mapping[str, bytes]) -> str:
    """Sign the files of a version, write them to a gateway's *folder*, and return the digest."""
    manifest = sealed["manifest.json"]
    digest = sha256(manifest).hexdigest()
    files = {**sealed, "signature.json": sign_manifest(manifest, SIGNER)}
    DiskCache(folder).save_version(digest, files)
    return digest


def write_signed_deployment(folder: Path, deployment: Deployment) -> None:
    """Sign *deployment* and write it to a gateway's *folder*, with the key that verifies it."""
    disk = DiskCache(folder)
    keys = ServingKeys(prediction_id_key=bytes(32), version_public_key=PUBLIC_KEY)
    disk.save_serving_keys(keys)
    disk.save_deployment(sign_deployment(deployment, SIGNER), PUBLIC_KEY)
    # Commits up to 0.1.0, which before_after compares with, read it without a signature.
    old_file = folder / "deployments" / f"{deployment.model}.pb"
    old_file.write_bytes(deployment.to_proto().SerializeToString())


def read_deployments(folder: Path) -> list[Deployment]:
    """Return the deployments in a gateway's *folder*."""
    return [read_deployment(message) for _, message in DiskCache(folder).read_deployments()]
