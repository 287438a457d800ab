"""A view and helpers for the tests of ingest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from features.ingest.load import ingest
from features.ingest.summary import IngestSummary
from features.offline import OfflineStore
from features.source import Source
from features.views import Feature, View
from tests.features.small_views import DAY_MS

NOW_MS = 1_795_000_000_000
TIME_MS = 1_794_990_645_000
"""08:30:45 in UTC, which is 09:30:45 in Berlin."""

VIEW = View(
    name="usage",
    entities=("subscriber",),
    features=(
        Feature(name="plan", dtype="category", dictionary=("prepaid", "postpaid"), default=3.0),
        Feature(name="spend", default=-1.0, bounds=(0.0, 1e9)),
    ),
    ttl_ms=DAY_MS,
    transform="SELECT subscriber, event_time_ms, plan, spend FROM source",
    source_schema=(("subscriber", "VARCHAR"), ("plan", "VARCHAR"), ("spend", "DOUBLE")),
)

ROW = "'0012' AS subscriber, 'prepaid' AS plan, 2.5::DOUBLE AS spend"
TIME = f"make_timestamp_ms({TIME_MS}) AS t"


def timed(view: View = VIEW, **times: Any) -> View:  # noqa: ANN401  arguments of a source
    """VIEW over a frame whose column t is the time; without a zone it is UTC."""
    return replace(view, source=Source.frame(**{"time": "t", "zone": "UTC", **times}))


def load(folder: Path, view: View, data: object, **arguments: Any) -> IngestSummary:  # noqa: ANN401
    """Ingest *data*, or the result of SQL, into a store in *folder* at NOW_MS."""
    arguments = {"created_ms": NOW_MS, "now_ms": NOW_MS, **arguments}
    store = OfflineStore(folder / "store")
    if isinstance(data, str) and data.startswith("SELECT"):
        with duckdb.connect() as connection:
            # A relation of DuckDB has the Arrow interface, as tables of polars and Arrow have.
            return ingest(view, store, connection.sql(data), **arguments)
    return ingest(view, store, data, **arguments)


def stored(folder: Path, view: View = VIEW) -> list[tuple[str, int, list[float]]]:
    """The newest row of each entity: id, event time and values."""
    rows = OfflineStore(folder / "store").latest(view)
    return [
        (entity_id.decode(), int(event_ms), values.tolist())
        for entity_id, event_ms, values in zip(
            rows.ids, rows.event_times_ms, rows.values, strict=True
        )
    ]


EXPECTED = [("0012", TIME_MS, [0.0, 2.5])]
