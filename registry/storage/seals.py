"""Seals prove the rows that change too often for the history: checkpoints and ends of leases.

Each such row has a seal, an HMAC by a key that only this registry can compute. A seal has a number
that counts up with each write. The seal of the object "" has the newest number and the sum of all
numbers. Whoever writes to the database without the key can put back older rows with their older
seals only, and that makes the sum smaller. So edits, deletions and older rows are all found.

The key of prediction ids has a seal too, because a database belongs to its keys.
"""

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, delete, insert

from features.canonical import canonical_json, sha256_hex
from registry.history.replay import Row
from registry.storage import tables
from registry.storage.ledger import LedgerChange
from registry.storage.rows import read_state_row, read_state_rows

TOTAL = ""
PREDICTION_KEY = "keys/prediction_id.key"
SEALED_TABLES = {"leases": tables.leases, "checkpoints": tables.checkpoints}

Seal = tuple[Any, Any, Any]
"""(number, total, mac) as the database has them."""


def seal_row(change: LedgerChange, table: str, key: str) -> None:
    """Seal a row of SEALED_TABLES after it was written, in the same transaction."""
    row = read_state_row(change.connection, SEALED_TABLES[table], key)
    if row is None:
        raise ValueError(f"table {table} has no row {key!r} that could be sealed")
    _seal(change.connection, change.key, f"{table}/{key}", _content(row))


def seal_everything(connection: Connection, key: Ed25519PrivateKey, prediction_key: bytes) -> None:
    """Seal all rows of a database that has no seals yet, and its key of prediction ids."""
    for name, content in list(_sealed_contents(connection, prediction_key)):
        _seal(connection, key, name, content)


def has_seals(connection: Connection) -> bool:
    """Return True if the database was sealed."""
    return connection.execute(tables.raw_select(tables.seals).limit(1)).first() is not None


def is_sealed_key(connection: Connection, key: Ed25519PrivateKey, prediction_key: bytes) -> bool:
    """Return True if *prediction_key* is the one that the database was sealed with."""
    seal = _read_seals(connection).get(PREDICTION_KEY)
    return seal is not None and _is_valid(key, PREDICTION_KEY, seal, sha256_hex(prediction_key))


def find_broken_seal(connection: Connection, key: Ed25519PrivateKey, prediction_key: bytes) -> str:
    """Return what is wrong with the first row that is not as it was sealed; empty if none is."""
    seals = _read_seals(connection)
    total = seals.pop(TOTAL, None)
    # The total comes first: without it, nothing says which seals are the newest.
    if total is None or not _is_valid(key, TOTAL, total, ""):
        return "table seals, row '': the total of all seals is missing or was edited"
    numbers = 0
    for name, content in _sealed_contents(connection, prediction_key):
        seal = seals.pop(name, None)
        if seal is None:
            return f"{_named(name)}: it has no seal, so the registry did not write it"
        if not _is_valid(key, name, seal, content):
            return f"{_named(name)}: the row or its seal was edited"
        numbers += seal[0]
    # A seal that is left has no row. A smaller sum shows older seals.
    for name in seals:
        return f"{_named(name)}: it is missing, and was sealed"
    if numbers != total[1]:
        return "table seals: a row was replaced by an older one with its older seal"
    return ""


def _named(name: str) -> str:
    table, _, row = name.partition("/")
    return f"table {table}, row {row!r}"


def _sealed_contents(connection: Connection, prediction_key: bytes) -> Iterator[tuple[str, str]]:
    """Yield (object, SHA-256 of its content) for the key and for each row of the sealed tables."""
    yield PREDICTION_KEY, sha256_hex(prediction_key)
    for name, table in SEALED_TABLES.items():
        (column,) = table.primary_key.columns
        for row in read_state_rows(connection, table):
            yield f"{name}/{row[column.name]}", _content(row)


def _content(row: Row) -> str:
    return sha256_hex(canonical_json(row))


def _read_seals(connection: Connection) -> dict[str, Seal]:
    return {
        str(name): (number, total, mac)
        for name, number, total, mac in connection.execute(tables.raw_select(tables.seals))
    }


def _seal(connection: Connection, key: Ed25519PrivateKey, name: str, content: str) -> None:
    # Read the newest number, and the seal that this one replaces.
    table = tables.seals
    rows = connection.execute(table.select().where(table.c.object.in_((name, TOTAL)))).all()
    seals = {row.object: row for row in rows}
    newest = seals[TOTAL].number if TOTAL in seals else 0
    total = seals[TOTAL].total if TOTAL in seals else 0
    replaced = seals[name].number if name in seals else 0
    # Write both anew.
    connection.execute(delete(table).where(table.c.object.in_((name, TOTAL))))
    for object_name, number, sum_of_all, text in (
        (name, newest + 1, 0, content),
        (TOTAL, newest + 1, total - replaced + newest + 1, ""),
    ):
        connection.execute(
            insert(table).values(
                object=object_name,
                number=number,
                total=sum_of_all,
                mac=_mac(key, object_name, number, sum_of_all, text),
            )
        )


def _is_valid(key: Ed25519PrivateKey, name: str, seal: Seal, content: str) -> bool:
    number, total, mac = seal
    # An altered seal may have values of any type.
    if not (isinstance(number, int) and isinstance(total, int) and isinstance(mac, bytes)):
        return False
    return hmac.compare_digest(mac, _mac(key, name, number, total, content))


def _mac(key: Ed25519PrivateKey, name: str, number: int, total: int, content: str) -> bytes:
    # A key of its own: nothing that is signed elsewhere can be used here.
    secret = hashlib.sha256(b"turnout seals" + key.private_bytes_raw()).digest()
    return hmac.digest(secret, canonical_json([name, number, total, content]), "sha256")
