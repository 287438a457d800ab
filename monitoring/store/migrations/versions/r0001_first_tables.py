"""The first tables: cells, readers, positions, damages, versions, outcomes and windows."""

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
)

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables. They are written out here, because tables.py will change."""
    name = String(128)
    # The counts of versions.
    op.create_table(
        "cells",
        Column("grain", String(4), primary_key=True),
        Column("start_hour", BigInteger, primary_key=True),
        Column("model", name, primary_key=True),
        Column("version", name, primary_key=True),
        Column("digest8", String(16), primary_key=True),
        Column("role", SmallInteger, primary_key=True),
        Column("holdout", Boolean, primary_key=True),
        Column("segment", name, primary_key=True),
        Column("calls", BigInteger, nullable=False),
        Column("rows", BigInteger, nullable=False),
        Column("columns", LargeBinary, nullable=False),
    )
    op.create_index("cells_by_model", "cells", ["model", "start_hour"])
    # Readers of journals, and what they found.
    op.create_table(
        "readers",
        Column("gateway", name, primary_key=True),
        Column("journal", name, primary_key=True),
        Column("sequence", BigInteger, nullable=False),
        Column("batch_digest", LargeBinary, nullable=False),
        Column("pushed_unix_ms", BigInteger, nullable=False),
        Column("backlog_bytes", BigInteger, nullable=False),
        Column("newest_unix_ns", BigInteger, nullable=False),
    )
    op.create_table(
        "positions",
        Column("gateway", name, primary_key=True),
        Column("journal", name, primary_key=True),
        Column("segment", name, primary_key=True),
        Column("offset", BigInteger, nullable=False),
        Column("check", BigInteger, nullable=False),
        Column("complete", Boolean, nullable=False),
    )
    # What readers could not read.
    op.create_table(
        "damages",
        Column("gateway", name, primary_key=True),
        Column("journal", name, primary_key=True),
        Column("segment", name, primary_key=True),
        Column("offset", BigInteger, primary_key=True),
        Column("next_offset", BigInteger, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("found_unix_ms", BigInteger, nullable=False),
    )
    _versions_and_outcomes(name)
    _decisions(name)
    _windows(name)


def _versions_and_outcomes(name: String) -> None:
    op.create_table(
        "versions",
        Column("digest8", String(16), primary_key=True),
        Column("model_hash", String(16), primary_key=True),
        Column("model", name, nullable=False),
        Column("version", name, nullable=False),
        Column("bins", LargeBinary, nullable=False),
    )
    op.create_table(
        "outcomes",
        Column("id_digest", LargeBinary(16), primary_key=True),
        Column("row", BigInteger, primary_key=True),
        Column("name", name, primary_key=True),
        Column("model", name, nullable=False),
        Column("version", name, nullable=False),
        Column("digest8", String(16), nullable=False),
        Column("role", SmallInteger, nullable=False),
        Column("holdout", Boolean, nullable=False),
        Column("segment", name, nullable=False),
        Column("predicted_unix_ms", BigInteger, nullable=False),
        Column("score", Float(53)),
        Column("value", Float(53), nullable=False),
        Column("received_unix_ms", BigInteger, nullable=False),
        Column("key_hash", String(16), nullable=False),
    )
    op.create_index("outcomes_by_time", "outcomes", ["predicted_unix_ms"])


def _decisions(name: String) -> None:
    op.create_table(
        "decision_blocks",
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("model", name, nullable=False),
        Column("day", BigInteger, nullable=False),
        Column("rows", BigInteger, nullable=False),
        Column("block", LargeBinary, nullable=False),
    )
    op.create_index("decision_blocks_by_day", "decision_blocks", ["model", "day"])
    op.create_table(
        "decision_files",
        Column("name", String(256), primary_key=True),
        Column("model", name, nullable=False),
        Column("day", BigInteger, nullable=False),
        Column("rows", BigInteger, nullable=False),
    )
    op.create_index("decision_files_by_day", "decision_files", ["day", "model"])


def _windows(name: String) -> None:
    op.create_table(
        "window_rows",
        Column("model", name, primary_key=True),
        Column("version", name, primary_key=True),
        Column("hour", BigInteger, primary_key=True),
        Column("rows", BigInteger, nullable=False),
        Column("calls", BigInteger, nullable=False),
        Column("lost_batches", BigInteger, nullable=False),
    )
    op.create_table(
        "window_sources",
        Column("source", String(256), primary_key=True),
        Column("sequence", BigInteger, nullable=False),
        Column("seen_unix_ms", BigInteger, nullable=False),
    )
