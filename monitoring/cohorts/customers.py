"""Customers of a period from decisions: each at the first look, with what became of the customer.

A customer is the first entity of a row, by which the holdout is drawn; of a model without entities,
the key. Outcomes may be reported about a later prediction of the same customer, also by another
version, so they are found by the customer's rows and by the key.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from host.clock import DAY_NS
from monitoring.cells.decision_rows import DecisionRows
from monitoring.cells.outcome_columns import id_digest
from monitoring.cohorts.labelled_rows import DayRowSource, is_of_scope
from monitoring.cohorts.outcome_cells import DAYS_A_WEEK
from monitoring.store.cohort_store import CohortStore, ReportedOutcome
from registry.watching.policy import OutcomePolicy

NS_PER_MS = 1_000_000
MS_PER_S = 1_000


@dataclass(frozen=True, eq=False, slots=True)
class SeenCustomers:
    """N customers of one version and period, in the order of their first looks.

    names     of the customers, as the model's calls name them.
    scores    (N,) float64, the first output at the first look.
    vectors   (N, F) float32, the inputs at the first look.
    holdout   (N,) bool, at the first look. first_days  (N,) int64, Unix days of the first looks.
    outcomes  (N,) float64: 1 or 0 for what happened or not, NaN where it is not known.
    acts      (N,) int64, reported acts.
    moved     customers that were seen in the holdout and out of it.
    acts_reported  whether anybody reports acts.
    """

    names: tuple[str, ...]
    scores: NDArray[np.float64]
    vectors: NDArray[np.float32]
    holdout: NDArray[np.bool_]
    first_days: NDArray[np.int64]
    outcomes: NDArray[np.float64]
    acts: NDArray[np.int64]
    moved: int
    acts_reported: bool

    def __len__(self) -> int:
        """Return N, the number of customers."""
        return len(self.scores)


@dataclass(slots=True)
class _Gathered:
    """The first looks so far, one array of each kind for each part of a day."""

    reported_keys: NDArray[np.uint64]
    """Growing: keys of the predictions that somebody reported about."""
    reported_ids: set[bytes]
    positions: dict[str, int] = field(default_factory=dict)
    """Name of a customer -> number."""
    at_ms: list[NDArray[np.int64]] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    holdout: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """(N,) at the first look."""
    moved: set[int] = field(default_factory=set)
    by_digest: dict[bytes, int] = field(default_factory=dict)
    """Digest of an id that somebody reported about -> the customer."""
    by_key: dict[int, int] = field(default_factory=dict)
    """Key of a prediction that somebody reported about -> its first customer."""


def read_customers(
    source: DayRowSource,
    store: CohortStore,
    model: str,
    version: str,
    days: tuple[int, int],
    outcome: str,
    policy: OutcomePolicy,
    acted: str,
) -> SeenCustomers | None:
    """Return the customers whom a version answered in [first, last] of *days*; None: none.

    acted  name of the outcome that reports acts.

    Outcomes are those reported within horizon and grace of the first look. Looks whose score is NaN
    or infinite are left out.
    """
    # Reports come first: only the ids that they name need a digest that is remembered.
    last = days[1] - (-policy.final_s // 86_400)
    reports = store.reported(model, days[0], last, [outcome, acted])
    keys = np.array(sorted({item.key_hash for item in reports}), dtype=np.uint64)
    # The first look of each customer.
    found = _Gathered(keys, {item.id_digest for item in reports})
    for day in range(days[0], days[1] + 1):
        for label, rows in source.day_rows(model, day):
            if label == version and len(rows):
                _gather(rows, found)
    size = len(found.positions)
    if not size:
        return None
    # What was reported of each customer.
    outcomes = np.full(size, 0.0 if policy.absent == "negative" else np.nan)
    acts = np.zeros(size, dtype=np.int64)
    for customer, item in _reports_of_customers(found, reports, policy.final_s * MS_PER_S):
        if item.name == acted:
            acts[customer] += item.value > 0
        elif not outcomes[customer] > 0:
            outcomes[customer] = float(policy.is_positive(item.value))
    return SeenCustomers(
        tuple(found.positions),
        np.concatenate(found.scores),
        np.concatenate(found.vectors),
        found.holdout,
        np.concatenate(found.at_ms) * NS_PER_MS // DAY_NS,
        outcomes,
        acts,
        len(found.moved),
        any(item.name == acted for item in reports),
    )


def _gather(rows: DecisionRows, found: _Gathered) -> None:
    """Add rows of one day, by time, to the first looks. Days come in their order."""
    usable = is_of_scope(rows, shadow=False) & np.isfinite(rows.scores[:, 0])
    order = np.argsort(rows.at_unix_ns, kind="stable")
    order = order[usable[order]]
    # The number of each row's customer.
    entities, keys = len(rows.entity_ids) // len(rows), rows.key_hash[order]
    names: Sequence[str] = [f"{key:016x}" for key in keys.tolist()]
    if entities:
        firsts = rows.entity_ids[::entities]
        names = [firsts[row] for row in order.tolist()]
    known, positions = len(found.positions), found.positions
    customers = np.array(
        [positions.setdefault(name, len(positions)) for name in names], dtype=np.int64
    )
    # New customers have rising numbers, each from the first row on.
    numbers, first = np.unique(customers, return_index=True)
    first = order[first[numbers >= known]]
    found.at_ms.append(rows.at_unix_ns[first] // NS_PER_MS)
    found.scores.append(rows.scores[first, 0].astype(np.float64))
    found.vectors.append(rows.vectors[first])
    found.holdout = np.concatenate([found.holdout, rows.holdout[first].astype(np.bool_)])
    # Later looks on the other side of the holdout.
    moved = found.holdout[customers] != rows.holdout[order].astype(np.bool_)
    found.moved.update(customers[moved].tolist())
    # What reports may name: few rows have a key that somebody reported about. A report without a
    # key may be about any row.
    named = np.isin(keys, found.reported_keys)
    if found.reported_keys[:1].tolist() == [0]:
        named[:] = True
    for place in np.flatnonzero(named).tolist():
        customer = int(customers[place])
        found.by_key.setdefault(int(keys[place]), customer)
        digest = id_digest(rows.prediction_id[order[place]].tobytes())
        if digest in found.reported_ids:
            found.by_digest[digest] = customer


def _reports_of_customers(
    found: _Gathered, reports: Iterable[ReportedOutcome], window_ms: int
) -> Iterable[tuple[int, ReportedOutcome]]:
    """Yield (customer, report) of what arrived within *window_ms* of the first look."""
    first_ms = np.concatenate(found.at_ms)
    for item in reports:
        customer = found.by_digest.get(item.id_digest, found.by_key.get(item.key_hash, -1))
        if customer < 0:
            continue
        since = int(first_ms[customer])
        if since <= item.predicted_unix_ms and item.received_unix_ms <= since + window_ms:
            yield customer, item


def rows_a_customer(
    source: DayRowSource, model: str, version: str, last_day: int, horizon_days: int
) -> float | None:
    """Return how many rows of a horizon are of one customer on average, 1 or more.

    It is what the week up to *last_day* shows: rows of a customer on one day, times the days of the
    horizon on which the same customers come again. None: no row of the week is kept.

    A customer who is scored every day and leaves has the outcome in each cohort of the horizon.
    Thirty cohorts are then one fact, and detectors must not take them for thirty.
    """
    rows, visits = 0, 0
    customers: set[str | int] = set()
    for day in range(last_day - DAYS_A_WEEK + 1, last_day + 1):
        of_day: set[str | int] = set()
        for label, part in source.day_rows(model, day):
            if label != version or not len(part):
                continue
            # A customer is the first entity of a row, or its key where there are no entities.
            counted = is_of_scope(part, shadow=False)
            rows += int(counted.sum())
            if entities := len(part.entity_ids) // len(part):
                of_day.update(compress(part.entity_ids[::entities], counted.tolist()))
            else:
                of_day.update(np.unique(part.key_hash[counted]).tolist())
        visits += len(of_day)
        customers |= of_day
    if not customers:
        return None
    # Who comes w times a week comes 1 + (w - 1) (H - 1) / 6 times in H days.
    again = visits / len(customers) - 1.0
    return rows / visits * (1.0 + again * max(horizon_days - 1, 0) / (DAYS_A_WEEK - 1))
