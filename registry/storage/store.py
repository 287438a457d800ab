"""The registry's storage: one database, one folder for each version, and two keys.

Every method of RegistryStore is one transaction. Methods may be called from any thread, and none
uses the network.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from sqlalchemy import URL

from access.bounds import first_page
from host.files import make_private_folder
from protos import registry_pb2 as pb
from registry.bundle import (
    Bundle,
    read_version_folder,
    sign_manifest,
    verify_bundle,
    write_version_folder,
)
from registry.folders import FolderLock
from registry.history import verify_chain
from registry.manifest import MANIFEST, SIGNATURE
from registry.storage import approvals, controllers, deployments, versions
from registry.storage.database import Database
from registry.storage.keys import prediction_id_key, signing_key
from registry.storage.ledger import (
    LedgerChange,
    entries_after,
    entry_for_list,
    read_entry,
    read_head,
)
from registry.types import Deployment

ENTRIES_CHECKED_AT_START = 1_000
"""Number of history entries that are checked at start. `RegistryClient.audit` checks all."""


class RegistryStore:
    """The registry's storage in one folder, which is made if it is absent.

    When damage is found, the store stops writing and goes on reading.

    now_ns  clock for changes, Unix nanoseconds.

    Raises RegistryUnavailableError when another process has the folder open, RegistryFaultError
    when the database or a key cannot be used.
    """

    def __init__(self, folder: Path, now_ns: Callable[[], int]) -> None:
        make_private_folder(folder)
        self._now_ns = now_ns
        self._files = Lock()
        self._folder_lock = FolderLock(folder / "lock")
        try:
            self._open(folder)
        except BaseException:
            self._folder_lock.release()
            raise

    def _open(self, folder: Path) -> None:
        self._versions = folder / "versions"
        make_private_folder(self._versions)
        # Temporary folders are left by a process that was killed while it wrote.
        for leftover in self._versions.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._key = signing_key(folder / "keys")
        self._database = Database(URL.create("sqlite", database=str(folder / "registry.sqlite")))
        self.keys = pb.ServingKeys(
            prediction_id_key=prediction_id_key(folder / "keys"),
            version_public_key=self._key.public_key().public_bytes_raw(),
        )
        self._check_history()

    def close(self) -> None:
        """Close the database and release the folder for other processes."""
        self._database.close()
        self._folder_lock.release()

    @contextmanager
    def _change(self, actor: str) -> Iterator[LedgerChange]:
        with self._database.write_transaction() as connection:
            yield LedgerChange(connection, actor, self._now_ns(), self._key)

    def _check_history(self) -> None:
        with self._database.read_transaction() as connection:
            head = read_head(connection)
            after = max(0, head.seq - ENTRIES_CHECKED_AT_START)
            newest = list(entries_after(connection, after=after, limit=0, object_prefix=""))
        if not newest:
            broken = verify_chain([], head, self.keys.version_public_key)
        else:
            before = (newest[0].seq - 1, newest[0].previous)
            broken = verify_chain(newest, head, self.keys.version_public_key, after=before)
        if broken is not None:
            self._database.stop_writing(f"history entry {broken.seq} {broken.problem}")

    # Versions

    def register(self, actor: str, bundle: Bundle, files: Mapping[str, bytes]) -> pb.Version:
        """Sign a verified bundle, write its files, and give the version a label.

        The files are written first, so that a crash never leaves a version without files.
        Registering the same id again returns the stored version.
        """
        # The lock makes a second registration of the same version find the first.
        with self._files:
            with self._database.read_transaction() as connection:
                if versions.find_version(connection, bundle.digest) is not None:
                    return versions.get_version(connection, bundle.model, bundle.digest)
            signed = {**files, SIGNATURE: sign_manifest(files[MANIFEST], self._key)}
            write_version_folder(self._versions / bundle.digest, signed)
            with self._change(actor) as change:
                size = sum(map(len, signed.values()))
                return versions.register_version(change, bundle, files["card.json"].decode(), size)

    def fetch(self, model: str, version: str) -> dict[str, bytes]:
        """Return the files of a version; raise VersionRefusedError if they were altered on disk."""
        with self._database.read_transaction() as connection:
            digest = versions.get_row(connection, model, version).digest
        files = read_version_folder(self._versions / digest)
        verify_bundle(files, trusted_key=self.keys.version_public_key, expected_digest=digest)
        return files

    def get_version(self, model: str, version: str) -> pb.Version:
        """Return a version by label or id."""
        with self._database.read_transaction() as connection:
            return versions.get_version(connection, model, version)

    def list_versions(self, model: str, after: int = 0) -> tuple[list[pb.Version], bool]:
        """Return a page of a model's versions, oldest first, without cards; and if more follow.

        after  only versions with a larger label.
        """
        with self._database.read_transaction() as connection:
            return first_page(versions.list_versions_of(connection, model, after))

    def list_models(self, after: str = "") -> tuple[list[pb.ModelSummary], bool]:
        """Return a page of models by name, each with its deployment; and if more follow.

        after  only models whose names come later.
        """
        with self._database.read_transaction() as connection:
            return first_page(deployments.list_models(connection, after))

    def set_status(self, actor: str, request: pb.SetStatusRequest) -> pb.Version:
        """Move a version to another status, if lifecycle.ALLOWED_STEPS lets a person do that."""
        with self._change(actor) as change:
            current = deployments.current_deployment(change.connection, request.model)
            return versions.set_status_by_hand(
                change, request.model, request.version, request.status, request.reason, current
            )

    # Approvals

    def approve(self, actor: str, request: pb.ApproveRequest) -> pb.Approval:
        """Write an approval or a rejection, and return it."""
        with self._change(actor) as change:
            return approvals.write_approval(change, request)

    def list_approvals(
        self, model: str, version: str, after: str = ""
    ) -> tuple[list[pb.Approval], bool]:
        """Return a page of a version's approvals and rejections in order; and if more follow.

        after  only approvals after the one with this id.
        """
        with self._database.read_transaction() as connection:
            return first_page(approvals.list_approvals_of(connection, model, version, after))

    # Deployments

    def deployment(self, model: str) -> Deployment:
        """Return the deployment of a model; revision 0 before the first."""
        with self._database.read_transaction() as connection:
            return deployments.current_deployment(connection, model)

    def list_deployments(self) -> list[Deployment]:
        """Return the deployments of all models that have one, ordered by model."""
        with self._database.read_transaction() as connection:
            return deployments.list_deployments(connection)

    def deploy(
        self, actor: str, command: deployments.DeployCommand, workers: Sequence[pb.GatewayState]
    ) -> Deployment:
        """Write a deployment by compare-and-set, and return it as it was written."""
        with self._change(actor) as change:
            return deployments.write_deployment(change, command, workers)

    # Controllers

    def acquire_lease(self, actor: str, request: pb.LeaseRequest) -> pb.Lease:
        """Take a lease, or renew it with its token."""
        with self._change(actor) as change:
            return controllers.acquire_lease(change, request)

    def save_checkpoint(self, actor: str, checkpoint: pb.Checkpoint) -> None:
        """Store the newest checkpoint of a rollout."""
        with self._change(actor) as change:
            controllers.save_checkpoint(change, checkpoint)

    def load_checkpoint(self, rollout_id: str) -> pb.Checkpoint:
        """Return the newest checkpoint of a rollout."""
        with self._database.read_transaction() as connection:
            return controllers.load_checkpoint(connection, rollout_id)

    def write_finding(self, actor: str, finding: pb.Finding) -> pb.Finding:
        """Write a finding, and return it with its sequence number."""
        with self._change(actor) as change:
            return controllers.write_finding(change, finding)

    def findings_after(self, after: int) -> list[pb.Finding]:
        """Return up to 1,000 findings with a larger sequence than *after*, oldest first."""
        with self._database.read_transaction() as connection:
            return controllers.findings_after(connection, after)

    # History

    def history(self, *, after: int, limit: int, object_prefix: str) -> pb.ListHistoryReply:
        """Return a page of history entries, and the signed head of the same instant."""
        with self._database.read_transaction() as connection:
            entries, _ = first_page(
                entries_after(connection, after=after, limit=limit, object_prefix=object_prefix)
            )
            return pb.ListHistoryReply(
                entries=map(entry_for_list, entries), head=read_head(connection)
            )

    def read_entry(self, seq: int) -> pb.HistoryEntry:
        """Return one history entry as it was written."""
        with self._database.read_transaction() as connection:
            return read_entry(connection, seq)
