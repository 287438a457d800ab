"""The disk cache of a gateway: it starts and serves from it when the registry is unreachable."""

import contextlib
import re
import secrets
from pathlib import Path

from google.protobuf.message import DecodeError

from host.files import make_private_folder, replace_file
from protos import registry_pb2
from registry.bundle import read_version_folder, write_version_folder
from registry.signed import SignedDeployment, open_deployment
from registry.types import DeploymentError

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class DiskCache:
    """The last good deployments, version files by id, and the cluster's keys, in one folder.

    All workers of a host share it. Files are replaced atomically and durably.
    """

    def __init__(self, folder: Path) -> None:
        self._deployments = folder / "deployments"
        self._versions = folder / "versions"
        self._keys = folder / "keys.pb"
        for path in (self._deployments, self._versions):
            make_private_folder(path)

    def read_deployments(self) -> list[tuple[str, registry_pb2.SignedDeployment]]:
        """Return (model, its last good deployment) of each model. They are not verified.

        A damaged file, and one of 0.1.0, which signed no deployments, give an empty message.
        """
        files = [*self._deployments.glob("*.signed"), *self._deployments.glob("*.pb")]
        models = {path.stem for path in files}
        return [(model, self._read_deployment(model)) for model in sorted(models)]

    def save_deployment(self, signed: SignedDeployment, trusted_key: bytes) -> None:
        """Write *signed*, unless one of the same or a higher revision is there already.

        trusted_key  a file that this key has not signed is replaced, whatever it says.
        """
        deployment = signed.deployment
        with contextlib.suppress(DeploymentError):
            saved = open_deployment(self._read_deployment(deployment.model), trusted_key)
            if saved.deployment.revision >= deployment.revision:
                return
        path = self._deployments / f"{deployment.model}.signed"
        replace_file(path, signed.message.SerializeToString())
        path.with_suffix(".pb").unlink(missing_ok=True)

    def _read_deployment(self, model: str) -> registry_pb2.SignedDeployment:
        try:
            content = (self._deployments / f"{model}.signed").read_bytes()
            return registry_pb2.SignedDeployment.FromString(content)
        except (DecodeError, OSError):
            return registry_pb2.SignedDeployment()

    def read_version(self, digest: str) -> dict[str, bytes] | None:
        """Return the files saved under this id, or None. They are not verified."""
        folder = self._version_folder(digest)
        return read_version_folder(folder) if folder.is_dir() else None

    def save_version(self, digest: str, files: dict[str, bytes]) -> None:
        """Write the files of a verified version, unless another worker has done so already."""
        folder = self._version_folder(digest)
        if not folder.is_dir():
            write_version_folder(folder, files)

    def move_refused_version(self, digest: str) -> None:
        """Rename the files of a version that failed its verification, for inspection."""
        folder = self._version_folder(digest)
        if folder.is_dir():
            folder.rename(folder.with_name(f".{digest}.refused.{secrets.token_hex(4)}"))

    def read_serving_keys(self) -> registry_pb2.ServingKeys | None:
        """Return the cluster's keys that the registry sent last; None when there are none."""
        try:
            return registry_pb2.ServingKeys.FromString(self._keys.read_bytes())
        except (OSError, DecodeError):
            return None

    def save_serving_keys(self, keys: registry_pb2.ServingKeys) -> None:
        """Write the cluster's keys, readable by this user alone."""
        if self.read_serving_keys() != keys:
            replace_file(self._keys, keys.SerializeToString())

    def _version_folder(self, digest: str) -> Path:
        if not HEX_DIGEST.fullmatch(digest):
            raise DeploymentError("a version's id is 64 lower-case hex digits")
        return self._versions / digest
