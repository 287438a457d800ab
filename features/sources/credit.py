"""Credit scoring on real data: 4,454 loans of a Catalan bank (`modeldata/credit_data`).

13 facts of a customer and the loan they asked for; 1,254 of 4,454 (28 %) went bad. 381 have no
income on file, 47 no assets, 18 no debt: missing values as they come.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.sources.public_tables import clone_and_date, read_public_table, write_parquet
from features.sources.telco import DAY_MS, ENTITY, subscriber_ids
from features.views import Feature, View

REAL_ROWS = 4_454


def _choice(name: str, *dictionary: str) -> Feature:
    """A category; a missing one takes the code after "unknown", so that a tree can tell it."""
    return Feature(
        name=name, dtype="category", dictionary=dictionary, default=float(len(dictionary) + 1)
    )


credit_profile = View(
    name="credit_profile",
    entities=(ENTITY,),
    ttl_ms=90 * DAY_MS,
    features=(
        Feature(name="seniority", bounds=(0.0, 80.0)),
        _choice("home", "ignore", "other", "owner", "parents", "priv", "rent"),
        Feature(name="time", default=48.0, bounds=(1.0, 120.0)),
        Feature(name="age", default=36.0, bounds=(16.0, 120.0)),
        _choice("marital", "divorced", "married", "separated", "single", "widow"),
        _choice("records", "no", "yes"),
        _choice("job", "fixed", "freelance", "others", "partime"),
        Feature(name="expenses", default=51.0, bounds=(0.0, 10_000.0)),
        # Below every real income: "not on file" is a branch of its own to a tree.
        Feature(name="income", default=-1.0, bounds=(0.0, 100_000.0)),
        Feature(name="assets", default=-1.0, bounds=(0.0, 10_000_000.0)),
        Feature(name="debt", default=-1.0, bounds=(0.0, 10_000_000.0)),
        Feature(name="amount", default=1_000.0, bounds=(0.0, 1_000_000.0)),
        Feature(name="price", default=1_400.0, bounds=(0.0, 1_000_000.0)),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        (ENTITY, "VARCHAR"),
        ("event_time_ms", "BIGINT"),
        ("created_ms", "BIGINT"),
        ("seniority", "BIGINT"),
        ("home", "VARCHAR"),
        ("time", "BIGINT"),
        ("age", "BIGINT"),
        ("marital", "VARCHAR"),
        ("records", "VARCHAR"),
        ("job", "VARCHAR"),
        ("expenses", "BIGINT"),
        ("income", "DOUBLE"),
        ("assets", "DOUBLE"),
        ("debt", "DOUBLE"),
        ("amount", "BIGINT"),
        ("price", "BIGINT"),
    ),
)
"""13 features of a subscriber's loan. Codes are the data's own."""


@dataclass(frozen=True, slots=True)
class CreditLabels:
    """One label for each real loan."""

    subscribers: list[str]
    """(4454,) ids, S0000001 and on."""
    as_of_ms: NDArray[np.int64]
    """(4454,) all the same instant: `now_ms`."""
    bad: NDArray[np.bool_]
    """(4454,)."""


def build_credit_source(
    path: Path, *, now_ms: int, subscribers: int = REAL_ROWS, seed: int = 2
) -> int:
    """Write the Parquet file that credit_profile's transform reads; returns its rows.

    Raises SourceError when the `data` extra is not installed.
    """
    real = read_public_table("modeldata", "credit_data", REAL_ROWS)
    columns = {name.lower(): column for name, column in real.items() if name != "Status"}
    dates = clone_and_date(
        columns, rows=REAL_ROWS, subscribers=subscribers, now_ms=now_ms, seed=seed
    )
    return write_parquet(path, dates)


def credit_labels(*, now_ms: int) -> CreditLabels:
    """Return which loans went bad, asked as of *now_ms* (give build_source's). SourceError."""
    bad = np.asarray(read_public_table("modeldata", "credit_data", REAL_ROWS)["Status"] == "bad")
    instants = np.full(REAL_ROWS, now_ms, dtype=np.int64)
    return CreditLabels(subscriber_ids(REAL_ROWS), instants, bad.astype(np.bool_))
