"""The registry's storage: one database, one folder for each version, and two keys.

Every method of RegistryStore is one transaction. Methods may be called from any thread, and none
uses the network.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Lock

from sqlalchemy import URL, Connection

from access.bounds import first_page
from features.replay.record import REPLAY, replay_refusal
from host.files import make_private_folder
from protos import registry_pb2 as pb
from registry.bundle import (
    Bundle,
    read_scale,
    read_version_folder,
    read_views,
    sign_manifest,
    verify_bundle,
    write_version_folder,
)
from registry.folders import SNAPSHOT, FolderLock, check_registry_folder
from registry.history.chain import is_signed
from registry.history.replay import ReplayedState
from registry.keys import prediction_id_key, signing_key
from registry.manifest import MANIFEST, SIGNATURE
from registry.rules.gates import DeployCommand
from registry.rules.projects import ReadingVersion, read_definitions
from registry.signed import SignedDeployment, sign_deployment
from registry.storage import (
    approvals,
    controllers,
    deployments,
    projects,
    proof,
    rejections,
    reviews,
    seals,
    versions,
)
from registry.storage.database import Database
from registry.storage.ledger import (
    LedgerChange,
    entries_after,
    entry_for_list,
    read_columns,
    read_entry,
    read_head,
)
from registry.storage.rows import read_state_page
from registry.types import (
    FIRST_POLICY,
    Deployment,
    GateError,
    RegistryFaultError,
    VersionRefusedError,
)
from stats.score_scale import ScoreScale


class RegistryStore:
    """The registry's storage in one folder, which is made if it is absent.

    When damage is found, the store stops writing and goes on reading.

    now_ns  clock for changes, Unix nanoseconds.

    Raises RegistryUnavailableError when another process has the folder open, RegistryFaultError
    when the database or a key cannot be used.
    """

    def __init__(self, folder: Path, now_ns: Callable[[], int]) -> None:
        make_private_folder(folder)
        self.folder = folder
        self._now_ns = now_ns
        self._files = Lock()
        self._folder_lock = FolderLock(folder / "lock")
        try:
            self._open(folder)
        except BaseException:
            self._folder_lock.release()
            raise

    def _open(self, folder: Path) -> None:
        check_registry_folder(folder)
        self._versions = folder / "versions"
        make_private_folder(self._versions)
        # Temporary folders are left by a process that was killed while it wrote.
        for leftover in self._versions.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # The keys come before the database, so that a database always has its keys beside it.
        self._key = signing_key(folder / "keys")
        self.keys = pb.ServingKeys(
            prediction_id_key=prediction_id_key(folder / "keys"),
            version_public_key=self._key.public_key().public_bytes_raw(),
        )
        self._snapshot = folder / SNAPSHOT
        self._database = Database(URL.create("sqlite", database=str(folder / "registry.sqlite")))
        self._altered_deployments: set[str] = set()
        self._older_views: dict[str, list[tuple[str, str]]] = {}
        self._scales: dict[str, ScoreScale] = {}
        """Version id -> the views in contract.json, of versions whose rows do not have them."""
        self._snapshot_seq = 0
        try:
            self._prove_at_start()
        except BaseException:
            self._database.close()
            raise

    def now_ms(self) -> int:
        """Return the time of the registry's clock, Unix milliseconds."""
        return self._now_ns() // 1_000_000

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a connection whose queries all see one state of the database."""
        return self._database.read_transaction()

    def close(self) -> None:
        """Close the database and release the folder for other processes."""
        self._database.close()
        self._folder_lock.release()

    @contextmanager
    def change(self, actor: str) -> Iterator[LedgerChange]:
        """Yield a change, which is durable when the block ends. An error in the block undoes it.

        Raises RegistryUnavailableError when writing has stopped.
        """
        with self._database.write_transaction() as connection:
            # What the change builds upon must be what this registry wrote.
            self._prove_foreign_changes(connection)
            self._database.check_writable()
            change = LedgerChange(connection, actor, self._now_ns(), self._key)
            yield change
        if change.newest_seq // proof.SNAPSHOT_EVERY > self._snapshot_seq // proof.SNAPSHOT_EVERY:
            self.prove_again()

    # Proof

    @property
    def stopped_reason(self) -> str:
        """Why writes are refused; empty while they are accepted."""
        return self._database.stopped_reason

    def _prove_at_start(self) -> None:
        """Prove the database. Refuse keys of another one, and seal a database that has no seals."""
        if self._database.stopped_reason:
            return
        with self._database.read_transaction() as connection:
            self._check_keys(connection)
            sealed = seals.has_seals(connection)
        if not sealed:
            self._seal_first_time()
        self.prove_again()

    def _check_keys(self, connection: Connection) -> None:
        """Raise RegistryFaultError if the database was written with other keys."""
        head = read_head(connection)
        if head.seq and head.public_key != self.keys.version_public_key and is_signed(head):
            raise RegistryFaultError(
                f"the history is signed by key {head.public_key.hex()[:16]}, and "
                f"keys/registry.ed25519 is key {self.keys.version_public_key.hex()[:16]}: keys and "
                "database are of two registries, or the history was written anew. Put back the "
                "keys that belong to this database, or the whole folder from a copy"
            )
        if seals.has_seals(connection) and not seals.is_sealed_key(
            connection, self._key, self.keys.prediction_id_key
        ):
            raise RegistryFaultError(
                "keys/prediction_id.key or keys/registry.ed25519 is not the key that this database "
                "was written with, or the seal of the key was edited in the database. Put back the "
                "keys that belong to this database, or the whole folder from a copy"
            )

    def _seal_first_time(self) -> None:
        """Seal a new database, or one of a registry that made no seals yet."""
        with self._database.read_transaction() as connection:
            known = self._prove(connection)
        if known.state.sealed:
            self._database.stop_writing("table seals: it is empty, and this registry had sealed it")
            return
        with self._database.write_transaction() as connection:
            seals.seal_everything(connection, self._key, self.keys.prediction_id_key)

    def prove_again(self) -> None:
        """Prove the database as it is now, and stop writing if it is not what was written.

        The history is replayed from the snapshot on, if there is one. It is written anew when the
        history has grown past the next multiple of `proof.SNAPSHOT_EVERY` entries.
        """
        try:
            snapshot = proof.read_snapshot(self._snapshot, self._key)
        except ValueError as error:
            self._database.stop_writing(str(error))
            snapshot = None
        self._snapshot_seq = 0 if snapshot is None else snapshot.seq
        with self._database.read_transaction() as connection:
            result = self._prove(connection, snapshot)
        self._take_proof(result)
        if (
            not self.stopped_reason
            and result.state.seq // proof.SNAPSHOT_EVERY
            > self._snapshot_seq // proof.SNAPSHOT_EVERY
        ):
            proof.write_snapshot(self._snapshot, result.state, self._key)
            self._snapshot_seq = result.state.seq

    def prove_if_changed(self) -> None:
        """Prove everything if another process has written to the database since the last proof."""
        if not self.stopped_reason:
            with self._database.write_transaction() as connection:
                self._prove_foreign_changes(connection)

    def _prove_foreign_changes(self, connection: Connection) -> None:
        if self._database.was_changed_by_others(connection):
            # A proof that fails is made again before the next write.
            self._take_proof(self._prove(connection))
            self._database.note_changes(connection)

    def older_entries(self) -> Iterator[None]:
        """Verify the entries before the snapshot, a block a step, which no start has time for.

        Writing stops at the first broken entry.
        """
        snapshot = proof.read_snapshot(self._snapshot, self._key) if self._snapshot_seq else None
        if snapshot is None:
            return
        for broken in proof.older_entry_blocks(self._database.read_transaction, snapshot):
            if broken is not None:
                self._database.stop_writing(f"history entry {broken.seq} {broken.problem}")
            yield

    def _prove(
        self, connection: Connection, snapshot: ReplayedState | None = None
    ) -> proof.DatabaseProof:
        return proof.prove_database(connection, self._key, self.keys.prediction_id_key, snapshot)

    def _take_proof(self, result: proof.DatabaseProof) -> None:
        self._altered_deployments = result.altered_deployments
        if result.problem:
            self._database.stop_writing(result.problem)

    def list_state(self, table: str, after: str) -> pb.ListStateReply:
        """Return a page of a table's rows, with the signed head of the same instant.

        table  a name of `replay.PROVEN_TABLES`.
        after  key of the last row of the page before; empty for the first page.

        Raises BadRequestError for any other table or key.
        """
        with self._database.read_transaction() as connection:
            rows, last_page = read_state_page(connection, table, after)
            head = read_head(connection)
        return pb.ListStateReply(
            rows=rows,
            last_page=last_page,
            head=head,
            stopped=self.stopped_reason,
        )

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
            with self.change(actor) as change:
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
            found = versions.get_version(connection, model, version)
        return self._with_outputs(self._with_views(found))

    def _with_views(self, version: pb.Version) -> pb.Version:
        """Return *version* with its views, which older rows do not have, from its files."""
        if not version.views_unknown:
            return version
        if version.digest not in self._older_views:
            try:
                views = read_views(self._versions / version.digest, version.digest)
            except VersionRefusedError:
                return version
            self._older_views[version.digest] = views
        for name, view_hash in self._older_views[version.digest]:
            version.views.add(name=name, hash=view_hash)
        version.views_unknown = False
        return version

    def _with_outputs(self, version: pb.Version) -> pb.Version:
        """Return *version* with its task and outputs, which are in its files only."""
        scale = self._scales.get(version.digest)
        if scale is None:
            try:
                scale = read_scale(self._versions / version.digest, version.digest)
            except (VersionRefusedError, OSError):
                return version
            self._scales[version.digest] = scale
        version.task = scale.task
        version.outputs.extend(
            pb.VersionOutput(name=output.name, spread=output.spread) for output in scale.outputs
        )
        return version

    def list_versions(self, model: str, after: int = 0) -> tuple[list[pb.Version], bool]:
        """Return a page of a model's versions, oldest first, without cards; and if more follow.

        after  only versions with a larger label.
        """
        with self._database.read_transaction() as connection:
            listed = versions.list_versions_of(connection, model, after)
            return first_page(map(self._with_views, listed))

    def list_models(self, after: str = "") -> tuple[list[pb.ModelSummary], bool]:
        """Return a page of models by name, each with its deployment; and if more follow.

        after  only models whose names come later.
        """
        with self._database.read_transaction() as connection:
            return first_page(deployments.list_models(connection, after))

    def set_status(self, actor: str, request: pb.SetStatusRequest) -> pb.Version:
        """Move a version to another status, if lifecycle.ALLOWED_STEPS lets a person do that."""
        with self.change(actor) as change:
            current = deployments.current_deployment(change.connection, request.model)
            return versions.set_status_by_hand(
                change, request.model, request.version, request.status, request.reason, current
            )

    # Approvals

    def approve(self, actor: str, request: pb.ApproveRequest) -> pb.Approval:
        """Write an approval, and return it."""
        with self.change(actor) as change:
            approval = approvals.write_approval(change, request)
            _require_replay(change, approval)
            return approval

    def reject(self, actor: str, request: pb.ApproveRequest) -> rejections.WrittenRejection:
        """Write a rejection, and take the version out of the deployment if it runs there."""
        with self.change(actor) as change:
            return rejections.write_rejection(change, request)

    def approve_settings(self, actor: str, request: pb.SettingsRequest) -> pb.SettingsApproval:
        """Write an approval of settings in place of the model's current ones, and return it."""
        with self.change(actor) as change:
            current = deployments.current_deployment(change.connection, request.model)
            return approvals.write_settings_approval(change, request, current)

    def list_reviews(self, model: str, *, open_only: bool) -> list[pb.Review]:
        """Return the reviews of a model, or of all models if it is empty, oldest first."""
        with self._database.read_transaction() as connection:
            return reviews.list_reviews(connection, model, open_only=open_only)

    def close_review(self, actor: str, request: pb.CloseReviewRequest) -> pb.Review:
        """Close a review, and return it."""
        with self.change(actor) as change:
            return reviews.close_review(change, request)

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
        """Return the deployments of all models that have one, ordered by model.

        A deployment that is not what the history says is left out: no gateway may get it.
        """
        with self._database.read_transaction() as connection:
            return deployments.list_deployments(connection, without=self._altered_deployments)

    def deploy(
        self, actor: str, command: DeployCommand, workers: Sequence[pb.GatewayState]
    ) -> Deployment:
        """Write a deployment by compare-and-set, and return it as it was written."""
        with self.change(actor) as change:
            return deployments.write_deployment(change, command, workers)

    def sign(self, deployment: Deployment) -> SignedDeployment:
        """Return *deployment* signed with the registry's key, for gateways."""
        return sign_deployment(deployment, self._key)

    # Projects

    def apply_project(
        self,
        actor: str,
        request: pb.ApplyProjectRequest,
        workers: Sequence[pb.GatewayState],
        *,
        operator: bool,
    ) -> tuple[pb.ProjectRevision, list[Deployment]]:
        """Write the next revision of a project, and the deployments whose settings it changes.

        operator  whether the actor is an operator. Others change no models and no policies.
        """
        # The definitions are parsed before other writers have to wait.
        definitions = read_definitions(request.name, request.definitions)
        with self.change(actor) as change:
            in_use = self._versions_in_use(change.connection)
            revision = projects.write_revision(
                change, request, definitions, in_use, operator=operator
            )
            if not operator:
                return revision, []
            return revision, deployments.write_project_settings(
                change, revision, definitions.settings, workers
            )

    def _versions_in_use(self, connection: Connection) -> Iterator[ReadingVersion]:
        deployed = deployments.list_deployments(connection, without=())
        for message, role in versions.versions_in_use(connection, deployed):
            version = self._with_views(message)
            views = [(view.name, view.hash) for view in version.views]
            yield ReadingVersion(
                version.model, version.label, role, None if version.views_unknown else tuple(views)
            )

    def get_project(self, name: str, revision: int) -> pb.ProjectRevision:
        """Return a revision of a project with its definitions; 0: the newest."""
        with self._database.read_transaction() as connection:
            return projects.get_revision(connection, name, revision)

    def list_projects(self, request: pb.ListProjectsRequest) -> pb.ListProjectsReply:
        """Return a page of all projects, or of the revisions of one."""
        with self._database.read_transaction() as connection:
            revisions, more = first_page(
                projects.list_revisions(connection, request.name, request.before)
                if request.name
                else projects.list_newest(connection, request.after)
            )
        return pb.ListProjectsReply(revisions=revisions, more=more)

    # Controllers

    def acquire_lease(self, actor: str, request: pb.LeaseRequest) -> pb.Lease:
        """Take a lease, or renew it with its token."""
        with self.change(actor) as change:
            lease = controllers.acquire_lease(change, request)
            seals.seal_row(change, "leases", lease.name)
            return lease

    def save_checkpoint(self, actor: str, checkpoint: pb.Checkpoint) -> None:
        """Store the newest checkpoint of a rollout."""
        with self.change(actor) as change:
            controllers.save_checkpoint(change, checkpoint)
            seals.seal_row(change, "checkpoints", checkpoint.rollout_id)

    def load_checkpoint(self, rollout_id: str) -> pb.Checkpoint:
        """Return the newest checkpoint of a rollout."""
        with self._database.read_transaction() as connection:
            return controllers.load_checkpoint(connection, rollout_id)

    def write_finding(self, actor: str, finding: pb.Finding) -> pb.Finding:
        """Write a finding, and return it with its sequence number."""
        with self.change(actor) as change:
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

    def history_columns(self, *, after: int, until: int) -> pb.HistoryColumns:
        """Return the next entries by column, and the signed head; see `ledger.read_columns`."""
        with self._database.read_transaction() as connection:
            return read_columns(connection, after=after, until=until)

    def read_entry(self, seq: int) -> pb.HistoryEntry:
        """Return one history entry as it was written."""
        with self._database.read_transaction() as connection:
            return read_entry(connection, seq)


def _require_replay(change: LedgerChange, approval: pb.Approval) -> None:
    """Refuse an approval if its policy asks for a replay that production does not have.

    Raises GateError.
    """
    connection, model = change.connection, approval.model
    days = projects.replay_days_of(connection, approval.policy_name)
    if not days:
        return
    label = deployments.current_deployment(connection, model).production
    if not label:
        raise GateError(
            f"policy {approval.policy_name!r} asks for a replay of what production was served, and "
            f"{model!r} has no production version yet; approve its first version with --policy "
            f"{FIRST_POLICY}"
        )
    production = versions.get_version(connection, model, label)
    newest = controllers.newest_finding(connection, model, label, REPLAY)
    refusal = replay_refusal(approval.policy_name, days, production, newest, change.at_unix_ms)
    if refusal:
        raise GateError(refusal)
