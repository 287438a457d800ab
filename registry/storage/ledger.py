"""The history in the database: one change with its transaction, actor and history entries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, insert, select, update

from access.bounds import ENTRY_BYTES_MAX, ENTRY_TEXT_BYTES_MAX, PAGE_BYTES_MAX, cut_texts
from features.canonical import canonical_json
from protos import registry_pb2 as pb
from registry.history.chain import FIRST_PREVIOUS_DIGEST, entry_digest, head_bytes
from registry.history.replay import ACTIONS
from registry.storage import tables
from registry.types import NotFoundError, RegistryFaultError

ENTRIES_MAX = 1_000
"""Entries of a page of a list, and of a message for an auditor."""
ROWS_PER_FETCH = 50
"""Entries that are in memory before their size is known."""


@dataclass(slots=True)
class LedgerChange:
    """A change in progress: its transaction, its actor and its time.

    Storage functions write through *connection*, and call `record` in the same transaction.
    """

    connection: Connection
    actor: str
    at_unix_ns: int
    key: Ed25519PrivateKey
    """Signs the head of the history."""
    newest_seq: int = 0
    """Number of the newest entry that this change wrote; 0 if it wrote none."""

    @property
    def at_unix_ms(self) -> int:
        """The time of the change, Unix milliseconds."""
        return self.at_unix_ns // 1_000_000

    def record(
        self,
        action: str,
        object_name: str,
        *,
        before: Mapping[str, object],
        after: Mapping[str, object],
        reason: str,
    ) -> None:
        """Append one entry to the history, and sign it as the new head.

        Raises ValueError for an action that an audit could not replay.
        """
        # What no audit could replay is not written.
        if action not in ACTIONS:
            raise ValueError(
                f"action {action!r} has no function in ACTIONS of history/replay.py, so no "
                "audit could prove what it changed; add one"
            )
        # Chain the entry to the newest one.
        newest = read_head(self.connection, lock=True)
        entry = pb.HistoryEntry(
            seq=newest.seq + 1,
            at_unix_ms=self.at_unix_ms,
            actor=self.actor,
            action=action,
            object=object_name,
            before=canonical_json(before).decode(),
            after=canonical_json(after).decode(),
            reason=reason,
            previous=newest.digest or FIRST_PREVIOUS_DIGEST,
        )
        entry.digest = entry_digest(entry)
        self.connection.execute(
            insert(tables.history).values(
                **{column.name: getattr(entry, column.name) for column in tables.history.columns}
            )
        )
        self.newest_seq = entry.seq
        # Sign it as the head.
        signed_head = {
            "seq": entry.seq,
            "digest": entry.digest,
            "signature": self.key.sign(head_bytes(entry.seq, entry.digest)),
            "public_key": self.key.public_key().public_bytes_raw(),
        }
        if newest.seq:
            self.connection.execute(update(tables.head).values(**signed_head))
        else:
            self.connection.execute(insert(tables.head).values(only=1, **signed_head))


def read_head(connection: Connection, *, lock: bool = False) -> pb.SignedHead:
    """Return the signed seq and digest of the newest entry; an empty message before the first.

    lock  lock the row until the transaction ends, so that other writers wait.

    Raises RegistryFaultError when the row was altered beyond reading.
    """
    statement = tables.raw_select(tables.head)
    row = connection.execute(statement.with_for_update() if lock else statement).first()
    if row is None:
        return pb.SignedHead()
    _, seq, digest, signature, public_key = row
    try:
        return pb.SignedHead(seq=seq, digest=digest, signature=signature, public_key=public_key)
    except (TypeError, ValueError) as error:
        raise RegistryFaultError(
            "table head, row 1: a field has a value of another type, so it was altered; restore "
            "the registry from a copy"
        ) from error


def entries_after(
    connection: Connection, *, after: int, limit: int, object_prefix: str
) -> Iterator[pb.HistoryEntry]:
    """Yield the entries with a larger seq than *after*, oldest first, as the database gives them.

    limit          most entries; 0 and numbers above 1,000 mean 1,000.
    object_prefix  beginning of the entries' objects; empty for all.
    """
    # The order is that of the chain.
    statement = (
        tables.raw_select(tables.history)
        .where(tables.history.c.seq > after)
        .order_by(tables.history.c.seq)
        .limit(min(limit or ENTRIES_MAX, ENTRIES_MAX))
    )
    if object_prefix:
        statement = statement.where(
            tables.history.c.object.startswith(object_prefix, autoescape=True)
        )
    # Audits read millions, and keyword arguments are faster than a mapping.
    for row in connection.execute(statement):
        try:
            yield _entry(row)
        except (TypeError, ValueError) as error:
            raise RegistryFaultError(
                f"an entry after history entry {after} has a value of another type, so it was "
                "altered; restore the registry from a copy"
            ) from error


def read_columns(connection: Connection, *, after: int, until: int) -> pb.HistoryColumns:
    """Return the entries with a larger seq than *after* by column, and the signed head.

    until  the last seq; 0: no bound.

    At most ENTRIES_MAX entries, and few enough for a message. Raises RegistryFaultError when an
    entry has a value of another type.
    """
    statement = (
        tables.raw_select(tables.history)
        .where(tables.history.c.seq > after)
        .order_by(tables.history.c.seq)
        .limit(ENTRIES_MAX)
    )
    if until:
        statement = statement.where(tables.history.c.seq <= until)
    # Rows are read in small blocks, because entries of older registries may be large.
    rows: list[Any] = []
    left_out: list[int] = []
    size = 0
    with connection.execute(statement) as result:
        while size < PAGE_BYTES_MAX:
            block = list[Any](result.fetchmany(ROWS_PER_FETCH))
            if not block:
                break
            sizes = _characters(block)
            for place, texts in enumerate(sizes) if max(sizes) > ENTRY_BYTES_MAX else ():
                if texts > ENTRY_BYTES_MAX:
                    row = block[place]
                    left_out.append(row[0])
                    block[place], sizes[place] = (*row[:2], *[""] * 6, *row[8:]), 0
            rows += block
            size += sum(sizes)
    # The last block may be too large, and a character has up to four bytes. The entries that are
    # taken away come in the next message.
    head = read_head(connection)
    columns = _columns(rows, after)
    while columns.ByteSize() > 2 * PAGE_BYTES_MAX:
        del rows[len(rows) // 2 :]
        columns = _columns(rows, after)
    columns.left_out.extend(seq for seq in left_out if seq in columns.seq)
    columns.head.CopyFrom(head)
    return columns


def _characters(rows: Sequence[Sequence[Any]]) -> list[int]:
    """Return how many characters the long texts of each entry have."""
    try:
        return [len(row[5]) + len(row[6]) + len(row[7]) for row in rows]
    except TypeError:
        # Only an altered database has numbers there, and `_columns` refuses them.
        return [0] * len(rows)


def _columns(rows: Sequence[Sequence[Any]], after: int) -> pb.HistoryColumns:
    columns = pb.HistoryColumns()
    try:
        for column, values in zip(tables.history.columns, zip(*rows, strict=True), strict=False):
            getattr(columns, column.name).extend(values)
    except (TypeError, ValueError) as error:
        raise RegistryFaultError(
            f"an entry after history entry {after} has a value of another type, so it was "
            "altered; restore the registry from a copy"
        ) from error
    return columns


def read_entry(connection: Connection, seq: int) -> pb.HistoryEntry:
    """Return one entry as it was written; raise NotFoundError if there is none."""
    row = connection.execute(select(tables.history).where(tables.history.c.seq == seq)).first()
    if row is None:
        raise NotFoundError(f"the history has no entry {seq}")
    return _entry(row)


def _entry(row: Sequence[Any]) -> pb.HistoryEntry:
    return pb.HistoryEntry(
        seq=row[0],
        at_unix_ms=row[1],
        actor=row[2],
        action=row[3],
        object=row[4],
        before=row[5],
        after=row[6],
        reason=row[7],
        previous=row[8],
        digest=row[9],
    )


def entry_for_list(entry: pb.HistoryEntry) -> pb.HistoryEntry:
    """Return *entry*, with its texts cut if it is larger than ENTRY_BYTES_MAX.

    `uncut_bytes` then says so. Entries of this size are older than the bounds of requests.
    """
    size = entry.ByteSize()
    if size > ENTRY_BYTES_MAX:
        cut_texts(entry, ENTRY_TEXT_BYTES_MAX)
        entry.uncut_bytes = size
    return entry
