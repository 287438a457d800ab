"""The tables of monitoring. A change of one needs a migration (monitoring/store/migrations)."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

schema = MetaData()

HOUR, DAY, WEEK = "hour", "day", "week"
GRAINS = (HOUR, DAY, WEEK)
GRAIN_HOURS = {HOUR: 1, DAY: 24, WEEK: 168}
"""Grain of a cell -> its hours."""

cells = Table(
    "cells",
    schema,
    Column("grain", String(4), primary_key=True),
    Column("start_hour", BigInteger, primary_key=True),  # Unix hour at which it begins
    Column("model", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("digest8", String(16), primary_key=True),  # hex: it is above 2**63 for half of them
    Column("role", SmallInteger, primary_key=True),
    Column("holdout", Boolean, primary_key=True),
    Column("segment", String(128), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("columns", LargeBinary, nullable=False),  # turnout.v1.CellColumns
    Index("cells_by_model", "model", "start_hour"),
)

readers = Table(
    "readers",
    schema,
    Column("gateway", String(128), primary_key=True),
    Column("journal", String(128), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("batch_digest", LargeBinary, nullable=False),  # of the batch with this sequence
    Column("pushed_unix_ms", BigInteger, nullable=False),
    Column("backlog_bytes", BigInteger, nullable=False),
    Column("newest_unix_ns", BigInteger, nullable=False),
)

positions = Table(
    "positions",
    schema,
    Column("gateway", String(128), primary_key=True),
    Column("journal", String(128), primary_key=True),
    Column("segment", String(128), primary_key=True),
    Column("offset", BigInteger, nullable=False),
    Column("check", BigInteger, nullable=False),
    Column("complete", Boolean, nullable=False),
)

damages = Table(
    "damages",
    schema,
    Column("gateway", String(128), primary_key=True),
    Column("journal", String(128), primary_key=True),
    Column("segment", String(128), primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("found_unix_ms", BigInteger, nullable=False),
)

versions = Table(
    "versions",
    schema,
    Column("digest8", String(16), primary_key=True),
    Column("model_hash", String(16), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    Column("bins", LargeBinary, nullable=False),  # turnout.v1.VersionBins
)

outcomes = Table(
    "outcomes",
    schema,
    Column("id_digest", LargeBinary(16), primary_key=True),
    Column("row", BigInteger, primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    Column("digest8", String(16), nullable=False),
    Column("role", SmallInteger, nullable=False),
    Column("holdout", Boolean, nullable=False),
    Column("segment", Text, nullable=False),  # all of its prediction, with commas
    Column("predicted_unix_ms", BigInteger, nullable=False),
    Column("score", Float(53)),
    Column("value", Float(53), nullable=False),
    Column("received_unix_ms", BigInteger, nullable=False),
    Column("key_hash", String(16), nullable=False),
    Index("outcomes_by_time", "predicted_unix_ms"),
)

entity_outcomes = Table(
    "entity_outcomes",  # reports without a prediction id, until they are attributed
    schema,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("entity_ids", Text, nullable=False),  # of one row, joined by 0x1f
    Column("name", String(128), nullable=False),
    Column("value", Float(53), nullable=False),
    Column("event_unix_ms", BigInteger, nullable=False),
    Column("received_unix_ms", BigInteger, nullable=False),
    Column("due_unix_ms", BigInteger, nullable=False),  # of the next search for its prediction
    Index("entity_outcomes_by_due", "due_unix_ms"),
)

decision_blocks = Table(
    "decision_blocks",
    schema,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("day", BigInteger, nullable=False),  # Unix day
    Column("rows", BigInteger, nullable=False),
    Column("block", LargeBinary, nullable=False),  # turnout.v1.DecisionBlock
    Index("decision_blocks_by_day", "model", "day"),
)

decision_files = Table(
    "decision_files",
    schema,
    Column("name", String(256), primary_key=True),  # below the folder of decisions
    Column("model", String(128), nullable=False),
    Column("day", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Index("decision_files_by_day", "day", "model"),
)

window_rows = Table(
    "window_rows",
    schema,
    Column("model", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("lost_batches", BigInteger, nullable=False),
)

call_minutes = Table(
    "call_minutes",
    schema,
    Column("model", String(128), primary_key=True),  # empty: minutes with a window of any worker
    Column("hour", BigInteger, primary_key=True),  # Unix hour
    Column("minutes", BigInteger, nullable=False),  # bit m: a call in minute m of the hour
)

window_sources = Table(
    "window_sources",
    schema,
    Column("source", String(256), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("seen_unix_ms", BigInteger, nullable=False),
)

person_looks = Table(
    "person_looks",
    schema,
    Column("model", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("last_day", BigInteger, primary_key=True),  # Unix day at which the period ends
    Column("days", SmallInteger, primary_key=True),  # 1 or 7
    Column("shadow", Boolean, primary_key=True),
    Column("persons", BigInteger, nullable=False),
    Column("columns", LargeBinary, nullable=False),  # turnout.v1.CellColumns
)

looks = Table(
    "looks",
    schema,
    Column("model", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("name", String(32), primary_key=True),  # of the look, such as "drift"
    Column("position", BigInteger, nullable=False),  # the newest period that was looked at
    Column("state", Text, nullable=False),  # JSON
)

figures = Table(
    "figures",
    schema,
    Column("model", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),  # empty: of the model
    Column("kind", String(32), primary_key=True),
    Column("segment", String(128), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("last_day", BigInteger, primary_key=True),
    Column("days", SmallInteger, primary_key=True),
    Column("value", Float(53)),
    Column("low", Float(53)),
    Column("high", Float(53)),
    Column("n", BigInteger, nullable=False),
    Column("lacking", Text, nullable=False),
    Column("details", Text, nullable=False),  # JSON
    Index("figures_by_day", "last_day", "model"),
)

alarms = Table(
    "alarms",
    schema,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("stream", String(256), nullable=False),
    Column("view", String(128), nullable=False),
    Column("host", String(128), nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("at_unix_s", BigInteger, nullable=False),
    Column("since_unix_s", BigInteger, nullable=False),
    Column("details", Text, nullable=False),  # JSON
    Column("incident_id", String(64), nullable=False),  # empty: not reported yet
    Index("alarms_by_time", "at_unix_s"),
)

accepted_references = Table(
    "accepted_references",
    schema,
    Column("model", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("finding", BigInteger, nullable=False),  # number of the finding in the history
    Column("first_day", BigInteger, nullable=False),
    Column("last_day", BigInteger, nullable=False),
)
