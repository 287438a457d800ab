"""Tests of the history by column: each message is small, and together they have every entry."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, insert, text

from access.bounds import MESSAGE_BYTES_MAX
from protos import registry_pb2 as pb
from registry.history.chain import StoredEntry, entries_of_columns, stored_entry
from registry.storage import tables
from registry.storage.ledger import ENTRIES_MAX, read_columns, read_entry
from registry.types import RegistryFaultError


@pytest.fixture
def connection() -> Iterator[Connection]:
    """A connection to an empty database in memory."""
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        tables.schema.create_all(opened)
        yield opened
    engine.dispose()


def write_entries(connection: Connection, reasons: list[str]) -> list[StoredEntry]:
    """Write one entry for each reason, and return them."""
    entries = [
        StoredEntry(seq, 5, "ann", "deploy", "model/a", "{}", '{"b":1}', reason, b"p", b"d")
        for seq, reason in enumerate(reasons, start=1)
    ]
    connection.execute(insert(tables.history), [entry._asdict() for entry in entries])
    return entries


def read_messages(connection: Connection, until: int = 0) -> list[pb.HistoryColumns]:
    """Read all messages as the service does."""
    messages = [read_columns(connection, after=0, until=until)]
    while messages[-1].seq:
        messages.append(read_columns(connection, after=messages[-1].seq[-1], until=until))
    return messages[:-1]


def all_entries(connection: Connection, messages: list[pb.HistoryColumns]) -> list[StoredEntry]:
    """Return the entries of all messages, with those that were left out."""
    return [
        stored_entry(read_entry(connection, entry.seq)) if entry.seq in message.left_out else entry
        for message in messages
        for entry in entries_of_columns(message)
    ]


@pytest.mark.parametrize(
    "reasons",
    [
        [],
        ["short"] * (2 * ENTRIES_MAX + 1),
        ["\U0001f680" * 200_000] * 12,
        ["x" * 300_000, "é" * 9_000_000, "short", "y" * 262_000],
    ],
    ids=["none", "many", "four bytes a character", "longer than a message"],
)
def test_messages_are_small_and_have_every_entry(
    connection: Connection, reasons: list[str]
) -> None:
    """Nothing is lost where a message ends, and a long entry is left for ReadEntry."""
    written = write_entries(connection, reasons) if reasons else []

    messages = read_messages(connection)

    assert all_entries(connection, messages) == written
    assert all(message.ByteSize() < MESSAGE_BYTES_MAX for message in messages)
    assert all(len(message.seq) <= ENTRIES_MAX for message in messages)


def test_messages_end_with_the_entry_that_was_asked_for(connection: Connection) -> None:
    """The auditor reads up to the head of a page of rows."""
    written = write_entries(connection, ["r"] * 9)

    assert all_entries(connection, read_messages(connection, until=4)) == written[:4]


@pytest.mark.parametrize("column", ["actor", "before", "reason", "digest"])
def test_value_of_another_type_is_named(column: str, connection: Connection) -> None:
    """Only an altered database has one, so the message says so."""
    write_entries(connection, ["r"] * 3)
    value = "'text'" if column == "digest" else "x'ff'"
    connection.execute(text(f"UPDATE history SET {column} = {value} WHERE seq = 2"))

    with pytest.raises(RegistryFaultError, match=r"after history entry 0 .* was altered"):
        read_columns(connection, after=0, until=0)
