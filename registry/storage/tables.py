"""The tables of the registry's database, in portable SQL. database.py has what SQLite needs.

A column that was added to a table after its first release has a server default, with which
database.py adds it to databases that were made before.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    select,
    text,
)

schema = MetaData()

models = Table(
    "models",
    schema,
    Column("model", String(64), primary_key=True),
    Column("holdout_salt", LargeBinary, nullable=False),
    Column("labels", Integer, nullable=False),  # the newest label; it never decreases
)

versions = Table(
    "versions",
    schema,
    Column("digest", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("label", Integer, nullable=False),
    Column("status", Integer, nullable=False),
    Column("standby", Boolean, nullable=False),
    Column("was_production", Boolean, nullable=False),
    # The approval under which it last became production; empty after a broken glass alone.
    Column("production_approval", String(32), nullable=False, server_default=""),
    Column("author", String(64), nullable=False),
    Column("created_unix_ms", BigInteger, nullable=False),
    Column("model_contract", String(64), nullable=False),
    Column("input_contract", String(64), nullable=False),
    Column("entities", Text, nullable=False),  # canonical JSON list
    Column("outputs", Integer, nullable=False),
    # Canonical JSON list of [name, hash]; empty for versions of releases that did not keep them.
    Column("views", Text, nullable=False, server_default=""),
    Column("card_json", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    UniqueConstraint("model", "label"),
)

approvals = Table(
    "approvals",
    schema,
    Column("place", Integer, primary_key=True, autoincrement=True),  # order of approvals
    Column("id", String(32), nullable=False, unique=True),
    Column("model", String(64), nullable=False),
    Column("version", String(16), nullable=False),
    Column("version_digest", String(64), nullable=False, index=True),
    Column("policy_name", String(64), nullable=False),
    Column("policy_digest", String(64), nullable=False),
    Column("accepted_shift", String(64), nullable=False),
    Column("approver", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_unix_ms", BigInteger, nullable=False),
    Column("rejected", Boolean, nullable=False),
    Column("direct", Boolean, nullable=False, server_default=text("0")),
    Column("ended", Text, nullable=False, server_default="[]"),  # canonical JSON list of ids
    Column("stopped_revision", BigInteger, nullable=False, server_default=text("0")),
)

settings_approvals = Table(
    "settings_approvals",
    schema,
    Column("place", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("model", String(64), nullable=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("replaces", String(64), nullable=False),
    Column("approver", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_unix_ms", BigInteger, nullable=False),
)

reviews = Table(
    "reviews",
    schema,
    Column("place", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("model", String(64), nullable=False, index=True),
    Column("revision", BigInteger, nullable=False),
    Column("opened_by", String(64), nullable=False),
    Column("authors", Text, nullable=False),  # canonical JSON list
    Column("reason", Text, nullable=False),
    Column("opened_unix_ms", BigInteger, nullable=False),
    Column("due_unix_ms", BigInteger, nullable=False),
    Column("closed_by", String(64), nullable=False),
    Column("closing_reason", Text, nullable=False),
    Column("closed_unix_ms", BigInteger, nullable=False),
)

deployments = Table(
    "deployments",
    schema,
    Column("model", String(64), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("message", LargeBinary, nullable=False),  # turnout.v1.Deployment
)

projects = Table(
    "projects",
    schema,
    Column("place", Integer, primary_key=True, autoincrement=True),  # order of all revisions
    Column("name", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),  # of the definitions
    Column("definitions", LargeBinary, nullable=False),  # canonical JSON, compressed by zlib
    Column("plan_digest", String(64), nullable=False),
    Column("effects", Text, nullable=False),  # canonical JSON list
    Column("author", String(64), nullable=False),
    Column("commit_id", String(128), nullable=False),  # COMMIT is a word of SQL
    Column("dirty", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("applied_unix_ms", BigInteger, nullable=False),
    UniqueConstraint("name", "revision"),
)

runs = Table(
    "runs",
    schema,
    Column("id", String(32), primary_key=True),
    Column("place", Integer, nullable=False, unique=True),  # order of all runs
    Column("key", String(128), nullable=False),
    Column("model", String(64), nullable=False, index=True),
    Column("setting", String(128), nullable=False),
    Column("cause", String(128), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", Integer, nullable=False),
    Column("begun_unix_ms", BigInteger, nullable=False),
    Column("ended_unix_ms", BigInteger, nullable=False),
    Column("version", String(16), nullable=False),
    Column("version_digest", String(64), nullable=False),
    Column("error", Text, nullable=False),
    Column("inputs_json", Text, nullable=False),
    Column("result_json", Text, nullable=False),
    Column("schedule", String(160), nullable=False, server_default=""),  # "project/name"
    Column("due_unix_ms", BigInteger, nullable=False, server_default=text("0")),
    Column("queued_unix_ms", BigInteger, nullable=False, server_default=text("0")),
    Column("taken_unix_ms", BigInteger, nullable=False, server_default=text("0")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("model", "key"),
)

leases = Table(
    "leases",
    schema,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("until_unix_ms", BigInteger, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    schema,
    Column("rollout_id", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("lease_token", BigInteger, nullable=False),  # always 0; older databases have tokens
)

findings = Table(
    "findings",
    schema,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("who", String(64), nullable=False),
    Column("at_unix_ms", BigInteger, nullable=False),
)

incidents = Table(
    "incidents",
    schema,
    Column("id", String(32), primary_key=True),
    Column("place", Integer, nullable=False, unique=True),  # order of openings
    Column("model", String(64), nullable=False, index=True),
    Column("version", String(64), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("cause", String(128), nullable=False),
    Column("severity", Integer, nullable=False),
    Column("state", Integer, nullable=False),
    Column("title", Text, nullable=False),
    Column("owner", String(64), nullable=False),
    Column("figures", Text, nullable=False),  # canonical JSON object
    Column("since_unix_ms", BigInteger, nullable=False),
    Column("opened_by", String(64), nullable=False),
    Column("opened_unix_ms", BigInteger, nullable=False),
    Column("acknowledged_by", String(64), nullable=False),
    Column("acknowledged_unix_ms", BigInteger, nullable=False),
    Column("mitigated_by", String(64), nullable=False),
    Column("mitigated_unix_ms", BigInteger, nullable=False),
    Column("closed_by", String(64), nullable=False),
    Column("closed_unix_ms", BigInteger, nullable=False),
    Column("resolution", Integer, nullable=False),
    Column("act", String(16), nullable=False),
    Column("finding", BigInteger, nullable=False),
    Column("run", String(32), nullable=False),
    Column("raised", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False, index=True),  # newest history entry about it
)

incident_notes = Table(
    "incident_notes",
    schema,
    Column("place", Integer, primary_key=True, autoincrement=True),
    Column("incident", String(32), nullable=False, index=True),
    Column("kind", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("who", String(64), nullable=False),
    Column("at_unix_ms", BigInteger, nullable=False),
)

outside_models = Table(
    "outside_models",
    schema,
    Column("model", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("place", String(128), nullable=False),  # where it runs
    Column("added_by", String(64), nullable=False),
    Column("added_unix_ms", BigInteger, nullable=False),
)

history = Table(
    "history",
    schema,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_unix_ms", BigInteger, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("object", String(256), nullable=False, index=True),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)

head = Table(
    "head",
    schema,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
)

seals = Table(
    "seals",
    schema,
    Column("object", String(160), primary_key=True),  # "checkpoints/<id>"; "" for the total
    Column("number", BigInteger, nullable=False),  # counts the writes of sealed rows
    Column("total", BigInteger, nullable=False),  # sum of all numbers, in the row ""; else 0
    Column("mac", LargeBinary, nullable=False),  # HMAC-SHA-256
)


def raw_select(table: Table) -> Select[Any]:
    """Return the statement that reads all columns of a table without conversion of their types.

    An altered row may have a value of any type, which SQLAlchemy's types cannot convert.
    """
    columns: list[Any] = [literal_column(column.name) for column in table.columns]
    return select(*columns).select_from(table)
