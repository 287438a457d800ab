"""How old the online rows are of the views that deployed versions read."""

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from features.errors import OnlineStoreError
from features.online.store_users import READER
from host.clock import HOUR_S
from registry.types import Deployment
from turnout.cli.context import CommandContext
from turnout.errors import NotReachableError

if TYPE_CHECKING:
    from features.writes.materialise_record import ViewRecord
    from protos import registry_pb2
    from registry.client import RegistryClient


@dataclass(frozen=True, slots=True)
class ViewAge:
    """The age of the rows of one edition of a view."""

    view: str
    view_hash: str
    read_by: tuple[str, ...]
    """The labels of the deployed versions of one model that read it, production first."""
    materialised_s: float | None
    """Age of the newest complete materialise, seconds; None: the store knows of none."""
    newest_row_s: float | None
    """Age of the newest row, seconds."""
    is_old: bool
    """Whether the rows near the end of their TTL, or were neither materialised nor pushed."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "view": self.view,
            "view_hash": self.view_hash,
            "read_by": list(self.read_by),
            "materialised_age_s": self.materialised_s,
            "newest_row_age_s": self.newest_row_s,
            "old": self.is_old,
        }

    @property
    def shown(self) -> str:
        """The age in a table."""
        if self.newest_row_s is None:
            return f"{self.view}: never"
        return f"{self.view}: {self.newest_row_s / HOUR_S:.1f} h{' (old)' if self.is_old else ''}"


async def read_view_ages(
    context: CommandContext,
    client: "RegistryClient",
    summaries: "Sequence[registry_pb2.ModelSummary]",
) -> tuple[dict[str, list[ViewAge]], str]:
    """Return model -> the ages of the views that its deployed versions read; why it is not known.

    The second is empty when the store answered. Raises RegistryError.
    """
    # Model -> (view, hash) -> the versions that read it.
    readers = {summary.model: await _readers(client, summary) for summary in summaries}
    editions = list(dict.fromkeys(edition for views in readers.values() for edition in views))
    if not editions:
        return {model: [] for model in readers}, ""
    # A host may have neither the store's address nor what is needed to read it.
    if importlib.util.find_spec("hiredis") is None:
        return {}, "install turnout[gateway] to see how old the online rows are"
    from turnout.cli.online_rows import read_records

    try:
        records = await read_records(context.store_url(READER), editions)
    except NotReachableError:
        return {}, "name the online store with --store to see how old its rows are"
    except OnlineStoreError as error:
        return {}, f"the ages of the online rows are not known: {error}"
    found, now_ms = dict(zip(editions, records, strict=True)), time.time_ns() // 1_000_000
    ages = {
        model: [_age(*edition, labels, found[edition], now_ms) for edition, labels in views.items()]
        for model, views in readers.items()
    }
    return ages, ""


def _age(
    name: str, view_hash: str, labels: list[str], record: "ViewRecord", now_ms: int
) -> ViewAge:
    complete = None if record.materialise is None else record.materialise.complete
    newest_ms = record.newest_event_ms
    return ViewAge(
        view=name,
        view_hash=view_hash,
        read_by=tuple(labels),
        materialised_s=None if complete is None else (now_ms - complete.at_ms) / 1_000,
        newest_row_s=None if newest_ms is None else (now_ms - newest_ms) / 1_000,
        is_old=record.is_old(now_ms),
    )


async def _readers(
    client: "RegistryClient", summary: "registry_pb2.ModelSummary"
) -> dict[tuple[str, str], list[str]]:
    """Return (view, hash) -> the labels of the model's deployed versions that read it."""
    deployed = Deployment.from_proto(summary.deployment).versions
    if not deployed:
        return {}
    versions = {version.label: version for version in await client.list_versions(summary.model)}
    readers: dict[tuple[str, str], list[str]] = {}
    for label in deployed:
        for view in versions[label].views if label in versions else ():
            readers.setdefault((view.name, view.hash), []).append(label)
    return readers
