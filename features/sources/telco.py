"""Churn on real data: the IBM Telco table, 7,043 customers of an operator (`modeldata/wa_churn`).

An operator has more subscribers than that, so real rows are cloned under new ids. Only the first
clone of each real row has a label, so that training and evaluation never share a real customer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.sources.public_tables import (
    DAY_MS,
    ENTITY,
    LOAD_DELAY_MS,
    Columns,
    category,
    days_ago,
    read_public_table,
    subscriber_ids,
    write_parquet,
)
from features.views import Feature, View

SUBSCRIBERS = 200_000
REAL_ROWS = 7_043
HISTORY_ROWS = 20_000
HISTORY_DAYS = 60
"""The older row of a subscriber is as of this many days before the newer row."""

_ADD_ON = ("No", "No internet service", "Yes")


def _flag(name: str) -> Feature:
    return Feature(name=name, bounds=(0.0, 1.0))


churn_profile = View(
    name="churn_profile",
    entities=(ENTITY,),
    ttl_ms=90 * DAY_MS,
    features=(
        _flag("female"),
        _flag("senior_citizen"),
        _flag("partner"),
        _flag("dependents"),
        Feature(name="tenure", default=29.0, bounds=(0.0, 1_200.0)),
        _flag("phone_service"),
        category("multiple_lines", "No", "No phone service", "Yes"),
        category("internet_service", "DSL", "Fiber optic", "No"),
        category("online_security", *_ADD_ON),
        category("online_backup", *_ADD_ON),
        category("device_protection", *_ADD_ON),
        category("tech_support", *_ADD_ON),
        category("streaming_tv", *_ADD_ON),
        category("streaming_movies", *_ADD_ON),
        category("contract", "Month-to-month", "One year", "Two year"),
        _flag("paperless_billing"),
        category(
            "payment_method",
            "Bank transfer (automatic)",
            "Credit card (automatic)",
            "Electronic check",
            "Mailed check",
        ),
        Feature(name="monthly_charges", default=70.35, bounds=(0.0, 10_000.0)),
        # 11 customers in their first month have no total yet. The default is the median.
        Feature(name="total_charges", default=1397.475, bounds=(0.0, 1_000_000.0)),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        ("subscriber", "VARCHAR"),
        ("event_time_ms", "BIGINT"),
        ("created_ms", "BIGINT"),
        ("female", "BIGINT"),
        ("senior_citizen", "BIGINT"),
        ("partner", "BIGINT"),
        ("dependents", "BIGINT"),
        ("tenure", "BIGINT"),
        ("phone_service", "BIGINT"),
        ("multiple_lines", "VARCHAR"),
        ("internet_service", "VARCHAR"),
        ("online_security", "VARCHAR"),
        ("online_backup", "VARCHAR"),
        ("device_protection", "VARCHAR"),
        ("tech_support", "VARCHAR"),
        ("streaming_tv", "VARCHAR"),
        ("streaming_movies", "VARCHAR"),
        ("contract", "VARCHAR"),
        ("paperless_billing", "BIGINT"),
        ("payment_method", "VARCHAR"),
        ("monthly_charges", "DOUBLE"),
        ("total_charges", "DOUBLE"),
    ),
)
"""19 features of a subscriber. The codes, bounds and defaults come from the table."""


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """The Parquet file that `build_telco_source` wrote."""

    path: Path
    subscribers: int
    rows: int
    """One row for each subscriber, and an older row for the first *history_rows* of them."""


@dataclass(frozen=True, slots=True)
class ChurnLabels:
    """One label for each of the 7,043 real customers, under the id of the first clone."""

    subscribers: list[str]
    """(7043,) ids from S0000001 on."""
    as_of_ms: NDArray[np.int64]
    """(7043,) instants, all equal to `now_ms`."""
    churned: NDArray[np.bool_]
    """(7043,) True for customers who left."""


def build_telco_source(
    path: Path,
    *,
    now_ms: int,
    subscribers: int = SUBSCRIBERS,
    history_rows: int = HISTORY_ROWS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _rows: None,
) -> SourceSummary:
    """Write the Parquet file that churn_profile's transform reads.

    now_ms        the instant of the snapshot, Unix ms. With the present, online rows are fresh.
    history_rows  number of subscribers, from the first on, that have an older row as well.
    seed          gives other event times. All other values come from the table.
    progress      called with (rows written, rows in all), at the start and at the end.

    Subscriber i has real row i mod 7,043. The row is as of now_ms minus 0 to 29 days, by a hash of
    seed and id. The older row is as of 60 days before that; its tenure is 2 months less and its
    total charges are 2 monthly charges less, both at least 0. Each row became known 6 hours after
    its event, but never after now_ms.

    Raises SourceError when the `data` extra is not installed.
    """
    # The newer rows come first, then the older rows of the first subscribers.
    real = _real_columns()
    numbers = np.arange(subscribers)
    older = numbers[: min(history_rows, subscribers)]
    rows = len(numbers) + len(older)
    progress(0, rows)
    # Date the events.
    ids = subscriber_ids(subscribers)
    days = days_ago(ids, seed)
    event_days = np.concatenate([days, days[: len(older)] + HISTORY_DAYS])
    event_ms = now_ms - event_days * DAY_MS
    # Clone the real rows, and make the older rows younger by HISTORY_DAYS.
    real_rows = np.concatenate([numbers, older]) % REAL_ROWS
    columns = {name: column[real_rows] for name, column in real.items() if name != "churn"}
    months = np.zeros(rows, dtype=np.int64)
    months[len(numbers) :] = HISTORY_DAYS // 30
    columns["tenure"] = np.maximum(columns["tenure"] - months, 0)
    earlier_charges = columns["total_charges"] - months * columns["monthly_charges"]
    columns["total_charges"] = np.maximum(earlier_charges, 0.0)
    # Write the file.
    table = {
        ENTITY: np.array([*ids, *ids[: len(older)]], dtype=object),
        "event_time_ms": event_ms,
        "created_ms": np.minimum(event_ms + LOAD_DELAY_MS, now_ms),
        **columns,
    }
    write_parquet(path, table)
    progress(rows, rows)
    return SourceSummary(path, subscribers, rows)


def churn_labels(*, now_ms: int) -> ChurnLabels:
    """Return the labels as of *now_ms*, which must be the one given to `build_telco_source`.

    Raises SourceError when the `data` extra is not installed.
    """
    churned = np.asarray(_real_columns()["churn"] == "Yes", dtype=np.bool_)
    count = len(churned)
    return ChurnLabels(subscriber_ids(count), np.full(count, now_ms, dtype=np.int64), churned)


def _real_columns() -> Columns:
    return read_public_table("modeldata", "wa_churn", REAL_ROWS)
