"""Proves that the database is what the registry wrote: chain, head, rows and seals.

`prove_database` replays the history and compares the result with every row. The state after a
number of entries is kept in a signed file, the snapshot, so that a start need not replay a long
history from its first entry. The older entries are then checked by `older_entry_blocks`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import ColumnElement, Connection, func, literal_column, select
from sqlalchemy.exc import DBAPIError

from host.collector import collector_paused
from host.files import replace_file
from registry.history.chain import HistoryChain, StoredEntry
from registry.history.comparison import RowDifference, TableComparison
from registry.history.replay import (
    PROVEN_TABLES,
    ReplayedState,
    ReplayError,
    Row,
)
from registry.storage import seals, tables
from registry.storage.database import find_foreign_definition, find_undecodable
from registry.storage.ledger import read_head
from registry.storage.rows import read_state_rows
from registry.types import BrokenEntry, RegistryFaultError

SNAPSHOT_EVERY = 50_000
"""A snapshot is written when the history grows past a multiple of this number of entries."""
BLOCK = 1_000
SNAPSHOT_DOMAIN = b"turnout snapshot "
"""The beginning of what is signed, so that a signature of another kind is no snapshot's."""


@dataclass(slots=True)
class DatabaseProof:
    """The result of a proof: the first problem in words, and the state after the newest entry."""

    state: ReplayedState
    problem: str = ""
    altered_deployments: set[str] = field(default_factory=set)
    """Models whose deployment is not what the history says."""
    unproven: Counter[str] = field(default_factory=Counter)
    """"table.column" -> number of rows whose value no entry has, from older registries."""


def prove_database(
    connection: Connection,
    key: Ed25519PrivateKey,
    prediction_key: bytes,
    snapshot: ReplayedState | None = None,
) -> DatabaseProof:
    """Replay the history, after the snapshot if there is one, and compare all rows with it.

    The connection must have a transaction, so that history and rows are of one instant.
    """
    with collector_paused():
        return _prove(connection, key, prediction_key, snapshot or ReplayedState())


def _prove(
    connection: Connection, key: Ed25519PrivateKey, prediction_key: bytes, state: ReplayedState
) -> DatabaseProof:
    proof = DatabaseProof(state)
    proof.problem = _first_problem(
        connection,
        partial(find_foreign_definition, connection),
        partial(_replay, connection, proof.state, key),
    )
    # A broken chain proves no rows. But an altered deployment must be known in any case.
    compared = ("deployments",) if proof.problem else tuple(PROVEN_TABLES)
    difference = _first_problem(
        connection,
        *(partial(_compare_table, connection, proof, table) for table in compared),
        partial(seals.find_broken_seal, connection, key, prediction_key),
    )
    proof.problem = proof.problem or difference
    return proof


def _first_problem(connection: Connection, *checks: Callable[[], str]) -> str:
    """Run checks until one finds a problem; a value that cannot be read is one."""
    for check in checks:
        try:
            problem = check()
        except (ReplayError, RegistryFaultError) as error:
            return str(error)
        except DBAPIError as error:
            known = find_undecodable(connection)
            return known or f"a value in the database cannot be read: {error.orig}"
        if problem:
            return problem
    return ""


def older_entry_blocks(
    connection_of: Callable[[], AbstractContextManager[Connection]], state: ReplayedState
) -> Iterator[BrokenEntry | None]:
    """Verify the entries up to the state's, which a start with a snapshot has not read.

    Each step reads one block in a transaction of its own. The first broken entry ends it.
    """
    chain = HistoryChain()
    while chain.seq < state.seq:
        with connection_of() as connection:
            block = next(_entry_blocks(connection, after=chain.seq), [])
        broken = chain.extend(block[: state.seq - chain.seq])
        if broken is None and not block:
            broken = BrokenEntry(chain.seq + 1, "is missing")
        if broken is None and chain.seq == state.seq and chain.digest != state.digest:
            broken = BrokenEntry(chain.seq, "was replaced: the snapshot has another digest of it")
        yield broken
        if broken is not None:
            return


def write_snapshot(path: Path, state: ReplayedState, key: Ed25519PrivateKey) -> None:
    """Write the signed state to a file, from which the next start goes on."""
    content = state.to_json()
    signature = key.sign(SNAPSHOT_DOMAIN + content).hex()
    replace_file(path, signature.encode() + b"\n" + content)


