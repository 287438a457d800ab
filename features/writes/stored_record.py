"""Reads and writes the records of a view in the online store."""

import redis

from features.errors import StoreChangedError
from features.views import View
from features.writes.materialise_record import (
    BegunMaterialise,
    Materialised,
    MaterialiseRecord,
    PushedRows,
    key_of,
    parse_record,
    view_record_keys,
)
from features.writes.row_scripts import (
    SET_IF_LARGER,
    SET_IF_UNCHANGED,
    ScriptCall,
    expiry_ms,
    latest_event_ms,
    namespace_of,
    run_script,
)


def note_pushed(client: redis.Redis, view: View, newest_event_ms: int) -> None:
    """Note in the store that a row of this event time, Unix ms, was pushed."""
    _, key = view_record_keys(view.name, view.view_hash, namespace_of(client))
    value = PushedRows(view.ttl_ms, newest_event_ms).to_bytes()
    call: ScriptCall = ([key], [newest_event_ms, value, expiry_ms(view, newest_event_ms)])
    run_script(client, SET_IF_LARGER, [call])


class StoredRecord:
    """The record of one view in the store, as this process wrote it last.

    Raises redis.RedisError.
    """

    def __init__(self, client: redis.Redis, view: View) -> None:
        self._client, self._view = client, view
        self._key = key_of(view, namespace_of(client))
        stored = client.get(self._key)
        self._bytes = stored if isinstance(stored, bytes) else b""
        self.value = parse_record(self._bytes) or MaterialiseRecord(view.ttl_ms)

    def save(self, complete: Materialised | None, begun: BegunMaterialise | None) -> None:
        """Write the record. StoreChangedError when the store has another one than this process."""
        value = MaterialiseRecord(self._view.ttl_ms, complete, begun)
        written = value.to_bytes()
        expiry = expiry_ms(self._view, latest_event_ms())
        call: ScriptCall = ([self._key], [self._bytes, written, expiry])
        if not run_script(self._client, SET_IF_UNCHANGED, [call])[0]:
            raise StoreChangedError(
                f"the online store was emptied or replaced while rows of view {self._view.name!r} "
                "were written, or another process materialises the view; rows that are there are "
                "valid. Run it again when the store is up and the other process has ended"
            )
        self.value, self._bytes = value, written
