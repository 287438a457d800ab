"""Reads the rows of tables as they lie in the database, for proofs and audits.

The values are read without SQLAlchemy's types, because an altered row may have a value of any
type, and must be named then instead of failing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from sqlalchemy import Column, Connection, LargeBinary, Table, literal_column

from features.canonical import canonical_json, sha256_hex
from protos import registry_pb2 as pb
from registry.history.replay import PROVEN_TABLES, Row, plain_json
from registry.storage import tables
from registry.storage.deployments import deployment_json
from registry.types import BadRequestError, Deployment, DeploymentError, lease_number

BY_DIGEST = frozenset({"card_json"})
"""Text columns that are large, so that rows have their SHA-256 only, as of every binary column."""


SECRET_COLUMNS = ("holder", "token")
"""Columns of leases that a page leaves out: a reader could renew another controller's lease."""

ROWS_PER_FETCH = 100
"""Rows in memory at once, because a card may be large."""
STATE_PAGE_BYTES = 2**20
"""Bytes of rows in one page."""


def read_state_rows(
    connection: Connection, table: Table, *, after: str | int | None = None
) -> Iterator[Row]:
    """Yield the rows with a larger key than *after* as `registry.history.replay` has them, by key.

    Raises DBAPIError where a value cannot be read at all, such as text that is not UTF-8.
    """
    key = _key_column(table)
    statement = tables.raw_select(table).order_by(literal_column(key.name))
    if after is not None:
        statement = statement.where(literal_column(key.name) > after)
    plan = _plan(table)
    with connection.execute(statement) as result:
        while block := result.fetchmany(ROWS_PER_FETCH):
            for values in block:
                yield _row(table, plan, values)


def read_state_page(connection: Connection, table: str, after: str) -> tuple[list[bytes], bool]:
    """Return rows after the key *after* as canonical JSON, and whether they are the last ones.

    The page ends with the row that reaches STATE_PAGE_BYTES.
    Raises BadRequestError for a table or a key that there cannot be.
    """
    if table not in PROVEN_TABLES:
        raise BadRequestError(
            f"table {table[:80]!r} is not listed; the tables are {', '.join(PROVEN_TABLES)}"
        )
    # Keys travel as text.
    schema_table = tables.schema.tables[table]
    key: str | int | None = after or None
    if after and _key_column(schema_table).type.python_type is int:
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            raise BadRequestError(f"the rows of {table!r} have numbers, not {after[:80]!r}")
        key = int(after)
    # Rows are read one by one, so that only one page is in memory.
    page: list[bytes] = []
    size = 0
    hidden = SECRET_COLUMNS if table == "leases" else ()
    # A deployment's message has floats; other rows have texts and integers.
    to_json = canonical_json if table == "deployments" else _plain_json_bytes
    for row in read_state_rows(connection, schema_table, after=key):
        if size >= STATE_PAGE_BYTES:
            return page, False
        for name in hidden:
            row.pop(name)
        page.append(to_json(row))
        size += len(page[-1])
    return page, True


def _plain_json_bytes(row: Row) -> bytes:
    return plain_json(row).encode()


def read_state_row(connection: Connection, table: Table, key: str) -> Row | None:
    """Return the row with this key, or None."""
    statement = tables.raw_select(table).where(literal_column(_key_column(table).name) == key)
    values = connection.execute(statement).first()
    return None if values is None else _row(table, _plan(table), values)


def _key_column(table: Table) -> Column[Any]:
    (column,) = table.primary_key.columns
    return column


@dataclass(frozen=True, slots=True)
class _RowPlan:
    """How the rows of one table are shown."""

    names: tuple[str, ...]
    """Names in the row, in the order of the columns."""
    binary: tuple[bool, ...]
    has_binary: bool
    by_digest: tuple[bool, ...]
    """Whether the row has a column's SHA-256 instead of its value."""
    texts_by_digest: tuple[str, ...]
    """Names of texts by digest, if no column is binary."""


def _plan(table: Table) -> _RowPlan:
    binary = tuple(isinstance(column.type, LargeBinary) for column in table.columns)
    by_digest = tuple(
        is_binary or column.name in BY_DIGEST
        for column, is_binary in zip(table.columns, binary, strict=True)
    )
    names = tuple(
        f"{column.name.removesuffix('_json')}_sha256" if digested else column.name
        for column, digested in zip(table.columns, by_digest, strict=True)
    )
    texts = tuple(name for name, digested in zip(names, by_digest, strict=True) if digested)
    return _RowPlan(names, binary, any(binary), by_digest, () if any(binary) else texts)


def _row(table: Table, plan: _RowPlan, values: Sequence[Any]) -> Row:
    # The fast way, for rows of numbers and texts only.
    if not plan.has_binary and bytes not in map(type, values):
        row: Row = dict(zip(plan.names, values, strict=True))
        for name in plan.texts_by_digest:
            row[name] = sha256_hex(str(row[name]).encode())
        if table is tables.leases and isinstance(row["token"], int):
            row["number"] = lease_number(row["token"])
        return row
    # Binary columns, and values of the wrong type.
    row = {}
    for name, value, binary, digested in zip(
        plan.names, values, plan.binary, plan.by_digest, strict=True
    ):
        if binary is not isinstance(value, bytes):
            # Only an altered database has a value of the wrong type.
            row[name] = f"{type(value).__name__} {value!r}"[:100]
        elif digested:
            row[name] = sha256_hex(value if binary else str(value).encode())
        else:
            row[name] = value
    if table is tables.deployments:
        row["message"] = _message_fields(values[list(table.columns).index(table.c.message)])
    return row


def _message_fields(message: object) -> Row | str:
    """Return the fields of a deployment's message, or a text if it cannot be read."""
    try:
        parsed = pb.Deployment.FromString(message if isinstance(message, bytes) else b"")
        deployment = Deployment.from_proto(parsed)
        fields = deployment_json(deployment)
    except (DecodeError, DeploymentError, ValueError):
        return "bytes that are not a deployment"
    return {
        **fields,
        "who": deployment.who,
        "why": deployment.why,
        "at_unix_ms": deployment.at_unix_ns // 1_000_000,
    }
