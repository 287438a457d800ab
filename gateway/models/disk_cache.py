"""What a gateway keeps on its own disk, so that it starts and serves with everything else gone."""

import os
import re
import secrets
from pathlib import Path

from google.protobuf.message import DecodeError

from protos import registry_pb2
from registry.bundle import read_version_folder, write_version_folder
from registry.types import Deployment, DeploymentError

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class DiskCache:
    """Last good deployments, version files by id, and the cluster's keys. Shared by all workers.

    Every file is written beside and renamed, so that a reader sees old or new, whole.
    """

    def __init__(self, folder: Path) -> None:
        self._deployments = folder / "deployments"
        self._versions = folder / "versions"
        self._keys = folder / "keys.pb"
        for place in (self._deployments, self._versions):
            place.mkdir(parents=True, exist_ok=True)

    def read_deployments(self) -> list[Deployment]:
        """Return the last good deployment of each model; a damaged file is left out."""
        found: list[Deployment] = []
        for path in sorted(self._deployments.glob("*.pb")):
            try:
                message = registry_pb2.Deployment.FromString(path.read_bytes())
                found.append(Deployment.from_proto(message))
            except (DecodeError, DeploymentError, OSError):
                continue
        return found

    def save_deployment(self, deployment: Deployment) -> None:
        """Keep *deployment*, unless a newer one of its model is there already."""
        path = self._deployments / f"{deployment.model}.pb"
        held = {d.model: d.revision for d in self.read_deployments()}.get(deployment.model, 0)
        if deployment.revision > held:
            _replace(path, deployment.to_proto().SerializeToString(), mode=0o644)

    def read_version(self, digest: str) -> dict[str, bytes] | None:
        """Return the files kept under this id, unproved; None when there are none."""
        folder = self._version_folder(digest)
        return read_version_folder(folder) if folder.is_dir() else None

    def save_version(self, digest: str, files: dict[str, bytes]) -> None:
        """Keep a proved version's files; another worker may have done so already."""
        folder = self._version_folder(digest)
        if not folder.is_dir():
            write_version_folder(folder, files)

    def move_refused_version(self, digest: str) -> None:
        """Rename a version that is not what its id says, for whoever wants to look at it."""
        folder = self._version_folder(digest)
        if folder.is_dir():
            folder.rename(folder.with_name(f".{digest}.refused.{secrets.token_hex(4)}"))

    def read_serving_keys(self) -> registry_pb2.ServingKeys | None:
        """Return the cluster's keys as last told by the registry."""
        try:
            return registry_pb2.ServingKeys.FromString(self._keys.read_bytes())
        except (OSError, DecodeError):
            return None

    def save_serving_keys(self, keys: registry_pb2.ServingKeys) -> None:
        """Keep the cluster's keys, readable by this user alone."""
        if self.read_serving_keys() != keys:
            _replace(self._keys, keys.SerializeToString(), mode=0o600)

    def _version_folder(self, digest: str) -> Path:
        if not HEX_DIGEST.fullmatch(digest):
            raise DeploymentError("a version's id is 64 lower-case hex digits")
        return self._versions / digest


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    beside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
