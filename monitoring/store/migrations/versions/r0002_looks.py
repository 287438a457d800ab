"""Person-looks, the state of looks, figures, alarms and accepted references."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
)

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables. They are written out here, because tables.py will change."""
    _create_looks()
    _create_findings()


def _create_looks() -> None:
    """Create the tables of what is looked at, and how far looks are."""
    name = String(128)
    # Counts of persons, which come from decisions.
    op.create_table(
        "person_looks",
        Column("model", name, primary_key=True),
        Column("version", name, primary_key=True),
        Column("last_day", BigInteger, primary_key=True),
        Column("days", SmallInteger, primary_key=True),
        Column("shadow", Boolean, primary_key=True),
        Column("persons", BigInteger, nullable=False),
        Column("columns", LargeBinary, nullable=False),
    )
    # The state of each look, and what it compares with.
    op.create_table(
        "looks",
        Column("model", name, primary_key=True),
        Column("version", name, primary_key=True),
        Column("name", String(32), primary_key=True),
        Column("position", BigInteger, nullable=False),
        Column("state", Text, nullable=False),
    )
    op.create_table(
        "call_minutes",
        Column("model", name, primary_key=True),
        Column("hour", BigInteger, primary_key=True),
        Column("minutes", BigInteger, nullable=False),
    )
    op.create_table(
        "accepted_references",
        Column("model", name, primary_key=True),
        Column("version", name, primary_key=True),
        Column("finding", BigInteger, nullable=False),
        Column("first_day", BigInteger, nullable=False),
        Column("last_day", BigInteger, nullable=False),
    )


def _create_findings() -> None:
    """Create the tables of what looks found."""
    name, short, long = String(128), String(32), String(256)
    # One row for each number.
    op.create_table(
        "figures",
        Column("model", name, primary_key=True),
        Column("version", name, primary_key=True),
        Column("kind", short, primary_key=True),
        Column("segment", name, primary_key=True),
        Column("name", long, primary_key=True),
        Column("last_day", BigInteger, primary_key=True),
        Column("days", SmallInteger, primary_key=True),
        Column("value", Float(53)),
        Column("low", Float(53)),
        Column("high", Float(53)),
        Column("n", BigInteger, nullable=False),
        Column("lacking", Text, nullable=False),
        Column("details", Text, nullable=False),
    )
    op.create_index("figures_by_day", "figures", ["last_day", "model"])
    # One row for each alarm, until an incident has it and after.
    op.create_table(
        "alarms",
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("model", name, nullable=False),
        Column("version", name, nullable=False),
        Column("kind", short, nullable=False),
        Column("stream", long, nullable=False),
        Column("view", name, nullable=False),
        Column("host", name, nullable=False),
        Column("shadow", Boolean, nullable=False),
        Column("at_unix_s", BigInteger, nullable=False),
        Column("since_unix_s", BigInteger, nullable=False),
        Column("details", Text, nullable=False),
        Column("incident_id", String(64), nullable=False),
    )
    op.create_index("alarms_by_time", "alarms", ["at_unix_s"])
