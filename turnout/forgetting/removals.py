"""Removes a person's rows from the stores, the journals and monitoring.

DuckDB and redis-py take long to import, so each removal imports what it needs by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from registry.types import evidence_key
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.forgetting.entities import KnownEntities

if TYPE_CHECKING:
    import redis


@dataclass(slots=True)
class Removed:
    """What was removed, or would be."""

    counts: dict[str, int]
    left: list[str] = field(default_factory=list)
    """What could not be searched, one sentence each."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Removes the rows of one person. Each method may be repeated."""

    context: CommandContext
    known: KnownEntities
    named: Mapping[str, str]
    """The person: entity -> id."""
    dry_run: bool
    """Whether rows are only counted."""
    monitoring: str = ""
    """host:port of monitoring; empty: that of the registry."""
    prediction_ids: set[bytes] = field(default_factory=set)
    """The ids of the calls that journals had, by which monitoring finds their outcomes."""

    def from_offline_store(self, root: Path) -> Removed:
        """Remove the rows of every edition of every view. Running readers and loads end first."""
        from features.storage.forget import ForgottenOffline, forget_offline

        total, left = ForgottenOffline(), []
        for folder in sorted(root.glob("*@*")):
            entities = self.known.of_edition(folder.name)
            if entities is None:
                left.append(f"offline: the entities of {folder} are unknown; delete the folder")
            else:
                total += forget_offline(folder, entities, self.named, dry_run=self.dry_run)
        return Removed(asdict(total), left)

    def try_online_store(self) -> None:
        """Find out before anything is removed whether the store lets us remove rows."""
        from features.online.forget import try_erasing

        with self._online_store() as client:
            try_erasing(client)

    def from_online_store(self) -> Removed:
        """Remove the rows of every edition of every view."""
        from features.online.forget import forget_online

        with self._online_store() as client:
            done = forget_online(client, self.known.of_edition, self.named, dry_run=self.dry_run)
        left = [f"online: the entities of {view} are unknown" for view in done.unknown]
        return Removed({"rows": done.rows}, left)

    @contextmanager
    def _online_store(self) -> "Iterator[redis.Redis]":
        """Open the online store.

        Raises ForeignStoreError when the store belongs to another system, and OperatorError when
        its user may not list and delete keys.
        """
        import redis

        from features.online.store_client import store_client
        from features.online.store_marker import check_store, system_id
        from features.online.store_users import COMMANDS, ERASER

        with store_client(self.context.store_url(ERASER)) as client:
            try:
                check_store(client, system_id(self.known.version_public_key))
                yield client
            except redis.exceptions.NoPermissionError as error:
                raise OperatorError(
                    f"the store's user may not list and delete keys ({error}), and nothing was "
                    f"removed there; name another user, {ERASER!r} in a store of `turnout up`, in "
                    "the environment (store_user and store_password) or by --store, or give it "
                    f"the commands {COMMANDS[ERASER]}"
                ) from error

    def from_journals(self, folders: Sequence[Path]) -> Removed:
        """Remove calls and outcomes from all journals in *folders* and below them."""
        from journal.forget import forget_in_journals
        from journal.person import Person
        from journal.served import journals_below

        known = self.known
        person = Person(self.named, known.models, self._key_hashes(), known.prediction_id_key)
        journals = sorted({path for folder in folders for path in journals_below(folder)})
        done = forget_in_journals(journals, person, dry_run=self.dry_run)
        self.prediction_ids.update(done.prediction_ids)
        counts = {name: count for name, count in asdict(done).items() if name != "prediction_ids"}
        unknown, written = counts.pop("unknown_records"), counts.pop("still_written")
        left = []
        if unknown:
            left.append(f"journals: {unknown} records with the id have an unknown contract")
        if written:
            left.append(f"journals: {written} segments are still being written; run this again")
        return Removed(counts, left)

    def try_monitoring(self) -> None:
        """Find out before anything is removed whether monitoring lets us remove rows."""
        from turnout.forgetting.monitoring_removal import call_forget

        call_forget(self.context, self.monitoring, [])

    def from_monitoring(self) -> Removed:
        """Remove decisions, and reported outcomes, from monitoring."""
        from turnout.forgetting.monitoring_removal import call_forget, forget_requests

        requests = forget_requests(
            self.named,
            self.known.versions,
            self._key_hashes(),
            self.prediction_ids,
            dry_run=self.dry_run,
        )
        counts = call_forget(self.context, self.monitoring, requests)
        left = []
        if unknown := counts.pop("unknown_rows"):
            left.append(f"monitoring: {unknown} decisions with the id are of unknown versions")
        return Removed(counts, left)

    def _key_hashes(self) -> dict[str, frozenset[int]]:
        """Return model -> the evidence keys that the split makes of the id alone.

        Without a sticky key the split takes the first entity. A model without entities has sticky
        keys only.
        """
        hashes: dict[str, frozenset[int]] = {}
        if len(self.named) > 1:
            return hashes
        ((entity, text),) = self.named.items()
        for (model, _), entities in self.known.models.items():
            salt = self.known.split_salts.get(model)
            if salt is not None and entities[:1] in ((), (entity,)):
                hashes[model] = frozenset({evidence_key(salt, text.encode())})
        return hashes
