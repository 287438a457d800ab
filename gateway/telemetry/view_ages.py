"""How old the rows of each view are that this worker's versions read, as metrics and in the log.

A worker looks once a minute, and after each deployment, at the record that materialise leaves
beside the rows (features.writes.materialise_record), one MGET for all views. No call waits for it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Sequence
from typing import Protocol

from features.errors import OnlineStoreError
from features.views import View
from features.writes.materialise_record import (
    ViewRecord,
    parse_view_record,
    view_record_keys,
)
from gateway.models.routes import Participant, RouteTable
from gateway.telemetry.metrics import LabelValues, Metrics
from host.clock import HOUR_MS, NS_PER_MS, Clock

log = logging.getLogger(__name__)

LOOK_S = 60.0
"""Time between two looks at the records."""
READ_S_MAX = 1.0


class RecordStore(Protocol):
    """Reads values by key: features.online.reader.OnlineReader."""

    def mget(self, keys: Sequence[bytes], timeout_s: float) -> Awaitable[list[bytes | None]]:
        """Return one value or None for each key. Raises OnlineStoreError."""
        ...


class ViewAges:
    """Sets the gauges of the views' ages, and logs each view whose rows become old.

    namespace  of the store's URL.
    """

    def __init__(
        self,
        store: RecordStore,
        namespace: str,
        route_table: RouteTable,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store, self._namespace = store, namespace
        self._route_table, self._metrics, self._clock = route_table, metrics, clock
        self._records: dict[str, ViewRecord] = {}
        """View hash -> its record when the store answered last."""
        self._old: set[str] = set()
        self._wanted = asyncio.Event()

    async def watch(self) -> None:
        """Look every LOOK_S, and when `look_soon` was called, until cancelled."""
        while True:
            self._wanted.clear()
            await self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), LOOK_S)

    def look_soon(self) -> None:
        """Look without waiting, because versions with other views may have been deployed."""
        self._wanted.set()

    async def look(self) -> None:
        """Read the records and set the gauges. While the store is gone, the ages go on growing."""
        views = list(self._views().values())
        try:
            keys = [
                key
                for view in views
                for key in view_record_keys(view.name, view.view_hash, self._namespace)
            ]
            values = await self._store.mget(keys, READ_S_MAX)
            records = map(parse_view_record, values[::2], values[1::2])
            self._records = {
                view.view_hash: record for view, record in zip(views, records, strict=True)
            }
        except OnlineStoreError:
            pass  # turnout_feature_store_state says it
        self._set_gauges([view for view in views if view.view_hash in self._records])

    def _views(self) -> dict[str, View]:
        """Return hash -> view of the versions that answer calls, and of shadows."""
        views: dict[str, View] = {}
        for routes in self._route_table.all():
            answering = (routes.production, routes.standby, routes.canary)
            shadows = (shadow for shadow, _ in routes.shadows)
            for participant in (*answering, *shadows):
                if participant is not None:
                    views.update(_views_of(participant))
        return views

    def _set_gauges(self, views: list[View]) -> None:
        now_ms = self._clock.unix_ns() // NS_PER_MS
        materialised: dict[LabelValues, float] = {}
        newest: dict[LabelValues, float] = {}
        old: dict[LabelValues, float] = {}
        for view in views:
            labels = (view.name, view.view_hash[:16])
            record = self._records[view.view_hash]
            if record.materialise is not None and record.materialise.complete is not None:
                materialised[labels] = (now_ms - record.materialise.complete.at_ms) / 1_000
            if record.newest_event_ms is not None:
                newest[labels] = (now_ms - record.newest_event_ms) / 1_000
            old[labels] = float(record.is_old(now_ms))
            self._log_change(view, record, now_ms)
        # A view that no version reads any more has no age.
        self._metrics.replace_gauge("turnout_view_materialised_seconds", materialised)
        self._metrics.replace_gauge("turnout_view_newest_row_seconds", newest)
        self._metrics.replace_gauge("turnout_view_old", old)

    def _log_change(self, view: View, record: ViewRecord, now_ms: int) -> None:
        """Log a view whose rows became old, and one whose rows are fresh again."""
        name = f"{view.name}@{view.view_hash[:16]}"
        is_old = record.is_old(now_ms)
        if is_old and view.view_hash not in self._old:
            log.warning("VIEW_OLD view=%s: %s", name, _reason(record, now_ms))
        if not is_old and view.view_hash in self._old:
            log.info("view_fresh view=%s", name)
        (self._old.add if is_old else self._old.discard)(view.view_hash)


def _views_of(participant: Participant) -> dict[str, View]:
    contract = participant.version.bundle.contract
    return {use.view.view_hash: use.view for use in contract.views}


def _reason(record: ViewRecord, now_ms: int) -> str:
    if record.newest_event_ms is None:
        return (
            "the store does not say that its rows were ever materialised or pushed; run "
            "`turnout features materialise` for the view"
        )
    hours = (now_ms - record.newest_event_ms) / HOUR_MS
    if record.materialise is None or record.materialise.complete is None:
        return (
            f"it is only pushed, and its newest row is {hours:.1f} h old; beyond the TTL of "
            f"{record.ttl_ms / HOUR_MS:.1f} h models answer with defaults: see what pushes it"
        )
    return (
        f"its newest row is {hours:.1f} h old, and beyond the TTL of "
        f"{record.ttl_ms / HOUR_MS:.1f} h models answer with defaults; ingest newer rows and run "
        "`turnout features materialise` for the view"
    )
