"""Online rows of a view, read exactly as a gateway reads them, and how old the rows are."""

from collections.abc import Sequence

from features.entity_ids import SEPARATOR, check_entity_id, id_hashes, join_ids
from features.online.reader import OnlineReader, OnlineSettings
from features.online.store_url import parse_store_url
from features.rows import DecodedRows, ViewRows
from features.views import View
from features.writes.materialise_record import (
    ViewRecord,
    parse_view_record,
    view_record_keys,
)

READ_S_MAX = 2.0


async def read_online_rows(url: str, view: View, keys: Sequence[str], now_ms: int) -> DecodedRows:
    """Return the online rows of *keys* from the store at *url*, in their order.

    keys    the id of each row. The ids of a combination are joined by 0x1F.
    now_ms  Unix ms; the row flags say how fresh a row is at this moment.

    Raises OnlineStoreError when the store does not answer within 2 s.
    """
    layout = ViewRows(view, parse_store_url(url).namespace)
    ids = [joined_id(key) for key in keys]
    return layout.decode(await _read(url, layout.store_keys(ids)), id_hashes(ids), now_ms)


async def read_records(url: str, editions: Sequence[tuple[str, str]]) -> list[ViewRecord]:
    """Return what the store at *url* says of the rows of each edition, (view's name, hash).

    Raises OnlineStoreError when the store does not answer within 2 s.
    """
    namespace = parse_store_url(url).namespace
    keys = [
        key for name, view_hash in editions for key in view_record_keys(name, view_hash, namespace)
    ]
    values = await _read(url, keys)
    return list(map(parse_view_record, values[::2], values[1::2]))


async def _read(url: str, keys: Sequence[bytes]) -> list[bytes | None]:
    """Return the values of *keys*, over a connection that is made for them."""
    # A person waits for this connection, so it has more time than a gateway gives a read.
    settings = OnlineSettings(connect_timeout_ms=round(READ_S_MAX * 1_000))
    reader = OnlineReader(url, settings=settings)
    await reader.start()
    try:
        return await reader.mget(keys, READ_S_MAX)
    finally:
        await reader.close()


def joined_id(key: str) -> bytes:
    """Return a key as the store has it. Raises EntityIdError for a bad id."""
    return join_ids([check_entity_id(part) for part in key.split(SEPARATOR.decode())])