def read_snapshot(path: Path, key: Ed25519PrivateKey) -> ReplayedState | None:
    """Return the state in a snapshot, or None if there is no such file.

    Raises ValueError when the file was not written with this key.
    """
    if not path.exists():
        return None
    signature, _, content = path.read_bytes().partition(b"\n")
    try:
        key.public_key().verify(bytes.fromhex(signature.decode()), SNAPSHOT_DOMAIN + content)
    except (InvalidSignature, ValueError) as error:
        raise ValueError(
            f"the file {path.name} was altered; remove it, and the next start replays the history "
            "from its first entry"
        ) from error
    with collector_paused():
        return ReplayedState.from_json(content)


def _replay(connection: Connection, state: ReplayedState, key: Ed25519PrivateKey) -> str:
    """Verify and apply the entries after the state; return the first problem."""
    # Entries have the numbers 1 to n, and the snapshot must be of this history.
    problem = _find_entry_before_first(connection) or _find_missing_older_entry(connection, state)
    # Verify each entry before it is applied. After a broken one the others are still applied, so
    # that deployments can be compared.
    chain = HistoryChain(state.seq, state.digest)
    for block in _entry_blocks(connection, after=state.seq):
        broken = None if problem else chain.extend(block)
        if broken is not None:
            problem = f"history entry {broken.seq} {broken.problem}"
        for entry in block:
            try:
                state.apply(entry)
            except ReplayError as error:
                problem = problem or str(error)
    # The newest entry must be the signed head.
    if problem:
        return problem
    rows = connection.execute(tables.raw_select(tables.head)).all()
    if len(rows) > 1 or any(row[0] != 1 for row in rows):
        return f"table head has {len(rows)} rows, the first with number {rows[0][0]}; it has one, 1"
    broken = chain.check_head(read_head(connection), key.public_key().public_bytes_raw())
    return "" if broken is None else f"history entry {broken.seq} {broken.problem}"


def _find_entry_before_first(connection: Connection) -> str:
    """Return which entry has a number below 1, which no reader of the history would see."""
    seq: ColumnElement[Any] = literal_column("seq")
    first = connection.execute(select(func.min(seq)).select_from(tables.history)).scalar()
    if not isinstance(first, int | float) or first >= 1:
        return ""
    return f"history entry {first} was added: entries have the numbers 1 to n"


def _find_missing_older_entry(connection: Connection, state: ReplayedState) -> str:
    """Return which entry of the snapshot is missing or replaced; empty without a snapshot."""
    if state.seq == 0:
        return ""
    seq: ColumnElement[Any] = literal_column("seq")
    digest: ColumnElement[Any] = literal_column("digest")
    history = select(func.count()).select_from(tables.history)
    newest = connection.execute(
        select(digest).select_from(tables.history).where(seq == state.seq)
    ).scalar()
    count = connection.execute(history.where(seq <= state.seq)).scalar_one()
    if count != state.seq or newest is None:
        numbers = connection.execute(select(seq).select_from(tables.history).order_by(seq))
        pairs = enumerate(numbers.scalars(), start=1)
        first = next((number for number, found in pairs if found != number), count + 1)
        return (
            f"history entry {first} is missing or out of order, and history.snapshot proves all up "
            f"to entry {state.seq}: it was removed, or the database is an older copy than its "
            "snapshot"
        )
    if newest != state.digest:
        return f"history entry {state.seq} was replaced: history.snapshot has another digest of it"
    return ""


def _entry_blocks(connection: Connection, *, after: int) -> Iterator[list[StoredEntry]]:
    """Yield the entries with a larger seq than *after*, in blocks, as the database has them."""
    seq: ColumnElement[Any] = literal_column("seq")
    statement = tables.raw_select(tables.history).where(seq > after).order_by(seq)
    with connection.execute(statement) as result:
        while rows := result.fetchmany(BLOCK):
            yield [StoredEntry(*row) for row in rows]


def _compare_table(connection: Connection, proof: DatabaseProof, table: str) -> str:
    """Compare a table with the replayed state; return the first difference in words."""
    # Without a comparison no deployment is known to be right.
    if table == "deployments":
        models = connection.execute(select(tables.deployments.c.model)).scalars()
        proof.altered_deployments = set(models)
    comparison = TableComparison(proof.state, table)
    found: list[RowDifference] = []
    page: list[Row] = []
    for row in read_state_rows(connection, tables.schema.tables[table]):
        page.append(row)
        if len(page) == BLOCK:
            found += comparison.differences(page, last=False)
            page = []
    found += comparison.differences(page, last=True)
    # Note what cannot be proven, and what must not be published.
    for column, count in comparison.unproven.items():
        proof.unproven[f"{table}.{column}"] = count
    if table == "deployments":
        proof.altered_deployments = {str(difference.key) for difference in found}
    if not found:
        return ""
    # The fields of a finding are in its entry.
    entry = next((e for b in _entry_blocks(connection, after=found[0].seq - 1) for e in b), None)
    return found[0].to_text(entry)
