"""Credit scoring on real data: 4,454 loans of a Catalan bank (`modeldata/credit_data`).

A loan has 13 columns about the customer and the loan. 1,254 loans (28 %) went bad. 381 loans have
no income, 47 no assets and 18 no debt, so the table has real missing values.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.sources.public_tables import (
    DAY_MS,
    ENTITY,
    category,
    clone_and_date,
    read_public_table,
    subscriber_ids,
    write_parquet,
)
from features.views import Feature, View

REAL_ROWS = 4_454

credit_profile = View(
    name="credit_profile",
    entities=(ENTITY,),
    ttl_ms=90 * DAY_MS,
    features=(
        Feature(name="seniority", bounds=(0.0, 80.0)),
        category("home", "ignore", "other", "owner", "parents", "priv", "rent"),
        Feature(name="time", default=48.0, bounds=(1.0, 120.0)),
        Feature(name="age", default=36.0, bounds=(16.0, 120.0)),
        category("marital", "divorced", "married", "separated", "single", "widow"),
        category("records", "no", "yes"),
        category("job", "fixed", "freelance", "others", "partime"),
        Feature(name="expenses", default=51.0, bounds=(0.0, 10_000.0)),
        # The default is below every real income, so that a tree can split off missing incomes.
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
"""13 features of a subscriber's loan, with the codes of the table."""


@dataclass(frozen=True, slots=True)
class CreditLabels:
    """One label for each of the 4,454 real loans."""

    subscribers: list[str]
    """(4454,) ids from S0000001 on."""
    as_of_ms: NDArray[np.int64]
    """(4454,) instants, all equal to `now_ms`."""
    bad: NDArray[np.bool_]
    """(4454,) True for loans that went bad."""


def build_credit_source(
    path: Path, *, now_ms: int, subscribers: int = REAL_ROWS, seed: int = 2
) -> int:
    """Write the Parquet file that credit_profile's transform reads; return its number of rows.

    Arguments as in public_tables.clone_and_date. Raises SourceError when the `data` extra is not
    installed.
    """
    real = read_public_table("modeldata", "credit_data", REAL_ROWS)
    columns = {name.lower(): column for name, column in real.items() if name != "Status"}
    table = clone_and_date(
        columns, rows=REAL_ROWS, subscribers=subscribers, now_ms=now_ms, seed=seed
    )
    return write_parquet(path, table)


def credit_labels(*, now_ms: int) -> CreditLabels:
    """Return the labels as of *now_ms*, which must be the one given to `build_credit_source`.

    Raises SourceError when the `data` extra is not installed.
    """
    bad = np.asarray(read_public_table("modeldata", "credit_data", REAL_ROWS)["Status"] == "bad")
    instants = np.full(REAL_ROWS, now_ms, dtype=np.int64)
    return CreditLabels(subscriber_ids(REAL_ROWS), instants, bad.astype(np.bool_))
