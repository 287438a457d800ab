"""Outcomes without a prediction id, which wait until their predictions are found."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, String, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table. It is written out here, because tables.py will change."""
    op.create_table(
        "entity_outcomes",
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("model", String(128), nullable=False),
        Column("entity_ids", Text, nullable=False),
        Column("name", String(128), nullable=False),
        Column("value", Float(53), nullable=False),
        Column("event_unix_ms", BigInteger, nullable=False),
        Column("received_unix_ms", BigInteger, nullable=False),
        Column("due_unix_ms", BigInteger, nullable=False),
    )
    op.create_index("entity_outcomes_by_due", "entity_outcomes", ["due_unix_ms"])
