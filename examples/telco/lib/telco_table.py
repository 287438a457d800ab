"""Churn on real data: the IBM Telco table, 7,043 customers of an operator (`modeldata/wa_churn`).

An operator has more subscribers than that, so real rows are cloned under new ids. Only the first
clone of each real row has a label, so that training and evaluation never share a real customer.
"""

import numpy as np

from lib.columns import DAY_MS, SUBSCRIBER
from lib.public_tables import LOAD_DELAY_MS, Columns, days_ago, subscriber_ids

HISTORY_DAYS = 60
"""The older row of a subscriber is as of this many days before the newer row."""


def churn_profile_rows(
    real: Columns, *, now_ms: int, subscribers: int, history_rows: int, seed: int = 0
) -> Columns:
    """Return the rows of the view churn_profile.

    real          the columns of the table, (7043,) each.
    now_ms        the instant of the snapshot, Unix ms. With the present, online rows are fresh.
    history_rows  number of subscribers, from the first on, that have an older row as well.
    seed          gives other event times. All other values come from the table.

    Subscriber i has real row i mod 7,043. The row is as of now_ms minus 0 to 29 days, by a hash of
    seed and id. The older row is as of 60 days before that; its tenure is 2 months less and its
    total charges are 2 monthly charges less, both at least 0. Each row became known 6 hours after
    its event, but never after now_ms.
    """
    # The newer rows come first, then the older rows of the first subscribers.
    numbers = np.arange(subscribers)
    older = numbers[: min(history_rows, subscribers)]
    rows = len(numbers) + len(older)
    # Date the events.
    ids = subscriber_ids(subscribers)
    days = days_ago(ids, seed)
    event_days = np.concatenate([days, days[: len(older)] + HISTORY_DAYS])
    event_ms = now_ms - event_days * DAY_MS
    # Clone the real rows, and make the older rows younger by HISTORY_DAYS.
    real_rows = np.concatenate([numbers, older]) % len(real["tenure"])
    columns = {name: column[real_rows] for name, column in real.items()}
    months = np.zeros(rows, dtype=np.int64)
    months[len(numbers) :] = HISTORY_DAYS // 30
    columns["tenure"] = np.maximum(columns["tenure"] - months, 0)
    earlier_charges = columns["total_charges"] - months * columns["monthly_charges"]
    columns["total_charges"] = np.maximum(earlier_charges, 0.0)
    return {
        SUBSCRIBER: np.array([*ids, *ids[: len(older)]], dtype=object),
        "event_time_ms": event_ms,
        "created_ms": np.minimum(event_ms + LOAD_DELAY_MS, now_ms),
        **columns,
    }
